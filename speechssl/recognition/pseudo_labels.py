"""Self-training: what a recogniser hears in audio without transcripts, for another fine-tuning to learn from."""

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speechssl.data.dataset import Dataset, check_features
from speechssl.decoding.align import WordSpan
from speechssl.errors import ConfigError, ManifestError
from speechssl.recognition.evaluate import BATCH_SECONDS, CtcDecoder, emissions, recognised
from speechssl.recognition.model import CtcModel
from speechssl.storage.json_text import json_line

KEEP = 0.67  # share of the labels that is learned from


@dataclass(frozen=True)
class Label:
    """What was heard in a chunk.

    Attributes:
        id: of the chunk in its store.
        crc32: of what the store holds of it: a recording of the same name is another one.
        text: empty where nothing was heard.
        confidence: probability of the words, the geometric mean over their letters; 0 of none.
        made_by: what heard it.
    """

    id: str
    crc32: int
    text: str
    confidence: float
    made_by: str = ""


def label(
    model: CtcModel,
    dataset: Dataset,
    path: Path,
    made_by: str = "",
    decoder: CtcDecoder | None = None,
    batch_seconds: float = BATCH_SECONDS,
    progress: Callable[[float, float], None] | None = None,
) -> list[Label]:
    """Write what is heard in each chunk, as a JSON line, as soon as it is known. What the file holds already stays.

    Args:
        dataset: of one store; its own transcripts are not looked at.
        made_by: what tells the model and its decoder from others, such as a digest.
        decoder: log-probabilities to text; greedy if None. A language model makes words of letters that are half right.
        progress: called with hours done and hours in all.

    Returns:
        all that the file holds now.

    Raises:
        ConfigError: several stores, features that are not the model's, or a file that something else made.
        ManifestError: the file holds other things than labels.
    """
    if len(dataset.stores) != 1:
        raise ConfigError(f"{len(dataset.stores)} stores: label one at a time")
    check_features(dataset, model.encoder.config.features)
    labels = _begun(path, made_by)
    known = {(one.id, one.crc32) for one in labels}
    keys = [dataset.key(position) for position in range(len(dataset))]
    rest = dataset.subset(
        np.array([p for p, key in enumerate(keys) if key not in known], dtype=np.int64)
    )
    checksums, samples_an_hour = dict(keys), 3600 * dataset.features.sample_rate_hz
    hours = dict(zip(checksums, (dataset.num_samples / samples_an_hour).tolist(), strict=True))
    done, total = (dataset.seconds - rest.seconds) / 3600, dataset.seconds / 3600
    with path.open("ab") as file:
        for batch in emissions(model, rest, batch_seconds):
            for name, words in recognised(model, [batch], decoder).items():
                text = " ".join(word.text for word in words)
                labels.append(Label(name, checksums[name], text, _confidence(words), made_by))
                file.write(json_line(asdict(labels[-1])).encode())
                done += hours[name]
            file.flush()
            if progress:
                progress(done, total)
    return labels


def _confidence(words: Sequence[WordSpan]) -> float:
    """Per letter: of a word of one letter and of a text without spaces it means the same (ranking: docs/log.md 49)."""
    letters = sum(len(word.text) for word in words)
    if not letters:
        return 0.0
    likelihood = sum(math.log(max(word.probability, 1e-12)) for word in words)
    # Rounded: the last bits depend on threads and batches, which must not decide the order.
    return round(math.exp(likelihood / letters), 4)


def _begun(path: Path, made_by: str) -> list[Label]:
    """The labels in a file that a kill may have cut off inside a line, which is taken away."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    labels = _parse(path, whole) if whole else []
    if any(one.made_by != made_by for one in labels):
        raise ConfigError(
            f"{path} holds labels of another model or language model: give a new file, or delete it"
        )
    if whole != content:
        os.truncate(path, len(whole))
    return labels


def read_labels(path: Path) -> list[Label]:
    """What ``label`` wrote.

    Raises:
        ManifestError: no such file, or a line that is no label; names the line.
    """
    try:
        return _parse(path, path.read_bytes())
    except OSError as error:
        raise ManifestError(f"{path} cannot be read as labels: {error}") from error


def _parse(path: Path, content: bytes) -> list[Label]:
    labels = []
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n"), 1):
        try:
            one = Label(**json.loads(line))
            if [type(value) for value in asdict(one).values()] != [str, int, str, float, str]:
                raise TypeError("a value is of another kind")
        except (ValueError, TypeError, RecursionError) as error:
            wanted = ", ".join(field.name for field in fields(Label))
            raise ManifestError(
                f"{path}:{number} is no label, JSON of {wanted} as speechssl label writes it"
            ) from error
        labels.append(one)
    return labels


def with_labels(
    dataset: Dataset,
    transcribed: NDArray[np.int64],
    labels: Iterable[Label],
    usable: Callable[[str], bool],
    keep: float = KEEP,
) -> tuple[Dataset, list[Label], Counter[str]]:
    """The chunks at ``transcribed`` as they are, and others that have a label, which is their transcript then.

    Args:
        usable: whether a text can be learned.
        keep: share of the labels of use, the most confident.

    Returns:
        the chunks, the labels that are used, and how many are not, by the reason.

    Raises:
        ConfigError: ``keep`` is no share, or no label is of use.
    """
    if not 0 < keep <= 1:
        raise ConfigError(f"--keep {keep} is no share: allowed is above 0 up to 1")
    places, own = (
        {dataset.key(position): position for position in range(len(dataset))},
        set(transcribed.tolist()),
    )
    found, unused = dict[int, Label](), Counter[str]()
    for one in labels:
        place = places.get((one.id, one.crc32))
        if place is None:
            unused["of chunks that are not here"] += 1
        elif place in own:
            unused["of chunks with a transcript"] += 1
        elif not one.text:
            unused["empty"] += 1
        elif not usable(one.text):
            unused["with characters that no transcript has"] += 1
        else:
            found[place] = one
    best = sorted(found, key=lambda place: (-found[place].confidence, found[place].id))[
        : math.ceil(keep * len(found))
    ]
    if not best:
        reasons = ", ".join(f"{count} {reason}" for reason, count in unused.items())
        raise ConfigError(
            f"no label is of use ({reasons}): give the stores that they are of, and --minutes where these have "
            "transcripts of their own"
        )
    if len(found) > len(best):
        unused["less sure"] = len(found) - len(best)
    positions = np.sort(np.array([*own, *best], dtype=np.int64))
    texts = {place: found[place].text for place in best}
    return dataset.with_texts(texts).subset(positions), [found[place] for place in best], unused
