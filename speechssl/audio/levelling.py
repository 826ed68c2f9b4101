"""Brings a chunk to a level at which features hold all of its speech, of each speaker.

Log-mel features have a floor of energy, and each utterance is normalised by itself. So what is said
very quietly, or far more quietly than the rest of the chunk, would leave no trace in them.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from speechssl.audio.bangs import bang_gain_db
from speechssl.audio.feature_config import FeatureConfig
from speechssl.audio.features import featurise
from speechssl.audio.level import Samples, peak_of, speech_level_db, without_lows
from speechssl.audio.quieter_voices import quieter_voices_gain_db
from speechssl.audio.threshold import TOP_DB, loud_spans, noise_level_db

# A chunk whose speech is below this level is raised to it, dB of full scale. At peaks of -30 dBFS
# (levels of about -40) 4 % of the words of synthetic speech changed, at -40 dBFS 29 %.
_QUIET_DB = -36.0
# The most that quiet speech is raised by, dB.
_MOST_GAIN_DB = 60.0

# An offset of more than this share of the speech's peak is taken out, and all that lies below
# speech where it raises the peak by more than this factor. Of 420 recordings of seven corpora, 9
# had more offset, all of one corpus, and one had more below speech.
_MOST_OFFSET = 0.02
_MOST_LOWS = 1.5

# Hum is what makes the noise of a chunk so much louder below this, dB and Hz. Of 800 recordings of
# eight corpora 20 had it. What is farther than that below the speech hides no voice.
_HUM_HZ = 200.0
_HUM_RISE_DB = 10.0
_HUM_BELOW_SPEECH_DB = 45.0


class LevelChange(NamedTuple):
    """How far a chunk was brought to another level, and what is heard in it.

    Attributes:
        raised_db: the most that any of its speech was raised by, dB; 0 where none was.
        lowered_db: the most that a bang in it was lowered by, dB; 0 where there was none.
        sounds: what is no silence: from and until, in samples, in order and disjoint.
    """

    raised_db: float
    lowered_db: float
    sounds: list[tuple[int, int]]


def featurise_chunk(samples: Samples, config: FeatureConfig) -> tuple[NDArray[Any], LevelChange]:
    """Compute what a recogniser hears of one chunk, at a level that features can hold.

    ``prepare`` and ``transcribe`` both pass every chunk through here, so a recogniser hears what it
    was trained on.

    Args:
        samples: (S,) float32 at ``config.sample_rate_hz``, of any range.

    Returns:
        features: as ``featurise`` gives them.
        change: as ``levelled`` gives it.

    Raises:
        AudioError: shorter than one window.
    """
    samples_heard, change = levelled(samples, config.sample_rate_hz)
    return featurise(samples_heard, config), change


def levelled(samples: Samples, sample_rate_hz: int) -> tuple[Samples, LevelChange]:
    """Scale a chunk to a level at which features hold all of its speech.

    A chunk of usual level comes back as it is. A program that feeds an exported model itself calls
    this first; ``docs/guides/interop.md`` has it in words.

    Args:
        samples: (S,) float32 at ``sample_rate_hz``, of any range.

    Returns:
        samples: (S,) float32 in -1..1.
        change: how far speech was raised and bangs were lowered, and where the sounds are.
    """
    heard = without_lows(samples, sample_rate_hz)
    beside_bangs = samples
    lowered_db = 0.0
    lowering_db = bang_gain_db(heard, sample_rate_hz)
    if lowering_db is not None:
        lowered_db = -float(lowering_db.min())
        lowering = np.power(10, lowering_db / 20)
        heard = heard * lowering
        beside_bangs = samples[lowering_db == 0]

    loudest = peak_of(heard)
    if loudest == 0:
        return samples, LevelChange(0.0, lowered_db, [])

    offset = beside_bangs.mean(dtype=np.float64)
    if abs(offset) > _MOST_OFFSET * loudest:
        samples = samples - np.float32(offset)

    if lowering_db is not None:
        samples = samples * lowering.astype(np.float32)

    if peak_of(samples) > _MOST_LOWS * loudest:
        samples = heard.astype(np.float32)

    peak = peak_of(samples)
    if peak > 1:
        samples = samples / np.float32(peak)
        heard = heard / peak

    level_db = speech_level_db(heard, sample_rate_hz)
    of_all_db = max(_QUIET_DB - level_db, 0.0)

    heard = _without_hum(heard, sample_rate_hz, level_db)
    sounds = loud_spans(heard, sample_rate_hz, TOP_DB)
    of_quieter_db = quieter_voices_gain_db(heard, sample_rate_hz, sounds)

    gain_db = np.minimum(of_all_db + of_quieter_db, _MOST_GAIN_DB)
    if not gain_db.any():
        return samples, LevelChange(0.0, lowered_db, sounds)

    raised = samples * np.power(10, gain_db / 20).astype(np.float32)
    return raised.clip(-1, 1), LevelChange(float(gain_db.max()), lowered_db, sounds)


def _without_hum(
    heard: NDArray[np.float64], sample_rate_hz: int, level_db: float
) -> NDArray[np.float64]:
    """Take out the harmonics of mains hum, where they are most of the noise: (S,) as before.

    A quieter voice would not rise above them.
    """
    noise_db = noise_level_db(heard, sample_rate_hz)
    if noise_db < level_db - _HUM_BELOW_SPEECH_DB:
        return heard

    above_hum = without_lows(heard, sample_rate_hz, _HUM_HZ)
    without_hum_db = noise_level_db(above_hum, sample_rate_hz)
    is_hum = noise_db > without_hum_db + _HUM_RISE_DB
    return above_hum if is_hum else heard
