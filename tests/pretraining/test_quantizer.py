"""Codes, their gradients and their statistics against float64 numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from reference import quantizer as reference

from speechssl.config import build
from speechssl.errors import ConfigError
from speechssl.pretraining.quantizer import Quantizer, QuantizerConfig, code_perplexity, diversity

CONFIG = QuantizerConfig(num_codebooks=2, num_codes=5, width=6)
Array = NDArray[np.float64]


def make(config: QuantizerConfig = CONFIG, width: int = 4, scale: float = 0.3) -> Quantizer:
    torch.manual_seed(0)
    quantizer = Quantizer(width, config)
    with torch.no_grad():
        quantizer.logits.weight.mul_(scale)
        quantizer.logits.bias.normal_()
    return quantizer


def gumbel(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).gumbel(size=shape).astype(np.float32))


def as_float64(tensor: torch.Tensor) -> Array:
    return tensor.detach().numpy().astype(np.float64)


def test_straight_through_values_and_gradients_equal_a_float64_reference() -> None:
    quantizer, temperature = make(), 0.7
    random = np.random.default_rng(1)
    frames = torch.from_numpy(random.standard_normal((9, 4)).astype(np.float32)).requires_grad_()
    noise, upstream = gumbel(9, 2, 5), random.standard_normal((9, 6))

    quantized = quantizer(frames, noise, temperature)
    (quantized.vectors * torch.from_numpy(upstream)).sum().backward()

    expected = reference.straight_through(
        *map(
            as_float64,
            (frames, quantizer.logits.weight, quantizer.logits.bias, quantizer.codebook, noise),
        ),
        temperature,
        upstream,
    )

    assert (quantized.codes.numpy() == expected.codes).all()
    assert len(np.unique(expected.codes)) > 2
    np.testing.assert_allclose(quantized.vectors.detach().numpy(), expected.vectors, atol=1e-6)
    np.testing.assert_allclose(quantized.probs.detach().numpy(), expected.probs, atol=1e-6)

    for name, found in (
        ("codebook", quantizer.codebook.grad),
        ("weight", quantizer.logits.weight.grad),
        ("bias", quantizer.logits.bias.grad),
        ("frames", frames.grad),
    ):
        assert found is not None
        assert np.abs(expected.gradients[name]).max() > 0, name
        np.testing.assert_allclose(found.numpy(), expected.gradients[name], atol=2e-6, err_msg=name)


def test_codebook_and_input_learn_at_the_released_sizes() -> None:
    torch.manual_seed(0)
    quantizer = Quantizer(64, QuantizerConfig())
    frames = torch.randn(50, 64, requires_grad=True)
    quantized = quantizer(frames, gumbel(50, 2, 320), 2.0)
    assert quantized.vectors.shape == (50, 256)
    quantized.vectors.square().sum().backward()
    for gradient in (frames.grad, quantizer.codebook.grad, quantizer.logits.weight.grad):
        assert gradient is not None
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


def test_it_starts_as_released() -> None:
    torch.manual_seed(0)
    quantizer = Quantizer(512, QuantizerConfig())
    assert quantizer.logits.weight.shape == (640, 512)
    assert quantizer.logits.weight.std().item() == pytest.approx(1, abs=0.01)
    assert quantizer.logits.bias.abs().max() == 0
    assert quantizer.codebook.shape == (2, 320, 128)
    assert 0 <= quantizer.codebook.min() < 0.001
    assert 0.999 < quantizer.codebook.max() <= 1


def test_evaluation_takes_the_most_probable_code_without_noise() -> None:
    quantizer = make()
    frames = torch.randn(20, 4)
    first, second = quantizer(frames, None, 2.0), quantizer(frames, None, 0.1)
    assert torch.equal(first.vectors, second.vectors)
    assert torch.equal(first.codes, quantizer.class_probs(frames).argmax(-1))
    for row, codes in zip(first.vectors, first.codes, strict=True):
        assert torch.equal(
            row, torch.cat([quantizer.codebook[g, code] for g, code in enumerate(codes)])
        )
    first.vectors.sum().backward()
    assert quantizer.codebook.grad is not None
    assert quantizer.codebook.grad.abs().sum() > 0


def test_noise_draws_codes_with_their_probabilities() -> None:
    quantizer = make(QuantizerConfig(num_codebooks=1, num_codes=5, width=6))
    frames = torch.randn(1, 4).expand(40_000, 4)
    quantized = quantizer(frames, gumbel(40_000, 1, 5), 2.0)
    shares = torch.bincount(quantized.codes[:, 0], minlength=5) / 40_000
    torch.testing.assert_close(shares, quantized.probs[0, 0].detach(), atol=0.01, rtol=0)


def test_statistics_have_neither_noise_nor_temperature() -> None:
    quantizer, frames = make(), torch.randn(8, 4)
    expected = quantizer(frames, None, 1.0).probs
    torch.testing.assert_close(quantizer(frames, gumbel(8, 2, 5), 0.1).probs, expected)
    torch.testing.assert_close(quantizer.class_probs(frames), expected)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 2.0),
        (1, 1.99999),
        (100_000, 1.2130598),
        (200_000, 0.73575704),
        (277_300, 0.5),
        (10**9, 0.5),
    ],
)
def test_the_temperature_is_a_function_of_the_update(step: int, expected: float) -> None:
    quantizer = make(QuantizerConfig(num_codes=5, width=6))
    assert quantizer.temperature(step) == pytest.approx(expected, rel=1e-6)
    for _ in range(3):  # forward calls, as of micro-batches, change nothing
        quantizer(torch.randn(2, 4), gumbel(2, 2, 5), 1.0)
    assert quantizer.temperature(step) == pytest.approx(expected, rel=1e-6)


def test_large_goes_down_to_a_tenth() -> None:
    quantizer = make(QuantizerConfig(num_codes=5, width=6, min_temperature=0.1))
    assert quantizer.temperature(10**7) == 0.1


@settings(deadline=None)
@given(
    st.integers(1, 4).flatmap(
        lambda v: st.lists(
            st.lists(st.floats(0, 1), min_size=v + 1, max_size=v + 1), min_size=1, max_size=3
        )
    )
)
def test_perplexity_and_diversity_equal_numpy(weights: list[list[float]]) -> None:
    probs = np.array(weights) ** 3 + 1e-6
    probs[probs < 0.01] = 0
    probs[:, 0] += 1e-3
    probs /= probs.sum(-1, keepdims=True)
    found = torch.from_numpy(probs)
    np.testing.assert_allclose(
        code_perplexity(found).numpy(), reference.perplexities(probs), rtol=1e-6
    )
    assert float(diversity(found)) == pytest.approx(reference.diversity(probs), abs=1e-6)


def test_perplexity_and_diversity_at_the_extremes() -> None:
    uniform, single = torch.full((2, 320), 1 / 320), torch.eye(320)[:2]
    assert code_perplexity(uniform).tolist() == pytest.approx([320, 320], rel=1e-5)
    assert float(diversity(uniform)) == pytest.approx(0, abs=1e-6)
    assert code_perplexity(single).tolist() == pytest.approx([1, 1])
    assert float(diversity(single)) == pytest.approx(1 - 2 / 640)


def test_a_probability_that_underflows_leaves_gradients_finite() -> None:
    logits = torch.tensor([[[0.0, 300.0, 1.0]]], requires_grad=True)
    diversity(logits.softmax(-1).mean(0)).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_descending_the_diversity_evens_out_the_codes() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0, 0.5]], requires_grad=True)
    before = code_perplexity(logits.softmax(-1)).item()
    diversity(logits.softmax(-1)).backward()
    assert logits.grad is not None
    assert code_perplexity((logits - logits.grad).softmax(-1)).item() > before


def test_codes_stay_float32_under_mixed_precision() -> None:
    quantizer, frames, noise = make(), torch.randn(30, 4), gumbel(30, 2, 5)
    expected = quantizer(frames, noise, 0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = quantizer(frames, noise, 0.5)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 7}, "width 7 must be divisible by num_codebooks 2"),
        ({"num_codes": 1}, "num_codes"),
        ({"num_codebooks": 16}, "at most 2"),
    ],
)
def test_wrong_shapes_are_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(QuantizerConfig, wrong)
