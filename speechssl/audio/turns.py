"""Which parts of a chunk are said at one level: what one speaker says before another does.

Pauses part turns, and so does a change of level without a pause.
"""

import numpy as np
from numpy.typing import NDArray

from speechssl.audio.level import speech_level_db
from speechssl.audio.threshold import (
    STEP_S,
    loudness_db,
    noise_level_db,
    runs,
    samples_per_step,
)

# A turn that is this much quieter than the loudest one is another's, or said from elsewhere, dB.
TURN_DB = 8.0

# Sounds that are closer belong to one turn, if their levels are alike.
_PAUSE_S = 0.3
# Shorter sounds are no turn: breath, and the weak end of a word.
_TURN_S = 0.4
# Without a pause, only what stays quieter for so long is a turn of its own: weak words are shorter.
_QUIET_S = 0.8
# And it rises by so much above its own noise, dB: the noise of codings, which comes and goes, and
# echo rise by less. After a pause a turn may be nearer to the noise.
_RISE_DB = 13.0
# So long may the end of a louder word last, which counts for no rise, seconds.
_WORD_END_S = 0.3
# At the border of a quieter part, what exceeds its level by this much is the louder word's end, dB.
_WORD_END_DB = 6.0
# Loudness is measured over 25 ms, so no border is known more closely.
_BORDER_S = 0.03

# From and until, in samples.
_Span = tuple[int, int]


def turns_of(heard: NDArray[np.float64], sample_rate_hz: int, sounds: list[_Span]) -> list[_Span]:
    """Find the turns of a chunk.

    Args:
        heard: (S,) samples without what lies below speech.
        sounds: where it is no silence, as ``loud_spans`` finds it.

    Returns:
        (start, end) in samples, in order and disjoint, each of 0.4 s or longer.
    """
    shortest = round(_TURN_S * sample_rate_hz)

    turns = []
    for start, end in _without_short_pauses(sounds, sample_rate_hz):
        if end - start >= shortest:
            turns += _parts_of_one_level(heard, sample_rate_hz, (start, end), sounds)
    return turns


def _without_short_pauses(sounds: list[_Span], sample_rate_hz: int) -> list[_Span]:
    pause = round(_PAUSE_S * sample_rate_hz)

    joined: list[_Span] = []
    for start, end in sounds:
        if joined and start - joined[-1][1] < pause:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def _parts_of_one_level(
    heard: NDArray[np.float64], sample_rate_hz: int, stretch: _Span, sounds: list[_Span]
) -> list[_Span]:
    """Part a stretch without long pauses where its level changes by more than ``TURN_DB``."""
    start, end = stretch
    shortest = round(_TURN_S * sample_rate_hz)
    border = round(_BORDER_S * sample_rate_hz)
    level = speech_level_db(heard[start:end], sample_rate_hz)

    parts = []
    done_until = start
    for quieter in _quieter_parts(heard, sample_rate_hz, stretch, level - TURN_DB):
        quieter_from, quieter_until = quieter
        inside = (quieter_from + border, quieter_until - border)
        if _length_inside(sounds, inside) < shortest or _is_noise(heard, sample_rate_hz, inside):
            continue

        if quieter_from - done_until >= shortest:
            parts.append((done_until, quieter_from))

        # It may hold a third level. It is shorter than the stretch, which has louder speech too.
        parts += _parts_of_one_level(heard, sample_rate_hz, inside, sounds)
        done_until = quieter_until

    if end - done_until >= shortest:
        parts.append((done_until, end))
    return parts


def _quieter_parts(
    heard: NDArray[np.float64], sample_rate_hz: int, stretch: _Span, below_db: float
) -> list[_Span]:
    """Find what stays below a level for ``_QUIET_S``, without the ends of louder words."""
    start, end = stretch
    step = samples_per_step(sample_rate_hz)
    loudness = loudness_db(heard[start:end], sample_rate_hz)

    parts = []
    for first, last in runs(loudness < below_db):
        if (last - first) * STEP_S < _QUIET_S:
            continue

        part = heard[start + first * step : start + last * step]
        is_word_end = loudness[first:last] > speech_level_db(part, sample_rate_hz) + _WORD_END_DB
        if is_word_end.all():
            continue

        first += int(is_word_end.argmin())
        last -= int(is_word_end[::-1].argmin())
        parts.append((start + first * step, min(start + last * step, end)))
    return parts


def _is_noise(heard: NDArray[np.float64], sample_rate_hz: int, span: _Span) -> bool:
    """Whether nothing rises inside of a quieter part, apart from the ends of louder words."""
    start, end = span
    word_end = round(_WORD_END_S * sample_rate_hz)
    if end - start >= 3 * word_end:
        start += word_end
        end -= word_end

    part = heard[start:end]
    rise = speech_level_db(part, sample_rate_hz) - noise_level_db(part, sample_rate_hz)
    return rise < _RISE_DB


def _length_inside(sounds: list[_Span], span: _Span) -> int:
    start, end = span
    inside = [min(sound_end, end) - max(sound_start, start) for sound_start, sound_end in sounds]
    return sum(length for length in inside if length > 0)
