"""Checks that every pretext task must pass, for the tests of each of them."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from reference.models import batch_of, gradients, noise
from reference.objective import assert_same_gradients
from speechssl.data.dataset import Batch
from speechssl.encoder.config import EncoderConfig

LENGTHS = [190, 90, 60, 140, 99]
MakeTask = Callable[[], nn.Module]


def assert_blind_to_padding_and_split(make_task: MakeTask, config: EncoderConfig) -> None:
    """Check that loss and gradients are sums over utterances.

    They must be the same in one batch, with junk in the padding, and one by one.
    """
    utterances = noise(config, LENGTHS)
    ids = [f"u{i}" for i in range(len(utterances))]
    together = [batch_of(utterances, ids)]
    with_junk = [batch_of(utterances, ids, more_padding=33, fill=float("nan"))]
    one_by_one = [batch_of([own], [name]) for own, name in zip(utterances, ids, strict=True)]

    expected = _summed(make_task(), together)
    for batches in (with_junk, one_by_one):
        found = _summed(make_task(), batches)
        assert found.weight == expected.weight
        assert found.total == pytest.approx(expected.total, rel=1e-4)
        assert found.metrics == pytest.approx(expected.metrics, rel=1e-4)
        assert_same_gradients(found.gradients, expected.gradients)


def losses_of_a_short_run(task: nn.Module, config: EncoderConfig, steps: int = 60) -> list[float]:
    """List mean losses of updates on utterances that can be learned.

    These are slow waves in every bin, of another phase in each.
    """
    time = torch.arange(160)[:, None] / 25
    bins = torch.arange(config.features.num_mels)
    utterances = []
    for shift in range(6):
        waves = torch.sin(time + 0.7 * bins + shift)
        utterances.append(waves + 0.05 * torch.randn(160, len(bins)))
    batch = batch_of(utterances)

    optimizer = torch.optim.Adam(task.parameters(), lr=5e-3)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        output = task(batch, step)
        (output.total / output.weight).backward()
        optimizer.step()
        losses.append(float(output.total.detach()) / output.weight)
    return losses


class _Summed(NamedTuple):
    """The sums of a task over some batches."""

    total: float
    weight: float
    metrics: dict[str, float]
    gradients: dict[str, Tensor]


def _summed(task: nn.Module, batches: list[Batch]) -> _Summed:
    """Run a task on batches and add up."""
    task.eval()
    outputs = [task(batch, 7) for batch in batches]
    for output in outputs:
        output.total.backward()

    metrics = {}
    for name in {"loss", "chance", "accuracy"} & set(outputs[0].metrics):
        values = [torch.as_tensor(output.metrics[name]).detach() for output in outputs]
        metrics[name] = sum(map(float, values))

    total = sum(float(output.total.detach()) for output in outputs)
    weight = sum(output.weight for output in outputs)
    return _Summed(total, weight, metrics, gradients(task))
