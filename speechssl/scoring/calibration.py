"""How far the confidences of words are probabilities, and the scaling that makes them so."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Values in double precision: (N,) or (N, D) of words, (D,) of weights.
Array = NDArray[np.float64]

NUM_BINS = 10  # of confidences, of equal width

_MAX_NEWTON_STEPS = 50
_SMALLEST_STEP_SIZE = 1e-6  # a step that must be damped more than this finds nothing better
_CONVERGED = 1e-9  # largest change of a weight in the last step
_CLOSEST = 1e-6  # to 0 and to 1, of a probability whose logit is taken


@dataclass(frozen=True)
class Scaling:
    """What makes confidences probabilities: sigmoid(slope x logit + offset) (Platt 1999).

    The default changes nothing.
    """

    slope: float = 1.0
    offset: float = 0.0

    @property
    def is_raw(self) -> bool:
        """Whether confidences stay as the recogniser gives them: no scaling could be found."""
        return self == Scaling()

    def __call__(self, probability: float) -> float:
        if self.is_raw:
            return probability

        logit = self.slope * _logit(probability) + self.offset
        # The sigmoid as a hyperbolic tangent, which cannot overflow.
        return 0.5 + 0.5 * math.tanh(logit / 2)


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
    values: list[float] = []
    for row in confidences:
        values.extend(map(float, row))

    num_words = len(values)
    assert num_words == len(right), "one confidence for each word of a hypothesis"
    if num_words == 0:
        return None

    bins = _bins(values, right)
    distances = [b.count * abs(b.confidence - b.right) for b in bins]
    ece = sum(distances) / num_words
    scaling = fit_scaling(values, right)
    return Calibration(ece, bins, scaling)


def fit_scaling(confidences: Sequence[float], right: Sequence[bool]) -> Scaling:
    """Find the scaling under which words that are right or wrong are likeliest.

    It is drawn a little towards no change, as much as by a few words, which keeps it finite where
    few words are known. A slope below 0 would give sure words the lowest confidences: it is 0 then,
    and all words are as sure as their share that is right. Where all words are right, or all are
    wrong, there is nothing to learn from: no change.
    """
    labels = np.array(right, dtype=np.float64)
    num_right = labels.sum()
    if not 0 < num_right < len(labels):
        return Scaling()

    logits = np.array([_logit(p) for p in confidences])
    ones = np.ones_like(logits)
    inputs = np.stack([logits, ones], axis=1)  # (N, 2): of the slope and of the offset
    unchanged = np.array([1.0, 0.0])
    slope, offset = _fit_logistic(inputs, labels, unchanged)
    if slope > 0:
        return Scaling(slope, offset)

    constant = ones[:, None]  # (N, 1): of the offset alone
    no_offset = np.zeros(1)
    (offset,) = _fit_logistic(constant, labels, no_offset)
    return Scaling(0.0, offset)


def _right_words(words: Any) -> list[bool]:
    """Whether each word of all hypotheses, one after another, equals the reference's."""
    right: list[bool] = []
    for hypothesis, alignment in zip(words.hypotheses, words.alignments, strict=True):
        is_equal = [False] * len(hypothesis)

        for chunk in alignment:
            if chunk.type == "equal":
                start = chunk.hyp_start_idx
                end = chunk.hyp_end_idx
                is_equal[start:end] = [True] * (end - start)

        right += is_equal

    return right


def _bins(confidences: Sequence[float], right: Sequence[bool]) -> tuple[ConfidenceBin, ...]:
    """Sort words by their confidence into bins; those without words are left out."""
    values = np.array(confidences, dtype=np.float64)
    is_right = np.array(right, dtype=np.float64)

    places = (values * NUM_BINS).astype(np.int64)
    # A confidence of 1 belongs to the last bin.
    places = np.minimum(places, NUM_BINS - 1)

    bins = []
    for k in range(NUM_BINS):
        here = places == k
        count = int(here.sum())
        if count == 0:
            continue

        low = k / NUM_BINS
        high = (k + 1) / NUM_BINS
        confidence = float(values[here].mean())
        share = float(is_right[here].mean())

        found = ConfidenceBin(low, high, count, confidence, share)
        bins.append(found)

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
        surprises = np.logaddexp(0, z) - labels * z
        squares = (weights - start) ** 2
        total = surprises.sum() + squares.sum() / 2
        return float(total)

    weights = start
    identity = np.eye(len(start))
    for _ in range(_MAX_NEWTON_STEPS):
        z = inputs @ weights
        p = 0.5 + 0.5 * np.tanh(z / 2)
        gradient = inputs.T @ (p - labels) + weights - start

        variance = p * (1 - p)
        weighted = inputs * variance[:, None]
        # The pull towards the start adds the identity, so the curvature can always be inverted.
        curvature = inputs.T @ weighted + identity
        step = np.linalg.solve(curvature, gradient)

        size = 1.0
        before = loss(weights)
        while loss(weights - size * step) > before and size > _SMALLEST_STEP_SIZE:
            size /= 2

        change = size * step
        weights = weights - change
        largest_change = np.abs(change).max()
        if largest_change < _CONVERGED:
            break

    return [float(w) for w in weights]


def _logit(probability: float) -> float:
    """Return log(p / (1 - p)), finite for 0 and 1 too."""
    at_least = max(probability, _CLOSEST)
    p = min(at_least, 1 - _CLOSEST)
    odds = p / (1 - p)
    return math.log(odds)
