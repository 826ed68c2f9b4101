"""Greedy decoding of CTC log-probabilities, and the frames that a token sequence needs."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor


def greedy(log_probs: Tensor, num_frames: Tensor, blank_id: int = 0) -> list[list[int]]:
    """Take the best token of each frame, collapse repeats, then drop blanks.

    Neither padding nor the other utterances of the batch change a result.

    Args:
        log_probs: (B, T, V) floating point, on any device; log-probabilities or logits.
        num_frames: (B,) int64, valid frames, each at most T. Frames beyond may hold anything.

    Returns:
        One list of token ids for each utterance.
    """
    # Only the winners leave the device, not all log-probabilities.
    winners = log_probs.detach().argmax(dim=-1)
    best = winners.cpu()  # (B, T)
    num_frames = num_frames.cpu()

    most_frames = best.shape[1]
    are_within = num_frames <= most_frames
    assert bool(are_within.all()), "num_frames exceeds the frames of log_probs"

    # Padding becomes blank: a blank is dropped in the end, and it never joins two runs of a token.
    frames = torch.arange(most_frames)
    is_padding = frames >= num_frames[:, None]
    best = best.masked_fill(is_padding, blank_id)

    # The first frame always starts a run, every other one where the token changes.
    before = best[:, :-1]
    after = best[:, 1:]
    starts_run = torch.ones_like(best, dtype=torch.bool)
    starts_run[:, 1:] = before != after

    is_token = best != blank_id
    emits_token = starts_run & is_token

    # One selection for the whole batch: the tokens of all utterances, one after the other.
    emitted = best[emits_token]
    tokens_each = emits_token.sum(dim=1)
    per_utterance = torch.split(emitted, tokens_each.tolist())
    return [tokens.tolist() for tokens in per_utterance]


def min_ctc_frames(tokens: Sequence[int]) -> int:
    """Count the frames that CTC needs at least for a token sequence.

    These are one for each token, and one for a blank between two equal neighbours. With fewer
    frames the CTC loss is infinite.
    """
    num_blanks = 0
    for left, right in pairwise(tokens):
        if left == right:
            num_blanks += 1
    return len(tokens) + num_blanks
