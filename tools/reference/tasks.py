"""What every pretext task must keep to, whatever it asks: for the tests of each of them."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from reference.models import batch_of, gradients, noise
from reference.objective import assert_same_gradients
from speechssl.encoder.config import EncoderConfig

LENGTHS = [190, 90, 60, 140, 99]
MakeTask = Callable[[], nn.Module]


def assert_blind_to_padding_and_split(make_task: MakeTask, config: EncoderConfig) -> None:
    """Loss and gradients are sums over utterances: the same in one batch, with junk behind it, and one by one."""
    utterances = noise(config, LENGTHS)
    ids = [f"u{i}" for i in range(len(utterances))]
    found = []
    for batches in (
        [batch_of(utterances, ids)],
        [batch_of(utterances, ids, more_padding=33, fill=float("nan"))],
        [batch_of([u], [i]) for u, i in zip(utterances, ids, strict=True)],
    ):
        task = make_task().eval()
        outputs = [task(batch, 7) for batch in batches]
        for output in outputs:
            output.total.backward()
        metrics = {
            name: sum(float(torch.as_tensor(o.metrics[name]).detach()) for o in outputs)
            for name in {"loss", "chance", "accuracy"} & set(outputs[0].metrics)
        }
        found.append(
            (
                sum(float(o.total.detach()) for o in outputs),
                sum(o.weight for o in outputs),
                metrics,
                gradients(task),
            )
        )
    for total, weight, metrics, grads in found[1:]:
        assert weight == found[0][1]
        assert total == pytest.approx(found[0][0], rel=1e-4)
        assert metrics == pytest.approx(found[0][2], rel=1e-4)
        assert_same_gradients(grads, found[0][3])


def losses_of_a_short_run(task: nn.Module, config: EncoderConfig, steps: int = 60) -> list[float]:
    """Mean losses of updates on utterances that can be learned: slow waves in every bin, another phase in each."""
    time = torch.arange(160)[:, None] / 25
    bins = torch.arange(config.features.num_mels)
    utterances = [
        torch.sin(time + 0.7 * bins + shift) + 0.05 * torch.randn(160, len(bins))
        for shift in range(6)
    ]
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
