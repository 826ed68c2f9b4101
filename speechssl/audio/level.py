"""How loud a recording is, heard without what lies below speech: offset, hum and rumble.

Every decision by level listens through here: what is silence, what is steady noise, where to cut,
and how far a chunk is scaled. A constant offset or mains hum changes none of them.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import cheby2, sosfilt, sosfilt_zi

# Mono samples (S,).
Samples = NDArray[np.float32]

# Below -60 dBFS a recording is silent, however loud its own loudest part.
SILENCE_PEAK = 1e-3

# What lies below this is not speech, Hz. It covers mains hum of 50 and 60 Hz.
LOW_HZ = 65.0
# By how much the filter weakens what lies below, dB. Speech is heard from about 110 Hz on.
_LOW_LOSS_DB = 60.0
_FILTER_ORDER = 7
_FADE_IN_S = 0.06


def without_lows(
    samples: Samples | NDArray[np.float64], sample_rate_hz: int, low_hz: float = LOW_HZ
) -> NDArray[np.float64]:
    """Take out what lies below a frequency: it is weakened by 60 dB or more, an offset wholly.

    Args:
        samples: (S,) or (S, C) at ``sample_rate_hz``.
        low_hz: what lies below it is taken out, Hz; the default leaves all of a voice.

    Returns:
        float64 of the same shape.
    """
    if not len(samples):
        return np.zeros(samples.shape)

    # At such rates nothing of a voice would be left.
    if sample_rate_hz <= 4 * low_hz:
        centred: NDArray[np.float64] = samples - samples.mean(axis=0, dtype=np.float64)
        return centred

    # The filter begins as if the first sample had lasted for ever, so that an offset is no click.
    sections, settled = _high_pass(sample_rate_hz, low_hz)
    if samples.ndim > 1:
        settled = settled[:, :, None]
    heard, _ = sosfilt(sections, samples, axis=0, zi=settled * samples[:1].astype(np.float64))

    # Hum that is cut off at the beginning would be one, so what is heard fades in after it.
    num_faded = min(len(samples) // 10, round(_FADE_IN_S * sample_rate_hz))
    rise = np.linspace(-1, 1, num_faded).clip(0)
    heard[:num_faded] = (heard[:num_faded].T * rise**2).T

    result: NDArray[np.float64] = heard
    return result


@lru_cache
def _high_pass(
    sample_rate_hz: int, low_hz: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the filter's sections, and their state after a constant 1."""
    sections: Any = cheby2(
        _FILTER_ORDER, _LOW_LOSS_DB, low_hz, "highpass", output="sos", fs=sample_rate_hz
    )
    return sections, sosfilt_zi(sections)


def peak_of(samples: NDArray[Any]) -> float:
    """Return the largest absolute value; 0 of nothing."""
    if not samples.size:
        return 0.0
    return float(max(samples.max(), -samples.min()))


def is_silent(samples: Samples, sample_rate_hz: int) -> bool:
    """Whether nothing rises above -60 dBFS but offset and hum."""
    if peak_of(samples) < SILENCE_PEAK:
        return True

    heard = without_lows(samples, sample_rate_hz)
    return peak_of(heard) < SILENCE_PEAK


def power_of(heard: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    """Return the mean square of each ``step`` samples; a rest that is shorter is left out."""
    num_steps = len(heard) // step
    whole = heard[: num_steps * step]
    blocks = whole.reshape(num_steps, step)

    power: NDArray[np.float64] = np.square(blocks).mean(axis=1)
    return power


def speech_level_db(heard: NDArray[np.float64], sample_rate_hz: int) -> float:
    """Return the level that 0.3 s of a stretch reach, dB of full scale: a bang is shorter."""
    step = max(1, sample_rate_hz // 10)
    power = np.sort(power_of(heard, step))
    if not len(power):
        power = np.square(heard).mean(keepdims=True)

    rank = max(len(power) - 3, len(power) // 2)
    return float(10 * np.log10(max(power[rank], 1e-12)))
