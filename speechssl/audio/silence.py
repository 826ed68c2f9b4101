"""Where speech is: intervals between silences, joined and cut to chunks of a wanted length."""

from collections.abc import Iterator

import numpy as np

from speechssl.audio.reader import Samples, Span
from speechssl.errors import ConfigError

SILENCE_PEAK = 1e-3  # -60 dBFS: below it a recording is silent, however loud its own loudest part
STEADY_DB = 1.5  # what changes less is no speech
MARGIN_S = 0.1  # kept around speech
PAUSE_S = 0.5  # shorter pauses stay inside a chunk
WINDOW_S = 300.0  # of a long recording that is looked at together, seconds
UNFINISHED_S = 1.0  # speech this close to the end of a window may go on in the next one, seconds


def split_at_silence(
    samples: Samples, sample_rate_hz: int, min_s: float, max_s: float, top_db: float = 35.0
) -> list[Span]:
    """Speech chunks of a recording; long silences and what cannot reach ``min_s`` are left out.

    Args:
        samples: (S,) float32 at ``sample_rate_hz``.
        min_s, max_s: bounds of a chunk, seconds.
        top_db: what lies this far below the loudest part is silence, dB.

    Returns:
        (start, end) in samples, in order and disjoint; [] when the peak is below -60 dBFS.
    """
    return join_speech(
        samples, speech_intervals(samples, sample_rate_hz, top_db), sample_rate_hz, min_s, max_s
    )


def load_splitter() -> None:
    """Load what finds silence, so that no limit of processor time for a file counts it.

    Where numba has no cache yet, and where it can never write one, librosa compiles for 30 s.
    """
    speech_intervals(np.ones(1000, np.float32), 16_000)


def speech_intervals(samples: Samples, sample_rate_hz: int, top_db: float = 35.0) -> list[Span]:
    """Parts that are not silent, each with 0.1 s of margin: (start, end) in samples, in order and disjoint."""
    if not len(samples) or max(samples.max(), -samples.min()) < SILENCE_PEAK:
        return []
    from librosa.effects import split  # a second of import time that only this function needs

    window = max(2, sample_rate_hz // 40)
    found = split(
        samples, top_db=top_db, frame_length=window, hop_length=max(1, sample_rate_hz // 100)
    )
    margin = round(MARGIN_S * sample_rate_hz)
    intervals: list[Span] = []
    for start, end in found.tolist():
        start, end = max(0, start - margin), min(len(samples), end + margin)
        if (
            intervals and start < intervals[-1][1]
        ):  # the pause is shorter than two margins: meet in its middle
            start = (start + intervals[-1][1]) // 2
            intervals[-1] = (intervals[-1][0], start)
        intervals.append((start, end))
    return intervals


def is_steady(samples: Samples, sample_rate_hz: int) -> bool:
    """Whether a second or more is noise, hum or a held chord: its level hardly changes.

    The level of 100 ms varies by less than ``STEADY_DB`` (standard deviation). Of 540 chunks of read, spontaneous and
    far-field speech of a second or more, the least had 2.4 dB; white noise has 0.2. Speech that drowns in steady noise
    passes for noise: of 40 read sentences none at a signal-to-noise ratio of 3 dB, 37 at -3 dB.
    """
    step = max(1, sample_rate_hz // 10)
    blocks = samples[: len(samples) // step * step].reshape(-1, step)
    if len(blocks) < 10:
        return False
    level_db = 10 * np.log10(np.square(blocks, dtype=np.float64).mean(axis=1) + 1e-12)
    return bool(level_db.std() < STEADY_DB)


def join_speech(
    samples: Samples, intervals: list[Span], sample_rate_hz: int, min_s: float, max_s: float
) -> list[Span]:
    """Chunks of ``min_s`` to ``max_s`` from the intervals of speech: the second half of ``split_at_silence``.

    Neighbours are joined over pauses below 0.5 s. A chunk that is still too short takes silence around it, but never
    more silence than speech.
    """
    shortest, longest = round(min_s * sample_rate_hz), round(max_s * sample_rate_hz)
    if not 0 <= shortest <= longest or longest < 1:
        raise ConfigError(f"chunks of {min_s} to {max_s} s: give 0 <= minimum <= maximum")
    pause = round((PAUSE_S - 2 * MARGIN_S) * sample_rate_hz)
    joined: list[Span] = []
    for interval in intervals:
        for start, end in _cut(samples, interval, shortest, longest, sample_rate_hz):
            if joined and start - joined[-1][1] < pause and end - joined[-1][0] <= longest:
                joined[-1] = (joined[-1][0], end)
            else:
                joined.append((start, end))
    chunks: list[Span] = []
    for k, (start, end) in enumerate(joined):
        before = joined[k - 1][1] if k else 0
        before = max(before, chunks[-1][1]) if chunks else before
        after = joined[k + 1][0] if k + 1 < len(joined) else len(samples)
        if 2 * (end - start) >= shortest:
            start, end = _widen(start, end, before, after, shortest)
        if end - start >= max(1, shortest):
            chunks.append((start, end))
    return chunks


def settled_chunks(
    samples: Samples,
    sample_rate_hz: int,
    min_s: float,
    max_s: float,
    last: bool,
    top_db: float = 35.0,
) -> tuple[list[Span], list[Span], int]:
    """``split_at_silence`` for one window of a recording that goes by: what cannot change any more, whatever follows.

    Args:
        samples: (S,) float32, the window: what the one before it did not use, and what followed.
        last: nothing follows.
        min_s, max_s, top_db: as ``split_at_silence``.

    Returns:
        The intervals of speech, the chunks, and how many samples are used; the others begin the next window.
    """
    speech = speech_intervals(samples, sample_rate_hz, top_db)
    chunks = join_speech(samples, speech, sample_rate_hz, min_s, max_s)
    if last:
        return speech, chunks, len(samples)
    settled = len(samples) - round(UNFINISHED_S * sample_rate_hz)
    chunks = [(start, end) for start, end in chunks if end <= settled]
    open_end = round(2 * (max_s + UNFINISHED_S) * sample_rate_hz)
    return speech, chunks, max(chunks[-1][1] if chunks else 0, len(samples) - open_end)


def _cut(
    samples: Samples, interval: Span, shortest: int, longest: int, sample_rate_hz: int
) -> Iterator[Span]:
    """An interval longer than ``longest`` in pieces, each cut made at the quietest point of its second half."""
    start, end = interval
    step = max(1, sample_rate_hz // 100)
    while end - start > longest:
        low, high = start + max(shortest, longest // 2), min(start + longest, end - shortest)
        cut = start + longest  # when no cut leaves two pieces that are long enough
        if high > low:
            frames = samples[low : low + (high - low) // step * step].reshape(-1, step)
            cut = high
            if len(frames):
                # One value per frame: mode "same" would give five for fewer, and a cut behind ``high``.
                power = np.convolve(np.square(frames, dtype=np.float64).mean(axis=1), np.ones(5))[
                    2 : 2 + len(frames)
                ]
                cut = low + int(power.argmin()) * step + step // 2
        yield start, cut
        start = cut
    yield start, end


def _widen(start: int, end: int, before: int, after: int, length: int) -> Span:
    """``start, end`` grown evenly to ``length``, as far as ``before`` and ``after`` allow."""
    need = max(0, length - (end - start))
    left = min(start - before, need // 2)
    right = min(after - end, need - left)
    left = min(start - before, need - right)
    return start - left, end + right
