"""Several channels to one: their mean, but where they cancel, the strongest of them."""

import numpy as np
from numpy.typing import NDArray

from speechssl.audio.level import SILENCE_PEAK, Samples, without_lows

# Channels are judged in stretches of this length, seconds.
STRETCH_S = 10.0
# They cancel where less than this share of the strongest one's power is left in their mean. One
# channel that speaks beside a dead one leaves a quarter; correlations of -0.8 leave a tenth.
_LEAST_POWER = 0.1


class Mixer:
    """Mixes the channels of one file, stretch by stretch.

    Offset and hum take no part in the decision. It stands until speech of a later stretch decides
    otherwise.

    Attributes:
        taken: the channel that is taken for all, counted from 0; None takes their mean.
        num_cancelled: stretches in which the channels cancelled.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        self._rate = sample_rate_hz
        self.taken: int | None = None
        self.num_cancelled = 0

    def mix(self, block: NDArray[np.float32]) -> Samples:
        """(n, channels) -> (n,), both float32."""
        with np.errstate(over="ignore", invalid="ignore"):  # values are checked by the caller
            mean: Samples = block.mean(axis=1, dtype=np.float32)
            self._decide(block, mean)

        if self.taken is None:
            return mean
        return block[:, self.taken].copy()

    def _decide(self, block: NDArray[np.float32], mean: Samples) -> None:
        is_dual_mono = (block == block[:, :1]).all()
        if is_dual_mono:
            self.taken = None
            return

        powers = np.square(without_lows(block, self._rate)).mean(axis=0)
        strongest = int(powers.argmax())
        # A power that is no number decides nothing.
        if not powers[strongest] > SILENCE_PEAK**2:
            return

        power_of_mean = np.square(without_lows(mean, self._rate)).mean()
        if power_of_mean >= _LEAST_POWER * powers[strongest]:
            self.taken = None
            return

        self.num_cancelled += 1
        if self.taken is None:
            self.taken = strongest
