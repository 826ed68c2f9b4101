"""CTC-CRF: the probability of a transcript among all that a bigram of tokens allows.

CTC trains each transcript by itself. CTC-CRF also takes probability from every other sequence of
tokens, weighed by how likely the language is to have it:

    loss = - ln P_ctc(tokens | log_probs) + ln sum over sequences s of P(s) P_ctc(s | log_probs)

where P(s) is a bigram over tokens. The bigram of the transcript itself is a constant and left out.

Shapes: B utterances, T outputs of the head in time, V tokens of the vocabulary.

Source: Xiang and Ou 2019, "CRF-based single-stage acoustic modeling with CTC topology" (arXiv
1904.12529). Differs: the sum is a dense recursion in place of a weighted automaton, and the
language model is a bigram. That is small enough for phones and letters.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import Function

# Counts that a token's followers are given beside those that were seen, shared out as tokens are
# in general: a pair that no transcript holds stays possible.
SMOOTHING = 5.0


class TokenBigram(NamedTuple):
    """Probabilities of tokens one after another, float32; those of the blank are 0."""

    first: Tensor
    """(V,) of each token at the beginning"""
    follow: Tensor
    """(V, V) of each token (column) after another (row)"""
    last: Tensor
    """(V,) of the end after each token"""

    def to(self, device: torch.device) -> "TokenBigram":
        """Give the same on a device."""
        return TokenBigram(*(tensor.to(device) for tensor in self))


def token_bigram(sequences: Iterable[Sequence[int]], num_tokens: int) -> TokenBigram:
    """Estimate a bigram from the tokens of transcripts.

    Each context's counts are mixed with the frequencies of tokens in general, as if ``SMOOTHING``
    more had been seen of those (MacKay and Peto 1995, "A hierarchical Dirichlet language model").
    The blank, token 0, is never part of a sequence and gets no probability. Every other token
    gets some.

    Args:
        sequences: token ids without blanks, one sequence for each transcript.
        num_tokens: size of the vocabulary, V.
    """
    # Both ends of a sequence stand at place V: as the context of the first, and after the last.
    end = num_tokens
    counts = np.zeros((num_tokens + 1, num_tokens + 1))
    for tokens in sequences:
        whole = np.array([end, *tokens, end])
        np.add.at(counts, (whole[:-1], whole[1:]), 1.0)

    # One more of each, so that nothing but the blank is impossible.
    general = counts.sum(0) + 1.0
    general[0] = 0.0
    general /= general.sum()

    smoothed = counts + SMOOTHING * general
    smoothed /= smoothed.sum(1, keepdims=True)
    # An empty transcript teaches nothing, so a sequence has at least one token.
    smoothed[end, end] = 0.0
    smoothed[end] /= smoothed[end].sum()

    first = _tensor(smoothed[end, :end])
    follow = _tensor(smoothed[:end, :end])
    last = _tensor(smoothed[:end, end])
    return TokenBigram(first, follow, last)


def _tensor(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def log_all_sequences(log_probs: Tensor, num_outputs: Tensor, bigram: TokenBigram) -> Tensor:
    """Sum over all sequences of one token or more: ln sum P(s) P_ctc(s | log_probs).

    Args:
        log_probs: (B, T, V) float32, natural log; token 0 is the blank.
        num_outputs: (B,) int64, valid outputs, at least one each.
        bigram: on the device of ``log_probs``.

    Returns:
        (B,) float32, with a gradient towards ``log_probs``: the share of each token in each output
        over all those sequences.
    """
    total: Tensor = _LogAllSequences.apply(log_probs, num_outputs, bigram)
    return total


class _States(NamedTuple):
    """Probability of being in each state of CTC's topology after an output, up to a factor.

    The repeats of one token and the blanks after it are two states, because the same token may
    follow itself only after a blank.
    """

    before: Tensor
    """(B, 1) nothing but blanks so far"""
    in_token: Tensor
    """(B, V) the last output was this token"""
    after_token: Tensor
    """(B, V) the last token was this one, blanks since"""


class _LogAllSequences(Function):
    """The forward recursion, and in the backward pass the recursion from the end."""

    @staticmethod
    def forward(ctx: Any, log_probs: Tensor, num_outputs: Tensor, bigram: TokenBigram) -> Tensor:
        device = log_probs.device
        # Relative to the best token of each output, so that float32 holds them.
        best = log_probs.amax(-1, keepdim=True)
        probs = (log_probs - best).exp()
        length = log_probs.shape[1]
        is_valid = torch.arange(length)[:, None] < num_outputs
        is_valid = is_valid.to(device)[..., None]  # (T, B, 1)
        repeats = bigram.follow.diagonal()

        states: list[_States] = []
        log_scale = torch.zeros(len(log_probs), device=device)

        for place in range(length):
            output = probs[:, place]
            blank = output[:, :1]

            if place == 0:
                before = blank
                in_token = bigram.first * output
                after_token = torch.zeros_like(in_token)
            else:
                came = states[-1]
                either = came.in_token + came.after_token
                # The same token again without a blank between is the same token going on.
                entered = either @ bigram.follow - repeats * came.in_token
                entered = entered + came.before * bigram.first
                before = came.before * blank
                in_token = (entered + came.in_token) * output
                after_token = either * blank

            scale = before + (in_token + after_token).sum(-1, keepdim=True)
            now = _States(before / scale, in_token / scale, after_token / scale)
            log_scale = log_scale + torch.where(
                is_valid[place, :, 0], scale[:, 0].log() + best[:, place, 0], 0.0
            )

            # Beyond its last output an utterance stays as it is.
            if place > 0:
                valid = is_valid[place]
                before_last = states[-1]
                kept = [
                    torch.where(valid, new, old) for new, old in zip(now, before_last, strict=True)
                ]
                now = _States(*kept)
            states.append(now)

        final = states[-1]
        ended = ((final.in_token + final.after_token) * bigram.last).sum(-1)

        ctx.save_for_backward(probs, num_outputs)
        ctx.states = states
        ctx.bigram = bigram
        return log_scale + ended.log()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Give each token's share in each output, from both recursions."""
        (from_above,) = gradients
        probs, num_outputs = ctx.saved_tensors
        bigram: TokenBigram = ctx.bigram
        states: list[_States] = ctx.states
        batch, length, num_tokens = probs.shape
        device = probs.device
        last_places = (num_outputs - 1).to(device)[:, None]  # (B, 1)
        repeats = bigram.follow.diagonal()

        # How likely each state is to come to an end, up to a factor.
        at_end = bigram.last.expand(batch, num_tokens)
        rest = _States(torch.zeros(batch, 1, device=device), at_end, at_end)
        shares = torch.zeros_like(probs)

        for place in range(length - 1, -1, -1):
            if place < length - 1:
                output = probs[:, place + 1]
                blank = output[:, :1]
                goes_on = output * rest.in_token
                into_blank = blank * rest.after_token
                entered = goes_on @ bigram.follow.T

                after_token = entered + into_blank
                in_token = after_token + (1 - repeats) * goes_on
                before = blank * rest.before + (goes_on * bigram.first).sum(-1, keepdim=True)

                largest = torch.maximum(in_token.amax(-1, keepdim=True), before)
                came = _States(before / largest, in_token / largest, after_token / largest)
                is_inside = place < last_places
                kept = [
                    torch.where(is_inside, new, old) for new, old in zip(came, rest, strict=True)
                ]
                rest = _States(*kept)

            now = states[place]
            of_tokens = now.in_token * rest.in_token
            of_blanks_after = (now.after_token * rest.after_token).sum(-1)
            of_blanks_before = (now.before * rest.before)[:, 0]

            share = of_tokens.clone()
            share[:, 0] += of_blanks_after + of_blanks_before
            share = share / share.sum(-1, keepdim=True)
            shares[:, place] = torch.where(place <= last_places, share, 0.0)

        return shares * from_above[:, None, None], None, None
