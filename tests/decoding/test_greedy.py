"""Greedy decoding against every path, and the frames that tokens need against torch's loss."""

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import ctc
from torch import Tensor

from speechssl.decoding.greedy import greedy, min_ctc_frames

VOCABULARY = 4
PATHS = st.lists(st.lists(st.integers(0, VOCABULARY - 1), max_size=12), min_size=1, max_size=5)


def batch_of(paths: list[list[int]], extra_frames: int = 0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random log-probabilities whose best path is given; padding is noise."""
    num_frames = torch.tensor([len(path) for path in paths])
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(
        len(paths), int(num_frames.max()) + extra_frames, VOCABULARY, generator=generator
    )
    for b, path in enumerate(paths):
        for t, token in enumerate(path):
            logits[b, t, token] = logits[b, t].max() + 0.5
    return logits.log_softmax(-1), num_frames


@given(PATHS, st.integers(0, 3), st.integers(0, VOCABULARY - 1))
def test_greedy_equals_groupby(paths: list[list[int]], extra_frames: int, blank_id: int) -> None:
    log_probs, num_frames = batch_of(paths, extra_frames)
    assert greedy(log_probs, num_frames, blank_id) == [
        list(ctc.collapse(path, blank_id)) for path in paths
    ]


@given(st.integers(1, 5), st.integers(0, 2**32))
def test_greedy_is_what_the_most_probable_path_says(num_frames: int, seed: int) -> None:
    log_probs = torch.randn(
        1, num_frames, 3, generator=torch.Generator().manual_seed(seed)
    ).log_softmax(-1)
    probs = log_probs[0].double().exp().numpy()
    best = max(product(range(3), repeat=num_frames), key=lambda path: ctc.path_prob(probs, path))
    assert greedy(log_probs, torch.tensor([num_frames])) == [list(ctc.collapse(best))]


@given(PATHS, st.integers(0, 5))
def test_batch_and_padding_never_change_a_result(paths: list[list[int]], extra_frames: int) -> None:
    log_probs, num_frames = batch_of(paths, extra_frames)
    together = greedy(log_probs, num_frames)

    for b, frames in enumerate(num_frames.tolist()):
        alone = greedy(log_probs[b : b + 1, :frames], num_frames[b : b + 1])
        assert alone == [together[b]]

    valid = torch.arange(log_probs.shape[1])[None, :, None] < num_frames[:, None, None]
    for poison in (float("nan"), float("inf"), float("-inf")):
        padded = torch.where(valid, log_probs, poison)
        assert greedy(padded, num_frames) == together


@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 0, 3)])
def test_nothing_in_nothing_out(shape: tuple[int, int, int]) -> None:
    num_frames = torch.zeros(shape[0], dtype=torch.int64)
    assert greedy(torch.zeros(shape), num_frames) == [[]] * shape[0]


def test_half_precision_and_gradients_are_accepted() -> None:
    log_probs, num_frames = batch_of([[1, 1, 2]])
    assert greedy(log_probs.bfloat16().requires_grad_(), num_frames) == [[1, 2]]


def test_too_many_frames_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError):
        greedy(torch.zeros(1, 3, 2), torch.tensor([4]))


def test_ctc_loss_is_infinite_exactly_below_the_rule() -> None:
    uniform = torch.zeros(1, 8, 3).log_softmax(-1)
    for length in range(1, 5):
        for tokens in product((1, 2), repeat=length):
            for frames in range(1, 9):
                loss = torch.nn.functional.ctc_loss(
                    uniform[:, :frames].transpose(0, 1),
                    torch.tensor([tokens]),
                    [frames],
                    [length],
                    reduction="sum",
                )
                assert bool(loss.isfinite()) == (frames >= min_ctc_frames(tokens)), (tokens, frames)


@given(st.lists(st.integers(1, 3), max_size=8))
def test_rule_equals_the_shortest_path_that_decodes_to_the_tokens(tokens: list[int]) -> None:
    path: list[int] = []
    for token in tokens:
        path += [0, token] if path and path[-1] == token else [token]
    assert min_ctc_frames(tokens) == len(path)
    log_probs, num_frames = batch_of([path])
    assert greedy(log_probs, num_frames) == [tokens]


def test_rule_equals_the_first_number_of_frames_with_a_path() -> None:
    for length in range(4):
        for tokens in product((1, 2), repeat=length):
            assert min_ctc_frames(tokens) == ctc.min_frames(tokens), tokens


def test_no_tokens_need_no_frames() -> None:
    assert min_ctc_frames([]) == 0
