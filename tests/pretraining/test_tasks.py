"""Every pretext task has a name, a table of settings of that name, and is made of them."""

from typing import get_args

import pytest
from reference.models import tiny_encoder

from speechssl.pretraining.masked_prediction import PretextTask
from speechssl.pretraining.settings import PretrainSettings, TaskName, TaskSettings
from speechssl.pretraining.tasks import make_task

TASK_NAMES = get_args(TaskName)


@pytest.mark.parametrize("name", TASK_NAMES)
def test_every_task_has_a_table_of_its_name_and_is_made_from_it(name: TaskName) -> None:
    settings = TaskSettings(task=name)
    task = make_task(tiny_encoder("logmel-4"), settings, seed=3)

    assert isinstance(task, PretextTask)
    assert task.seed == 3
    assert task.config == getattr(settings, name)


def test_no_two_tasks_are_made_alike() -> None:
    made = {type(make_task(tiny_encoder("logmel-4"), TaskSettings(task=n), 0)) for n in TASK_NAMES}
    assert len(made) == len(TASK_NAMES)


def test_settings_of_a_run_begin_with_the_preset_and_the_encoder() -> None:
    """The order in which people read them in a run's settings."""
    names = list(PretrainSettings.model_fields)
    assert names[:3] == ["preset", "encoder", "task"]
    assert names[-3:] == ["optim", "batch", "train"]
