"""Self-training: a recogniser labels audio without transcripts, for fine-tuning to learn from."""

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
from speechssl.decoding.spoken_units import joined
from speechssl.errors import ConfigError, ManifestError
from speechssl.recognition.decoders import (
    CtcDecoder,
    Spoken,
    emissions,
    greedy_decoder,
    recognise,
)
from speechssl.recognition.defaults import BATCH_SECONDS, KEEP
from speechssl.recognition.model import CtcModel
from speechssl.storage.json_text import json_line
from speechssl.text.word_spaces import are_without_word_spaces

# A label counts for as much as it can be trusted: its stability, but at least this, to this power.
MIN_STABILITY = 0.05
TRUST_POWER = 1.5
# The smallest probability whose logarithm is taken.
MIN_PROBABILITY = 1e-12


@dataclass(frozen=True)
class Label:
    """What was heard in a chunk.

    Attributes:
        id: of the chunk in its store.
        crc32: of the array that the store holds of it. A recording of the same name with other
            samples is another one.
        text: the words; empty where nothing was heard.
        confidence: geometric mean over the letters of the probability that the words are right;
            0 where nothing was heard.
        made_by: digest of the model and the language model that heard it.
        stability: share of the words that a language model of more weight leaves as they are, or of
            the characters in scripts without spaces between words; 1 where it was not tried.
    """

    id: str
    crc32: int
    text: str
    confidence: float
    made_by: str = ""
    stability: float = 1.0

    @property
    def weight(self) -> float:
        """How much the label counts beside a transcript, whose weight is 1."""
        return float(max(self.stability, MIN_STABILITY) ** TRUST_POWER)


def label(
    model: CtcModel,
    dataset: Dataset,
    path: Path,
    made_by: str = "",
    decoder: CtcDecoder | None = None,
    second_decoder: CtcDecoder | None = None,
    batch_seconds: float = BATCH_SECONDS,
    progress: Callable[[float, float], None] | None = None,
) -> list[Label]:
    """Write what is heard in each chunk as a JSON line, as soon as it is known.

    Lines that the file holds already stay, and their chunks are not heard again.

    Args:
        dataset: of one store; its own transcripts are not looked at.
        made_by: what tells the model and its decoder from others, such as a digest.
        decoder: from log-probabilities to words; None decodes greedily. A language model makes
            words of letters that are half right.
        second_decoder: another one for the same log-probabilities; its texts tell how stable those
            of ``decoder`` are. None leaves that open.
        progress: called with the hours done and the hours in all.

    Returns:
        all labels that the file holds now.

    Raises:
        ConfigError: several stores, features that are not the model's, or a file that another
            model wrote.
        ManifestError: the file holds something else than labels.
    """
    if len(dataset.stores) != 1:
        raise ConfigError(f"{len(dataset.stores)} stores: label one at a time")
    check_features(dataset, model.encoder.config.features)
    decoder = decoder or greedy_decoder(model)

    labels = _continued(path, made_by)
    known = {(one.id, one.crc32) for one in labels}
    keys = [dataset.key(position) for position in range(len(dataset))]
    missing = [position for position, key in enumerate(keys) if key not in known]
    rest = dataset.subset(np.array(missing, dtype=np.int64))

    checksums = dict(keys)
    samples_an_hour = 3600 * dataset.features.sample_rate_hz
    hours = dict(zip(checksums, (dataset.num_samples / samples_an_hour).tolist(), strict=True))
    total_h = dataset.seconds / 3600
    done_h = total_h - rest.seconds / 3600

    with path.open("ab") as file:
        for batch in emissions(model, rest, batch_seconds):
            heard = recognise(model, [batch], decoder)
            heard_again = recognise(model, [batch], second_decoder) if second_decoder else heard

            for name, words in heard.items():
                text = joined(words)
                stability = _stability(text, joined(heard_again[name]))
                confidence = _confidence(words)
                one = Label(name, checksums[name], text, confidence, made_by, stability)
                file.write(json_line(asdict(one)).encode())
                labels.append(one)
                done_h += hours[name]

            file.flush()
            if progress:
                progress(done_h, total_h)

    return labels


def _stability(text: str, other: str) -> float:
    """Give the share of the words of a text that another one leaves as they are, 0..1.

    In scripts without spaces between words, it is the share of the characters.
    """
    import jiwer

    if not text:
        return 1.0

    rate = jiwer.cer if are_without_word_spaces([text]) else jiwer.wer
    return round(max(0.0, 1 - rate(text, other)), 4)


def _confidence(words: Sequence[Spoken]) -> float:
    """Give the geometric mean of the words' probabilities over their letters.

    Per letter it means the same for a word of one letter and for a text without spaces. How well
    it ranks labels is measured in docs/experiments/049.
    """
    num_letters = sum(len(word.text) for word in words)
    if not num_letters:
        return 0.0

    logs = [math.log(max(word.probability, MIN_PROBABILITY)) for word in words]
    # The last bits depend on threads and batches, which must not decide the order of labels.
    return round(math.exp(sum(logs) / num_letters), 4)


def _continued(path: Path, made_by: str) -> list[Label]:
    """Read the labels of a file that goes on, and cut off a line that a kill left unfinished."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        return []
    if not path.is_file():
        raise ConfigError(f"{path} is no file: give a file as --out")

    content = path.read_bytes()
    whole_lines = content[: content.rfind(b"\n") + 1]
    labels = _parse(path, whole_lines) if whole_lines else []
    if not labels and not _is_cut_off(content):
        # Somebody else's file of one line, unless its one label lacks its line end only.
        _parse(path, content)

    if any(one.made_by != made_by for one in labels):
        raise ConfigError(
            f"{path} holds labels of another model or language model: give a new file, or delete it"
        )
    if whole_lines != content:
        os.truncate(path, len(whole_lines))
    return labels


def _is_cut_off(line: bytes) -> bool:
    """Whether a line may be what a kill left of a label; nothing may be left as well."""
    start = b'{"id": "'
    begins_so = line.startswith(start) or start.startswith(line)
    return begins_so and not line.endswith(b"}")


def read_labels(path: Path) -> list[Label]:
    """Read what ``label`` wrote.

    Raises:
        ManifestError: there is no such file, or a line is no label; the message names the line.
    """
    try:
        return _parse(path, path.read_bytes())
    except OSError as error:
        raise ManifestError(f"{path} cannot be read as labels: {error}") from error


def _parse(path: Path, content: bytes) -> list[Label]:
    lines = content.removesuffix(b"\n").split(b"\n")
    labels = []

    for number, line in enumerate(lines, start=1):
        try:
            one = Label(**json.loads(line))
            kinds = [type(value) for value in asdict(one).values()]
            if kinds != [str, int, str, float, str, float]:
                raise TypeError("a value is of another kind")
        except (ValueError, TypeError, RecursionError) as error:
            names = ", ".join(field.name for field in fields(Label))
            raise ManifestError(
                f"{path}:{number} is no label, JSON of {names} as speechssl label writes it"
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
    """Join the chunks that have a transcript and those whose label takes the place of one.

    Args:
        transcribed: positions of the chunks with a transcript.
        usable: whether a recogniser can learn a text.
        keep: share of the usable labels to take, the most confident.

    Returns:
        the chunks, the labels that are used, and by reason how many are not.

    Raises:
        ConfigError: ``keep`` is no share, or no label can be used.
    """
    if not 0 < keep <= 1:
        raise ConfigError(f"--keep {keep} is no share: allowed is above 0 up to 1")

    found, unused = _usable_labels(dataset, set(transcribed.tolist()), labels, usable)

    by_confidence = sorted(found, key=lambda place: (-found[place].confidence, found[place].id))
    best = by_confidence[: math.ceil(keep * len(found))]
    if not best:
        reasons = ", ".join(f"{count} {reason}" for reason, count in unused.items())
        raise ConfigError(
            f"no label is of use ({reasons}): give the stores that they are of, and --minutes "
            "where these have transcripts of their own"
        )
    if len(best) < len(found):
        unused["less sure"] = len(found) - len(best)

    texts = {place: found[place].text for place in best}
    weights = {place: found[place].weight for place in best}
    positions = np.sort(np.array([*transcribed.tolist(), *best], dtype=np.int64))
    joined = dataset.with_texts(texts, weights).subset(positions)
    return joined, [found[place] for place in best], unused


def _usable_labels(
    dataset: Dataset,
    transcribed: set[int],
    labels: Iterable[Label],
    usable: Callable[[str], bool],
) -> tuple[dict[int, Label], Counter[str]]:
    """Find the position of each label that can be used; count the others by reason."""
    place_of = {dataset.key(position): position for position in range(len(dataset))}
    found: dict[int, Label] = {}
    unused: Counter[str] = Counter()

    for one in labels:
        place = place_of.get((one.id, one.crc32))
        if place is None:
            unused["of chunks that are not here"] += 1
        elif place in transcribed:
            unused["of chunks with a transcript"] += 1
        elif not one.text:
            unused["empty"] += 1
        elif not usable(one.text):
            unused["with characters that no transcript has"] += 1
        else:
            found[place] = one

    return found, unused
