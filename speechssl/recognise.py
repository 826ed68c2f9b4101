"""A fine-tuned model at work: stored chunks -> hypotheses -> score, and files -> transcripts."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from speechssl.audio import AUDIO_SUFFIXES, load_audio, split_at_silence
from speechssl.batching import Batch, Dataset, collate
from speechssl.config import as_json
from speechssl.ctc import CtcModel
from speechssl.decode import greedy
from speechssl.errors import AudioError, ConfigError
from speechssl.features import featurise, num_units
from speechssl.formats import Segment, Transcript, write_atomic
from speechssl.manifest import UNREADABLE_SUFFIXES
from speechssl.report import text_table
from speechssl.score import Score, score
from speechssl.text import normalise

BATCH_SECONDS = 120.0
WHOLE_BELOW_S = 30.0  # longer files are cut at silences
CHUNK_S = (0.4, 20.0)


@torch.inference_mode()
def decode_batch(model: CtcModel, batch: Batch) -> list[str]:
    """Greedy text of each utterance of a batch."""
    log_probs, num_frames = model.log_probs(batch.to(next(model.parameters()).device))
    return [model.tokenizer.decode(ids) for ids in greedy(log_probs, num_frames, model.tokenizer.blank_id)]


def _length_batches(lengths: NDArray[np.int64], limit: int) -> Iterator[list[int]]:
    """Positions sorted by length, the longest first, in groups whose padded size stays within ``limit``."""
    group: list[int] = []
    for position in np.argsort(-lengths, kind="stable").tolist():
        if group and (len(group) + 1) * int(lengths[group[0]]) > limit:
            yield group
            group = []
        group.append(position)
    if group:
        yield group


def hypotheses(model: CtcModel, dataset: Dataset, batch_seconds: float = BATCH_SECONDS) -> dict[str, str]:
    """Greedy text of every chunk, by utterance id: "" for one too short for a frame. Batching never changes a text."""
    model.eval()
    limit = round(batch_seconds * dataset.features.sample_rate_hz)
    heard = model.encoder.num_frames(torch.from_numpy(dataset.num_units)).numpy() > 0
    found = {dataset.id_text(p)[0]: "" for p in np.flatnonzero(~heard).tolist()}
    dataset = dataset.subset(np.flatnonzero(heard))
    for positions in _length_batches(np.asarray(dataset.num_samples, dtype=np.int64), limit):
        batch = dataset.batch(positions)
        found |= dict(zip(batch.ids, decode_batch(model, batch), strict=True))
    return found


def evaluate(model: CtcModel, dataset: Dataset, batch_seconds: float = BATCH_SECONDS) -> Score:
    """Word and character error rate of greedy decoding against the normalised transcripts.

    Raises:
        ConfigError: a chunk has no transcript, or the features are not the model's.
    """
    expected = model.encoder.config.features
    if dataset.features != expected:
        raise ConfigError(f"the store holds {dataset.features}, the model reads {expected}: prepare the store anew")
    references = dict(dataset.id_text(p) for p in range(len(dataset)))
    missing = [i for i, text in references.items() if text is None]
    if missing:
        raise ConfigError(f"{len(missing)} utterances have no transcript (first: {missing[0]}): they cannot be scored")
    found = hypotheses(model, dataset, batch_seconds)
    # Both sides: a vocabulary from elsewhere may be upper case.
    normalised = {i: normalise(text or "", model.normaliser) for i, text in references.items()}
    return score(normalised, {i: normalise(text, model.normaliser) for i, text in found.items()})


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


@dataclass
class _Pending:
    path: str
    duration_s: float
    spans: list[tuple[float, float]]
    arrays: list[NDArray[Any]]


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
) -> Iterator[Transcript | Failure]:
    """Text of each file, in the order given; a file that cannot be read gives a ``Failure`` and stops nothing.

    Files of up to 30 s are recognised whole, longer ones in pieces cut at silences. Texts do not depend on
    ``batch_seconds`` or on the other files.

    Args:
        name: of the model, for the results.
        progress: called with the seconds of audio done so far.
    """
    model.eval()
    done, held = 0.0, 0.0
    waiting: list[_Pending | Failure] = []
    for path in paths:
        item = _load(model, Path(path))
        waiting.append(item)
        held += item.duration_s if isinstance(item, _Pending) else 0.0
        if held >= batch_seconds:
            yield from _finish(model, waiting, name, batch_seconds)
            done, held, waiting = done + held, 0.0, []
            if progress:
                progress(done)
    yield from _finish(model, waiting, name, batch_seconds)
    if progress:
        progress(done + held)


def _load(model: CtcModel, path: Path) -> _Pending | Failure:
    config = model.encoder.config.features
    rate = config.sample_rate_hz
    try:
        samples = load_audio(path, rate)
        whole = len(samples) <= WHOLE_BELOW_S * rate
        pieces = split_at_silence(samples, rate, *CHUNK_S)
        if whole and pieces:
            pieces = [(0, len(samples))]
        elif whole and _frames(model, len(samples)) > 0 and float(np.abs(samples).max()) >= 1e-3:
            pieces = [(0, len(samples))]  # too short for the splitter, but there is sound
        pieces = [(a, b) for a, b in pieces if _frames(model, b - a) > 0]
        arrays = [featurise(samples[a:b], config) for a, b in pieces]
    except AudioError as error:
        return Failure(str(path), str(error))
    spans = [(a / rate, b / rate) for a, b in pieces]
    return _Pending(str(path), len(samples) / rate, spans, arrays)


def _frames(model: CtcModel, num_samples: int) -> int:
    units = torch.tensor([num_units(num_samples, model.encoder.config.features)])
    return int(model.encoder.num_frames(units))


def _finish(
    model: CtcModel, items: Sequence[_Pending | Failure], name: str, batch_seconds: float
) -> Iterator[Transcript | Failure]:
    """Recognise all pieces of some files in length-sorted batches, then put the texts back in order."""
    config = model.encoder.config.features
    arrays = [array for item in items if isinstance(item, _Pending) for array in item.arrays]
    limit = round(batch_seconds * config.sample_rate_hz / config.hop)
    texts = [""] * len(arrays)
    for positions in _length_batches(np.array([len(a) for a in arrays], dtype=np.int64), limit):
        ids = [str(p) for p in positions]
        batch = collate(ids, [arrays[p] for p in positions], [None] * len(ids), config)
        for position, text in zip(positions, decode_batch(model, batch), strict=True):
            texts[position] = text
    in_order = iter(texts)
    for item in items:
        if isinstance(item, Failure):
            yield item
            continue
        segments = [Segment(start, end, next(in_order)) for start, end in item.spans]
        spoken = tuple(s for s in segments if s.text)
        yield Transcript(item.path, " ".join(s.text for s in spoken), spoken, item.duration_s, name)
