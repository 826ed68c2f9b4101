"""wav2vec 2.0's pretraining loss in float64 numpy, one masked frame after the other, as the paper writes it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reference.quantizer import diversity, softmax

Array = NDArray[np.float64]


class Terms(NamedTuple):
    """Sums over masked frames; diversity and penalty without their weights or the number of frames."""

    contrastive: float
    diversity: float
    penalty: float
    correct: int
    """Frames whose positive has the highest logit."""
    codes: list[tuple[int, ...]]


def layer_norm(frames: Array, weight: Array, bias: Array, eps: float = 1e-5) -> Array:
    centred = frames - frames.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * weight + bias


def similarity(left: Array, right: Array) -> float:
    return float(left @ right / np.sqrt((left @ left) * (right @ right)))


def logits_of(
    predictions: Array,
    targets: Array,
    codes: NDArray[np.int64],
    negatives: NDArray[np.int64],
    logit_temp: float,
) -> Array:
    """(M, 1 + K) logits, the positive first; a negative with the positive's codes is -inf."""
    rows = []
    for m, others in enumerate(negatives):
        row = [similarity(predictions[m], targets[m]) / logit_temp]
        for other in others:
            same = (codes[other] == codes[m]).all()
            row.append(-np.inf if same else similarity(predictions[m], targets[other]) / logit_temp)
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
    """The loss of a batch.

    Args:
        frames: of each utterance, (T, C) valid extractor outputs before LayerNorm.
        context: (T, D) context of the masked input.
        masked: positions of masked frames.
        negatives: (M, K) positions among the masked frames.
        weights: of our model, by name.
        noise: (M, G, V) Gumbel draws; None takes the most probable code.
    """
    groups, entries, _ = weights["quantizer.codebook"].shape
    contrastive, correct, probs, codes = 0.0, 0, [], []
    for u, own in enumerate(masked):
        normed = layer_norm(
            frames[u][own], weights["encoder.norm.weight"], weights["encoder.norm.bias"]
        )
        logits = normed @ weights["quantizer.logits.weight"].T + weights["quantizer.logits.bias"]
        logits = logits.reshape(len(own), groups, entries)
        probs += list(softmax(logits))
        chosen = (logits if noise is None else logits + noise[u]).argmax(-1)
        vectors = np.stack(
            [
                np.concatenate([weights["quantizer.codebook"][g, row[g]] for g in range(groups)])
                for row in chosen
            ]
        )
        targets = (
            vectors @ weights["target_projection.weight"].T + weights["target_projection.bias"]
        )
        predictions = (
            context[u][own] @ weights["context_projection.weight"].T
            + weights["context_projection.bias"]
        )
        codes += [tuple(row.tolist()) for row in chosen]
        scores = logits_of(predictions, targets, chosen, negatives[u], logit_temp)
        contrastive += float((np.log(np.exp(scores).sum(-1)) - scores[:, 0]).sum())
        correct += int((scores[:, 0] >= scores.max(-1)).sum())
    penalty = np.concatenate([f.ravel() for f in frames]) ** 2
    return Terms(
        contrastive, diversity(np.mean(probs, axis=0)), float(penalty.mean()), correct, codes
    )
