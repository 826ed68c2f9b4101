"""How far the confidences of words are probabilities, and the scaling that makes them so."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_BINS = 10  # of confidences


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


def _logistic(
    inputs: NDArray[np.float64], y: NDArray[np.float64], start: NDArray[np.float64]
) -> list[float]:
    """Weights (D,) that make labels ``y`` (N,) likeliest for ``inputs`` (N, D), with a pull towards ``start``."""

    def loss(weights: NDArray[np.float64]) -> float:
        z = inputs @ weights
        return float((np.logaddexp(0, z) - y * z).sum() + ((weights - start) ** 2).sum() / 2)

    weights = start
    for _ in range(50):
        p = 0.5 + 0.5 * np.tanh(inputs @ weights / 2)
        gradient = inputs.T @ (p - y) + weights - start
        step = np.linalg.solve(
            inputs.T @ (inputs * (p * (1 - p))[:, None]) + np.eye(len(start)), gradient
        )
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


def calibrate(words: Any, confidences: Sequence[Sequence[float]]) -> Calibration | None:
    """Of jiwer's ``WordOutput`` and the confidence of each hypothesised word."""
    right: list[bool] = []
    for hypothesis, alignment in zip(words.hypotheses, words.alignments, strict=True):
        equal = [False] * len(hypothesis)
        for chunk in alignment:
            if chunk.type == "equal":
                equal[chunk.hyp_start_idx : chunk.hyp_end_idx] = [True] * (
                    chunk.hyp_end_idx - chunk.hyp_start_idx
                )
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
            bins.append(
                ConfidenceBin(k / NUM_BINS, (k + 1) / NUM_BINS, int(here.sum()), mean, share)
            )
    ece = sum(b.count * abs(b.confidence - b.right) for b in bins) / len(values)
    return Calibration(ece, tuple(bins), fit_scaling(values.tolist(), right))
