"""What is too quiet to be speech, moment by moment: one recording may hold several levels.

The threshold follows the loudness of its own surroundings, so that a quiet speaker beside a loud
one, or beside a bang, is not taken for silence::

    threshold(t) = max(loudness around t - top_db, min(noise(t) + 6 dB, loudest - top_db))

Loudness fades by 100 dB per second away from each sound. Where it has faded, whatever rises above
the noise is speech. The second term never exceeds what is usual for the whole recording, so noise
that is louder than that stays inside of speech.
"""

import numpy as np
from numpy.typing import NDArray

# Silence is this far below the loudest part, dB.
TOP_DB = 35.0

# Windows over which loudness is measured, and the steps between them, seconds.
_WINDOW_S = 0.025
STEP_S = 0.01
_STEPS_PER_S = 100

# By how much loudness falls away from a sound, dB a second, towards both sides. Echo in a room
# falls as fast, and in the time between two speakers it falls by 40 dB.
_FADE_DB_PER_S = 100.0
# The loudest part is what is reached for a second in total: a bang is shorter.
_LOUDEST_S = 1.0
# The noise is the level that a tenth of the surroundings lies below, and speech rises above it.
_NOISE_PERCENTILE = 10.0
_NOISE_SPAN_S = 20.0
_RISE_DB = 6.0
# However little noise there is, -80 dBFS is no speech.
_FAINTEST_DB = -80.0


def loud_spans(
    heard: NDArray[np.float64], sample_rate_hz: int, top_db: float
) -> list[tuple[int, int]]:
    """Find the parts of a recording that are louder than the threshold.

    Args:
        heard: (S,) samples without what lies below speech.
        top_db: what lies this far below the loudest part around it is silence.

    Returns:
        (start, end) in samples, in order and disjoint.
    """
    loudness = loudness_db(heard, sample_rate_hz)
    is_loud = loudness > _threshold(loudness, top_db)

    step = samples_per_step(sample_rate_hz)
    return [(first * step, min(last * step, len(heard))) for first, last in runs(is_loud)]


def runs(holds: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Find where a condition (T,) holds without a break: (first, one after the last) of each."""
    # Where it begins to hold or ceases, with "no" before the beginning and after the end.
    padded = np.concatenate([[False], holds, [False]])
    changes = np.flatnonzero(padded[1:] != padded[:-1]).tolist()
    return list(zip(changes[::2], changes[1::2], strict=True))


def noise_level_db(heard: NDArray[np.float64], sample_rate_hz: int) -> float:
    """Return the level of the noise in a chunk, dB of full scale."""
    loudness = loudness_db(heard, sample_rate_hz)
    return float(np.percentile(loudness, _NOISE_PERCENTILE))


def loudness_db(heard: NDArray[np.float64], sample_rate_hz: int) -> NDArray[np.float64]:
    """Return the level (T,) every ``STEP_S``, over 25 ms around, dB of full scale."""
    from librosa.feature import rms  # a second of import time that only this function needs

    window = max(2, round(_WINDOW_S * sample_rate_hz))
    step = samples_per_step(sample_rate_hz)
    frames = rms(y=heard, frame_length=window, hop_length=step, dtype=np.float64)
    level: NDArray[np.float64] = 20 * np.log10(np.maximum(frames[0], 1e-6))
    return level


def faded(loudness: NDArray[np.float64], db_per_s: float) -> NDArray[np.float64]:
    """Return the loudest (T,) around each step, each sound faded by its distance.

    Args:
        loudness: (T,) dB, every ``STEP_S``; minus infinity where nothing counts.
        db_per_s: by how much a sound fades towards both sides.
    """
    fade_per_step = db_per_s / _STEPS_PER_S
    fall = fade_per_step * np.arange(len(loudness))

    after = np.maximum.accumulate(loudness + fall) - fall
    before = np.maximum.accumulate((loudness - fall)[::-1])[::-1] + fall
    loudest: NDArray[np.float64] = np.maximum(after, before)
    return loudest


def samples_per_step(sample_rate_hz: int) -> int:
    """Return the samples from one measured level to the next."""
    return max(1, round(STEP_S * sample_rate_hz))


def _threshold(loudness: NDArray[np.float64], top_db: float) -> NDArray[np.float64]:
    """Return the level (T,) that speech exceeds."""
    surroundings = faded(loudness, _FADE_DB_PER_S)
    noise = _noise(loudness)

    num_loudest = round(_LOUDEST_S * _STEPS_PER_S)
    rank = max(0, len(loudness) - num_loudest, len(loudness) * 3 // 4)
    rank = min(rank, len(loudness) - 1)
    loudest = np.partition(loudness, rank)[rank]

    above_noise = np.maximum(noise + _RISE_DB, _FAINTEST_DB)
    lowest = np.minimum(above_noise, loudest - top_db)
    threshold: NDArray[np.float64] = np.maximum(surroundings - top_db, lowest)
    return threshold


def _noise(loudness: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the level of the noise (T,) around each step."""
    span = round(_NOISE_SPAN_S * _STEPS_PER_S)
    num_steps = len(loudness)
    middles = np.arange(0, num_steps + span // 2, span // 2)

    levels = []
    for middle in middles.tolist():
        around = loudness[max(0, middle - span // 2) : middle + span // 2]
        levels.append(np.percentile(around, _NOISE_PERCENTILE))

    noise: NDArray[np.float64] = np.interp(np.arange(num_steps), middles, levels)
    return noise
