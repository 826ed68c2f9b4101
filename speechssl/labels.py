"""Self-training: what a recogniser hears in audio without transcripts, for another fine-tuning to learn from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speechssl.batching import Dataset
from speechssl.ctc import CtcModel
from speechssl.errors import ConfigError, ManifestError
from speechssl.formats import write_atomic
from speechssl.recognise import BATCH_SECONDS, Decoder, check_features, emissions, recognised


@dataclass(frozen=True)
class Label:
    """What was heard in a chunk.

    Attributes:
        store: the store's digest, as ``Dataset.identity`` has it.
        id: of the chunk in the store.
        confidence: mean over the words of the probability that each is right.
    """

    store: str
    id: str
    text: str
    confidence: float


def label(
    model: CtcModel, dataset: Dataset, decoder: Decoder | None = None, batch_seconds: float = BATCH_SECONDS
) -> list[Label]:
    """What is heard in each chunk, the most confident first; chunks in which nothing is heard are left out.

    Args:
        dataset: of one store; its own transcripts are not looked at.
        decoder: log-probabilities to text; greedy if None. A language model makes words of letters that are half right.

    Raises:
        ConfigError: several stores, or the features are not the model's.
    """
    if len(dataset.stores) != 1:
        raise ConfigError(f"{len(dataset.stores)} stores: label one at a time")
    check_features(model, dataset)
    (store,) = dataset.identity
    heard = recognised(model, emissions(model, dataset, batch_seconds), decoder)
    found = [
        # Rounded: the last bits depend on threads and batches, which must not decide the order.
        Label(store, name, " ".join(w.text for w in words), round(sum(w.probability for w in words) / len(words), 4))
        for name, words in heard.items()
        if words
    ]
    return sorted(found, key=lambda one: (-one.confidence, one.id))


def write_labels(path: Path, labels: Sequence[Label]) -> None:
    """A JSON line for each."""
    write_atomic(path, (json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in labels))


def read_labels(path: Path) -> dict[tuple[str, str], str]:
    """Texts by digest of the store and id of the chunk.

    Raises:
        ManifestError: no such file, or a line that ``write_labels`` does not write.
    """
    texts = {}
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"), 1):
            row = json.loads(line)
            if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in ("store", "id", "text")):
                raise ManifestError(f"{path}:{number}: an object with store, id and text is expected")
            texts[row["store"], row["id"]] = row["text"]
    except (OSError, ValueError, RecursionError) as error:
        raise ManifestError(f"{path} cannot be read as labels: {error}") from error
    return texts


def with_labels(
    dataset: Dataset, transcribed: NDArray[np.int64], texts: Mapping[tuple[str, str], str]
) -> tuple[Dataset, int]:
    """The chunks at ``transcribed`` as they are, and all others that have a label, which is their transcript then.

    Returns:
        the chunks, and how many of them have a label.

    Raises:
        ConfigError: no other chunk has one.
    """
    own = set(transcribed.tolist())
    stores = dataset.identity
    found = {}
    for position in range(len(dataset)):
        text = texts.get((stores[int(dataset.store_of[position])], dataset.record(position).id))
        if position not in own and text is not None:
            found[position] = text
    if not found:
        raise ConfigError(
            "the labels are of no chunk that is not learned from already: give the store that they are of, as it was "
            "then, and --minutes where it has transcripts of its own"
        )
    positions = np.sort(np.array([*own, *found], dtype=np.int64))
    return dataset.with_texts(found).subset(positions), len(found)
