"""Brings short loud sounds, such as a slammed door, down to the level of the speech around them.

A recogniser hears an utterance relative to its own level. A bang of a tenth of a second that is
20 dB louder than the speech moves that level so far that nothing is heard of the speech. The level
is that of log-mel rows, in which a noise of all frequencies counts 10 to 15 dB more than a voice of
the same energy: so this is what is measured.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from speechssl.audio.feature_config import FeatureConfig
from speechssl.audio.features import log_mel
from speechssl.audio.threshold import STEP_S, samples_per_step

# What is so much louder than all that lasts is a bang, dB. What lasts is speech: it may be that of
# a voice that is nearer.
_BANG_DB = 12.0
_LONGEST_S = 0.3
# Speech is looked for so far away from a bang, and there must be so much of it: a word that stands
# alone is no bang.
_AWAY_S = 0.3
_LEAST_SPEECH_S = 0.5
# Speech is at least this much louder than the noise, dB. The noise is the level that a tenth of the
# chunk lies below, without digital silence.
_SPEECH_RISE_DB = 15.0
_NOISE_PERCENTILE = 10.0
_DIGITAL_SILENCE_DB = -130.0
# Samples are raised by so much, dB, before rows are made of them, which have a floor.
_ABOVE_FLOOR_DB = 80.0
# A row has the usual number of bins, or fewer at low rates, where they would be too narrow.
_MOST_BINS = 80
_HZ_PER_BIN = 200


def bang_gain_db(heard: NDArray[np.float64], sample_rate_hz: int) -> NDArray[np.float64] | None:
    """Find by how much each sample is lowered so that no bang is louder than what lasts.

    Args:
        heard: (S,) samples without what lies below speech.

    Returns:
        (S,) dB, 0 or less; None where there is no bang beside speech.
    """
    loudness = _row_levels_db(heard, sample_rate_hz)
    lasting_db = _level_reached(loudness, _LONGEST_S)
    is_bang = loudness > lasting_db + _BANG_DB
    if not is_bang.any():
        return None

    is_near = maximum_filter1d(is_bang, 2 * round(_AWAY_S / STEP_S) + 1)
    speech_db = _level_reached(loudness[~is_near], _LEAST_SPEECH_S)
    if speech_db < _DIGITAL_SILENCE_DB:
        return None

    is_sound = loudness > _DIGITAL_SILENCE_DB
    noise_db = np.percentile(loudness[is_sound], _NOISE_PERCENTILE)
    is_beside_speech = speech_db > noise_db + _SPEECH_RISE_DB
    if not is_beside_speech:
        return None

    lowered = np.where(is_near, np.minimum(lasting_db - loudness, 0), 0)
    # The steps beside it too, as a bang begins at once.
    gains = minimum_filter1d(lowered, 3)
    places = samples_per_step(sample_rate_hz) * np.arange(len(gains))
    gain_db: NDArray[np.float64] = np.interp(np.arange(len(heard)), places, gains)
    return gain_db


def _row_levels_db(heard: NDArray[np.float64], sample_rate_hz: int) -> NDArray[np.float64]:
    """Return the mean of the log-mel row (T,) around every step, dB."""
    num_bins = min(_MOST_BINS, 1 + sample_rate_hz // _HZ_PER_BIN)
    config = FeatureConfig(sample_rate_hz=sample_rate_hz, num_mels=num_bins)
    raised = heard * 10 ** (_ABOVE_FLOOR_DB / 20)
    around = np.pad(raised, config.window // 2)

    rows = log_mel(torch.from_numpy(around), config)
    levels: NDArray[np.float64] = rows.mean(1).numpy() * 10 / np.log(10)
    return levels - _ABOVE_FLOOR_DB


def _level_reached(loudness: NDArray[np.float64], seconds: float) -> float:
    """Return the level that is reached for so long in total; minus infinity in less than that."""
    rank = len(loudness) - round(seconds / STEP_S)
    if rank < 0:
        return -np.inf
    return float(np.partition(loudness, rank)[rank])
