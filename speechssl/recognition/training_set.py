"""Which utterances a recogniser learns from: those with a text that their frames can hold."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from speechssl.config import Table
from speechssl.data.dataset import Dataset, choose_positions
from speechssl.decoding.greedy import min_ctc_frames
from speechssl.errors import ConfigError
from speechssl.lexicon.tokenizer import make_tokenizer
from speechssl.recognition.model import CtcModel
from speechssl.recognition.pseudo_labels import Label, read_labels, with_labels
from speechssl.recognition.settings import FinetuneSettings
from speechssl.runtime.ranks import log_once
from speechssl.storage.json_text import json_line
from speechssl.text.normalise import normalise
from speechssl.text.tokenizer import Tokenizer

# Files in the run folder: the utterances that are left out, and the transcripts that are learned
# from, a line each, for a language model that knows no others.
SKIPPED = "skipped.jsonl"
TEXTS = "texts.txt"
# Share of the training utterances that may hold a word without a pronunciation. More of them are
# worth a better lexicon, which is quickly made.
MAX_UNSPELLED = 0.1
# Words and characters that a line of the log names.
NUM_SHOWN = 20
# Share of the training utterances that may be too long for their frames. More of them mean that
# the frame rate or the transcripts are wrong.
MAX_SKIPPED = 0.05


@dataclass(frozen=True)
class TrainingSet:
    """What a recogniser learns from.

    Attributes:
        dataset: the utterances, each with a text.
        texts: the normalised transcripts, without labels.
        tokenizer: trained on ``texts``, or with a pronunciation lexicon.
        labels: how many labels are among the texts, and their digest; None without labels.
    """

    dataset: Dataset
    texts: list[str]
    tokenizer: Tokenizer
    labels: Table | None = None


def choose_training_set(
    train: Dataset, dev: Dataset, settings: FinetuneSettings, labels: Path | None, keep: float
) -> TrainingSet:
    """Choose the utterances with a transcript, add those with a label, and train the tokenizer.

    Args:
        train: the chunks of the split train.
        dev: those of the split dev, for whose words a lexicon is made too.
        labels: file of labels for chunks without a transcript.
        keep: share of the usable labels to take, the most confident.

    Raises:
        ConfigError: no chunk has a transcript that says anything, or no label can be used.
        ManifestError: ``labels`` is no file of labels.
    """
    positions = _transcribed_positions(train, settings, has_labels=labels is not None)
    texts = [normalise(text_of(train, position), settings.normaliser) for position in positions]
    heard = [] if labels is None else read_labels(labels)

    other_texts = [text_of(dev, position) for position in range(len(dev))]
    other_texts += [one.text for one in heard]
    normalised = [normalise(text, settings.normaliser) for text in other_texts]
    tokenizer = make_tokenizer(settings.tokenizer, texts, normalised, settings.normaliser)

    if labels is None:
        return TrainingSet(train.subset(positions), texts, tokenizer)

    def usable(text: str) -> bool:
        normalised = normalise(text, settings.normaliser)
        return bool(normalised) and not tokenizer.has_unknown(normalised)

    dataset, used, unused = with_labels(train, positions, heard, usable, keep)

    left_out = ", ".join(f"{count} {reason}" for reason, count in unused.items())
    not_from = f"; not from {left_out}" if left_out else ""
    log_once(f"{len(used)} labels are learned from{not_from}")

    content = json.dumps(sorted(_identity(one) for one in used))
    digest = hashlib.sha256(content.encode()).hexdigest()
    return TrainingSet(dataset, texts, tokenizer, {"count": len(used), "digest": digest})


def _identity(label: Label) -> tuple[str | int | float, ...]:
    """Give what decides how a label is learned; labels of older files have no stability."""
    identity = (label.id, label.crc32, label.text)
    return identity if label.stability == 1 else (*identity, label.stability)


def _transcribed_positions(
    train: Dataset, settings: FinetuneSettings, has_labels: bool
) -> NDArray[np.int64]:
    """Find the chunks whose transcript says something; of these, the chosen minutes."""
    spoken: list[int] = []
    empty: list[int] = []
    num_without = 0

    for position in range(len(train)):
        _, text = train.id_text(position)
        if text is None:
            num_without += 1
        elif normalise(text, settings.normaliser):
            spoken.append(position)
        else:
            empty.append(position)

    if empty:
        name, text = train.id_text(empty[0])
        log_once(
            f"{len(empty)} transcripts hold nothing that {settings.normaliser} keeps "
            f"(first: {text!r} of {name}): they teach nothing"
        )

    if not spoken:
        raise ConfigError(
            "no chunk of train has a transcript that says anything: give a store with some"
        )

    if num_without and not has_labels:
        log_once(
            f"{num_without} of {len(train)} chunks have no transcript: "
            "without --labels they teach nothing"
        )

    positions = np.array(spoken, dtype=np.int64)
    if settings.minutes:
        chosen = choose_positions(train.subset(positions), settings.minutes, settings.train.seed)
        positions = positions[chosen]
    return positions


def text_of(dataset: Dataset, position: int) -> str:
    """Give the transcript of an utterance.

    Raises:
        ConfigError: it has none.
    """
    utterance_id, text = dataset.id_text(position)
    if text is None:
        raise ConfigError(
            f"utterance {utterance_id} has no transcript: fine-tune on a labelled store"
        )
    return text


def leave_out_unspelled(train: Dataset, model: CtcModel) -> tuple[Dataset, str]:
    """Leave out the utterances with a word that the tokenizer's lexicon lacks.

    Returns:
        the others, and a JSON line for each that is left out.

    Raises:
        ConfigError: that are more than 10 %.
    """
    spelled: list[int] = []
    lines: list[str] = []
    all_unknown: set[str] = set()

    for position in range(len(train)):
        text = normalise(text_of(train, position), model.normaliser)
        unknown = model.tokenizer.unknown(text)
        all_unknown |= unknown
        if unknown:
            name, _ = train.id_text(position)
            lines.append(json_line({"id": name, "unknown": sorted(unknown)}))
        else:
            spelled.append(position)

    if lines:
        message = (
            f"{len(all_unknown)} {model.tokenizer.unknown_kind} in {len(lines)} of {len(train)} "
            f"transcripts cannot be spelled: {_first_few(all_unknown)}"
        )
        remedy = "speechssl lexicon extend finds pronunciations"
        if len(lines) > MAX_UNSPELLED * len(train):
            raise ConfigError(f"{message}: {remedy}, or check the normaliser and the language")
        log_once(f"{message}; these utterances are left out, see {SKIPPED}; {remedy}")

    return train.subset(np.array(spelled, dtype=np.int64)), "".join(lines)


def leave_out_too_long(train: Dataset, model: CtcModel) -> tuple[Dataset, str]:
    """Leave out the utterances whose tokens do not fit into their frames, by CTC's exact rule.

    Returns:
        the others, and a JSON line for each that is left out.

    Raises:
        ConfigError: more than 5 % do not fit.
    """
    num_outputs = model.num_outputs(torch.from_numpy(train.input_lengths)).tolist()
    fitting: list[int] = []
    lines: list[str] = []

    for position, available in enumerate(num_outputs):
        needed = min_ctc_frames(model.encode_text(text_of(train, position)))
        if available >= max(1, needed):
            fitting.append(position)
        else:
            name, _ = train.id_text(position)
            row = {"id": name, "frames": available, "needed": needed}
            lines.append(json_line(row))

    if len(lines) > MAX_SKIPPED * len(train):
        raise ConfigError(
            f"{len(lines)} of {len(train)} transcripts are longer than their frames allow "
            f"(first: {lines[0].strip()}): use encoder.subsampling=2, a larger --tokenizer bpe:N, "
            "or check the transcripts"
        )
    if lines:
        log_once(
            f"{len(lines)} utterances left out: transcript longer than its frames, "
            f"see {SKIPPED} in the run folder"
        )
    return train.subset(np.array(fitting, dtype=np.int64)), "".join(lines)


def warn_about_dev(dev: Dataset, model: CtcModel) -> None:
    """Log which transcripts of dev no recogniser with this tokenizer can get right."""
    texts = [normalise(text_of(dev, position), model.normaliser) for position in range(len(dev))]

    num_empty = texts.count("")
    if num_empty:
        log_once(
            f"{num_empty} of {len(texts)} transcripts of dev hold nothing: "
            "whatever is recognised there counts as inserted"
        )

    unknown: set[str] = set()
    for text in texts:
        unknown |= model.tokenizer.unknown(text)
    if unknown:
        log_once(
            f"{len(unknown)} {model.tokenizer.unknown_kind} of dev cannot be spelled, "
            f"and so not be recognised: {_first_few(unknown)}"
        )


def _first_few(unknown: set[str]) -> str:
    """Show characters or words, sorted, and dots where there are more."""
    shown = sorted(unknown)[:NUM_SHOWN]
    dots = ["..."] if len(unknown) > NUM_SHOWN else []
    return " ".join(shown + dots)
