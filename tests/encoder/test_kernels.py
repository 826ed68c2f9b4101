"""Dropout, attention and convolution for CPUs and GPUs against torch's own."""

import math
import subprocess
import sys
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from speechssl.encoder import kernels
from speechssl.encoder.kernels import Dropout, attention, gelu_linear, grouped_conv, in_one_row


def test_dropout_keeps_the_share_the_mean_and_its_mask() -> None:
    torch.manual_seed(0)
    inputs = torch.rand(1000, 1001, requires_grad=True)
    out = Dropout(0.1).train()(inputs)
    kept = out != 0

    # Every place of a 64-bit draw for itself: a bit that is not random would show in one of four.
    for place in range(4):
        share = float(kept.flatten()[place::4].float().mean())
        assert share == pytest.approx(0.9, abs=5 * math.sqrt(0.09 / 250_000))

    assert out.mean().item() == pytest.approx(inputs.mean().item(), rel=0.002)
    torch.testing.assert_close(out[kept], inputs[kept] / 0.9, rtol=2e-5, atol=0)

    out.sum().backward()  # type: ignore[no-untyped-call]
    assert inputs.grad is not None
    assert torch.equal(inputs.grad != 0, kept)
    torch.testing.assert_close(
        inputs.grad[kept], torch.full_like(inputs[kept], 1 / 0.9), rtol=2e-5, atol=0
    )


def test_dropout_neighbours_are_independent_and_the_seed_decides() -> None:
    ones, dropout = torch.ones(1 << 20), Dropout(0.5).train()
    torch.manual_seed(3)
    first, second = dropout(ones), dropout(ones)
    torch.manual_seed(3)
    assert torch.equal(dropout(ones), first)
    for left, right in [(first[:-1], first[1:]), (first[:-4], first[4:]), (first, second)]:
        correlation = float(((left - 1) * (right - 1)).mean())  # +-1 each
        assert abs(correlation) < 5 / math.sqrt(len(left))


@pytest.mark.parametrize("p", [0.0, 0.7])
def test_dropout_does_nothing_in_evaluation_or_at_zero(p: float) -> None:
    inputs = torch.randn(5)
    assert Dropout(p).eval()(inputs) is inputs
    assert (Dropout(p).train()(inputs) is inputs) == (p == 0)


def parts(seed: int = 0) -> list[Tensor]:
    torch.manual_seed(seed)
    return [torch.randn(3, 2, length, 4, requires_grad=True) for length in (5, 7, 7)]


def plain(
    query: Tensor, key: Tensor, value: Tensor, counts: list[int], factors: list[Tensor]
) -> Tensor:
    rows = []
    for b, count in enumerate(counts):
        weights = (query[b] @ key[b, :, :count].transpose(1, 2) / 2).softmax(-1) * factors[b]
        rows.append((weights @ value[b, :, :count]).transpose(0, 1).flatten(1))
    return torch.stack(rows)


@pytest.fixture
def keeps(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The factors that dropout draws, in order: 0 or the scale."""
    drawn: list[Tensor] = []
    original = kernels._keep

    def remember(shape: tuple[int, ...], p: float) -> tuple[Tensor, float]:
        keep, scale = original(shape, p)
        drawn.append(keep * scale)
        return keep, scale

    monkeypatch.setattr(kernels, "_keep", remember)
    return drawn


@pytest.mark.parametrize("p", [0.0, 0.4])
def test_the_feed_forward_half_equals_the_plain_one(p: float, keeps: list[Tensor]) -> None:
    torch.manual_seed(0)
    leaves = [torch.randn(shape, requires_grad=True) for shape in ((2, 5, 6), (4, 6), (4,))]
    inputs, weight, bias = leaves
    found = gelu_linear(inputs, weight, bias, p)
    expected = F.linear(F.gelu(inputs) * (keeps[0] if p else 1.0), weight, bias)
    assert len(keeps) == (p > 0)
    torch.testing.assert_close(found, expected)
    above = torch.randn_like(found)
    for one, other in zip(
        *(torch.autograd.grad(out, leaves, above) for out in (found, expected)), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("counts", [[7, 7, 7], [7, 3, 1]])
def test_attention_with_dropout_equals_the_plain_one_with_the_same_choices(
    counts: list[int], keeps: list[Tensor]
) -> None:
    inputs = parts()
    found = attention(*inputs, torch.tensor(counts), None, 0.3)
    assert 0 < sum(int((k > 0).sum()) for k in keeps) < sum(k.numel() for k in keeps)
    expected = plain(*inputs, counts, keeps)
    torch.testing.assert_close(found, expected)
    above = torch.randn_like(found)
    left, right = (
        torch.autograd.grad(out, inputs, above, retain_graph=True) for out in (found, expected)
    )
    for one, other in zip(left, right, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("counts", [[7, 7, 7], [7, 3, 1]])
def test_attention_without_dropout_reads_valid_frames_only(counts: list[int]) -> None:
    inputs = parts(1)
    everything = [torch.ones(2, 5, count) for count in counts]
    attend = (torch.arange(7) < torch.tensor(counts)[:, None])[:, None, None]
    found = attention(*inputs, torch.tensor(counts), attend, 0.0)
    torch.testing.assert_close(found, plain(*inputs, counts, everything))


def test_attention_of_no_frame_and_over_no_frame_is_finite() -> None:
    torch.manual_seed(0)
    for asked, counts in ((0, [7, 3]), (5, [7, 0])):
        inputs = [torch.randn(2, 2, length, 4, requires_grad=True) for length in (asked, 7, 7)]
        out = attention(*inputs, torch.tensor(counts), None, 0.3)
        assert out.shape == (2, asked, 8)
        out.sum().backward()  # type: ignore[no-untyped-call]
        assert all(x.grad is not None and x.grad.isfinite().all() for x in inputs)


@pytest.mark.parametrize("kernel", [1, 2, 7, 8, 32])
@pytest.mark.parametrize("length", [1, 3, 40, 130])
def test_convolution_through_the_fft_equals_torchs(length: int, kernel: int) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(2, length, 6, requires_grad=True)
    weight = torch.randn(6, 3, kernel, requires_grad=True)
    bias = torch.randn(6, requires_grad=True)

    found = grouped_conv(inputs, weight, bias, 2)
    expected = F.conv1d(inputs.transpose(1, 2), weight, bias, padding=kernel // 2, groups=2)
    expected = expected[..., :length].transpose(1, 2)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)

    with torch.no_grad():
        assert torch.equal(grouped_conv(inputs, weight, bias, 2), found)

    above, leaves = torch.randn_like(found), [inputs, weight, bias]
    right = torch.autograd.grad(expected, leaves, above)
    for one, other in zip(torch.autograd.grad(found, leaves, above), right, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_recognition_starts_without_the_compiler_of_torch() -> None:
    code = """
import sys, torch
from speechssl.encoder.kernels import grouped_conv
with torch.inference_mode():
    grouped_conv(torch.zeros(1, 9, 4), torch.zeros(4, 2, 3), torch.zeros(4), 2)
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 70),
    st.integers(1, 33),
    st.sampled_from([1, 2, 8]),
    st.integers(0, 99),
)
def test_a_batch_in_one_row_is_convolved_utterance_by_utterance(
    batch: int, length: int, kernel: int, groups: int, seed: int
) -> None:
    """What a GPU does: one utterance must not be heard in the next."""
    torch.manual_seed(seed)
    inputs, weight, bias = (
        torch.randn(batch, length, 8),
        torch.randn(8, 8 // groups, kernel),
        torch.randn(8),
    )
    found = in_one_row(inputs, weight, bias, groups)
    for row, expected in zip(found, inputs, strict=True):
        alone = F.conv1d(expected.T[None], weight, bias, padding=kernel // 2, groups=groups)[
            0, :, :length
        ].T
        torch.testing.assert_close(row, alone, rtol=1e-4, atol=1e-4)


def test_a_row_has_few_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each new one costs a GPU's library a plan."""
    seen = set()

    def conv(row: Tensor, *_: Tensor, **__: int) -> Tensor:
        seen.add(row.shape)
        return row

    monkeypatch.setattr(F, "conv1d", conv)
    for batch, length in product(range(3, 12), range(100, 400, 7)):
        in_one_row(torch.zeros(batch, length, 2), torch.zeros(2, 1, 3), torch.zeros(2), 2)
    assert 10 < len(seen) <= 4 * 5  # from 303 to 4400 frames


def test_the_plain_operations_run_under_autocast() -> None:
    inputs = torch.randn(2, 40, 6)
    assert kernels.on_cpu(inputs)
    assert not kernels.on_cpu(inputs.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not kernels.on_cpu(inputs)
        assert attention(*parts(), torch.tensor([7, 7, 3]), None, 0.3).isfinite().all()
