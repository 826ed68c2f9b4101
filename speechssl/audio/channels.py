"""Several channels to one: their mean, but where they cancel, the strongest of them."""

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
# Mean power of a channel in which nothing is: the noise of 16 bits is a little below.
_SILENT_POWER = 1e-9
# A channel this much quieter than the strongest one is told, dB: the mean has little of it.
_FAR_QUIETER_DB = 20.0


class Mixer:
    """Mixes the channels of one file, stretch by stretch.

    Offset and hum take no part in the decision. It stands until speech of a later stretch decides
    otherwise.

    Attributes:
        taken: the channel that is taken for all, counted from 0; None takes their mean.
        num_cancelled: stretches in which the channels cancelled.
    """

    def __init__(self) -> None:
        self.taken: int | None = None
        self.num_cancelled = 0
        self._num_equal = 0
        # Of each channel, summed over the stretches in which they differ.
        self._energies: NDArray[np.float64] | None = None
        self._num_samples = 0

    @property
    def is_dual_mono(self) -> bool:
        """Whether there were several channels, equal in every sample."""
        return self._num_equal > 0 and self._energies is None

    @property
    def is_averaged(self) -> bool:
        """Whether there were several channels that differ, and all of their mean was taken."""
        return self._energies is not None and not self.num_cancelled

    def mix(self, block: NDArray[np.float32], sample_rate_hz: int) -> Samples:
        """(n, channels) -> (n,), both float32."""
        with np.errstate(over="ignore", invalid="ignore"):  # values are checked by the caller
            mean: Samples = block.mean(axis=1, dtype=np.float32)
            self._decide(block, mean, sample_rate_hz)

        if self.taken is None:
            return mean
        return block[:, self.taken].copy()

    def remark(self) -> str:
        """Say what was done with channels of very different level; empty where they are alike."""
        if self.num_cancelled:
            return "its channels cancel each other, so one of them was taken"
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

    def _decide(self, block: NDArray[np.float32], mean: Samples, sample_rate_hz: int) -> None:
        are_equal = (block == block[:, :1]).all()
        if are_equal:
            self._num_equal += 1
            self.taken = None
            return

        heard = without_lows(np.column_stack([block, mean]), sample_rate_hz)
        self._add(np.square(heard[:, :-1]).mean(axis=0), len(block))

        *powers, power_of_mean = _powers_without_bangs(heard, sample_rate_hz)
        strongest = int(np.argmax(powers))
        # A power that is no number decides nothing.
        if not powers[strongest] > _SILENT_POWER:
            return

        if power_of_mean >= _LEAST_SHARE * _power_of_unrelated(powers):
            self.taken = None
            return

        self.num_cancelled += 1
        if self.taken is None:
            self.taken = strongest

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


def _powers_without_bangs(heard: NDArray[np.float64], sample_rate_hz: int) -> list[float]:
    """(S, C) -> the mean power of each channel, bangs turned down; see ``_BANG_S``."""
    step = min(len(heard), max(1, sample_rate_hz // _STEPS_PER_S))
    powers = np.stack([power_of(channel, step) for channel in heard.T], axis=1)
    loudest = powers.max(axis=1)

    num_heard = int(np.count_nonzero(loudest > _SILENT_POWER))
    if num_heard:
        num_bang_steps = min(num_heard, round(_BANG_S * _STEPS_PER_S))
        reached = np.sort(loudest)[-num_bang_steps]
        powers *= (reached / np.maximum(loudest, reached))[:, None]

    return [float(power) for power in powers.mean(axis=0)]


def _power_of_unrelated(powers: list[float]) -> float:
    """Give the power of the mean of channels that have nothing in common: their powers add up."""
    return sum(powers) / len(powers) ** 2


def _names(numbers: list[int]) -> str:
    """Name channels, counted from 1."""
    word = "channel" if len(numbers) == 1 else "channels"
    return f"{word} {', '.join(map(str, numbers))}"
