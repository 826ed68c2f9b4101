"""Files -> transcripts: pieces of recordings with what surrounds them, recognised in batches of like length."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from speechssl.data.batches import length_batches, max_batch_length
from speechssl.data.dataset import collate
from speechssl.decoding.align import align, words_of
from speechssl.recognition.evaluate import BATCH_SECONDS, CtcDecoder, greedy_decoder
from speechssl.recognition.model import CtcModel
from speechssl.runtime.device import trim_memory
from speechssl.transcription.pieces import End, Piece, ahead, read_pieces
from speechssl.transcription.transcript import Failure, Segment, Transcript, Word

HORIZON_S = 1200.0  # of audio among which pieces of like length are looked for
TRIM_EVERY = 8  # batches of other sizes each; more often takes time, more rarely memory
STRETCH_S = 60.0  # of touching pieces that are decoded as one
PAUSE_S = 1.0  # between two words, from where another segment begins
_NO_FEATURES = np.zeros(0, np.float16)


def transcribe(
    model: CtcModel,
    paths: Sequence[str | Path],
    name: str = "",
    batch_seconds: float = BATCH_SECONDS,
    progress: Callable[[float], None] | None = None,
    decoder: CtcDecoder | None = None,
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
    limit = max_batch_length(batch_seconds, config.sample_rate_hz / config.hop)
    horizon_s = max(HORIZON_S, batch_seconds)
    files, pool = deque([_File()]), _Pool()  # the last file is the one being read
    done_s = 0.0
    for item in chain(ahead(read_pieces(model, paths)), [None]):  # None: all is read
        if isinstance(item, Piece):
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


class _File:
    """One file's pieces in order; their log-probabilities from when they are known until they are words."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.rows: list[Tensor | None] = []  # (N, V) of each piece
        self.settled = 0  # pieces that are words already
        self.segments: list[Segment] = []
        self.end: End | None = None

    def settle(self, model: CtcModel, decoder: CtcDecoder) -> bool:
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
        return self.end is not None and (
            self.end.error is not None or self.settled == len(self.pieces)
        )

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


def _segments(
    model: CtcModel, decoder: CtcDecoder, pieces: Sequence[Piece], rows: Sequence[Tensor]
) -> list[Segment]:
    """Words of pieces that follow each other without silence, in groups between pauses; times are the file's."""
    whole, seconds = torch.cat(list(rows)), model.seconds_per_output
    times = [
        piece.start + k * seconds
        for piece, row in zip(pieces, rows, strict=True)
        for k in range(len(row))
    ]
    (ids,) = decoder.search(whole[None], torch.tensor([len(whole)]))
    groups: list[list[Word]] = []
    for w in words_of(
        align(whole, ids, model.tokenizer.blank_id), model.tokenizer, decoder.scaling
    ):
        # The last frame may go on beyond the end, no word does.
        word = Word(
            times[w.start], min(times[w.end - 1] + seconds, pieces[-1].end), w.text, w.probability
        )
        if not groups or word.start - groups[-1][-1].end >= PAUSE_S:
            groups.append([])
        groups[-1].append(word)
    return [
        Segment(g[0].start, g[-1].end, " ".join(word.text for word in g), tuple(g)) for g in groups
    ]


class _Pool:
    """Pieces that wait for others of like length, oldest first."""

    def __init__(self) -> None:
        self.entries: list[tuple[_File, int, Piece]] = []
        self.seconds = 0.0  # in all of them
        self.num_batches = 0  # recognised so far

    def add(self, file: _File, piece: Piece) -> None:
        self.entries.append((file, len(file.pieces), piece))
        file.pieces.append(
            replace(piece, array=_NO_FEATURES)
        )  # a file keeps its pieces to its end, not what they hold
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
            file.rows[place] = rows[
                first : first + count
            ].clone()  # of the batch, no more than this is kept
        self.num_batches += 1
        if self.num_batches % TRIM_EVERY == 0:
            trim_memory()
        taken = set(chosen)
        self.entries = [entry for k, entry in enumerate(self.entries) if k not in taken]
        before, self.seconds = (
            self.seconds,
            sum(piece.end - piece.start for _, _, piece in self.entries),
        )
        return before - self.seconds
