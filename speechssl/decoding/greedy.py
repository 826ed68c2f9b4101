"""From CTC log-probabilities to tokens, and the number of frames that a token sequence needs."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor


class TokenSpan(NamedTuple):
    """A token that the model emitted over frames ``start`` up to, not including, ``end``.

    ``probability``: the mean over these frames of the token's own probability, 0..1. CTC models are peaky, so compare
    it between tokens; it is not calibrated.
    """

    token: int
    start: int
    end: int
    probability: float


def greedy(log_probs: Tensor, num_frames: Tensor, blank_id: int = 0) -> list[list[int]]:
    """The most probable token of each frame, repeats collapsed, then blanks dropped.

    Padding and the other utterances of the batch never change a result.

    Args:
        log_probs: (B, T, V) floating point, on any device; log-probabilities or logits.
        num_frames: (B,) int64, valid frames, each at most T; what lies beyond may hold anything.

    Returns:
        One list of token ids per utterance.
    """
    best, starts = _best_path(log_probs, num_frames, blank_id)
    emitted = starts & (best != blank_id)
    per_utterance = torch.split(best[emitted], emitted.sum(dim=1).tolist())
    return [tokens.tolist() for tokens in per_utterance]


def greedy_with_frames(
    log_probs: Tensor, num_frames: Tensor, blank_id: int = 0
) -> list[list[TokenSpan]]:
    """As ``greedy``, with the frames and the probability of each token; ``log_probs`` must be normalised.

    Args:
        log_probs: (B, T, V) floating point, on any device; ``exp`` sums to one over V.
        num_frames: (B,) int64, valid frames, each at most T; what lies beyond may hold anything.

    Returns:
        One list of spans per utterance, in order and without overlap.
    """
    best, starts = _best_path(log_probs, num_frames, blank_id)
    emitted = starts & (best != blank_id)
    # Runs are numbered through the whole batch; the first frame of an utterance always starts one.
    run = starts.flatten().cumsum(0) - 1
    probability = log_probs.detach().amax(dim=-1).cpu().double().exp().flatten()
    lengths = torch.bincount(run)
    means = torch.bincount(run, weights=probability) / lengths
    spans: list[list[TokenSpan]] = [[] for _ in best]
    chosen = run[emitted.flatten()]
    rows, frames = emitted.nonzero(as_tuple=True)
    columns = (rows, best[emitted], frames, frames + lengths[chosen], means[chosen])
    for row, *span in zip(*(column.tolist() for column in columns), strict=True):
        spans[row].append(TokenSpan(*span))
    return spans


def _best_path(log_probs: Tensor, num_frames: Tensor, blank_id: int) -> tuple[Tensor, Tensor]:
    """(B, T) best token with blanks for padding, and (B, T) True where a run of one token starts; both on the CPU."""
    best = log_probs.detach().argmax(dim=-1).cpu()
    frames = torch.arange(best.shape[1])
    valid = frames < num_frames.cpu()[:, None]
    assert bool((num_frames.cpu() <= best.shape[1]).all()), (
        "num_frames exceeds the frames of log_probs"
    )
    best = best.masked_fill(~valid, blank_id)
    starts = torch.ones_like(best, dtype=torch.bool)
    starts[:, 1:] = best[:, 1:] != best[:, :-1]
    return best, starts


def min_ctc_frames(tokens: Sequence[int]) -> int:
    """Fewest frames over which CTC can emit ``tokens``: one each, and a blank between two equal neighbours.

    With fewer frames the CTC loss is infinite.
    """
    return len(tokens) + sum(left == right for left, right in pairwise(tokens))
