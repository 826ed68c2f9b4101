"""From recordings to transcripts: pieces of like length are recognised in batches, then joined.

    files -> pieces (read ahead by a thread) -> pool -> batches -> log-probabilities
          -> stretches between silences -> words -> segments

Shapes: N outputs of a piece in time, V tokens of the vocabulary.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from speechssl.audio.threshold import TOP_DB
from speechssl.data.collate import collate, length_batches, max_batch_length
from speechssl.decoding.spoken_units import SpokenUnit, find_units
from speechssl.recognition.decoders import CtcDecoder, greedy_decoder
from speechssl.recognition.defaults import BATCH_SECONDS
from speechssl.recognition.model import CtcModel
from speechssl.runtime.device import trim_memory
from speechssl.transcription.pieces import End, Piece, ahead, read_pieces
from speechssl.transcription.transcript import (
    Failure,
    Segment,
    Transcript,
    Word,
    joined,
    joined_segments,
)
from speechssl.transcription.wordless import Stretch, sound_without_words

# Seconds of audio among which pieces of like length are looked for.
HORIZON_S = 1200.0
# Batches, each of another size, between two times that freed memory is given back. More often
# takes time, less often memory.
TRIM_EVERY = 8
# Touching pieces are decoded as one up to this length: alignment and search take more than linear
# time.
STRETCH_S = 60.0
# A pause between two words, from which on another segment begins.
PAUSE_S = 1.0

_NO_FEATURES = np.zeros(0, np.float16)


def transcribe(
    model: CtcModel,
    paths: Sequence[str | Path],
    name: str = "",
    batch_seconds: float = BATCH_SECONDS,
    progress: Callable[[float], None] | None = None,
    decoder: CtcDecoder | None = None,
    top_db: float = TOP_DB,
) -> Iterator[Transcript | Failure]:
    """Transcribe each file, in the order given.

    A file that cannot be read gives a ``Failure`` and stops nothing. Files of up to 15 s are
    recognised whole. Longer ones are cut at silences where there are any; a cut through speech has
    a second of what is beyond it heard too, and up to a minute of pieces that touch is decoded as
    one. Steady noise and hum count as silence. Memory does not grow with the number of files, nor
    with their length beyond ``HORIZON_S``. Texts do not depend on ``batch_seconds`` or on the
    other files.

    Args:
        name: of the model, for the results.
        progress: called with the seconds of audio done so far.
        decoder: from log-probabilities to words; None decodes greedily.
        top_db: what lies this far below the loudest part around it is silence, dB.
    """
    model.eval()
    decoder = decoder or greedy_decoder(model)
    is_scaled = not decoder.scaling.is_raw
    config = model.encoder.config.features
    rows_per_second = config.sample_rate_hz / config.hop
    max_length = max_batch_length(batch_seconds, rows_per_second)
    horizon_s = max(HORIZON_S, batch_seconds)

    # The last of the files is the one that is being read.
    files = deque([_File()])
    pool = _Pool()
    done_s = 0.0

    # None after the last item: all is read.
    items = ahead(read_pieces(model, paths, top_db))
    for item in chain(items, [None]):
        if isinstance(item, Piece):
            pool.add(files[-1], item)
        elif isinstance(item, End):
            files[-1].end = item
            files.append(_File())
            done_s += item.silence_s

        may_wait_s = 0.0 if item is None else horizon_s
        while True:
            while files[0].settle(model, decoder):
                yield files.popleft().result(name, is_scaled)
            if progress:
                progress(done_s)
            if pool.seconds <= may_wait_s:
                break
            done_s += pool.recognise(model, max_length)


class _File:
    """One file: its pieces in order, and their log-probabilities until they have become words.

    Attributes:
        pieces: without their features.
        log_probs: (N, V) of each piece; None before it is recognised and after it became words.
        num_settled: pieces that have become words.
        wordless: where no word was recognised in them.
        end: None while the file is being read.
    """

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.log_probs: list[Tensor | None] = []
        self.num_settled = 0
        self.segments: list[Segment] = []
        self.wordless: list[Stretch] = []
        self.end: End | None = None

    def add(self, piece: Piece) -> int:
        """Take a piece, and give its place among the file's pieces."""
        # A file keeps its pieces to its end, but not the features that they hold.
        self.pieces.append(replace(piece, array=_NO_FEATURES))
        self.log_probs.append(None)
        return len(self.pieces) - 1

    def settle(self, model: CtcModel, decoder: CtcDecoder) -> bool:
        """Turn pieces into words, where all that belong together are recognised.

        Returns:
            whether the file has its result.
        """
        while self.num_settled < len(self.pieces):
            first = self.num_settled
            stop = self._end_of_stretch(first)

            may_go_on = stop == len(self.pieces) and self.end is None
            pieces = self.pieces[first:stop]
            rows = [row for row in self.log_probs[first:stop] if row is not None]
            if may_go_on or len(rows) < len(pieces):
                break

            segments = _segments(model, decoder, pieces, rows)
            self.segments += segments
            self.wordless += _wordless(pieces, segments)

            self.log_probs[first:stop] = [None] * len(rows)
            self.num_settled = stop

        if self.end is None:
            return False
        all_settled = self.num_settled == len(self.pieces)
        return all_settled or self.end.error is not None

    def _end_of_stretch(self, first: int) -> int:
        """Find the place behind the pieces that are decoded together with the one at ``first``."""
        stop = first + 1
        while stop < len(self.pieces):
            piece = self.pieces[stop]
            too_long = piece.end - self.pieces[first].start > STRETCH_S
            if too_long or not piece.goes_on:
                break
            stop += 1
        return stop

    def result(self, name: str, is_scaled: bool) -> Transcript | Failure:
        assert self.end is not None
        end = self.end
        if end.error is not None:
            return Failure(end.path, end.error)

        return Transcript(
            path=end.path,
            text=joined_segments(self.segments),
            segments=tuple(self.segments),
            duration_s=end.duration_s,
            model=name,
            silence_s=end.silence_s,
            wordless=tuple(self.wordless),
            is_scaled=is_scaled,
            is_dual_mono=end.is_dual_mono,
            is_averaged=end.is_averaged,
        )


class _Waiting(NamedTuple):
    """A piece that waits to be recognised, and where its result goes."""

    file: _File
    place: int
    piece: Piece

    @property
    def seconds(self) -> float:
        return self.piece.end - self.piece.start


class _Pool:
    """Pieces that wait for others of like length, the oldest first."""

    def __init__(self) -> None:
        self.waiting: list[_Waiting] = []
        self.seconds = 0.0
        self.num_batches = 0

    def add(self, file: _File, piece: Piece) -> None:
        entry = _Waiting(file, file.add(piece), piece)
        self.waiting.append(entry)
        self.seconds += entry.seconds

    @torch.inference_mode()
    def recognise(self, model: CtcModel, max_length: int) -> float:
        """Recognise the oldest piece, and of the others of like length as many as fit.

        Args:
            max_length: padded size of the batch, in samples or mel rows.

        Returns:
            seconds of audio that no longer wait.
        """
        chosen = self._like_the_oldest(max_length)
        entries = [self.waiting[index] for index in chosen]

        names = [str(index) for index in chosen]
        arrays = [entry.piece.array for entry in entries]
        texts = [None] * len(entries)
        batch = collate(names, arrays, texts, model.encoder.config.features)

        device = next(model.parameters()).device
        output = model.log_probs(batch.to(device))
        log_probs = output.hidden.cpu()

        outputs_per_frame = model.config.tokens_per_frame
        for entry, rows in zip(entries, log_probs, strict=True):
            piece = entry.piece
            first = piece.lead * outputs_per_frame
            stop = first + piece.frames * outputs_per_frame
            # A copy: a view would keep the whole batch in memory.
            entry.file.log_probs[entry.place] = rows[first:stop].clone()

        self.num_batches += 1
        if self.num_batches % TRIM_EVERY == 0:
            trim_memory()

        return self._drop(chosen)

    def _like_the_oldest(self, max_length: int) -> list[int]:
        """Choose the batch that the oldest piece is in, when all are grouped by length."""
        lengths = [len(entry.piece.array) for entry in self.waiting]
        batches = length_batches(np.array(lengths, dtype=np.int64), max_length)
        oldest = 0
        return next(batch for batch in batches if oldest in batch)

    def _drop(self, chosen: Sequence[int]) -> float:
        """Forget the pieces that are recognised; give their seconds."""
        taken = set(chosen)
        left = [entry for index, entry in enumerate(self.waiting) if index not in taken]
        self.waiting = left

        before = self.seconds
        # Added up anew, so that rounding errors do not grow over days of audio.
        self.seconds = sum(entry.seconds for entry in left)
        return before - self.seconds


def _segments(
    model: CtcModel, decoder: CtcDecoder, pieces: Sequence[Piece], rows: Sequence[Tensor]
) -> list[Segment]:
    """Decode pieces that follow each other without silence; times count from the file's start."""
    log_probs = torch.cat(list(rows))
    num_outputs = torch.tensor([len(log_probs)])
    (decoded,) = decoder.search(log_probs[None], num_outputs)
    found = find_units(log_probs, decoded, model.tokenizer, decoder.scaling)

    seconds = model.seconds_per_output
    # When each output begins: pieces that touch need not lie a whole number of outputs apart.
    times: list[float] = []
    for piece, piece_rows in zip(pieces, rows, strict=True):
        for index in range(len(piece_rows)):
            times.append(piece.start + index * seconds)

    last_end = pieces[-1].end
    words = [_word(span, times, seconds, last_end) for span in found]
    return [_segment(group) for group in _between_pauses(words)]


def _wordless(pieces: Sequence[Piece], segments: Sequence[Segment]) -> list[Stretch]:
    """Find where no word was recognised; all of the pieces, where there is none in them."""
    if not segments:
        return [(pieces[0].start, pieces[-1].end)]

    sounds = [sound for piece in pieces for sound in piece.sounds]
    words = [word for segment in segments for word in segment.words]
    return sound_without_words(sounds, words)


def _word(span: SpokenUnit, times: Sequence[float], seconds: float, last_end: float) -> Word:
    start = times[span.start]
    # The last output may go on beyond the end of the stretch; no word does.
    end = min(times[span.end - 1] + seconds, last_end)
    return Word(start, end, span.text, span.probability, span.follows)


def _between_pauses(words: Sequence[Word]) -> list[list[Word]]:
    groups: list[list[Word]] = []
    last_end = -math.inf
    for word in words:
        if word.start - last_end >= PAUSE_S:
            groups.append([])
        groups[-1].append(word)
        last_end = word.end
    return groups


def _segment(words: Sequence[Word]) -> Segment:
    return Segment(words[0].start, words[-1].end, joined(words), tuple(words))
