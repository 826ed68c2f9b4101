"""k-means against its definition."""

from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from speechssl.pretraining.kmeans import k_means, nearest


def test_k_means_lowers_the_distance_and_ends_at_means() -> None:
    torch.manual_seed(0)
    frames = torch.cat([torch.randn(50, 3) + 10 * centre for centre in torch.eye(3)])
    codes = k_means(frames, frames[[0, 50, 100]])
    for cluster in range(3):
        assert torch.allclose(
            codes[cluster], frames[50 * cluster : 50 * cluster + 50].mean(0), atol=1e-4
        )
    far = torch.tensor([[1e3, 0.0, 0.0]])  # nearest to no frame
    assert torch.equal(k_means(frames, torch.cat([codes, far]))[3:], far)


@given(st.integers(1, 30), st.integers(1, 6), st.integers(0, 2**16))
def test_no_round_raises_the_distance(count: int, size: int, seed: int) -> None:
    torch.manual_seed(seed)
    frames, codes = torch.randn(count, 3), torch.randn(size, 3)
    errors = []
    for _ in range(4):
        errors.append(float((frames - codes[nearest(frames, codes)]).square().sum()))
        codes = k_means(frames, codes, rounds=1)
    assert all(later <= earlier + 1e-3 for earlier, later in pairwise(errors))
