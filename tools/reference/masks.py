"""Span masks by the book: an exact expectation, a slow sampler, and statistics of any set of masks."""

from collections.abc import Iterable
from math import comb, floor

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def runs(mask: Mask) -> list[int]:
    """Lengths of the runs of masked frames, counted one frame after the other."""
    lengths, current = [], 0
    for masked in [*mask.tolist(), False]:
        if masked:
            current += 1
        elif current:
            lengths.append(current)
            current = 0
    return lengths


def statistics(masks: Iterable[Mask]) -> tuple[float, float]:
    """Masked share of all frames, and the mean length of all runs, of masks taken together."""
    masks = list(masks)
    lengths = [length for mask in masks for length in runs(mask)]
    return sum(lengths) / sum(len(mask) for mask in masks), sum(lengths) / len(lengths)


def sample(num_frames: int, prob: float, length: int, rng: np.random.Generator) -> Mask:
    """One mask: shuffle all places where a span fits, take the first ``prob x num_frames / length`` of them.

    The count is rounded up with the probability of its fraction, so that its expectation is exact.
    """
    wanted = prob * num_frames / length
    count = floor(wanted) + (rng.random() < wanted - floor(wanted))
    mask = np.zeros(num_frames, dtype=bool)
    for start in rng.permutation(num_frames - length + 1)[:count]:
        mask[start : start + length] = True
    return mask


def expectation(num_frames: int, prob: float, length: int) -> tuple[NDArray[np.float64], float]:
    """Probability that each frame is masked, and the expected number of runs, both exact.

    A frame stays free if all spans start at places that do not cover it. A run begins at frame t if t - 1 stays free
    and a span starts at t itself: any other that covers t covers t - 1 too.
    """
    places = num_frames - length + 1
    wanted = prob * num_frames / length
    masked, num_runs = np.zeros(num_frames), 0.0

    def covering(t: int) -> int:
        """Places from which a span covers frame t."""
        return len(range(max(0, t - length + 1), min(t, places - 1) + 1))

    for count, weight in ((floor(wanted), 1 - wanted % 1), (floor(wanted) + 1, wanted % 1)):
        if weight == 0:
            continue
        # Probability that none of ``count`` different places is among so many.
        free = [
            comb(places - among, count) / comb(places, count)
            for among in range(min(length + 1, places) + 1)
        ]
        for t in range(num_frames):
            masked[t] += weight * (1 - free[covering(t)])
            if t < places:
                num_runs += weight * (free[covering(t - 1)] - free[covering(t - 1) + 1])
    return masked, num_runs
