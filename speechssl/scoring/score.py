"""Word and character error rates of a set of utterances, with an interval that says how far to trust them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from speechssl.errors import ConfigError, ManifestError
from speechssl.scoring.bootstrap import NUM_BOOTSTRAP, bootstrap_sums, percentiles, rates
from speechssl.scoring.calibration import Calibration, calibrate


@dataclass(frozen=True)
class Counts:
    """What it takes to turn the hypothesis into the reference, in words or in characters."""

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
    def rate(self) -> float:
        """Errors per reference unit, a fraction that may exceed 1.

        An empty reference counts as length one (jiwer's rule), so the rate is always finite: 0 when nothing was
        inserted, else the number of insertions.
        """
        return self.errors / max(self.reference_length, 1)


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

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready row."""
        return asdict(self) | {"wer": self.wer, "cer": self.cer}


@dataclass(frozen=True)
class Confusion:
    """A word error and how often it happened; an empty hypothesis is a deletion, an empty reference an insertion."""

    reference: str
    hypothesis: str
    count: int


@dataclass(frozen=True)
class Score:
    """Corpus rates: the sum of errors over the sum of reference words (characters), never a mean of rates.

    Attributes:
        words, characters: counts over all utterances; spaces between words are characters too.
        wer_interval, cer_interval: 95 % bootstrap interval (low, high) over utterances.
        utterances: one row each, sorted by id.
        all_confusions: every word error, most frequent first.
        calibration: of the words' confidences, where these are known and there is a word.
        raw: the same texts compared as they stand, under no normaliser, where that was asked.
    """

    words: Counts
    characters: Counts
    wer_interval: tuple[float, float]
    cer_interval: tuple[float, float]
    utterances: tuple[UtteranceScore, ...]
    all_confusions: tuple[Confusion, ...]
    calibration: Calibration | None = None
    raw: "Score | None" = None

    @property
    def wer(self) -> float:
        return self.words.rate

    @property
    def cer(self) -> float:
        return self.characters.rate

    @property
    def sentence_error_rate(self) -> float:
        """Share of utterances with at least one word error."""
        return sum(u.words.errors > 0 for u in self.utterances) / len(self.utterances)

    def confusions(self, top: int = 20) -> list[Confusion]:
        """The ``top`` most frequent word errors; ties in alphabetical order."""
        return list(self.all_confusions[:top])

    def worst(self, n: int) -> list[UtteranceScore]:
        """The ``n`` utterances with most word errors, which are those that move the corpus rate; then by rate, id."""
        return sorted(self.utterances, key=lambda u: (-u.words.errors, -u.wer, u.utterance_id))[:n]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready summary, without the rows of the utterances."""
        return {
            "wer": self.wer,
            "wer_interval": list(self.wer_interval),
            "cer": self.cer,
            "cer_interval": list(self.cer_interval),
            "sentence_error_rate": self.sentence_error_rate,
            "num_utterances": len(self.utterances),
            "num_words": self.words.reference_length,
            "num_characters": self.characters.reference_length,
            "words": asdict(self.words),
            "characters": asdict(self.characters),
            **({"calibration": asdict(self.calibration)} if self.calibration else {}),
            **({"raw": self.raw.as_dict()} if self.raw else {}),
        }


def score(
    references: Mapping[str, str],
    hypotheses: Mapping[str, str],
    confidences: Mapping[str, Sequence[float]] | None = None,
    *,
    seed: int = 0,
    num_bootstrap: int = NUM_BOOTSTRAP,
) -> Score:
    """Compare hypotheses with references, utterance by utterance; texts are taken as they are (normalise first).

    The interval resamples utterances, so it takes them as independent: with few speakers it is too narrow. Over
    different speakers or recordings it says nothing.

    Args:
        references, hypotheses: text by utterance id; the same ids in both. Words are separated by white space.
        confidences: 0..1, of each word of each hypothesis. A word is right where the alignment finds it equal.
        seed: of the bootstrap; equal inputs and seed give equal intervals, in whatever order the mappings are.
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
    reference_lines = [" ".join(references[i].split()) for i in ids]
    hypothesis_lines = [" ".join(hypotheses[i].split()) for i in ids]
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
    utterances = tuple(UtteranceScore(*row) for row in rows)
    wer_interval, cer_interval = _intervals(utterances, seed, num_bootstrap)
    return Score(
        words=_total([u.words for u in utterances]),
        characters=_total([u.characters for u in utterances]),
        wer_interval=wer_interval,
        cer_interval=cer_interval,
        utterances=utterances,
        all_confusions=_confusions(words),
        calibration=calibrate(words, [confidences[i] for i in ids])
        if confidences is not None
        else None,
    )


def _check_ids(references: Mapping[str, str], hypotheses: Mapping[str, str]) -> None:
    missing = sorted(references.keys() - hypotheses.keys())
    extra = sorted(hypotheses.keys() - references.keys())
    for problem, ids in (("no hypothesis", missing), ("a hypothesis but no reference", extra)):
        if ids:
            shown = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
            raise ManifestError(
                f"{len(ids)} utterances have {problem}: {shown}. Score the same ids on both sides"
            )
    if not references:
        raise ManifestError("no utterances to score: the references are empty")


def _counts(alignment: Sequence[Any]) -> Counts:
    """Counts of one utterance from jiwer's alignment chunks, each a run of one kind."""
    sizes: Counter[str] = Counter()
    for chunk in alignment:
        is_insertion = chunk.type == "insert"
        start, end = (
            (chunk.hyp_start_idx, chunk.hyp_end_idx)
            if is_insertion
            else (chunk.ref_start_idx, chunk.ref_end_idx)
        )
        sizes[chunk.type] += end - start
    return Counts(sizes["equal"], sizes["substitute"], sizes["insert"], sizes["delete"])


def _total(counts: Sequence[Counts]) -> Counts:
    return Counts(
        hits=sum(c.hits for c in counts),
        substitutions=sum(c.substitutions for c in counts),
        insertions=sum(c.insertions for c in counts),
        deletions=sum(c.deletions for c in counts),
    )


def _confusions(words: Any) -> tuple[Confusion, ...]:
    """Word errors of jiwer's ``WordOutput``, counted."""
    found: Counter[tuple[str, str]] = Counter()
    for reference, hypothesis, alignment in zip(
        words.references, words.hypotheses, words.alignments, strict=True
    ):
        for chunk in alignment:
            said = reference[chunk.ref_start_idx : chunk.ref_end_idx]
            heard = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
            if chunk.type == "substitute":
                found.update(zip(said, heard, strict=True))
            elif chunk.type == "delete":
                found.update((word, "") for word in said)
            elif chunk.type == "insert":
                found.update(("", word) for word in heard)
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Confusion(said, heard, count) for (said, heard), count in ordered)


def _intervals(
    utterances: Sequence[UtteranceScore], seed: int, num_bootstrap: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """95 % percentile intervals of the word and of the character error rate."""
    units = [(u.words, u.characters) for u in utterances]
    table = np.array(
        [[w.errors, w.reference_length, c.errors, c.reference_length] for w, c in units],
        dtype=np.float64,
    )
    wer, cer = rates(bootstrap_sums(table, seed, num_bootstrap))
    return percentiles(wer), percentiles(cer)
