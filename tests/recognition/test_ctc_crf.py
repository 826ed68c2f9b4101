"""The sum over all sequences is that of an enumeration, and its gradient that of differences."""

from collections.abc import Sequence
from itertools import groupby, pairwise, product

import numpy as np
import pytest
import torch
from torch import Tensor

from speechssl.recognition.ctc_crf import TokenBigram, log_all_sequences, token_bigram

# Blank and three tokens; equal neighbours among the transcripts, which need a blank between.
NUM_TOKENS = 4
TRANSCRIPTS = [[2, 3, 3], [1, 2], [3], [2, 2, 1]]


def random_log_probs(batch: int, length: int, num_tokens: int = NUM_TOKENS) -> Tensor:
    torch.manual_seed(3)
    return torch.randn(batch, length, num_tokens, dtype=torch.float32).log_softmax(-1)


def sequence_of(path: Sequence[int]) -> tuple[int, ...]:
    """What a path through CTC's topology says: repeats joined, then blanks left out."""
    return tuple(token for token, _ in groupby(path) if token != 0)


def log_by_enumeration(log_probs: Tensor, bigram: TokenBigram) -> float:
    """Sum over every path of every sequence of one token or more, in float64."""
    rows = log_probs.double().numpy()
    length, num_tokens = rows.shape
    first, follow, last = (tensor.double().numpy() for tensor in bigram)

    total = 0.0
    for path in product(range(num_tokens), repeat=length):
        tokens = sequence_of(path)
        if not tokens:
            continue
        prior = first[tokens[0]] * last[tokens[-1]]
        for before, after in pairwise(tokens):
            prior *= follow[before, after]
        total += prior * np.exp(rows[range(length), path].sum())
    return float(np.log(total))


@pytest.mark.parametrize("length", [1, 2, 3, 6])
def test_the_sum_is_that_of_all_paths(length: int) -> None:
    bigram = token_bigram(TRANSCRIPTS, NUM_TOKENS)
    log_probs = random_log_probs(2, length)

    found = log_all_sequences(log_probs, torch.tensor([length, length]), bigram)

    expected = [log_by_enumeration(rows, bigram) for rows in log_probs]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_outputs_behind_the_last_one_count_for_nothing() -> None:
    bigram = token_bigram(TRANSCRIPTS, NUM_TOKENS)
    log_probs = random_log_probs(3, 7)
    log_probs[1, 4:] = 1e4

    found = log_all_sequences(log_probs, torch.tensor([7, 4, 1]), bigram)

    expected = [
        log_by_enumeration(rows[:count], bigram)
        for rows, count in zip(log_probs, (7, 4, 1), strict=True)
    ]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_the_gradient_is_that_of_differences() -> None:
    bigram = token_bigram(TRANSCRIPTS, NUM_TOKENS)
    log_probs = random_log_probs(2, 5).requires_grad_()
    counts = torch.tensor([5, 3])
    weights = torch.tensor([1.0, -2.0])

    (log_all_sequences(log_probs, counts, bigram) * weights).sum().backward()
    assert log_probs.grad is not None

    step = 1e-4
    for row, place, token in product(range(2), range(5), range(NUM_TOKENS)):
        values = []
        for change in (step, -step):
            changed = log_probs.detach().double()
            changed[row, place, token] += change
            inside = changed[row, : counts[row]]
            values.append(log_by_enumeration(inside, bigram))
        expected = float(weights[row]) * (values[0] - values[1]) / (2 * step)
        assert float(log_probs.grad[row, place, token]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("num_tokens", [30, 42, 500], ids=["letters", "phones", "pieces"])
def test_every_output_shares_out_one_even_in_long_utterances(num_tokens: int) -> None:
    random = np.random.default_rng(0)
    transcripts = [random.integers(1, num_tokens, 20).tolist() for _ in range(50)]
    bigram = token_bigram(transcripts, num_tokens)
    # As sure as a trained network: float32 must not run out of range.
    log_probs = (8 * random_log_probs(2, 400, num_tokens)).log_softmax(-1).requires_grad_()

    total = log_all_sequences(log_probs, torch.tensor([400, 350]), bigram)
    total.sum().backward()

    assert torch.isfinite(total).all()
    assert log_probs.grad is not None
    shares = log_probs.grad.sum(-1)
    assert torch.allclose(shares[0], torch.ones(400), atol=1e-4)
    assert torch.allclose(shares[1, :350], torch.ones(350), atol=1e-4)
    assert (shares[1, 350:] == 0).all()


def test_a_transcript_is_never_more_likely_than_all_sequences_together() -> None:
    """So the loss is at least 0 up to the constant of the transcript's own probability."""
    bigram = token_bigram(TRANSCRIPTS, NUM_TOKENS)
    log_probs = random_log_probs(1, 6)
    tokens = TRANSCRIPTS[0]
    ctc = torch.nn.functional.ctc_loss(
        log_probs.transpose(0, 1), torch.tensor([tokens]), [6], [len(tokens)], reduction="sum"
    )
    prior = bigram.first[2].log() + bigram.follow[2, 3].log()
    prior = prior + bigram.follow[3, 3].log() + bigram.last[3].log()

    everything = log_all_sequences(log_probs, torch.tensor([6]), bigram)

    assert float(prior - ctc) < float(everything)


def test_a_bigram_is_of_probabilities_and_leaves_nothing_but_the_blank_out() -> None:
    bigram = token_bigram(TRANSCRIPTS, NUM_TOKENS)

    assert float(bigram.first.sum()) == pytest.approx(1)
    assert (bigram.follow.sum(1) + bigram.last).tolist() == pytest.approx([1] * NUM_TOKENS)
    assert float(bigram.first[0]) == 0
    assert (bigram.follow[:, 0] == 0).all()
    assert (bigram.follow[:, 1:] > 0).all()
    # Seen twice of three, and once of three, beside what smoothing adds.
    assert bigram.first[2] > bigram.first[1] > 0
