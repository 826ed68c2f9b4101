"""Word and character error rates of a set of utterances, with an interval that says how far to trust them."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechssl.errors import ConfigError, ManifestError

NUM_BOOTSTRAP = 1000  # resamples of an interval
NUM_BINS = 10  # of confidences
_CELLS_PER_BLOCK = 4_000_000  # bootstrap counts held at once: about 32 MB, whatever the number of utterances


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
class ConfidenceBin:
    """Recognised words whose confidence is in [low, high): how many, their mean confidence, the share that is right."""

    low: float
    high: float
    count: int
    confidence: float
    right: float


@dataclass(frozen=True)
class Scaling:
    """What makes confidences probabilities: sigmoid(slope x logit + offset) (Platt 1999). As it stands, no change."""

    slope: float = 1.0
    offset: float = 0.0

    def __call__(self, probability: float) -> float:
        if self == Scaling():
            return probability
        return 0.5 + 0.5 * math.tanh((self.slope * _logit(probability) + self.offset) / 2)


def fit_scaling(confidences: Sequence[float], right: Sequence[bool]) -> Scaling:
    """The scaling under which words that are right or wrong are likeliest, drawn a little towards no change.

    Logistic regression with two parameters by damped Newton steps; the pull, as much as of a few words, keeps it finite
    where few words are known. A slope below 0 would turn confidences round: it is 0 then, and all words are as sure as
    their share that is right. Where all are right or all wrong there is nothing to learn from: no change.
    """
    x, y = np.array([_logit(p) for p in confidences]), np.array(right, dtype=np.float64)
    if not 0 < y.sum() < len(y):
        return Scaling()
    slope, offset = _logistic(np.stack([x, np.ones_like(x)], axis=1), y, np.array([1.0, 0.0]))
    if slope <= 0:
        return Scaling(0.0, *_logistic(np.ones((len(x), 1)), y, np.zeros(1)))
    return Scaling(slope, offset)


def _logistic(inputs: NDArray[np.float64], y: NDArray[np.float64], start: NDArray[np.float64]) -> list[float]:
    """Weights (D,) that make labels ``y`` (N,) likeliest for ``inputs`` (N, D), with a pull towards ``start``."""

    def loss(weights: NDArray[np.float64]) -> float:
        z = inputs @ weights
        return float((np.logaddexp(0, z) - y * z).sum() + ((weights - start) ** 2).sum() / 2)

    weights = start
    for _ in range(50):
        p = 0.5 + 0.5 * np.tanh(inputs @ weights / 2)
        gradient = inputs.T @ (p - y) + weights - start
        step = np.linalg.solve(inputs.T @ (inputs * (p * (1 - p))[:, None]) + np.eye(len(start)), gradient)
        size = 1.0
        while loss(weights - size * step) > loss(weights) and size > 1e-6:
            size /= 2
        weights = weights - size * step
        if np.abs(size * step).max() < 1e-9:
            break
    return [float(w) for w in weights]


def _logit(probability: float) -> float:
    p = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(p / (1 - p))


@dataclass(frozen=True)
class Calibration:
    """How far confidences are from being probabilities.

    Attributes:
        ece: expected calibration error, the mean over words of the distance between their bin's mean confidence and its
            share of right words (Guo et al. 2017, arXiv 1706.04599, equation 5).
        bins: ten of equal width; those without words are left out. The last one holds 1 too.
        scaling: what would make these very confidences probabilities.
    """

    ece: float
    bins: tuple[ConfidenceBin, ...]
    scaling: Scaling

    @property
    def num_words(self) -> int:
        return sum(b.count for b in self.bins)


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
        calibration=_calibration(words, [confidences[i] for i in ids]) if confidences is not None else None,
    )


def _check_ids(references: Mapping[str, str], hypotheses: Mapping[str, str]) -> None:
    missing = sorted(references.keys() - hypotheses.keys())
    extra = sorted(hypotheses.keys() - references.keys())
    for problem, ids in (("no hypothesis", missing), ("a hypothesis but no reference", extra)):
        if ids:
            shown = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
            raise ManifestError(f"{len(ids)} utterances have {problem}: {shown}. Score the same ids on both sides")
    if not references:
        raise ManifestError("no utterances to score: the references are empty")


def _counts(alignment: Sequence[Any]) -> Counts:
    """Counts of one utterance from jiwer's alignment chunks, each a run of one kind."""
    sizes: Counter[str] = Counter()
    for chunk in alignment:
        is_insertion = chunk.type == "insert"
        start, end = (
            (chunk.hyp_start_idx, chunk.hyp_end_idx) if is_insertion else (chunk.ref_start_idx, chunk.ref_end_idx)
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
    for reference, hypothesis, alignment in zip(words.references, words.hypotheses, words.alignments, strict=True):
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


def _calibration(words: Any, confidences: Sequence[Sequence[float]]) -> Calibration | None:
    """Of jiwer's ``WordOutput`` and the confidence of each hypothesised word."""
    right: list[bool] = []
    for hypothesis, alignment in zip(words.hypotheses, words.alignments, strict=True):
        equal = [False] * len(hypothesis)
        for chunk in alignment:
            if chunk.type == "equal":
                equal[chunk.hyp_start_idx : chunk.hyp_end_idx] = [True] * (chunk.hyp_end_idx - chunk.hyp_start_idx)
        right += equal
    values = np.array([value for row in confidences for value in row], dtype=np.float64)
    assert len(values) == len(right), "one confidence for each word of a hypothesis"
    if not len(values):
        return None
    hits = np.array(right, dtype=np.float64)
    place = np.minimum((values * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    bins = []
    for k in range(NUM_BINS):
        if (here := place == k).any():
            mean, share = float(values[here].mean()), float(hits[here].mean())
            bins.append(ConfidenceBin(k / NUM_BINS, (k + 1) / NUM_BINS, int(here.sum()), mean, share))
    ece = sum(b.count * abs(b.confidence - b.right) for b in bins) / len(values)
    return Calibration(ece, tuple(bins), fit_scaling(values.tolist(), right))


def bootstrap_sums(table: NDArray[np.float64], seed: int, num_bootstrap: int) -> NDArray[np.float64]:
    """Sums (num_bootstrap, K) of a table (N, K) over as many rows as it has, drawn with replacement.

    How often each row was drawn is multinomial. The draws depend on N, ``seed`` and ``num_bootstrap`` alone, so
    tables of the same utterances get the same draws.
    """
    n = len(table)
    rng = np.random.default_rng(seed)
    block = max(1, _CELLS_PER_BLOCK // n)
    sums = [
        rng.multinomial(n, np.full(n, 1 / n), size=min(block, num_bootstrap - start)) @ table
        for start in range(0, num_bootstrap, block)
    ]
    return np.concatenate(sums)


def _intervals(
    utterances: Sequence[UtteranceScore], seed: int, num_bootstrap: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """95 % percentile intervals of the word and of the character error rate."""
    units = [(u.words, u.characters) for u in utterances]
    table = np.array([[w.errors, w.reference_length, c.errors, c.reference_length] for w, c in units], dtype=np.float64)
    wer, cer = rates(bootstrap_sums(table, seed, num_bootstrap))
    return percentiles(wer), percentiles(cer)


def rates(sums: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Word and character error rates (...) of (..., 4): errors and reference length in words, then in characters."""
    return sums[..., 0] / np.maximum(sums[..., 1], 1), sums[..., 2] / np.maximum(sums[..., 3], 1)


def percentiles(values: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % (low, high) of bootstrap draws."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
