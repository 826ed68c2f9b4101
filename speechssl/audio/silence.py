"""Where speech is: intervals between silences, joined and cut to chunks of a wanted length."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from speechssl.audio.level import SILENCE_PEAK, Samples, peak_of, power_of, without_lows
from speechssl.audio.reader import Span
from speechssl.audio.threshold import TOP_DB, loud_spans
from speechssl.errors import ConfigError

# The level of speech varies by more, dB (standard deviation). Measured: see ``is_steady``.
STEADY_DB = 1.5
# The strong harmonics of mains hum lie below this, and most of what tells words apart above, Hz.
_ABOVE_HUM_HZ = 300.0
MARGIN_S = 0.1  # kept around speech
PAUSE_S = 0.5  # shorter pauses stay inside a chunk
WINDOW_S = 300.0  # of a long recording that is looked at together
UNFINISHED_S = 1.0  # speech this close to the end of a window may go on in the next one

# Samples (S,) without what lies below speech: offset and hum take no part in any decision here.
Heard = NDArray[np.float64]


class _Limits(NamedTuple):
    """Bounds of a chunk, in samples."""

    shortest: int
    longest: int


def split_at_silence(
    samples: Samples, sample_rate_hz: int, min_s: float, max_s: float, top_db: float = TOP_DB
) -> list[Span]:
    """Find the speech chunks of a recording.

    Long silences are left out, and so is speech that cannot reach ``min_s``.

    Args:
        samples: (S,) float32 at ``sample_rate_hz``.
        min_s, max_s: bounds of a chunk, seconds.
        top_db: what lies this far below the loudest part around it is silence, dB.

    Returns:
        (start, end) in samples, in order and disjoint; [] when the peak is below -60 dBFS.
    """
    _, chunks, _ = settled_chunks(samples, sample_rate_hz, min_s, max_s, last=True, top_db=top_db)
    return chunks


def settled_chunks(
    samples: Samples,
    sample_rate_hz: int,
    min_s: float,
    max_s: float,
    last: bool,
    top_db: float = TOP_DB,
) -> tuple[list[Span], list[Span], int]:
    """Find the chunks of one window of a long recording that later audio can no longer change.

    Args:
        samples: (S,) float32, the window: what the one before it did not use, and what followed.
        last: whether nothing follows.
        min_s, max_s, top_db: as ``split_at_silence``.

    Returns:
        The intervals of speech, the chunks, and how many samples are used; the others begin the
        next window.
    """
    heard = without_lows(samples, sample_rate_hz)
    speech = _intervals(samples, heard, sample_rate_hz, top_db)
    chunks = _joined_chunks(heard, speech, sample_rate_hz, min_s, max_s)
    if last:
        return speech, chunks, len(samples)

    # The chunks are in order, so those that may still change are the last ones.
    unfinished = round(UNFINISHED_S * sample_rate_hz)
    settled_until = len(samples) - unfinished
    while chunks and chunks[-1][1] > settled_until:
        chunks.pop()

    # Silence is used up too, but for an end in which the next chunk may begin.
    longest_open_s = 2 * (max_s + UNFINISHED_S)
    longest_open = round(longest_open_s * sample_rate_hz)
    used = len(samples) - longest_open
    if chunks:
        _, last_end = chunks[-1]
        used = max(used, last_end)

    return speech, chunks, max(0, used)


def speech_intervals(samples: Samples, sample_rate_hz: int, top_db: float = TOP_DB) -> list[Span]:
    """Find the parts that are not silent, each with 0.1 s of margin.

    Offset and hum take no part in it.

    Args:
        samples: (S,) float32 at ``sample_rate_hz``.
        top_db: what lies this far below the loudest part around it is silence, dB.

    Returns:
        (start, end) in samples, in order and disjoint.
    """
    heard = without_lows(samples, sample_rate_hz)
    return _intervals(samples, heard, sample_rate_hz, top_db)


def _intervals(samples: Samples, heard: Heard, sample_rate_hz: int, top_db: float) -> list[Span]:
    # The filter may raise a peak a little.
    peak = min(peak_of(samples), peak_of(heard))
    if peak < SILENCE_PEAK:
        return []

    margin = round(MARGIN_S * sample_rate_hz)
    intervals: list[Span] = []
    for loud_from, loud_until in loud_spans(heard, sample_rate_hz, top_db):
        start = max(0, loud_from - margin)
        end = min(len(heard), loud_until + margin)

        if intervals:
            start_before, end_before = intervals[-1]
            overlap = end_before - start
            # Where a pause is shorter than two margins, they meet in its middle.
            if overlap > 0:
                start = (start + end_before) // 2
                intervals[-1] = (start_before, start)

        interval = (start, end)
        intervals.append(interval)

    return intervals


def load_splitter() -> None:
    """Load what finds silence, so that no limit of processor time for a file counts it.

    Where numba has no cache yet, and where it can never write one, librosa compiles for 30 s.
    """
    # It alternates, since a constant is taken away as an offset, and silence needs no library.
    loud = np.tile(np.array([1, -1], np.float32), 500)
    intervals = speech_intervals(loud, 16_000)
    assert intervals, "nothing was heard, so nothing was loaded"


def is_steady(samples: Samples, sample_rate_hz: int) -> bool:
    """Whether a second or more is noise, hum or a held chord: its level hardly changes.

    The level of 100 ms varies by less than ``STEADY_DB`` (standard deviation). Of 540 chunks of
    read, spontaneous and far-field speech of a second or more, the least had 2.4 dB; white noise
    has 0.2. Speech can be mistaken for steady noise when the noise is louder: of 40 read sentences,
    none at a signal-to-noise ratio of 3 dB and 37 at -3 dB.

    Hum under a voice does not make it steady: what lies below speech takes no part, and as the
    harmonics of mains hum lie within speech, what lies above ``_ABOVE_HUM_HZ`` is heard alone too.
    """
    heard = without_lows(samples, sample_rate_hz)
    if not _has_one_level(heard, sample_rate_hz):
        return False

    above_hum = without_lows(samples, sample_rate_hz, _ABOVE_HUM_HZ)
    return _has_one_level(above_hum, sample_rate_hz)


def _has_one_level(heard: Heard, sample_rate_hz: int) -> bool:
    step = max(1, sample_rate_hz // 10)
    # What is heard fades in.
    power = power_of(heard[step:], step)
    if len(power) < 9:
        return False

    level_db = 10 * np.log10(power + 1e-12)
    spread_db = float(level_db.std())
    return spread_db < STEADY_DB


def _joined_chunks(
    heard: Heard, intervals: list[Span], sample_rate_hz: int, min_s: float, max_s: float
) -> list[Span]:
    """Make chunks of ``min_s`` to ``max_s`` from the intervals of speech.

    Neighbours are joined over pauses below 0.5 s. A chunk that is still too short takes silence
    around it, but never more silence than speech.
    """
    shortest = round(min_s * sample_rate_hz)
    longest = round(max_s * sample_rate_hz)
    is_range = 0 <= shortest <= longest
    if not is_range or longest < 1:
        raise ConfigError(f"chunks of {min_s} to {max_s} s: give 0 <= minimum <= maximum")

    limits = _Limits(shortest, longest)
    joined = _join_over_short_pauses(heard, intervals, sample_rate_hz, limits)

    # The silence that a chunk may take ends where the next speech begins.
    starts = [start for start, _ in joined]
    starts.append(len(heard))

    chunks: list[Span] = []
    free_from = 0
    for span, free_until in zip(joined, starts[1:], strict=True):
        start, end = span
        speech_end = end

        speech = end - start
        is_mostly_speech = 2 * speech >= shortest
        if is_mostly_speech:
            start, end = _widen(span, (free_from, free_until), shortest)

        length = end - start
        if length > 0 and length >= shortest:
            chunks.append((start, end))
            # The chunk may have grown, so the next one has less silence left.
            free_from = end
        else:
            free_from = speech_end

    return chunks


def _join_over_short_pauses(
    heard: Heard, intervals: list[Span], sample_rate_hz: int, limits: _Limits
) -> list[Span]:
    """Join neighbours over short pauses, up to the longest chunk.

    Longer intervals are cut first.
    """
    # Each interval has taken its margin from the pause already.
    pause_s = PAUSE_S - 2 * MARGIN_S
    pause = round(pause_s * sample_rate_hz)
    # Cuts are looked for in steps of 10 ms.
    step = max(1, sample_rate_hz // 100)

    joined: list[Span] = []
    for interval in intervals:
        for piece in _cut(heard, interval, limits, step):
            if not joined:
                joined.append(piece)
                continue

            start, end = piece
            start_before, end_before = joined[-1]
            is_short_pause = start - end_before < pause
            fits = end - start_before <= limits.longest
            if is_short_pause and fits:
                joined[-1] = (start_before, end)
            else:
                joined.append(piece)

    return joined


def _cut(heard: Heard, interval: Span, limits: _Limits, step: int) -> Iterator[Span]:
    """Cut an interval into pieces that are not too long, where it is quiet."""
    shortest, longest = limits
    start, end = interval

    while end - start > longest:
        # A cut in the second half of the longest piece, which leaves enough for another piece.
        least = max(shortest, longest // 2)
        low = start + least
        high = min(start + longest, end - shortest)

        cut = start + longest  # when no cut leaves two pieces that are long enough
        if high > low:
            cut = _quietest_point(heard, low, high, step)

        yield start, cut
        start = cut

    yield start, end


def _quietest_point(heard: Heard, low: int, high: int, step: int) -> int:
    """Return the middle of the quietest ``step`` samples between ``low`` and ``high``."""
    power = power_of(heard[low:high], step)
    num_steps = len(power)
    if num_steps == 0:
        return high

    # Five steps together, one value per step: mode "same" would give five values for fewer
    # steps, and a cut behind ``high``.
    window = np.ones(5)
    smooth = np.convolve(power, window)[2 : 2 + num_steps]
    quietest = int(smooth.argmin())

    step_start = low + quietest * step
    return step_start + step // 2


def _widen(span: Span, free: Span, length: int) -> Span:
    """Grow a span evenly to ``length``, as far as the silence around it allows."""
    start, end = span
    free_from, free_until = free
    free_before = start - free_from
    free_after = free_until - end

    need = max(0, length - (end - start))
    left = min(free_before, need // 2)
    right = min(free_after, need - left)
    # What the silence after the span lacks is taken before it.
    left = min(free_before, need - right)

    return start - left, end + right
