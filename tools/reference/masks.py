"""Span masks by the book: an exact expectation, a slow sampler, statistics of any masks."""

from collections.abc import Iterable
from math import comb, floor

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def runs(mask: Mask) -> list[int]:
    """List the lengths of the runs of masked frames, one frame after the other."""
    lengths = []
    current = 0
    # A frame that is not masked ends the last run.
    for masked in [*mask.tolist(), False]:
        if masked:
            current += 1
        elif current:
            lengths.append(current)
            current = 0
    return lengths


def statistics(masks: Iterable[Mask]) -> tuple[float, float]:
    """Sum up masks taken together: masked share of all frames, and mean length of all runs."""
    masks = list(masks)
    lengths = [length for mask in masks for length in runs(mask)]
    num_frames = sum(len(mask) for mask in masks)
    num_masked = sum(lengths)
    return num_masked / num_frames, num_masked / len(lengths)


def sample(num_frames: int, prob: float, length: int, rng: np.random.Generator) -> Mask:
    """Draw one mask: shuffle all places where a span fits, and take the first of them.

    ``prob x num_frames / length`` are taken. The count is rounded up with the probability of its
    fraction, so that its expectation is exact.
    """
    wanted = prob * num_frames / length
    count = floor(wanted) + (rng.random() < wanted - floor(wanted))

    mask = np.zeros(num_frames, dtype=bool)
    for start in rng.permutation(num_frames - length + 1)[:count]:
        mask[start : start + length] = True
    return mask


def expectation(num_frames: int, prob: float, length: int) -> tuple[NDArray[np.float64], float]:
    """Work out the probability that each frame is masked, and the expected number of runs.

    Both are exact. A frame stays free if all spans start at places that do not cover it. A run
    begins at frame t if t - 1 stays free and a span starts at t itself: any other that covers t
    covers t - 1 too.
    """
    places = num_frames - length + 1
    wanted = prob * num_frames / length

    def covering(t: int) -> int:
        """Count the places from which a span covers frame t."""
        return len(range(max(0, t - length + 1), min(t, places - 1) + 1))

    masked = np.zeros(num_frames)
    num_runs = 0.0
    # The number of spans, rounded down and up, with the probability of each.
    rounded = ((floor(wanted), 1 - wanted % 1), (floor(wanted) + 1, wanted % 1))
    for count, weight in rounded:
        if weight == 0:
            continue

        # By number of places: the probability that none of ``count`` different starts is there.
        most = min(length + 1, places)
        all_choices = comb(places, count)
        free = [comb(places - among, count) / all_choices for among in range(most + 1)]

        for t in range(num_frames):
            masked[t] += weight * (1 - free[covering(t)])
            if t < places:
                before = covering(t - 1)
                num_runs += weight * (free[before] - free[before + 1])

    return masked, num_runs
