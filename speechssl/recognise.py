"""A fine-tuned model at work: stored chunks -> hypotheses -> score, and files -> transcripts."""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speechssl.align import WordSpan, align, words_of
from speechssl.audio import (
    AUDIO_SUFFIXES,
    SILENCE_PEAK,
    WINDOW_S,
    Samples,
    Span,
    settled_chunks,
    stream_mono,
)
from speechssl.batching import Batch, Dataset, collate
from speechssl.beam import BeamSearch
from speechssl.config import as_json
from speechssl.ctc import CtcModel
from speechssl.decode import greedy
from speechssl.errors import AudioError, ConfigError
from speechssl.features import featurise, num_units
from speechssl.formats import Segment, Transcript, Word, write_atomic
from speechssl.manifest import UNREADABLE_SUFFIXES
from speechssl.report import text_table
from speechssl.runtime import trim_memory
from speechssl.score import Score, score
from speechssl.text import normalise

BATCH_SECONDS = 40.0  # larger batches leave a CPU's caches, smaller ones its cores
WHOLE_BELOW_S = 30.0  # longer files are cut at silences
CHUNK_S = (0.4, 20.0)
HORIZON_S = 1200.0  # of audio among which pieces of like length are looked for
TRIM_EVERY = 8  # batches of other sizes each; more often takes time, more rarely memory
PAUSE_S = 1.0  # between two words, from where another segment begins
AHEAD = 32  # pieces that are read while the model computes


# (B, T, V) log-probabilities, (B,) valid frames -> token ids of each utterance, as CTC emits them
Decode = Callable[[Tensor, Tensor], Sequence[Sequence[int]]]


def greedy_ids(model: CtcModel) -> Decode:
    """The best token of each frame, repeats and blanks dropped."""
    return lambda log_probs, frames: greedy(log_probs, frames, model.tokenizer.blank_id)


def beam_ids(beam: BeamSearch) -> Decode:
    """The best hypothesis of a beam search."""
    return lambda log_probs, frames: [found[0].ids for found in beam(log_probs, frames)]


@torch.inference_mode()
def decode_batch(model: CtcModel, batch: Batch, decode: Decode | None = None) -> list[list[WordSpan]]:
    """Words of each utterance of a batch with their frames, greedy if not said otherwise."""
    log_probs, num_frames = model.log_probs(batch.to(next(model.parameters()).device))
    return [
        words_of(align(rows[:count], ids, model.tokenizer.blank_id), model.tokenizer)
        for ids, rows, count in zip(
            (decode or greedy_ids(model))(log_probs, num_frames), log_probs.cpu(), num_frames.tolist(), strict=True
        )
    ]


def length_batches(lengths: NDArray[np.int64], limit: int) -> Iterator[list[int]]:
    """Positions sorted by length, the longest first, in groups whose padded size stays within ``limit``."""
    group: list[int] = []
    for position in np.argsort(-lengths, kind="stable").tolist():
        if group and (len(group) + 1) * int(lengths[group[0]]) > limit:
            yield group
            group = []
        group.append(position)
    if group:
        yield group


@torch.inference_mode()
def emissions(
    model: CtcModel, dataset: Dataset, batch_seconds: float = BATCH_SECONDS
) -> Iterator[tuple[tuple[str, ...], Tensor, Tensor]]:
    """Utterance ids, (B, T, V) log-probabilities and (B,) valid frames, in batches of like length, the longest first.

    Those too short for a frame come last, with 0 frames. Batching never changes what an utterance gets.
    """
    model.eval()
    limit = round(batch_seconds * dataset.features.sample_rate_hz)
    heard = model.encoder.num_frames(torch.from_numpy(dataset.num_units)).numpy() > 0
    rest, device = dataset.subset(np.flatnonzero(heard)), next(model.parameters()).device
    for positions in length_batches(np.asarray(rest.num_samples, dtype=np.int64), limit):
        batch = rest.batch(positions)
        yield (tuple(batch.ids), *model.log_probs(batch.to(device)))
    ids = tuple(dataset.id_text(p)[0] for p in np.flatnonzero(~heard).tolist())
    if ids:
        yield ids, torch.zeros(len(ids), 0, model.tokenizer.size), torch.zeros(len(ids), dtype=torch.long)


def hypotheses(
    model: CtcModel, dataset: Dataset, batch_seconds: float = BATCH_SECONDS, decode: Decode | None = None
) -> dict[str, str]:
    """Text of every chunk, by utterance id, greedy if not said otherwise: "" for one too short for a frame."""
    found: dict[str, str] = {}
    for names, log_probs, frames in emissions(model, dataset, batch_seconds):
        said = (decode or greedy_ids(model))(log_probs, frames)
        found |= dict(zip(names, map(model.tokenizer.decode, said), strict=True))
    return found


def references(model: CtcModel, dataset: Dataset) -> dict[str, str]:
    """The transcripts as they are scored: normalised.

    Raises:
        ConfigError: a chunk has no transcript, or the features are not the model's.
    """
    expected = model.encoder.config.features
    if dataset.features != expected:
        raise ConfigError(f"the store holds {dataset.features}, the model reads {expected}: prepare the store anew")
    found = dict(dataset.id_text(p) for p in range(len(dataset)))
    missing = [i for i, text in found.items() if text is None]
    if missing:
        raise ConfigError(f"{len(missing)} utterances have no transcript (first: {missing[0]}): they cannot be scored")
    return {i: normalise(text or "", model.normaliser) for i, text in found.items()}


def evaluate(
    model: CtcModel, dataset: Dataset, batch_seconds: float = BATCH_SECONDS, decode: Decode | None = None
) -> Score:
    """Word and character error rate against the normalised transcripts, of greedy decoding if not said otherwise.

    Raises:
        ConfigError: a chunk has no transcript, or the features are not the model's.
    """
    said = references(model, dataset)
    found = hypotheses(model, dataset, batch_seconds, decode)
    # Both sides: a vocabulary from elsewhere may be upper case.
    return score(said, {i: normalise(text, model.normaliser) for i, text in found.items()})


def write_score(result: Score, out: Path, about: dict[str, Any]) -> str:
    """Write ``score.json``, ``utterances.jsonl`` and ``report.txt`` into ``out``; returns the report."""
    rows = [
        ("WER", f"{result.wer:.2%}", "{:.2%} .. {:.2%}".format(*result.wer_interval), *_counts(result.words)),
        ("CER", f"{result.cer:.2%}", "{:.2%} .. {:.2%}".format(*result.cer_interval), *_counts(result.characters)),
    ]
    parts = [
        text_table(("", "rate", "95 % interval", "reference", "sub", "ins", "del"), rows),
        f"{len(result.utterances)} utterances, {result.sentence_error_rate:.1%} with an error",
        "Worst utterances:",
        *(f"  {u.utterance_id}\n    ref: {u.reference}\n    hyp: {u.hypothesis}" for u in result.worst(10)),
        "Top confusions (reference -> hypothesis):",
        *(
            f"  {c.count:5d}  {c.reference or '(nothing)'} -> {c.hypothesis or '(nothing)'}"
            for c in result.confusions()
        ),
    ]
    text = "\n".join(parts) + "\n"
    out.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(u.as_dict(), ensure_ascii=False) for u in result.utterances]
    write_atomic(out / "utterances.jsonl", "\n".join(lines) + "\n")
    write_atomic(out / "report.txt", text)
    write_atomic(out / "score.json", as_json(about | result.as_dict()))
    return text


def _counts(counts: Any) -> tuple[int, int, int, int]:
    return counts.reference_length, counts.substitutions, counts.insertions, counts.deletions


@dataclass(frozen=True)
class Failure:
    """A file that could not be transcribed, and why."""

    path: str
    error: str


def find_audio(paths: Iterable[Path]) -> list[Path]:
    """Files as given, folders searched at any depth for audio suffixes, in sorted order.

    Also for suffixes such as .m4a, which no reader here knows: such a file fails by name and is not passed over.

    Raises:
        ConfigError: a path does not exist.
    """
    suffixes = UNREADABLE_SUFFIXES.union(AUDIO_SUFFIXES)
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.suffix.lower() in suffixes and p.is_file())
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
    decode: Decode | None = None,
) -> Iterator[Transcript | Failure]:
    """Text of each file, in the order given; a file that cannot be read gives a ``Failure`` and stops nothing.

    Files of up to 30 s are recognised whole, longer ones in pieces cut at silences. Memory does not grow with the
    number of files, nor with their length beyond ``HORIZON_S``. Texts do not depend on ``batch_seconds`` or on
    the other files.

    Args:
        name: of the model, for the results.
        progress: called with the seconds of audio done so far.
        decode: log-probabilities to text; greedy if None.
    """
    model.eval()
    config = model.encoder.config.features
    limit = round(batch_seconds * config.sample_rate_hz / config.hop)
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
            while files[0].is_done():
                yield files.popleft().result(name)
            if progress:
                progress(done_s)
            if pool.seconds <= (horizon_s if item else 0.0):
                break
            done_s += pool.recognise(model, limit, decode)


@dataclass(frozen=True)
class _Piece:
    """A stretch of a file, in seconds, that is recognised as one utterance; featurised."""

    start: float
    end: float
    array: NDArray[Any]


@dataclass(frozen=True)
class _End:
    """No more pieces of a file: it was read to its end, or ``error`` says why not."""

    path: str
    duration_s: float = 0.0
    silence_s: float = 0.0  # of it, in no piece
    error: str | None = None


def _segments(piece: _Piece, words: Sequence[WordSpan], seconds: float) -> list[Segment]:
    """Words between pauses, in seconds of the file; the last frame may go on beyond the piece, no word does."""
    groups: list[list[Word]] = []
    for w in words:
        start, end = piece.start + w.start * seconds, min(piece.start + w.end * seconds, piece.end)
        if not groups or start - groups[-1][-1].end >= PAUSE_S:
            groups.append([])
        groups[-1].append(Word(start, end, w.text, w.probability))
    return [Segment(g[0].start, g[-1].end, " ".join(word.text for word in g), tuple(g)) for g in groups]


class _File:
    """Segments of one file by piece, in order; None until a piece is recognised."""

    def __init__(self) -> None:
        self.segments: list[list[Segment] | None] = []
        self.end: _End | None = None

    def is_done(self) -> bool:
        return self.end is not None and (self.end.error is not None or None not in self.segments)

    def result(self, name: str) -> Transcript | Failure:
        assert self.end is not None
        if self.end.error is not None:
            return Failure(self.end.path, self.end.error)
        spoken = tuple(segment for piece in self.segments for segment in piece or ())
        return Transcript(self.end.path, " ".join(s.text for s in spoken), spoken, self.end.duration_s, name)


class _Pool:
    """Pieces that wait for others of like length, oldest first."""

    def __init__(self) -> None:
        self.entries: list[tuple[_File, int, _Piece]] = []
        self.seconds = 0.0  # in all of them
        self.num_batches = 0  # recognised so far

    def add(self, file: _File, piece: _Piece) -> None:
        self.entries.append((file, len(file.segments), piece))
        file.segments.append(None)
        self.seconds += piece.end - piece.start

    def recognise(self, model: CtcModel, limit: int, decode: Decode | None) -> float:
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
        for k, words in zip(chosen, decode_batch(model, batch, decode), strict=True):
            file, place, piece = self.entries[k]
            file.segments[place] = _segments(piece, words, model.seconds_per_output)
        self.num_batches += 1
        if self.num_batches % TRIM_EVERY == 0:
            trim_memory()
        taken = set(chosen)
        self.entries = [entry for k, entry in enumerate(self.entries) if k not in taken]
        before, self.seconds = self.seconds, sum(piece.end - piece.start for _, _, piece in self.entries)
        return before - self.seconds


def _read(model: CtcModel, paths: Sequence[str | Path]) -> Iterator[_Piece | _End]:
    """The pieces of each file, then its end."""
    config = model.encoder.config.features
    rate = config.sample_rate_hz
    for path in map(Path, paths):
        position, heard = 0, 0
        try:
            for samples, chunks in _windows(path, rate):
                for start, end in chunks:
                    if _frames(model, end - start) > 0:
                        array = featurise(samples[start:end], config)
                        yield _Piece((position + start) / rate, (position + end) / rate, array)
                        heard += end - start
                position += len(samples)
            yield _End(str(path), position / rate, (position - heard) / rate)
        except AudioError as error:
            yield _End(str(path), error=str(error))


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


def _windows(path: Path, rate: int) -> Iterator[tuple[Samples, list[Span]]]:
    """A file in flat memory: its samples, each once, with the chunks of them that are recognised."""
    held, is_first = np.zeros(0, np.float32), True
    for block in stream_mono(path, rate):
        held = np.concatenate([held, block])
        if len(held) >= WINDOW_S * rate:
            _, chunks, used = settled_chunks(held, rate, *CHUNK_S, last=False)
            yield held[:used], chunks
            held, is_first = held[used:], False
    if is_first and len(held) <= WHOLE_BELOW_S * rate:
        yield held, [(0, len(held))] if max(held.max(), -held.min()) >= SILENCE_PEAK else []
    else:
        yield held, settled_chunks(held, rate, *CHUNK_S, last=True)[1]


def _frames(model: CtcModel, num_samples: int) -> int:
    units = torch.tensor([num_units(num_samples, model.encoder.config.features)])
    return int(model.encoder.num_frames(units))
