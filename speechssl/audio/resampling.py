"""Resample audio block by block, with the samples that resampling the whole signal gives."""

import math
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray

from speechssl.errors import ConfigError

_MAX_RATIO = 2000  # largest term of a resampling ratio: the filter bank stays below 64 MiB
# torchaudio's defaults: half the width of its filter in zero crossings, and the share of the lower
# Nyquist frequency that is kept.
_FILTER_WIDTH = 6
_ROLLOFF = 0.99

# Mono samples (S,).
Samples = NDArray[np.float32]


class Resampler:
    """``torchaudio.functional.resample`` over a stream.

    torchaudio maps each group of ``old`` samples to ``new`` samples by one bank of filters that
    reach ``reach`` samples beyond the group on either side. So a block that starts on the grid of
    groups, with whole groups of context before it and ``reach`` samples after it, gives the same
    samples as the whole signal::

        [ context | groups that are ready ... | reach ]

    Context and reach are computed again with the next block, but their samples are given only once.
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self.old, self.new = _ratio(from_hz, to_hz)

        cutoff = min(self.old, self.new) * _ROLLOFF
        self.reach = math.ceil(_FILTER_WIDTH * self.old / cutoff)

        groups_of_context = math.ceil(self.reach / self.old)
        self.context = groups_of_context * self.old

        self.held = torch.zeros(0)
        self.lead = 0  # samples of context at the front of ``held``

    def push(self, block: Samples) -> Samples:
        """Take the next samples (S,); return those of the result that no later sample changes."""
        added = torch.from_numpy(block)
        self.held = torch.cat([self.held, added])

        not_given = len(self.held) - self.lead
        num_groups = (not_given - self.reach) // self.old
        if num_groups <= 0:
            return np.zeros(0, np.float32)

        start = self._first_new()
        end = start + num_groups * self.new
        samples = _resample(self.held, self.old, self.new)[start:end]

        done = self.lead + num_groups * self.old
        self.lead = min(done, self.context)
        first_kept = done - self.lead
        self.held = self.held[first_kept:].clone()
        return samples

    def finish(self) -> Samples:
        """Return the rest of the result, when no sample follows."""
        start = self._first_new()
        return _resample(self.held, self.old, self.new)[start:]

    def _first_new(self) -> int:
        """Return where the result of ``held`` begins that has not been given yet."""
        groups_given = self.lead // self.old
        return groups_given * self.new


def _ratio(from_hz: int, to_hz: int) -> tuple[int, int]:
    """Return both rates in lowest terms.

    Odd rates (24414 Hz) get the nearest short ratio, which is off by less than a clock's error.
    """
    lower = min(from_hz, to_hz)
    higher = max(from_hz, to_hz)
    ratio = Fraction(lower, higher).limit_denominator(_MAX_RATIO)

    if from_hz > to_hz:
        return ratio.denominator, ratio.numerator
    return ratio.numerator, ratio.denominator


def _resample(samples: torch.Tensor, old: int, new: int) -> Samples:
    try:
        from torchaudio.functional import resample
    except OSError as error:  # a torch of another build: libc10_cuda.so is missing
        raise ConfigError(
            "torch and torchaudio do not fit: install both together, pip install torch torchaudio"
        ) from error

    result: Samples = resample(samples, old, new).numpy()
    return result
