"""Which utterances a recogniser learns from: transcribed, labelled, and short enough for their frames."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from speechssl.config import Table
from speechssl.data.dataset import Dataset, choose_positions
from speechssl.decoding.greedy import min_ctc_frames
from speechssl.errors import ConfigError
from speechssl.recognition.model import CtcModel
from speechssl.recognition.pseudo_labels import read_labels, with_labels
from speechssl.recognition.settings import FinetuneSettings
from speechssl.runtime.distributed import log_once
from speechssl.storage.json_text import json_line
from speechssl.text.normalise import normalise
from speechssl.text.tokenizers import Tokenizer

SKIPPED = "skipped.jsonl"  # in the run folder
TEXTS = "texts.txt"  # there: the transcripts that it learns from, for a language model of no others
MAX_SKIPPED = (
    0.05  # of the training utterances; more means that frame rate or transcripts are wrong
)


def transcribed(train: Dataset, settings: FinetuneSettings, labels: bool) -> NDArray[np.int64]:
    """Positions of the chunks with a transcript, the chosen ones of them."""
    texts = [train.id_text(position)[1] for position in range(len(train))]
    empty = [
        p
        for p, text in enumerate(texts)
        if text is not None and not normalise(text, settings.normaliser)
    ]
    if empty:
        log_once(
            f"{len(empty)} transcripts hold nothing that {settings.normaliser} keeps (first: {texts[empty[0]]!r} of "
            f"{train.id_text(empty[0])[0]}): they teach nothing"
        )
    learned = set(range(len(train))) - set(empty)
    own = np.array([p for p in sorted(learned) if texts[p] is not None], dtype=np.int64)
    if not len(own):
        raise ConfigError(
            "no chunk of train has a transcript that says anything: give a store with some"
        )
    if (silent := texts.count(None)) and not labels:
        log_once(
            f"{silent} of {len(train)} chunks have no transcript: without --labels they teach nothing"
        )
    if settings.minutes:
        own = own[choose_positions(train.subset(own), settings.minutes, settings.train.seed)]
    return own


def with_pseudo_labels(
    train: Dataset,
    own: NDArray[np.int64],
    path: Path,
    keep: float,
    normaliser: str,
    tokenizer: Tokenizer,
) -> tuple[Dataset, Table]:
    """Chunks with a transcript and chunks with a label, and what is noted of the labels."""

    def usable(text: str) -> bool:
        normalised = normalise(text, normaliser)
        return bool(normalised) and not tokenizer.has_unknown(normalised)

    both, used, unused = with_labels(train, own, read_labels(path), usable, keep)
    left = ", ".join(f"{count} {reason}" for reason, count in unused.items())
    log_once(f"{len(used)} labels are learned from" + (f"; not from {left}" if left else ""))
    heard = json.dumps(sorted((one.id, one.crc32, one.text) for one in used))
    return both, {"count": len(used), "digest": hashlib.sha256(heard.encode()).hexdigest()}


def text_of(dataset: Dataset, position: int) -> str:
    utterance_id, text = dataset.id_text(position)
    if text is None:
        raise ConfigError(
            f"utterance {utterance_id} has no transcript: fine-tune on a labelled store"
        )
    return text


def fitting(train: Dataset, model: CtcModel) -> tuple[Dataset, str]:
    """Utterances whose frames can hold their tokens (the exact CTC rule), and a JSON line for each of the others.

    Raises:
        ConfigError: more than 5 % do not fit.
    """
    frames = model.num_outputs(torch.from_numpy(train.input_lengths)).tolist()
    keep, lines = [], []
    for position in range(len(train)):
        tokens = model.encode_text(text_of(train, position))
        if frames[position] >= max(1, min_ctc_frames(tokens)):
            keep.append(position)
            continue
        row = {
            "id": train.id_text(position)[0],
            "frames": frames[position],
            "needed": min_ctc_frames(tokens),
        }
        lines.append(json_line(row))
    if len(lines) > MAX_SKIPPED * len(train):
        raise ConfigError(
            f"{len(lines)} of {len(train)} transcripts are longer than their frames allow (first: "
            f"{lines[0].strip()}): use encoder.subsampling=2, a larger --tokenizer bpe:N, or check the transcripts"
        )
    if lines:
        log_once(
            f"{len(lines)} utterances left out: transcript longer than its frames, see {SKIPPED} in the run folder"
        )
    return train.subset(np.array(keep, dtype=np.int64)), "".join(lines)


def warn_of(dev: Dataset, model: CtcModel) -> None:
    """Say which transcripts of dev cannot be met."""
    texts = [normalise(text_of(dev, position), model.normaliser) for position in range(len(dev))]
    if empty := texts.count(""):
        log_once(
            f"{empty} of {len(texts)} transcripts of dev hold nothing: whatever is heard there counts as inserted"
        )
    unknown: set[str] = set()
    for text in texts:
        unknown |= model.tokenizer.unknown(text)
    if unknown:
        shown = " ".join(sorted(unknown)[:20])
        log_once(
            f"the training transcripts never hold these characters of dev: {shown}; they cannot be recognised"
        )
