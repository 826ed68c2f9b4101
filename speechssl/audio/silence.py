"""Where speech is: intervals between silences, joined and cut to chunks of a wanted length."""

from collections.abc import Iterator

import numpy as np

from speechssl.audio.reader import Samples, Span
from speechssl.errors import ConfigError

# Below -60 dBFS a recording is silent, however loud its own loudest part.
SILENCE_PEAK = 1e-3
# The level of speech varies by more, dB (standard deviation). Measured: see ``is_steady``.
STEADY_DB = 1.5
MARGIN_S = 0.1  # kept around speech
PAUSE_S = 0.5  # shorter pauses stay inside a chunk
WINDOW_S = 300.0  # of a long recording that is looked at together
UNFINISHED_S = 1.0  # speech this close to the end of a window may go on in the next one


def split_at_silence(
    samples: Samples, sample_rate_hz: int, min_s: float, max_s: float, top_db: float = 35.0
) -> list[Span]:
    """Find the speech chunks of a recording.

    Long silences are left out, and so is speech that cannot reach ``min_s``.

    Args:
        samples: (S,) float32 at ``sample_rate_hz``.
        min_s, max_s: bounds of a chunk, seconds.
        top_db: what lies this far below the loudest part is silence, dB.

    Returns:
        (start, end) in samples, in order and disjoint; [] when the peak is below -60 dBFS.
    """
    intervals = speech_intervals(samples, sample_rate_hz, top_db)
    return join_speech(samples, intervals, sample_rate_hz, min_s, max_s)


def settled_chunks(
    samples: Samples,
    sample_rate_hz: int,
    min_s: float,
    max_s: float,
    last: bool,
    top_db: float = 35.0,
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
    speech = speech_intervals(samples, sample_rate_hz, top_db)
    chunks = join_speech(samples, speech, sample_rate_hz, min_s, max_s)
    if last:
        return speech, chunks, len(samples)

    settled = len(samples) - round(UNFINISHED_S * sample_rate_hz)
    chunks = [(start, end) for start, end in chunks if end <= settled]

    # Silence is used up too, but for an end in which the next chunk may begin.
    longest_open = round(2 * (max_s + UNFINISHED_S) * sample_rate_hz)
    used = len(samples) - longest_open
    used_by_chunks = chunks[-1][1] if chunks else 0
    return speech, chunks, max(used_by_chunks, used)


def speech_intervals(samples: Samples, sample_rate_hz: int, top_db: float = 35.0) -> list[Span]:
    """Find the parts that are not silent, each with 0.1 s of margin.

    Returns:
        (start, end) in samples, in order and disjoint.
    """
    if not len(samples) or max(samples.max(), -samples.min()) < SILENCE_PEAK:
        return []

    from librosa.effects import split  # a second of import time that only this function needs

    window = max(2, sample_rate_hz // 40)
    hop = max(1, sample_rate_hz // 100)
    found = split(samples, top_db=top_db, frame_length=window, hop_length=hop)

    margin = round(MARGIN_S * sample_rate_hz)
    intervals: list[Span] = []
    for loud_from, loud_until in found.tolist():
        start = max(0, loud_from - margin)
        end = min(len(samples), loud_until + margin)

        # Where a pause is shorter than two margins, they meet in its middle.
        if intervals and start < intervals[-1][1]:
            start_before, end_before = intervals[-1]
            start = (start + end_before) // 2
            intervals[-1] = (start_before, start)

        intervals.append((start, end))

    return intervals


def load_splitter() -> None:
    """Load what finds silence, so that no limit of processor time for a file counts it.

    Where numba has no cache yet, and where it can never write one, librosa compiles for 30 s.
    """
    speech_intervals(np.ones(1000, np.float32), 16_000)


def is_steady(samples: Samples, sample_rate_hz: int) -> bool:
    """Whether a second or more is noise, hum or a held chord: its level hardly changes.

    The level of 100 ms varies by less than ``STEADY_DB`` (standard deviation). Of 540 chunks of
    read, spontaneous and far-field speech of a second or more, the least had 2.4 dB; white noise
    has 0.2. Speech can be mistaken for steady noise when the noise is louder: of 40 read sentences,
    none at a signal-to-noise ratio of 3 dB and 37 at -3 dB.
    """
    step = max(1, sample_rate_hz // 10)
    blocks = samples[: len(samples) // step * step].reshape(-1, step)
    if len(blocks) < 10:
        return False

    power = np.square(blocks, dtype=np.float64).mean(axis=1)
    level_db = 10 * np.log10(power + 1e-12)
    return bool(level_db.std() < STEADY_DB)


def join_speech(
    samples: Samples, intervals: list[Span], sample_rate_hz: int, min_s: float, max_s: float
) -> list[Span]:
    """Make chunks of ``min_s`` to ``max_s`` from the intervals of speech.

    Neighbours are joined over pauses below 0.5 s. A chunk that is still too short takes silence
    around it, but never more silence than speech. This is the second half of ``split_at_silence``.
    """
    shortest = round(min_s * sample_rate_hz)
    longest = round(max_s * sample_rate_hz)
    if not 0 <= shortest <= longest or longest < 1:
        raise ConfigError(f"chunks of {min_s} to {max_s} s: give 0 <= minimum <= maximum")

    joined = _join_over_short_pauses(samples, intervals, sample_rate_hz, shortest, longest)

    chunks: list[Span] = []
    for index, (start, end) in enumerate(joined):
        # Silence that this chunk may take: up to its neighbours, of which the one before may have
        # grown already.
        free_from = chunks[-1][1] if chunks else 0
        if index > 0:
            free_from = max(free_from, joined[index - 1][1])

        free_until = len(samples)
        if index + 1 < len(joined):
            free_until = joined[index + 1][0]

        is_mostly_speech = 2 * (end - start) >= shortest
        if is_mostly_speech:
            start, end = _widen(start, end, free_from, free_until, shortest)

        if end - start >= max(1, shortest):
            chunks.append((start, end))

    return chunks


def _join_over_short_pauses(
    samples: Samples, intervals: list[Span], sample_rate_hz: int, shortest: int, longest: int
) -> list[Span]:
    """Join neighbours over short pauses, up to ``longest``; longer intervals are cut first."""
    # Each interval has taken its margin from the pause already.
    pause = round((PAUSE_S - 2 * MARGIN_S) * sample_rate_hz)

    joined: list[Span] = []
    for interval in intervals:
        for start, end in _cut(samples, interval, shortest, longest, sample_rate_hz):
            if joined:
                start_before, end_before = joined[-1]
                if start - end_before < pause and end - start_before <= longest:
                    joined[-1] = (start_before, end)
                    continue

            joined.append((start, end))

    return joined


def _cut(
    samples: Samples, interval: Span, shortest: int, longest: int, sample_rate_hz: int
) -> Iterator[Span]:
    """Cut an interval into pieces of at most ``longest``, where it is quiet."""
    start, end = interval
    step = max(1, sample_rate_hz // 100)

    while end - start > longest:
        # A cut in the second half of the longest piece, which leaves enough for another piece.
        low = start + max(shortest, longest // 2)
        high = min(start + longest, end - shortest)

        cut = start + longest  # when no cut leaves two pieces that are long enough
        if high > low:
            cut = _quietest_point(samples, low, high, step)

        yield start, cut
        start = cut

    yield start, end


def _quietest_point(samples: Samples, low: int, high: int, step: int) -> int:
    """Return the middle of the quietest ``step`` samples between ``low`` and ``high``."""
    whole_steps = (high - low) // step
    frames = samples[low : low + whole_steps * step].reshape(-1, step)
    if not len(frames):
        return high

    power = np.square(frames, dtype=np.float64).mean(axis=1)
    # Five frames together, one value per frame: mode "same" would give five values for fewer
    # frames, and a cut behind ``high``.
    smooth = np.convolve(power, np.ones(5))[2 : 2 + len(frames)]
    return low + int(smooth.argmin()) * step + step // 2


def _widen(start: int, end: int, free_from: int, free_until: int, length: int) -> Span:
    """Grow a span evenly to ``length``, as far as the silence around it allows."""
    need = max(0, length - (end - start))
    left = min(start - free_from, need // 2)
    right = min(free_until - end, need - left)
    left = min(start - free_from, need - right)
    return start - left, end + right
