"""Files -> transcripts: pieces of recordings with what surrounds them, recognised in batches of like length."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speechssl.audio.features import featurise, num_units
from speechssl.audio.reader import AUDIO_SUFFIXES, UNREADABLE_SUFFIXES, Samples, Span, stream_mono
from speechssl.audio.silence import SILENCE_PEAK, WINDOW_S, is_steady, settled_chunks
from speechssl.data.batches import batch_units, length_batches
from speechssl.data.dataset import collate
from speechssl.decoding.align import align, words_of
from speechssl.errors import AudioError, ConfigError
from speechssl.recognition.evaluate import BATCH_SECONDS, Decoder, greedy_decoder
from speechssl.recognition.model import CtcModel
from speechssl.runtime.device import trim_memory
from speechssl.transcription.formats import Segment, Transcript, Word

LONGEST_S = 7 * 86400.0  # a file that never ends is refused at last
WHOLE_BELOW_S = 15.0  # as training hears it; longer files are cut at silences
CHUNK_S = (0.4, 20.0)
HORIZON_S = 1200.0  # of audio among which pieces of like length are looked for
TRIM_EVERY = 8  # batches of other sizes each; more often takes time, more rarely memory
CONTEXT_S = 1.0  # heard beyond a cut through speech; no more than is there when a window ends (audio.UNFINISHED_S)
STRETCH_S = 60.0  # of touching pieces that are decoded as one
PAUSE_S = 1.0  # between two words, from where another segment begins
_NO_FEATURES = np.zeros(0, np.float16)
AHEAD = 32  # pieces that are read while the model computes


@dataclass(frozen=True)
class Failure:
    """A file that could not be transcribed, and why."""

    path: str
    error: str


def find_audio(paths: Iterable[Path]) -> list[Path]:
    """Files as given, folders searched at any depth for audio suffixes, in sorted order.

    Also for suffixes such as .m4a, which no reader here knows: such a file fails by name and is not passed over.

    Raises:
        ConfigError: a path does not exist, or a folder cannot be read.
    """
    suffixes = UNREADABLE_SUFFIXES.union(AUDIO_SUFFIXES)
    found: list[Path] = []

    def fail(error: OSError) -> None:
        raise ConfigError(f"{error.filename}: {error.strerror}") from error

    for path in paths:
        if path.is_dir():
            below = [Path(folder, name) for folder, _, names in os.walk(path, onerror=fail) for name in names]
            found += sorted(file for file in below if file.suffix.lower() in suffixes)
        elif path.exists():
            found.append(path)
        else:
            raise ConfigError(f"no such file or folder: {path}")
    return found


def transcribe(
    model: CtcModel,
    paths: Sequence[str | Path],
    name: str = "",
    batch_seconds: float = BATCH_SECONDS,
    progress: Callable[[float], None] | None = None,
    decoder: Decoder | None = None,
) -> Iterator[Transcript | Failure]:
    """Text of each file, in the order given; a file that cannot be read gives a ``Failure`` and stops nothing.

    Files of up to 15 s are recognised whole. Longer ones go through the encoder in pieces, cut at silences where there
    are any; a cut through speech has a second of what is beyond it heard too, and up to a minute of pieces that touch
    is decoded as one. Steady noise and hum count as silence. Memory does not grow with the number of files, nor with
    their length beyond ``HORIZON_S``. Texts do not depend on ``batch_seconds`` or on the other files.

    Args:
        name: of the model, for the results.
        progress: called with the seconds of audio done so far.
        decoder: log-probabilities to text; greedy if None.
    """
    model.eval()
    config = model.encoder.config.features
    limit = batch_units(batch_seconds, config.sample_rate_hz / config.hop)
    horizon_s = max(HORIZON_S, batch_seconds)
    files, pool = deque([_File()]), _Pool()  # the last file is the one being read
    done_s = 0.0
    for item in chain(_ahead(_read(model, paths)), [None]):  # None: all is read
        if isinstance(item, _Piece):
            pool.add(files[-1], item)
        elif item is not None:
            files[-1].end = item
            files.append(_File())
            done_s += item.silence_s
        while True:
            while files[0].settle(model, decoder or greedy_decoder(model)):
                yield files.popleft().result(name)
            if progress:
                progress(done_s)
            if pool.seconds <= (horizon_s if item else 0.0):
                break
            done_s += pool.recognise(model, limit)


@dataclass(frozen=True)
class _Piece:
    """A stretch of a file, in seconds, and what goes through the encoder at once: the stretch with what surrounds it.

    Attributes:
        array: features of all of it.
        lead, frames: encoder frames before the stretch, and of the stretch.
        goes_on: the stretch begins where the one before it ends, perhaps in the middle of a word.
    """

    start: float
    end: float
    array: NDArray[Any]
    lead: int
    frames: int
    goes_on: bool


@dataclass(frozen=True)
class _End:
    """No more pieces of a file: it was read to its end, or ``error`` says why not."""

    path: str
    duration_s: float = 0.0
    silence_s: float = 0.0  # of it, in no piece
    error: str | None = None


class _File:
    """One file's pieces in order; their log-probabilities from when they are known until they are words."""

    def __init__(self) -> None:
        self.pieces: list[_Piece] = []
        self.rows: list[Tensor | None] = []  # (N, V) of each piece
        self.settled = 0  # pieces that are words already
        self.segments: list[Segment] = []
        self.end: _End | None = None

    def settle(self, model: CtcModel, decoder: Decoder) -> bool:
        """Turn pieces into words, where all that belong together are known: those between two silences.

        Returns:
            Whether the file has its result.
        """
        while self.settled < len(self.pieces):
            stop = self.settled + 1
            while stop < len(self.pieces) and self._belongs(stop):
                stop += 1
            rows = [row for row in self.rows[self.settled : stop] if row is not None]
            if len(rows) < stop - self.settled or (stop == len(self.pieces) and self.end is None):
                break
            self.segments += _segments(model, decoder, self.pieces[self.settled : stop], rows)
            self.rows[self.settled : stop] = [None] * len(rows)
            self.settled = stop
        return self.end is not None and (self.end.error is not None or self.settled == len(self.pieces))

    def _belongs(self, place: int) -> bool:
        """Whether a piece is decoded with those before it: alignment and search take more than linear time."""
        piece = self.pieces[place]
        return piece.goes_on and piece.end - self.pieces[self.settled].start <= STRETCH_S

    def result(self, name: str) -> Transcript | Failure:
        assert self.end is not None
        if self.end.error is not None:
            return Failure(self.end.path, self.end.error)
        text = " ".join(segment.text for segment in self.segments)
        return Transcript(self.end.path, text, tuple(self.segments), self.end.duration_s, name)


def _segments(model: CtcModel, decoder: Decoder, pieces: Sequence[_Piece], rows: Sequence[Tensor]) -> list[Segment]:
    """Words of pieces that follow each other without silence, in groups between pauses; times are the file's."""
    whole, seconds = torch.cat(list(rows)), model.seconds_per_output
    times = [piece.start + k * seconds for piece, row in zip(pieces, rows, strict=True) for k in range(len(row))]
    (ids,) = decoder.search(whole[None], torch.tensor([len(whole)]))
    groups: list[list[Word]] = []
    for w in words_of(align(whole, ids, model.tokenizer.blank_id), model.tokenizer, decoder.scaling):
        # The last frame may go on beyond the end, no word does.
        word = Word(times[w.start], min(times[w.end - 1] + seconds, pieces[-1].end), w.text, w.probability)
        if not groups or word.start - groups[-1][-1].end >= PAUSE_S:
            groups.append([])
        groups[-1].append(word)
    return [Segment(g[0].start, g[-1].end, " ".join(word.text for word in g), tuple(g)) for g in groups]


class _Pool:
    """Pieces that wait for others of like length, oldest first."""

    def __init__(self) -> None:
        self.entries: list[tuple[_File, int, _Piece]] = []
        self.seconds = 0.0  # in all of them
        self.num_batches = 0  # recognised so far

    def add(self, file: _File, piece: _Piece) -> None:
        self.entries.append((file, len(file.pieces), piece))
        file.pieces.append(replace(piece, array=_NO_FEATURES))  # a file keeps its pieces to its end, not what they hold
        file.rows.append(None)
        self.seconds += piece.end - piece.start

    @torch.inference_mode()
    def recognise(self, model: CtcModel, limit: int) -> float:
        """The oldest piece and others of like length, as many as fit.

        Args:
            limit: padded size of the batch, units.

        Returns:
            Seconds of audio that wait no more.
        """
        lengths = np.array([len(piece.array) for _, _, piece in self.entries], dtype=np.int64)
        chosen = next(group for group in length_batches(lengths, limit) if 0 in group)
        arrays = [self.entries[k][2].array for k in chosen]
        ids = [str(k) for k in chosen]
        batch = collate(ids, arrays, [None] * len(ids), model.encoder.config.features)
        log_probs = model.log_probs(batch.to(next(model.parameters()).device)).hidden.cpu()
        for k, rows in zip(chosen, log_probs, strict=True):
            file, place, piece = self.entries[k]
            first, count = (model.config.tokens_per_frame * n for n in (piece.lead, piece.frames))
            file.rows[place] = rows[first : first + count].clone()  # of the batch, no more than this is kept
        self.num_batches += 1
        if self.num_batches % TRIM_EVERY == 0:
            trim_memory()
        taken = set(chosen)
        self.entries = [entry for k, entry in enumerate(self.entries) if k not in taken]
        before, self.seconds = self.seconds, sum(piece.end - piece.start for _, _, piece in self.entries)
        return before - self.seconds


def _read(model: CtcModel, paths: Sequence[str | Path]) -> Iterator[_Piece | _End]:
    """The pieces of each file, then its end."""
    rate = model.encoder.config.features.sample_rate_hz
    context = round(CONTEXT_S * rate)
    for path in map(Path, paths):
        position, heard, last_end = 0, 0, -1
        try:
            for samples, position, speech, chunks in _windows(path, rate):
                for start, end in chunks:
                    if is_steady(samples[max(0, start - context) : end + context], rate):
                        continue
                    # Surroundings only where a cut went through speech. Silence would change the mean and the variance
                    # that features are normalised by: on dev of kathleen, 38.3 became 45.7 % CER.
                    before = context if any(a < start <= b for a, b in speech) else 0
                    after = context if any(a <= end < b for a, b in speech) else 0
                    piece = _piece(
                        model, samples, (start, end), (before, after), position, position + start == last_end
                    )
                    if piece:
                        yield piece
                        heard, last_end = heard + end - start, position + end
                position += len(samples)
            yield _End(str(path), position / rate, (position - heard) / rate)
        except AudioError as error:
            yield _End(str(path), error=str(error).replace(f": {path.name}: ", ": "))


def _piece(model: CtcModel, samples: Samples, span: Span, context: Span, position: int, goes_on: bool) -> _Piece | None:
    """What is recognised of a window's span with as much as ``context`` around it; None for too little for a frame."""
    config, per_frame = model.encoder.config.features, model.encoder.config.samples_per_frame
    (start, end), (before, after), rate = span, context, config.sample_rate_hz
    lead = min(start, before) // per_frame  # so that the frames of the span are as if it began there
    heard = samples[start - lead * per_frame : end + after]
    frames = _frames(model, len(heard)) - lead
    if after:
        frames = min(frames, round((end - start) / per_frame))
    if frames < 1:
        return None
    array = featurise(heard, config)
    return _Piece((position + start) / rate, (position + end) / rate, array, lead, frames, goes_on)


def _ahead(items: Iterator[_Piece | _End]) -> Iterator[_Piece | _End]:
    """The same items, up to ``AHEAD`` of them made in advance by a thread, which decodes while the model computes."""
    with ThreadPoolExecutor(1) as thread:
        coming = deque(thread.submit(next, items, None) for _ in range(AHEAD))
        try:
            while item := coming.popleft().result():
                coming.append(thread.submit(next, items, None))
                yield item
        finally:
            thread.shutdown(cancel_futures=True)  # where nobody wants the rest


def _windows(path: Path, rate: int) -> Iterator[tuple[Samples, int, list[Span], list[Span]]]:
    """A file in flat memory: samples, the place of the first one in the file, speech in them, chunks to recognise.

    Every chunk comes once; around it there is as much of the file as ``CONTEXT_S`` asks for.
    """
    held, position, used = np.zeros(0, np.float32), 0, 0  # used: of the samples held, context only
    is_first, context = True, round(CONTEXT_S * rate)

    def moved(spans: list[Span]) -> list[Span]:
        return [(used + start, used + end) for start, end in spans]

    for block in stream_mono(path, rate, max_duration_s=LONGEST_S):
        held = np.concatenate([held, block])
        if len(held) - used >= WINDOW_S * rate:
            speech, chunks, more = settled_chunks(held[used:], rate, *CHUNK_S, last=False)
            yield held, position, moved(speech), moved(chunks)
            used += more
            drop = max(0, used - context)
            held, position, used, is_first = held[drop:], position + drop, used - drop, False
    if is_first and len(held) <= WHOLE_BELOW_S * rate:
        yield held, position, [], [(0, len(held))] if max(held.max(), -held.min()) >= SILENCE_PEAK else []
    else:
        speech, chunks, _ = settled_chunks(held[used:], rate, *CHUNK_S, last=True)
        yield held, position, moved(speech), moved(chunks)


def _frames(model: CtcModel, num_samples: int) -> int:
    units = torch.tensor([num_units(num_samples, model.encoder.config.features)])
    return int(model.encoder.num_frames(units))
