"""CTC by enumeration of every path over a few frames and tokens, blank 0.

Nothing here is recursive or clever.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby, product

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labelling = tuple[int, ...]


def collapse(path: Sequence[int], blank_id: int = 0) -> Labelling:
    """Make repeats one, then drop blanks."""
    return tuple(token for token, _ in groupby(path) if token != blank_id)


def paths_to(target: Sequence[int], num_frames: int, size: int) -> Iterator[tuple[int, ...]]:
    """List every way to say ``target`` in so many frames."""
    for path in product(range(size), repeat=num_frames):
        if collapse(path) == tuple(target):
            yield path


def path_prob(probs: Array, path: Sequence[int]) -> float:
    """Multiply the probabilities along a path; ``probs`` is (T, V)."""
    return float(np.prod([probs[t, token] for t, token in enumerate(path)]))


def loss(probs: Array, target: Sequence[int]) -> float:
    """Work out minus the logarithm of the probability of all paths together.

    In nats; infinite without a path.
    """
    total = sum(path_prob(probs, path) for path in paths_to(target, *probs.shape))
    return -float(np.log(total)) if total else np.inf


def gradient(probs: Array, target: Sequence[int]) -> Array:
    """Differentiate the loss with respect to the logits (T, V).

    It is the softmax less the share of the target's paths that are at each token.
    """
    weights = {path: path_prob(probs, path) for path in paths_to(target, *probs.shape)}
    total = sum(weights.values())

    occupied = np.zeros_like(probs)
    for path, weight in weights.items():
        for t, token in enumerate(path):
            occupied[t, token] += weight / total
    return probs - occupied


def labellings(probs: Array) -> dict[Labelling, float]:
    """Work out the probability of everything that can be said, the most probable first."""
    found: dict[Labelling, float] = defaultdict(float)
    num_frames, size = probs.shape
    for path in product(range(size), repeat=num_frames):
        found[collapse(path)] += path_prob(probs, path)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def min_frames(tokens: Sequence[int]) -> int:
    """Find the fewest frames with a path to ``tokens``, by trying."""
    size = max(tokens, default=0) + 1
    frames = 0
    while not any(True for _ in paths_to(tokens, frames, size)):
        frames += 1
    return frames
