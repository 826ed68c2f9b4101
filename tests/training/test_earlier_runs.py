"""Runs of earlier versions, whose settings have other names, continue to the same weights."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.settings import SETTINGS
from support.short_runs import learned

from speechssl.config import build, merge
from speechssl.pretraining.pretrain import pretrain
from speechssl.pretraining.settings import PretrainSettings
from speechssl.storage.json_text import read_json_lines
from speechssl.storage.saved_folders import checkpoints
from speechssl.training.run_folder import MACHINE
from speechssl.training.setting_names import RENAMED_TABLES, RENAMED_TASKS

# Stopped after 4 of 8 updates, where the second checkpoint would be.
SHORT: dict[str, Any] = merge(SETTINGS, {"train": {"steps": 8, "save_every": 4}})


def stop_half_way(run: Path) -> None:
    """Take from a finished run what it did after the first checkpoint, as if it had been killed."""
    newest, _ = checkpoints(run)
    shutil.rmtree(newest)
    shutil.rmtree(run / "model")


@pytest.mark.parametrize("task", ["contrastive", "hidden_units", "two_views"])
def test_a_run_of_an_earlier_version_continues_to_the_same_weights(
    task: str, labelled_store: Path, tmp_path: Path
) -> None:
    """Its settings have their old names, and it tells nothing of machines."""
    settings = build(PretrainSettings, SHORT | {"task": task})
    pretrain([labelled_store], tmp_path / "whole", settings)

    run = tmp_path / "earlier"
    shutil.copytree(tmp_path / "whole", run)
    stop_half_way(run)
    (run / MACHINE).unlink()
    write_old_names(run / "settings.json")

    pretrain([labelled_store], run, settings)
    assert learned(run) == learned(tmp_path / "whole")
    assert [row["step"] for row in read_json_lines(run / MACHINE)] == [4]
    assert [row["step"] for row in read_json_lines(tmp_path / "whole" / MACHINE)] == [0]

    # Nothing is left to do, so this is no start.
    pretrain([labelled_store], run, settings)
    assert len(read_json_lines(run / MACHINE)) == 1


def write_old_names(path: Path) -> None:
    """Name settings as version 0.1 did."""
    tables_before = {new: old for old, new in RENAMED_TABLES.items()}
    tasks_before = {new: old for old, new in RENAMED_TASKS.items()}

    settings = json.loads(path.read_text(encoding="utf-8"))
    before = {tables_before.get(name, name): value for name, value in settings.items()}
    before["task"] = tasks_before.get(before["task"], before["task"])

    assert {"objective", "units", "views"} <= before.keys()
    path.write_text(json.dumps(before), encoding="utf-8")
