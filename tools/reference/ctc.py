"""CTC by enumeration: every path over a few frames and tokens, blank 0. Nothing here is recursive or clever."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby, product

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labelling = tuple[int, ...]


def collapse(path: Sequence[int], blank_id: int = 0) -> Labelling:
    """Repeats become one, then blanks vanish."""
    return tuple(token for token, _ in groupby(path) if token != blank_id)


def paths_to(target: Sequence[int], num_frames: int, size: int) -> Iterator[tuple[int, ...]]:
    """Every way to say ``target`` in so many frames."""
    return (
        path for path in product(range(size), repeat=num_frames) if collapse(path) == tuple(target)
    )


def path_prob(probs: Array, path: Sequence[int]) -> float:
    """``probs`` (T, V)."""
    return float(np.prod([probs[t, token] for t, token in enumerate(path)]))


def loss(probs: Array, target: Sequence[int]) -> float:
    """Minus the logarithm of the probability of all paths together, nats; infinite without a path."""
    total = sum(path_prob(probs, path) for path in paths_to(target, *probs.shape))
    return -float(np.log(total)) if total else np.inf


def gradient(probs: Array, target: Sequence[int]) -> Array:
    """Of the loss, with respect to the logits (T, V): the softmax less how often a path to the target is there."""
    weights = {path: path_prob(probs, path) for path in paths_to(target, *probs.shape)}
    occupied = np.zeros_like(probs)
    for path, weight in weights.items():
        for t, token in enumerate(path):
            occupied[t, token] += weight / sum(weights.values())
    return probs - occupied


def labellings(probs: Array) -> dict[Labelling, float]:
    """Probability of everything that can be said, the most probable first."""
    found: dict[Labelling, float] = defaultdict(float)
    num_frames, size = probs.shape
    for path in product(range(size), repeat=num_frames):
        found[collapse(path)] += path_prob(probs, path)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def min_frames(tokens: Sequence[int]) -> int:
    """Fewest frames with a path to ``tokens``, by trying."""
    frames = 0
    while next(paths_to(tokens, frames, max(tokens, default=0) + 1), None) is None:
        frames += 1
    return frames
