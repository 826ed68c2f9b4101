"""Optimiser and learning-rate schedules; the rate is a pure function of the step."""

from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from speechssl.config import Settings

# tri_stage rises from this share of the peak rate (SpecAugment, arXiv 1904.08779).
FIRST_SCALE = 0.01


class OptimConfig(Settings):
    """Adam with decoupled weight decay, and one of two schedules."""

    lr: float = Field(5e-4, gt=0, description="peak learning rate")
    schedule: Literal["linear", "tri_stage"] = Field(
        "linear", description="linear: up, then down to 0; tri_stage"
    )
    warmup: float = Field(0.08, ge=0, le=1, description="share of the steps that the rate rises")
    hold: float = Field(0.4, ge=0, le=1, description="share of the steps at the peak (tri_stage)")
    final_scale: float = Field(0.05, gt=0, le=1, description="last rate / peak rate (tri_stage)")
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.98, ge=0, lt=1)
    eps: float = Field(1e-6, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    clip_norm: float = Field(
        10.0, gt=0, description="largest gradient norm; a larger gradient is scaled down"
    )

    @model_validator(mode="after")
    def _time_to_fall(self) -> "OptimConfig":
        if self.schedule == "tri_stage" and self.warmup + self.hold > 1:
            raise ValueError(
                f"warmup {self.warmup:g} and hold {self.hold:g} together exceed all of the steps"
            )
        return self


def make_optimizer(parameters: Iterable[nn.Parameter], config: OptimConfig) -> torch.optim.AdamW:
    """Make AdamW over all ``parameters``; biases and norms decay too, as in the reference."""
    return torch.optim.AdamW(
        parameters,
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        weight_decay=config.weight_decay,
        # One pass over memory instead of one for each operation.
        fused=True,
    )


def learning_rate(step: int, total_steps: int, config: OptimConfig) -> float:
    """Compute the rate of update ``step`` (from 0) of ``total_steps``.

    linear: up over ``warmup``, then straight to 0.

    tri_stage: up over ``warmup`` from 1 % of the peak, level over ``hold``, then exponentially down
    to ``final_scale`` of the peak.

    Source: wav2vec 2.0 section 4.2 (linear) and 4.3 (tri-stage; SpecAugment, arXiv 1904.08779).
    """
    if config.schedule == "linear":
        return config.lr * _linear(step, total_steps, config.warmup)
    return config.lr * _tri_stage(step, total_steps, config)


def _linear(step: int, total_steps: int, warmup: float) -> float:
    """Share of the peak rate."""
    rising = _rise(step, total_steps, warmup)

    # Without any step after the warm-up there is nothing to divide by: one step is the least.
    fall = max(1 - warmup, 1 / total_steps)
    falling = (1 - step / total_steps) / fall

    return min(rising, falling, 1.0)


def _tri_stage(step: int, total_steps: int, config: OptimConfig) -> float:
    """Share of the peak rate."""
    rising = _rise(step, total_steps, config.warmup)
    if rising < 1:
        return FIRST_SCALE + (1 - FIRST_SCALE) * rising

    done = (step + 1) / total_steps
    since_hold = max(0.0, done - config.warmup - config.hold)
    fall = max(1 - config.warmup - config.hold, 1e-9)
    falling = min(since_hold / fall, 1.0)

    return float(config.final_scale**falling)


def _rise(step: int, total_steps: int, warmup: float) -> float:
    """How far the warm-up is after update ``step``; 1 or more once it is over."""
    done = (step + 1) / total_steps
    return done / warmup if warmup else 1.0
