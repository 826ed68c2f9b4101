"""Codes of a product quantiser, the straight-through gradient, and the evenness of codes, in float64 numpy."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Step(NamedTuple):
    """What a quantiser makes of N frames, and the gradients of ``(upstream * vectors).sum()``."""

    codes: NDArray[np.int64]
    """(N, G)"""
    vectors: Array
    """(N, G x D)"""
    probs: Array
    """(N, G, V) without noise or temperature"""
    gradients: dict[str, Array]


def softmax(logits: Array) -> Array:
    exponentials: Array = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def class_logits(frames: Array, weight: Array, bias: Array, codebook: Array) -> Array:
    """(N, C) -> (N, G, V)."""
    return (frames @ weight.T + bias).reshape(len(frames), *codebook.shape[:2])


def soft_vectors(
    frames: Array, weight: Array, bias: Array, codebook: Array, noise: Array, temperature: float
) -> Array:
    """Vectors mixed by the soft choice: their gradient is what "straight through" passes on."""
    soft = softmax((class_logits(frames, weight, bias, codebook) + noise) / temperature)
    return np.einsum("ngv,gvd->ngd", soft, codebook).reshape(len(frames), -1)


def straight_through(
    frames: Array,
    weight: Array,
    bias: Array,
    codebook: Array,
    noise: Array,
    temperature: float,
    upstream: Array,
) -> Step:
    """The hard choice forward; backward, the soft one for the logits and the hard one for the codebook."""
    logits = class_logits(frames, weight, bias, codebook)
    soft = softmax((logits + noise) / temperature)
    codes = soft.argmax(-1)
    hard = np.eye(codebook.shape[1])[codes]
    d_vectors = upstream.reshape(len(frames), codebook.shape[0], -1)
    d_soft = np.einsum("ngd,gvd->ngv", d_vectors, codebook)
    d_logits = soft * (d_soft - (soft * d_soft).sum(-1, keepdims=True)) / temperature
    d_flat = d_logits.reshape(len(frames), -1)
    gradients = {
        "codebook": np.einsum("ngv,ngd->gvd", hard, d_vectors),
        "weight": d_flat.T @ frames,
        "bias": d_flat.sum(0),
        "frames": d_flat @ weight,
    }
    return Step(
        codes,
        np.einsum("ngv,gvd->ngd", hard, codebook).reshape(len(frames), -1),
        softmax(logits),
        gradients,
    )


def perplexities(mean_probs: Array) -> Array:
    """(G, V) mean distributions -> (G,) exp of the entropy in nats."""
    return np.exp([-sum(p * np.log(p) for p in group if p > 0) for group in mean_probs])


def diversity(mean_probs: Array) -> float:
    """(G V - sum of perplexities) / (G V)."""
    return float((mean_probs.size - perplexities(mean_probs).sum()) / mean_probs.size)
