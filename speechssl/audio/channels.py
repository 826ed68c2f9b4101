"""Several channels to one: their mean, but where they cancel, the strongest of them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from speechssl.audio.level import Samples, power_of, without_lows

# Channels are judged in stretches of this length, seconds.
STRETCH_S = 10.0
# They cancel where less than this share of the power is left in their mean that channels which have
# nothing in common would leave. Beside dead ones, the channel that speaks leaves all of that share;
# of two equally strong ones, a correlation of -0.5 leaves a half. Channels that cancel wholly leave
# only the noise of a lossy coding, which an offset makes coarse: up to 0.3 of a whisper in u-law.
# Of weaker voices it leaves as much as a dead channel does, and nothing tells them apart here.
_LEAST_SHARE = 0.5
# What is loud for less than this, seconds, counts no more than what is as loud for so long: where a
# coding finds its level, or somebody knocks, all channels have the bang in common.
_BANG_S = 0.2
_STEPS_PER_S = 50
# In a stretch that does not cancel, a part of this length may, seconds: somebody turned one channel
# round for a sentence. Less than this share is then left of it, as of channels with a correlation
# below -0.9; two people who speak at once do not come near that.
_PART_S = 0.2
_LEAST_SHARE_OF_PART = 0.1
# Mean power of a channel in which nothing is: the noise of 16 bits is a little below.
_SILENT_POWER = 1e-9
# A channel this much quieter than the strongest one is told, dB: the mean has little of it.
_FAR_QUIETER_DB = 20.0


class Mixer:
    """Mixes the channels of one file, stretch by stretch.

    Offset and hum take no part in the decision. It stands until speech of a later stretch decides
    otherwise.

    Attributes:
        taken: the channel that is taken for all of a stretch, counted from 0; None takes the mean.
        cancelled_s: seconds in which the channels cancelled, so that one of them was taken.
        is_averaged: whether there were channels that differ, and their mean was taken of some.
    """

    def __init__(self) -> None:
        self.taken: int | None = None
        self.cancelled_s = 0.0
        self.is_averaged = False
        self._num_equal = 0
        # Of each channel, summed over the stretches in which they differ.
        self._energies: NDArray[np.float64] | None = None
        self._num_samples = 0

    @property
    def is_dual_mono(self) -> bool:
        """Whether there were several channels, equal in every sample."""
        return self._num_equal > 0 and self._energies is None

    def mix(self, block: NDArray[np.float32], sample_rate_hz: int) -> Samples:
        """(n, channels) -> (n,), both float32."""
        with np.errstate(over="ignore", invalid="ignore"):  # values are checked by the caller
            mean: Samples = block.mean(axis=1, dtype=np.float32)
            parts = self._decide(block, mean, sample_rate_hz)

        if self.taken is not None:
            return block[:, self.taken].copy()

        for part in parts:
            mean[part.samples] = block[part.samples, part.taken]
        return mean

    def remark(self) -> str:
        """Say what was done with channels of very different level; empty where they are alike."""
        if self.cancelled_s:
            return (
                f"its channels cancel each other in {self.cancelled_s:.1f} s, where one of them "
                "was taken"
            )
        if self._energies is None:
            return ""

        powers = self._energies / self._num_samples
        strongest = int(powers.argmax())
        if not powers[strongest] > _SILENT_POWER:
            return ""

        silent = [n for n, power in enumerate(powers, 1) if power < _SILENT_POWER]
        if silent:
            return f"nothing is in {_names(silent)}; the mean of all channels is taken"

        below_db = 10 * np.log10(powers[strongest] / powers)
        quiet = [n for n, below in enumerate(below_db, 1) if below > _FAR_QUIETER_DB]
        if quiet:
            return (
                f"{_names(quiet)} {'is' if len(quiet) == 1 else 'are'} more than "
                f"{_FAR_QUIETER_DB:.0f} dB quieter than channel {strongest + 1}; the mean of all "
                "channels is taken"
            )
        return ""

    def _decide(
        self, block: NDArray[np.float32], mean: Samples, sample_rate_hz: int
    ) -> list["_Part"]:
        """Decide on all of a stretch, and find the parts of it that cancel where it does not."""
        are_equal = (block == block[:, :1]).all()
        if are_equal:
            self._num_equal += 1
            self.taken = None
            return []

        heard = without_lows(np.column_stack([block, mean]), sample_rate_hz)
        self._add(np.square(heard[:, :-1]).mean(axis=0), len(block))

        step = min(len(block), max(1, sample_rate_hz // _STEPS_PER_S))
        step_powers = np.stack([power_of(channel, step) for channel in heard.T], axis=1)
        powers = _without_bangs(step_powers).mean(axis=0)
        strongest = int(powers[:-1].argmax())
        # A power that is no number decides nothing.
        if not powers[strongest] > _SILENT_POWER:
            return []

        if _share_left(powers) < _LEAST_SHARE:
            self.cancelled_s += len(block) / sample_rate_hz
            if self.taken is None:
                self.taken = strongest
            return []

        self.taken = None
        self.is_averaged = True
        parts = _parts_that_cancel(step_powers, step, strongest)
        for part in parts:
            self.cancelled_s += (part.samples.stop - part.samples.start) / sample_rate_hz
        return parts

    def _add(self, powers: NDArray[np.float64], num_samples: int) -> None:
        energies = powers * num_samples
        self._energies = energies if self._energies is None else self._energies + energies
        self._num_samples += num_samples


def channels_line(num_files: int, num_equal: int, num_averaged: int) -> str:
    """Say of how many files there were several channels; empty where of none.

    Args:
        num_files: all that were read.
        num_equal: files whose channels are equal in every sample.
        num_averaged: files of whose channels the mean was taken.
    """
    parts: list[str] = []
    if num_equal:
        parts.append(
            f"{num_equal} of {num_files} files have several channels that are equal; "
            "they are heard as one"
        )
    if num_averaged:
        parts.append(
            f"{num_averaged} of {num_files} files have several channels that differ; "
            "their mean is heard, so people on channels of their own are heard at once"
        )
    return "; ".join(parts)


class _Part(NamedTuple):
    """A part of a stretch, and the channel that is taken for it."""

    samples: slice
    taken: int


def _parts_that_cancel(step_powers: NDArray[np.float64], step: int, strongest: int) -> list[_Part]:
    """Find where less than ``_LEAST_SHARE_OF_PART`` is left for ``_PART_S`` or longer.

    Args:
        step_powers: (T, C + 1) power in each step, of the channels and of their mean.
        step: samples of a step.
        strongest: channel of the whole stretch.

    Returns:
        parts, in order and disjoint, each with a channel that is strong there.
    """
    length = min(len(step_powers), round(_PART_S * _STEPS_PER_S))
    summed = np.cumsum(np.pad(step_powers, ((1, 0), (0, 0))), axis=0)
    windows = (summed[length:] - summed[:-length]) / length

    is_heard = windows[:, :-1].max(axis=1) > _SILENT_POWER
    cancels = is_heard & (_share_left(windows) < _LEAST_SHARE_OF_PART)
    # A window that cancels is taken whole, so one that begins inside of it lengthens it.
    in_part = np.convolve(cancels, np.ones(length, bool)) > 0

    parts: list[_Part] = []
    changes = np.flatnonzero(np.diff(in_part, prepend=False, append=False))
    for start, end in changes.reshape(-1, 2).tolist():
        powers = step_powers[start:end, :-1].sum(axis=0)
        # One channel for all parts, where it is as good: the others may have it turned round.
        is_as_good = powers[strongest] > 0.5 * powers.max()
        taken = strongest if is_as_good else int(powers.argmax())
        parts.append(_Part(slice(start * step, end * step), taken))
    return parts


def _without_bangs(step_powers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn bangs down, see ``_BANG_S``: (T, C) powers -> the same shape."""
    loudest = step_powers.max(axis=1)
    num_heard = int(np.count_nonzero(loudest > _SILENT_POWER))
    if not num_heard:
        return step_powers

    num_bang_steps = min(num_heard, round(_BANG_S * _STEPS_PER_S))
    reached = np.sort(loudest)[-num_bang_steps]
    gains = reached / np.maximum(loudest, reached)
    turned_down: NDArray[np.float64] = step_powers * gains[:, None]
    return turned_down


def _share_left(powers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compare what is left in the mean with what unrelated channels would leave.

    The powers of channels that have nothing in common add up.

    Args:
        powers: (..., C + 1) of the channels and of their mean.

    Returns:
        (...); where all channels are silent it says nothing.
    """
    num_channels = powers.shape[-1] - 1
    of_unrelated = powers[..., :-1].sum(axis=-1) / num_channels**2
    # Not 0, by which nothing can be divided.
    above_zero = np.maximum(of_unrelated, np.finfo(np.float64).tiny)
    share: NDArray[np.float64] = powers[..., -1] / above_zero
    return share


def _names(numbers: list[int]) -> str:
    """Name channels, counted from 1."""
    word = "channel" if len(numbers) == 1 else "channels"
    return f"{word} {', '.join(map(str, numbers))}"
