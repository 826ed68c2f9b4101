"""wav2vec 2.0's pretraining loss in float64 numpy, frame after frame, as the paper writes it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reference.quantizer import diversity, softmax

Array = NDArray[np.float64]


class Terms(NamedTuple):
    """Sums over masked frames.

    Diversity and penalty come without their weights and without the number of frames.
    """

    contrastive: float
    diversity: float
    penalty: float
    correct: int
    """Frames whose positive has the highest logit."""
    codes: list[tuple[int, ...]]


def layer_norm(frames: Array, weight: Array, bias: Array, eps: float = 1e-5) -> Array:
    """Normalise each frame: (x - mean) / sqrt(variance + eps) * weight + bias."""
    centred = frames - frames.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * weight + bias


def similarity(left: Array, right: Array) -> float:
    """Work out the cosine of two vectors."""
    return float(left @ right / np.sqrt((left @ left) * (right @ right)))


def logits_of(
    predictions: Array,
    targets: Array,
    codes: NDArray[np.int64],
    negatives: NDArray[np.int64],
    logit_temp: float,
) -> Array:
    """Work out (M, 1 + K) logits, the positive first.

    A negative with the positive's codes is -inf.
    """
    rows = []
    for m, others in enumerate(negatives):
        row = [similarity(predictions[m], targets[m]) / logit_temp]
        for other in others:
            if (codes[other] == codes[m]).all():
                row.append(-np.inf)
            else:
                row.append(similarity(predictions[m], targets[other]) / logit_temp)
        rows.append(row)
    return np.array(rows)


def terms(
    frames: list[Array],
    context: list[Array],
    masked: list[list[int]],
    negatives: list[NDArray[np.int64]],
    weights: dict[str, Array],
    logit_temp: float,
    noise: list[Array] | None = None,
) -> Terms:
    """Work out the loss of a batch.

    Args:
        frames: of each utterance, (T, C) valid extractor outputs before LayerNorm.
        context: (T, D) context of the masked input.
        masked: positions of masked frames.
        negatives: (M, K) positions among the masked frames.
        weights: of our model, by name.
        noise: (M, G, V) Gumbel draws; None takes the most probable code.
    """
    codebook = weights["quantizer.codebook"]
    groups, entries, _ = codebook.shape

    def linear(name: str, inputs: Array) -> Array:
        return inputs @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    contrastive = 0.0
    correct = 0
    probs: list[Array] = []
    codes: list[tuple[int, ...]] = []
    for u, own in enumerate(masked):
        norm = (weights["encoder.norm.weight"], weights["encoder.norm.bias"])
        normed = layer_norm(frames[u][own], *norm)

        # Codes of each masked frame, and the vectors that they choose.
        logits = linear("quantizer.logits", normed).reshape(len(own), groups, entries)
        probs += list(softmax(logits))
        noisy = logits if noise is None else logits + noise[u]
        chosen = noisy.argmax(-1)
        codes += [tuple(row.tolist()) for row in chosen]
        vectors = [np.concatenate([codebook[g, row[g]] for g in range(groups)]) for row in chosen]

        targets = linear("target_projection", np.stack(vectors))
        predictions = linear("context_projection", context[u][own])
        scores = logits_of(predictions, targets, chosen, negatives[u], logit_temp)

        # Minus the logarithm of the softmax at the positive.
        contrastive += float((np.log(np.exp(scores).sum(-1)) - scores[:, 0]).sum())
        correct += int((scores[:, 0] >= scores.max(-1)).sum())

    squares = np.concatenate([own.ravel() for own in frames]) ** 2
    unevenness = diversity(np.mean(probs, axis=0))
    return Terms(contrastive, unevenness, float(squares.mean()), correct, codes)
