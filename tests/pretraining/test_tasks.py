"""Every pretext task has a name, a table of settings of that name, and is made of them."""

import math
import operator
import random
from functools import reduce
from typing import get_args

import pytest
import torch
from reference.models import batch_of, noise, tiny_encoder
from reference.objective import ids_of
from reference.tasks import LENGTHS, losses_of_a_short_run
from torch import Tensor

from speechssl.config import build
from speechssl.data.collate import Batch
from speechssl.pretraining.hidden_units import HiddenUnits
from speechssl.pretraining.masked_prediction import PretextTask
from speechssl.pretraining.settings import PretrainSettings, TaskName, TaskSettings
from speechssl.pretraining.tasks import make_task
from speechssl.training.loss import StatisticsModel, UpdateMetrics

TASK_NAMES = get_args(TaskName)


class Utterances:
    """What ``HiddenUnits.fit`` asks of a dataset."""

    def __init__(self, utterances: list[Tensor]) -> None:
        self.utterances = utterances

    def __len__(self) -> int:
        return len(self.utterances)

    def batch(self, positions: list[int]) -> Batch:
        return batch_of([self.utterances[position] for position in positions])


@pytest.mark.parametrize("name", TASK_NAMES)
def test_every_task_has_a_table_of_its_name_and_is_made_from_it(name: TaskName) -> None:
    settings = TaskSettings(task=name)
    task = make_task(tiny_encoder("logmel-4"), settings, seed=3)

    assert isinstance(task, PretextTask)
    assert task.seed == 3
    assert task.config == getattr(settings, name)


@pytest.mark.parametrize("kind", ["convolutions", "batch-norm"])
@pytest.mark.parametrize("name", TASK_NAMES)
def test_every_task_learns_with_a_convolutional_encoder(name: TaskName, kind: str) -> None:
    """Its frames of 30 ms have three mel rows each, and its layers hide frames by themselves."""
    table = {"task": name, "contrastive": {"num_negatives": 5, "width": 16}}
    table |= {"quantizer": {"num_codes": 8, "width": 16}, "hidden_units": {"num_codes": (5, 3)}}
    task = make_task(tiny_encoder(kind), build(TaskSettings, table), seed=3)
    if isinstance(task, HiddenUnits):
        task.fit(Utterances(noise(task.encoder.config, LENGTHS)))  # type: ignore[arg-type]

    before = [parameter.clone() for parameter in task.encoder.parameters()]
    losses = losses_of_a_short_run(task, task.encoder.config, steps=3)

    assert all(math.isfinite(loss) for loss in losses)
    moved = [
        not torch.equal(old, new)
        for old, new in zip(before, task.encoder.parameters(), strict=True)
    ]
    assert sum(moved) >= len(moved) - 1  # all, but for a mask vector that a task does not use


@pytest.mark.parametrize("name", TASK_NAMES)
def test_no_metric_depends_on_how_an_update_is_divided(name: TaskName) -> None:
    table = {"task": name, "contrastive": {"num_negatives": 5, "width": 16}}
    table |= {"quantizer": {"num_codes": 50, "width": 16}, "hidden_units": {"num_codes": (5, 3)}}
    task = make_task(tiny_encoder("logmel-4"), build(TaskSettings, table), seed=3).train()
    utterances = noise(task.encoder.config, [*LENGTHS, *LENGTHS])
    if isinstance(task, HiddenUnits):
        task.fit(Utterances(utterances))  # type: ignore[arg-type]

    draws = random.Random(name)
    order = draws.sample(range(len(utterances)), len(utterances))
    cut = draws.randrange(1, len(utterances))
    parts = [
        batch_of([utterances[i] for i in part], ids_of(part)) for part in (order[:cut], order[cut:])
    ]

    whole = metrics_of(task, [batch_of(utterances)])
    assert metrics_of(task, parts) == pytest.approx(whole, rel=1e-4)
    assert "masked_share" in whole
    assert ("live_codes" in whole) == (name == "contrastive")


def metrics_of(task: PretextTask, batches: list[Batch]) -> dict[str, float]:
    """All metrics of an update of these micro-batches, as the training loop logs them."""
    statistics = ()
    if isinstance(task, StatisticsModel):
        statistics = (reduce(operator.add, [task.statistics(batch, 2) for batch in batches]),)

    metrics = UpdateMetrics()
    outputs = [task(batch, 2, *statistics) for batch in batches]
    for output in outputs:
        metrics.add(output)
    row = metrics.row(sum(output.weight for output in outputs))
    return {name: float(value) for name, value in row.items()}


def test_no_two_tasks_are_made_alike() -> None:
    made = {type(make_task(tiny_encoder("logmel-4"), TaskSettings(task=n), 0)) for n in TASK_NAMES}
    assert len(made) == len(TASK_NAMES)


def test_settings_of_a_run_begin_with_the_preset_and_the_encoder() -> None:
    """The order in which people read them in a run's settings."""
    names = list(PretrainSettings.model_fields)
    assert names[:3] == ["preset", "encoder", "task"]
    assert names[-3:] == ["optim", "batch", "train"]
