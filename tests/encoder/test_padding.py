"""Counts and statistics of padded batches."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from speechssl.encoder.padding import after_window, normalise_valid, valid_mask, zero_padding


@given(st.integers(0, 60), st.integers(1, 12), st.integers(1, 8))
def test_windows_are_as_many_as_lie_inside(length: int, kernel: int, stride: int) -> None:
    starts = [start for start in range(0, length, stride) if start + kernel <= length]
    assert int(after_window(torch.tensor(length), kernel, stride)) == len(starts)


def test_valid_units_come_first() -> None:
    assert valid_mask(torch.tensor([2, 0, 3]), 3).tolist() == [
        [True, True, False],
        [False] * 3,
        [True] * 3,
    ]


def test_nothing_in_the_padding_gets_through() -> None:
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    rows[0, 1], rows[1, 1] = float("nan"), float("inf")
    found = zero_padding(rows, torch.tensor([1, 1]))
    assert found.tolist() == [[1.0, 0.0], [3.0, 0.0]]
    assert torch.equal(
        zero_padding(rows[..., None].expand(-1, -1, 3), torch.tensor([1, 1]))[..., 2], found
    )


def test_inputs_are_normalised_over_their_valid_part() -> None:
    inputs = 7 + 3 * torch.randn(2, 100, 5)
    found = normalise_valid(inputs, torch.tensor([100, 30]), 1e-7)
    assert (found[1, 30:] == 0).all()
    for part in (found[0], found[1, :30]):
        np.testing.assert_allclose(part.mean(0).numpy(), 0, atol=1e-5)
        np.testing.assert_allclose(part.var(0, unbiased=False).numpy(), 1, atol=1e-4)
