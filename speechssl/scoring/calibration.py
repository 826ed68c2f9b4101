"""How far the confidences of words are probabilities, and the scaling that makes them so."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NUM_BINS = 10  # of confidences, of equal width

_MAX_NEWTON_STEPS = 50
_SMALLEST_STEP_SIZE = 1e-6  # a step that must be damped more than this finds nothing better
_CONVERGED = 1e-9  # largest change of a weight in the last step


@dataclass(frozen=True)
class Scaling:
    """What makes confidences probabilities: sigmoid(slope x logit + offset) (Platt 1999).

    The default changes nothing.
    """

    slope: float = 1.0
    offset: float = 0.0

    def __call__(self, probability: float) -> float:
        if self == Scaling():
            return probability

        # The sigmoid as a hyperbolic tangent, which cannot overflow.
        return 0.5 + 0.5 * math.tanh((self.slope * _logit(probability) + self.offset) / 2)


@dataclass(frozen=True)
class ConfidenceBin:
    """Recognised words whose confidence is in [low, high).

    Attributes:
        low, high: bounds of the bin.
        count: number of words.
        confidence: their mean confidence.
        right: the share of them that is right.
    """

    low: float
    high: float
    count: int
    confidence: float
    right: float


@dataclass(frozen=True)
class Calibration:
    """How far confidences are from being probabilities.

    Attributes:
        ece: expected calibration error, the mean over words of the distance between their bin's
            mean confidence and its share of right words (Guo et al. 2017, arXiv 1706.04599,
            equation 5).
        bins: ten of equal width; those without words are left out. The last one holds 1 too.
        scaling: what would make these very confidences probabilities.
    """

    ece: float
    bins: tuple[ConfidenceBin, ...]
    scaling: Scaling

    @property
    def num_words(self) -> int:
        return sum(b.count for b in self.bins)


def calibrate(words: Any, confidences: Sequence[Sequence[float]]) -> Calibration | None:
    """Compare the confidences of recognised words with whether these are right.

    Args:
        words: jiwer's ``WordOutput``. A word is right where the alignment finds it equal.
        confidences: of each utterance, one value in 0..1 for each word of the hypothesis.

    Returns:
        None where no word was recognised.
    """
    right = _right_words(words)
    values = np.array([value for row in confidences for value in row], dtype=np.float64)
    assert len(values) == len(right), "one confidence for each word of a hypothesis"
    if not len(values):
        return None

    bins = _bins(values, np.array(right, dtype=np.float64))
    distances = sum(b.count * abs(b.confidence - b.right) for b in bins)
    scaling = fit_scaling(values.tolist(), right)
    return Calibration(distances / len(values), bins, scaling)


def fit_scaling(confidences: Sequence[float], right: Sequence[bool]) -> Scaling:
    """Find the scaling under which words that are right or wrong are likeliest.

    It is drawn a little towards no change, as much as by a few words, which keeps it finite where
    few words are known. A slope below 0 would give sure words the lowest confidences: it is 0 then,
    and all words are as sure as their share that is right. Where all words are right, or all are
    wrong, there is nothing to learn from: no change.
    """
    labels = np.array(right, dtype=np.float64)
    if not 0 < labels.sum() < len(labels):
        return Scaling()

    logits = np.array([_logit(p) for p in confidences])
    ones = np.ones_like(logits)
    inputs = np.stack([logits, ones], axis=1)  # (N, 2): of the slope and of the offset
    slope, offset = _fit_logistic(inputs, labels, np.array([1.0, 0.0]))
    if slope <= 0:
        (offset,) = _fit_logistic(ones[:, None], labels, np.zeros(1))
        return Scaling(0.0, offset)

    return Scaling(slope, offset)


def _right_words(words: Any) -> list[bool]:
    """Whether each word of all hypotheses, one after another, equals the reference's."""
    right: list[bool] = []
    for hypothesis, alignment in zip(words.hypotheses, words.alignments, strict=True):
        is_equal = [False] * len(hypothesis)

        for chunk in alignment:
            if chunk.type == "equal":
                num_words = chunk.hyp_end_idx - chunk.hyp_start_idx
                is_equal[chunk.hyp_start_idx : chunk.hyp_end_idx] = [True] * num_words

        right += is_equal

    return right


def _bins(values: Array, right: Array) -> tuple[ConfidenceBin, ...]:
    """Sort words (N,) by their confidence into bins; those without words are left out."""
    # A confidence of 1 belongs to the last bin.
    places = np.minimum((values * NUM_BINS).astype(np.int64), NUM_BINS - 1)

    bins = []
    for k in range(NUM_BINS):
        here = places == k
        if not here.any():
            continue

        low = k / NUM_BINS
        high = (k + 1) / NUM_BINS
        confidence = float(values[here].mean())
        share = float(right[here].mean())
        bins.append(ConfidenceBin(low, high, int(here.sum()), confidence, share))

    return tuple(bins)


def _fit_logistic(inputs: Array, labels: Array, start: Array) -> list[float]:
    """Fit a logistic regression by Newton steps, each halved until it no longer raises the loss.

    loss = sum of (log(1 + exp(z)) - y z) + |w - start|^2 / 2,  z = inputs w

    Args:
        inputs: (N, D).
        labels: y, (N,), 0 or 1.
        start: (D,), the weights that the search starts from and is drawn towards.

    Returns:
        The weights w, D of them.
    """

    def loss(weights: Array) -> float:
        z = inputs @ weights
        surprise = (np.logaddexp(0, z) - labels * z).sum()
        pull = ((weights - start) ** 2).sum() / 2
        return float(surprise + pull)

    weights = start
    for _ in range(_MAX_NEWTON_STEPS):
        p = 0.5 + 0.5 * np.tanh(inputs @ weights / 2)
        gradient = inputs.T @ (p - labels) + weights - start
        # The pull adds the identity, with which the curvature can always be inverted.
        variance = p * (1 - p)
        curvature = inputs.T @ (inputs * variance[:, None]) + np.eye(len(start))
        step = np.linalg.solve(curvature, gradient)

        size = 1.0
        before = loss(weights)
        while loss(weights - size * step) > before and size > _SMALLEST_STEP_SIZE:
            size /= 2

        weights = weights - size * step
        if np.abs(size * step).max() < _CONVERGED:
            break

    return [float(w) for w in weights]


def _logit(probability: float) -> float:
    """Return log(p / (1 - p)), finite for 0 and 1 too."""
    p = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(p / (1 - p))
