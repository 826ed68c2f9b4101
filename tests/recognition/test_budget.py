"""A time in place of a number of updates."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.settings import FEW, tuned

from speechssl.config import Table
from speechssl.errors import ConfigError
from speechssl.recognition import budget
from speechssl.recognition.budget import Pace
from speechssl.recognition.finetune import finetune
from speechssl.storage.checkpoint import load_folder
from speechssl.storage.json_text import read_json_lines

CRF = {"criterion": "ctc-crf", "crf_share": 0.5, "train_front_end": True}


def pace_of(update: float, validation: float = 0.0) -> object:
    return lambda *_given: Pace(update, validation)


def planned(run: Path) -> int:
    return len(read_json_lines(run / "metrics.jsonl"))


def test_as_many_updates_are_planned_as_end_in_time() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        pace = Pace(update=rng.uniform(0.05, 2), validation=rng.uniform(0.1, 20))
        every = int(rng.integers(20, 400))
        budget_s = pace.validation + rng.uniform(1, 3000)

        steps = pace.affordable(budget_s, every)

        # Measured after each ``every`` updates, and after the last one.
        took = steps * pace.update + math.ceil(steps / every) * pace.validation
        assert steps == 1 or took <= budget_s
        # What is left is less than another update with its share, and one measurement.
        assert budget_s - took <= pace.update + 2 * pace.validation + 1e-6


def test_a_planned_run_is_the_run_of_so_many_updates(labelled_store: Path, tmp_path: Path) -> None:
    settings = tuned(ctc=CRF)

    finetune([labelled_store], tmp_path / "planned", settings, init=None, budget_s=3.0)
    steps = planned(tmp_path / "planned")
    same = tuned(ctc=CRF, train=FEW | {"steps": steps})
    finetune([labelled_store], tmp_path / "same", same, init=None)

    assert steps > 1
    first, second = [load_folder(tmp_path / name / "model")[0] for name in ("planned", "same")]
    assert all((first[name] == second[name]).all() for name in second)
    for name in ("settings.json", "texts.txt"):
        assert (tmp_path / "planned" / name).read_text() == (tmp_path / "same" / name).read_text()


def test_a_budget_of_less_than_an_update_is_said_to_be_that(
    labelled_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(budget, "_measure", pace_of(7.0))
    finetune([labelled_store], tmp_path, tuned(), init=None, budget_s=6.0)
    assert planned(tmp_path) == 1
    assert "so there is no time for one update, and one is done" in capsys.readouterr().err


def test_a_run_that_goes_on_keeps_its_updates(
    labelled_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(budget, "_measure", pace_of(1.0))
    finetune([labelled_store], tmp_path, tuned(), init=None, budget_s=7.0)
    planning = capsys.readouterr().err
    assert f"preset {tuned().preset}: an update takes 1.00 s" in planning
    assert "measured once, now, on this machine; so there is time for 7 updates" in planning

    # On a machine that became slow, it would have planned one.
    monkeypatch.setattr(budget, "_measure", pace_of(7.0))
    finetune([labelled_store], tmp_path, tuned(), init=None, budget_s=7.0)

    assert planned(tmp_path) == 7
    assert "goes on with the 7 updates that were planned for it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "settings.json is damaged"),
        ("[]", "settings.json is damaged"),
        ('{"train": []}', "was started with other settings"),
        ('{"train": {"steps": 3}}', "was started with other settings"),
    ],
)
def test_a_folder_of_something_else_is_refused(
    text: str,
    message: str,
    labelled_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(budget, "_measure", pace_of(1.0))
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        finetune([labelled_store], tmp_path, tuned(), init=None, budget_s=3.0)


def test_processes_that_share_updates_are_refused(
    labelled_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "ranks", SimpleNamespace(count=lambda: 2))

    def begin() -> None:
        raise AssertionError("an older run may be deleted now")

    with pytest.raises(ConfigError, match="--budget times the updates of one process"):
        finetune([labelled_store], tmp_path / "run", tuned(), None, begin=begin, budget_s=5.0)
    assert not (tmp_path / "run").exists()


def test_settings_hold_the_planned_updates_and_no_time(
    labelled_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "_measure", pace_of(1.0))
    finetune([labelled_store], tmp_path, tuned(), init=None, budget_s=4.0)
    settings: Table = json.loads((tmp_path / "settings.json").read_text())
    assert settings["train"]["steps"] == 4
    assert "budget" not in str(settings)


def test_time_is_left_where_the_labels_have_been_heard_often_enough(
    labelled_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(budget, "_measure", pace_of(1.0))
    settings = tuned(ctc={"train_front_end": True, "max_epochs": 1})
    finetune([labelled_store], tmp_path, settings, init=None, budget_s=50.0)

    said = capsys.readouterr().err
    per_epoch = int(said.split(" updates an epoch")[0].rsplit(" ", 1)[1])
    assert f"{per_epoch} updates in place of 50, for ctc.max_epochs=1: " in said
    assert planned(tmp_path) == per_epoch < 50
