"""By how much to raise what is said more quietly than the loudest voice of a chunk.

An envelope follows the loudness from sound to sound, and fades away from each on both sides. Where
it lies far below the loudest voice for as long as a few words last, somebody speaks more quietly,
or from farther away, and the envelope says how far to raise it. So no moment is raised above the
loudest voice, and the gain never jumps::

    gain(t) = loudest - 5 dB - envelope(t)   where it is positive, and somebody speaks

It ends 3 dB above what would bring the quieter voice itself to 5 dB below the loudest, so its weak
sounds stay weak. What is quieter still than that voice may be a third one, and so on.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from speechssl.audio.threshold import STEP_S, faded, loudness_db, runs, samples_per_step

# So far below the loudest voice nothing is raised, dB. Of two voices that are 8 dB apart, a
# recogniser got 2 of 65 words wrong, and 4 to 10 of those that are 12 dB apart.
_LIKE_DB = 5.0
# The gain of a voice ends so much above what its level asks for, dB.
_WEAKER_DB = 3.0
# By how much the envelope falls away from a sound, dB a second.
_FADE_DB_PER_S = 60.0

# A quieter voice speaks for so long at least, in total, seconds. With 0.4 s, four times as many
# recordings of one reader had weak ends of sentences raised.
_VOICE_S = 0.6
# It rises by so much above the noise between its sounds, dB, and above what is left there of the
# envelope of a louder one, which covers the ends of louder words.
_NOISE_RISE_DB = 9.0
_FADED_RISE_DB = 3.0
_NOISE_PERCENTILE = 10.0

# A voice's level is what its sounds reach for so long in total, seconds: a click is shorter.
_REACHED_S = 0.3


class _Course(NamedTuple):
    """A chunk from step to step, each ``STEP_S`` long.

    Attributes:
        loudness: (T,) dB of full scale.
        is_sound: (T,) whether it is no silence.
        envelope: (T,) the loudest sound around, faded by its distance, dB.
    """

    loudness: NDArray[np.float64]
    is_sound: NDArray[np.bool_]
    envelope: NDArray[np.float64]


def quieter_voices_gain_db(
    heard: NDArray[np.float64], sample_rate_hz: int, sounds: list[tuple[int, int]]
) -> NDArray[np.float64]:
    """Find by how much to raise each sample so that quieter voices are near the loudest one.

    Args:
        heard: (S,) samples without what lies below speech.
        sounds: where it is no silence, as ``loud_spans`` finds it.

    Returns:
        (S,) dB, 0 or more, which changes by 60 dB a second at most; in pauses it slides from one
        sound to the next.
    """
    course = _course_of(heard, sample_rate_hz, sounds)
    gain_db = np.zeros(len(course.loudness))
    if not course.is_sound.any():
        return np.zeros(len(heard))

    loudest_db = _level_db(course.loudness[course.is_sound])
    _raise_quieter(course, (0, len(gain_db)), loudest_db - _LIKE_DB, gain_db)

    sound_steps = np.flatnonzero(course.is_sound)
    places = sound_steps * samples_per_step(sample_rate_hz)
    of_samples: NDArray[np.float64] = np.interp(np.arange(len(heard)), places, gain_db[sound_steps])
    return of_samples


def _course_of(
    heard: NDArray[np.float64], sample_rate_hz: int, sounds: list[tuple[int, int]]
) -> _Course:
    loudness = loudness_db(heard, sample_rate_hz)
    step = samples_per_step(sample_rate_hz)

    is_sound = np.zeros(len(loudness), bool)
    for start, end in sounds:
        first = start // step
        last = -(-end // step)
        is_sound[first:last] = True

    sounding = np.where(is_sound, loudness, -np.inf)
    return _Course(loudness, is_sound, faded(sounding, _FADE_DB_PER_S))


def _raise_quieter(
    course: _Course, span: tuple[int, int], near_db: float, gain_db: NDArray[np.float64]
) -> None:
    """Add to the gain (T,) of a span what brings the voices below ``near_db`` up to it."""
    start, end = span

    for first, last in runs(course.envelope[start:end] < near_db):
        part = (start + first, start + last)
        spoken = _spoken_in(course, part)
        if len(spoken) * STEP_S < _VOICE_S:
            continue

        voice_db = _level_db(spoken)
        most_db = near_db - voice_db + _WEAKER_DB
        inside = slice(*part)
        gain_db[inside] += np.minimum(near_db - course.envelope[inside], most_db)

        # What lies below here has had all of this gain, and may be quieter still.
        _raise_quieter(course, part, voice_db - _WEAKER_DB, gain_db)


def _spoken_in(course: _Course, part: tuple[int, int]) -> NDArray[np.float64]:
    """Return the loudness (N,) of the steps in which a voice of this part itself is heard."""
    inside = slice(*part)
    loudness = course.loudness[inside]
    sound_steps = np.flatnonzero(course.is_sound[inside])
    if not len(sound_steps):
        return np.zeros(0)

    from_sound_to_sound = loudness[sound_steps[0] : sound_steps[-1] + 1]
    noise_db = np.percentile(from_sound_to_sound, _NOISE_PERCENTILE)

    is_spoken = course.is_sound[inside] & (loudness > noise_db + _NOISE_RISE_DB)
    is_its_own = course.envelope[inside] > _left_of_louder(course, part) + _FADED_RISE_DB
    spoken: NDArray[np.float64] = loudness[is_spoken & is_its_own]
    return spoken


def _left_of_louder(course: _Course, part: tuple[int, int]) -> NDArray[np.float64]:
    """Return what is left (N,) in a part of the envelopes of sounds outside of it, dB."""
    start, end = part
    at_borders = np.full(end - start, -np.inf)
    if start > 0:
        at_borders[0] = course.envelope[start]
    if end < len(course.envelope):
        at_borders[-1] = max(at_borders[-1], course.envelope[end - 1])
    return faded(at_borders, _FADE_DB_PER_S)


def _level_db(loudness: NDArray[np.float64]) -> float:
    """Return the level that sounds reach for ``_REACHED_S`` in total, dB; of few, their median."""
    num_reaching = round(_REACHED_S / STEP_S)
    rank = max(len(loudness) - num_reaching, len(loudness) // 2)
    return float(np.partition(loudness, rank)[rank])
