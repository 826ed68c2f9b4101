"""Learning rates by hand, and an optimiser that uses every one of its settings."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from speechssl.config import build
from speechssl.errors import ConfigError
from speechssl.training.optim import OptimConfig, learning_rate, make_optimizer

LINEAR = OptimConfig(lr=1.0, schedule="linear", warmup=0.08)
TRI_STAGE = OptimConfig(lr=1.0, schedule="tri_stage", warmup=0.1, hold=0.4, final_scale=0.05)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 1 / 8), (3, 4 / 8), (7, 1.0), (8, 1.0), (54, 46 / 92), (77, 23 / 92), (99, 1 / 92)],
)
def test_linear_rises_then_falls_straight_to_zero(step: int, expected: float) -> None:
    assert learning_rate(step, 100, LINEAR) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.01 + 0.99 / 10),
        (4, 0.01 + 0.99 / 2),
        (9, 1.0),
        (10, 1.0),
        (49, 1.0),
        (74, math.sqrt(0.05)),
        (99, 0.05),
    ],
)
def test_tri_stage_rises_holds_and_falls_by_a_factor(step: int, expected: float) -> None:
    assert learning_rate(step, 100, TRI_STAGE) == pytest.approx(expected)


def test_the_peak_scales_every_rate() -> None:
    for config in (LINEAR, TRI_STAGE):
        halved = config.model_copy(update={"lr": 0.5})
        for step in range(100):
            assert learning_rate(step, 100, halved) == pytest.approx(
                learning_rate(step, 100, config) / 2
            )


@given(
    st.sampled_from(["linear", "tri_stage"]),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(1, 500),
)
def test_rates_are_positive_at_most_the_peak_and_have_one_summit(
    schedule: str, warmup: float, hold: float, total: int
) -> None:
    if schedule == "tri_stage" and warmup + hold > 1:
        return
    config = build(OptimConfig, {"lr": 3e-4, "schedule": schedule, "warmup": warmup, "hold": hold})
    rates = [learning_rate(step, total, config) for step in range(total)]
    assert all(0 < rate <= 3e-4 * (1 + 1e-9) for rate in rates)
    summit = int(np.argmax(rates))
    tolerance = 1e-9 * 3e-4
    assert all(b >= a - tolerance for a, b in pairwise(rates[: summit + 1]))
    assert all(b <= a + tolerance for a, b in pairwise(rates[summit:]))


def test_weight_decay_shrinks_a_weight_without_gradient() -> None:
    weight = nn.Parameter(torch.full((3,), 2.0))
    optimizer = make_optimizer([weight], OptimConfig(lr=0.1, weight_decay=0.25))
    weight.grad = torch.zeros(3)
    optimizer.step()
    assert weight.tolist() == pytest.approx([2.0 * (1 - 0.1 * 0.25)] * 3)


def test_updates_equal_adam_with_decoupled_decay_written_out() -> None:
    config = OptimConfig(lr=0.01, beta1=0.8, beta2=0.95, eps=1e-3, weight_decay=0.1)
    random = np.random.default_rng(0)
    expected = random.standard_normal(5)
    weight = nn.Parameter(torch.tensor(expected))
    optimizer = make_optimizer([weight], config)
    mean, square = np.zeros(5), np.zeros(5)

    for step in range(1, 6):
        gradient = random.standard_normal(5)
        weight.grad = torch.tensor(gradient)
        optimizer.step()

        expected = expected * (1 - 0.01 * 0.1)
        mean, square = 0.8 * mean + 0.2 * gradient, 0.95 * square + 0.05 * gradient**2
        expected -= 0.01 * (mean / (1 - 0.8**step)) / (np.sqrt(square / (1 - 0.95**step)) + 1e-3)

    np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-12)


def test_defaults_are_the_papers() -> None:
    group = make_optimizer([nn.Parameter(torch.zeros(1))], OptimConfig()).param_groups[0]
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (
        5e-4,
        (0.9, 0.98),
        1e-6,
        0.01,
    )
    assert OptimConfig().warmup == 0.08


def test_a_tri_stage_without_time_to_fall_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"warmup 0\.7 and hold 0\.4 together exceed"):
        build(OptimConfig, {"schedule": "tri_stage", "warmup": 0.7})
    build(OptimConfig, {"schedule": "linear", "warmup": 0.7})
