"""Word and character error rates of a set of utterances, with intervals."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import starmap
from typing import Any, Literal

import numpy as np

from speechssl.errors import ConfigError, ManifestError
from speechssl.scoring.bootstrap import NUM_BOOTSTRAP, bootstrap_sums, percentiles, rates
from speechssl.scoring.calibration import Calibration, calibrate

# What the words of a text are: words, or the phones of a recogniser without a word search.
Unit = Literal["word", "phone"]
RATE_NAMES: dict[Unit, str] = {"word": "WER", "phone": "PER"}

# Bounds (low, high) between which 95 % of the resampled rates lie.
Interval = tuple[float, float]


@dataclass(frozen=True)
class Counts:
    """The edits that turn the hypothesis into the reference, in words or in characters."""

    hits: int
    substitutions: int
    insertions: int
    deletions: int

    @property
    def errors(self) -> int:
        return self.substitutions + self.insertions + self.deletions

    @property
    def reference_length(self) -> int:
        return self.hits + self.substitutions + self.deletions

    @property
    def exact_rate(self) -> Fraction:
        """Errors per reference unit, which may exceed 1.

        An empty reference counts as length one (jiwer's rule), so the rate is always finite: 0 when
        nothing was inserted, else the number of insertions.
        """
        return Fraction(self.errors, max(self.reference_length, 1))

    @property
    def rate(self) -> float:
        """``exact_rate``, rounded."""
        return float(self.exact_rate)


@dataclass(frozen=True)
class UtteranceScore:
    """One utterance: its texts, white space collapsed, and its counts."""

    utterance_id: str
    reference: str
    hypothesis: str
    words: Counts
    characters: Counts

    @property
    def wer(self) -> float:
        return self.words.rate

    @property
    def cer(self) -> float:
        return self.characters.rate

    def as_dict(self, unit: Unit = "word") -> dict[str, Any]:
        """JSON-ready row; of phones without characters."""
        texts = {
            "utterance_id": self.utterance_id,
            "reference": self.reference,
            "hypothesis": self.hypothesis,
        }
        if unit == "phone":
            return texts | {"phones": asdict(self.words), "per": self.words.rate}

        counts = {"words": asdict(self.words), "characters": asdict(self.characters)}
        return texts | counts | {"wer": self.wer, "cer": self.cer}


@dataclass(frozen=True)
class Confusion:
    """A word error and how often it happened.

    An empty hypothesis is a deletion, an empty reference an insertion.
    """

    reference: str
    hypothesis: str
    count: int


@dataclass(frozen=True)
class Score:
    """Rates of a corpus: the sum of errors over the sum of reference words or characters.

    It is never a mean of rates.

    Attributes:
        words, characters: counts over all utterances; spaces between words are characters too.
        wer_interval, cer_interval: 95 % bootstrap interval (low, high) over utterances.
        utterances: one row each, sorted by id.
        all_confusions: every word error, most frequent first.
        calibration: of the words' confidences, where these are known and a word was recognised.
        raw: the same texts compared as they stand, under no normaliser, where that was asked for.
        unit: "phone" where the words of the texts are phones: then ``wer`` is the phone error rate,
            and ``cer``, of the letters of their names, says nothing.
    """

    words: Counts
    characters: Counts
    wer_interval: Interval
    cer_interval: Interval
    utterances: tuple[UtteranceScore, ...]
    all_confusions: tuple[Confusion, ...]
    calibration: Calibration | None = None
    raw: "Score | None" = None
    unit: Unit = "word"

    @property
    def wer(self) -> float:
        return self.words.rate

    @property
    def cer(self) -> float:
        return self.characters.rate

    @property
    def sentence_error_rate(self) -> float:
        """Share of utterances with at least one word error."""
        num_wrong = sum(u.words.errors > 0 for u in self.utterances)
        return num_wrong / len(self.utterances)

    def confusions(self, top: int = 20) -> list[Confusion]:
        """The ``top`` most frequent word errors; ties in alphabetical order."""
        return list(self.all_confusions[:top])

    def worst(self, n: int) -> list[UtteranceScore]:
        """The ``n`` utterances with most word errors, which move the corpus rate most.

        Ties are ordered by rate, the highest first, and then by id.
        """

        def worst_first(u: UtteranceScore) -> tuple[int, float, str]:
            return -u.words.errors, -u.wer, u.utterance_id

        return sorted(self.utterances, key=worst_first)[:n]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready summary, without the rows of the utterances; of phones without characters."""
        table: dict[str, Any] = {
            "sentence_error_rate": self.sentence_error_rate,
            "num_utterances": len(self.utterances),
        }

        if self.unit == "phone":
            table |= {
                "per": self.words.rate,
                "per_interval": list(self.wer_interval),
                "num_phones": self.words.reference_length,
                "phones": asdict(self.words),
            }
        else:
            table |= {
                "wer": self.wer,
                "wer_interval": list(self.wer_interval),
                "cer": self.cer,
                "cer_interval": list(self.cer_interval),
                "num_words": self.words.reference_length,
                "num_characters": self.characters.reference_length,
                "words": asdict(self.words),
                "characters": asdict(self.characters),
            }

        if self.calibration:
            table["calibration"] = asdict(self.calibration)
        if self.raw:
            table["raw"] = self.raw.as_dict()

        return table


def score(
    references: Mapping[str, str],
    hypotheses: Mapping[str, str],
    confidences: Mapping[str, Sequence[float]] | None = None,
    *,
    unit: Unit = "word",
    part: Callable[[str], list[str]] = str.split,
    seed: int = 0,
    num_bootstrap: int = NUM_BOOTSTRAP,
) -> Score:
    """Compare hypotheses with references, utterance by utterance.

    Texts are taken as they are: normalise them first. The interval resamples utterances, so it
    takes them as independent: with few speakers it is too narrow. It says nothing about other
    speakers or recordings.

    Args:
        references, hypotheses: text by utterance id; the same ids in both. Words are separated by
            white space.
        confidences: 0..1, of each part of each hypothesis, which is a word unless ``part`` says
            otherwise. It is right where the alignment finds it equal.
        unit: what the words of the texts are.
        part: parts a text into what has a confidence and is confused with others: characters in
            scripts without spaces between words.
        seed: of the bootstrap; equal inputs and seed give equal intervals, in whatever order the
            mappings are.
        num_bootstrap: number of resamples, at least 1.

    Raises:
        ManifestError: ids are missing or extra, or there is nothing to score.
        ConfigError: ``num_bootstrap`` is below 1.

    Alignment: jiwer's Python API. Checked against a brute-force edit distance in test_score.py.
    """
    import jiwer

    if num_bootstrap < 1:
        raise ConfigError(f"num_bootstrap must be at least 1, not {num_bootstrap}")
    _check_ids(references, hypotheses)

    ids = sorted(references)
    # jiwer splits at single spaces only, so other white space is made one first.
    reference_lines = _in_order(references, ids)
    hypothesis_lines = _in_order(hypotheses, ids)
    words = jiwer.process_words(reference_lines, hypothesis_lines)
    characters = jiwer.process_characters(reference_lines, hypothesis_lines)

    rows = zip(
        ids,
        reference_lines,
        hypothesis_lines,
        map(_counts, words.alignments),
        map(_counts, characters.alignments),
        strict=True,
    )
    utterances = tuple(starmap(UtteranceScore, rows))
    wer_interval, cer_interval = _intervals(utterances, seed, num_bootstrap)

    parts = words
    if part is not str.split:
        parts = jiwer.process_words(
            [" ".join(part(line)) for line in reference_lines],
            [" ".join(part(line)) for line in hypothesis_lines],
        )

    calibration = None
    if confidences is not None:
        in_order = [confidences[utterance_id] for utterance_id in ids]
        calibration = calibrate(parts, in_order)

    return Score(
        words=_total([u.words for u in utterances]),
        characters=_total([u.characters for u in utterances]),
        wer_interval=wer_interval,
        cer_interval=cer_interval,
        utterances=utterances,
        all_confusions=_confusions(parts),
        calibration=calibration,
        unit=unit,
    )


def _in_order(texts: Mapping[str, str], ids: Sequence[str]) -> list[str]:
    """List texts in the order of ``ids``, with one space between words and none at the ends."""
    lines = []
    for utterance_id in ids:
        words = texts[utterance_id].split()
        lines.append(" ".join(words))

    return lines


def _check_ids(references: Mapping[str, str], hypotheses: Mapping[str, str]) -> None:
    _refuse(references.keys() - hypotheses.keys(), "no hypothesis")
    _refuse(hypotheses.keys() - references.keys(), "a hypothesis but no reference")
    if not references:
        raise ManifestError("no utterances to score: the references are empty")


def _refuse(ids: Set[str], problem: str) -> None:
    """Raise an error that names the first few of the utterances that have a problem."""
    if not ids:
        return

    first_few = sorted(ids)[:3]
    shown = ", ".join(first_few)
    if len(ids) > len(first_few):
        shown += ", ..."
    raise ManifestError(
        f"{len(ids)} utterances have {problem}: {shown}. Score the same ids on both sides"
    )


def _counts(alignment: Sequence[Any]) -> Counts:
    """Count one utterance from jiwer's alignment chunks, each a run of one kind."""
    sizes: Counter[str] = Counter()
    for chunk in alignment:
        if chunk.type == "insert":
            size = chunk.hyp_end_idx - chunk.hyp_start_idx
        else:
            size = chunk.ref_end_idx - chunk.ref_start_idx
        sizes[chunk.type] += size

    return Counts(
        hits=sizes["equal"],
        substitutions=sizes["substitute"],
        insertions=sizes["insert"],
        deletions=sizes["delete"],
    )


def _intervals(
    utterances: Sequence[UtteranceScore], seed: int, num_bootstrap: int
) -> tuple[Interval, Interval]:
    """Compute 95 % percentile intervals of the word and of the character error rate."""
    rows = []
    for u in utterances:
        words = (u.words.errors, u.words.reference_length)
        characters = (u.characters.errors, u.characters.reference_length)
        rows.append(words + characters)

    table = np.array(rows, dtype=np.float64)
    sums = bootstrap_sums(table, seed, num_bootstrap)
    wer, cer = rates(sums)
    return percentiles(wer), percentiles(cer)


def _total(counts: Sequence[Counts]) -> Counts:
    """Add the counts of all utterances, field by field."""
    hits = 0
    substitutions = 0
    insertions = 0
    deletions = 0
    for c in counts:
        hits += c.hits
        substitutions += c.substitutions
        insertions += c.insertions
        deletions += c.deletions

    return Counts(hits, substitutions, insertions, deletions)


def _confusions(words: Any) -> tuple[Confusion, ...]:
    """Count the word errors of jiwer's ``WordOutput``."""
    found: Counter[tuple[str, str]] = Counter()
    sides = zip(words.references, words.hypotheses, words.alignments, strict=True)
    for reference, hypothesis, alignment in sides:
        for chunk in alignment:
            said = reference[chunk.ref_start_idx : chunk.ref_end_idx]
            heard = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]

            if chunk.type == "substitute":
                found.update(zip(said, heard, strict=True))
            elif chunk.type == "delete":
                found.update((word, "") for word in said)
            elif chunk.type == "insert":
                found.update(("", word) for word in heard)

    confusions = []
    for (said_word, heard_word), count in found.items():
        confusion = Confusion(said_word, heard_word, count)
        confusions.append(confusion)

    def most_frequent_first(c: Confusion) -> tuple[int, str, str]:
        return -c.count, c.reference, c.hypothesis

    return tuple(sorted(confusions, key=most_frequent_first))
