"""Codes of a product quantiser and their gradients, in float64 numpy."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Step(NamedTuple):
    """Outputs of a quantiser for N frames, and gradients of ``(upstream * vectors).sum()``."""

    codes: NDArray[np.int64]
    """(N, G)"""
    vectors: Array
    """(N, G x D)"""
    probs: Array
    """(N, G, V) without noise or temperature"""
    gradients: dict[str, Array]


def softmax(logits: Array) -> Array:
    """Normalise the last axis."""
    exponentials: Array = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def class_logits(frames: Array, weight: Array, bias: Array, codebook: Array) -> Array:
    """Score the codes of (N, C) frames: (N, G, V)."""
    return (frames @ weight.T + bias).reshape(len(frames), *codebook.shape[:2])


def soft_vectors(
    frames: Array, weight: Array, bias: Array, codebook: Array, noise: Array, temperature: float
) -> Array:
    """Mix vectors by the soft choice: their gradient is what "straight through" passes on."""
    logits = class_logits(frames, weight, bias, codebook)
    soft = softmax((logits + noise) / temperature)
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
    """Quantise with the hard choice, and work out the gradients of "straight through".

    The logits get the gradient of the soft choice, the codebook that of the hard one.
    """
    logits = class_logits(frames, weight, bias, codebook)
    soft = softmax((logits + noise) / temperature)
    codes = soft.argmax(-1)
    hard = np.eye(codebook.shape[1])[codes]  # (N, G, V) one-hot
    vectors = np.einsum("ngv,gvd->ngd", hard, codebook).reshape(len(frames), -1)

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
    return Step(codes, vectors, softmax(logits), gradients)


def perplexities(mean_probs: Array) -> Array:
    """Work out exp of the entropy in nats: (G, V) mean distributions -> (G,)."""
    entropies = []
    for group in mean_probs:
        entropies.append(-sum(p * np.log(p) for p in group if p > 0))
    return np.exp(entropies)


def diversity(mean_probs: Array) -> float:
    """Work out (G V - sum of perplexities) / (G V)."""
    return float((mean_probs.size - perplexities(mean_probs).sum()) / mean_probs.size)
