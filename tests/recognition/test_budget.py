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
from speechssl.recognition.budget import FEW_UPDATES, USEFUL_UPDATES, Pace
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


def test_a_run_that_goes_on_keeps_its_updates(
    labelled_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(budget, "_measure", pace_of(1.0))
    finetune([labelled_store], tmp_path, tuned(), init=None, budget_s=7.0)
    capsys.readouterr()

    # On a machine that became slow, it would have planned one.
    monkeypatch.setattr(budget, "_measure", pace_of(7.0))
    finetune([labelled_store], tmp_path, tuned(), init=None, budget_s=7.0)

    assert planned(tmp_path) == 7
    assert "goes on with the 7 updates that were planned for it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tried", "steps"),
    [
        # The store has 1.8 minutes of labels.
        ({4: 3, 16: 9}, 3),
        ({0.9: 2, 3.6: 6}, 4),
        ({0.1: 1, 0.45: 2}, 8),
    ],
)
def test_more_updates_than_teach_are_not_planned(
    tried: dict[float, int],
    steps: int,
    labelled_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(budget, "_measure", pace_of(1.0))
    monkeypatch.setattr(budget, "USEFUL_UPDATES", tried)
    settings = tuned(preset=budget.PRESET)

    finetune([labelled_store], tmp_path / "capped", settings, init=None, budget_s=11.0)

    assert planned(tmp_path / "capped") == steps
    said = capsys.readouterr().err
    assert f"there is time for 11; planned are {steps}" in said
    assert f"more than {steps} updates on so few labels taught nothing more" in said

    # Of other presets it is not known.
    finetune([labelled_store], tmp_path / "free", tuned(), init=None, budget_s=11.0)
    assert planned(tmp_path / "free") == 11


def test_a_budget_for_too_few_updates_is_said_to_be_one(
    labelled_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(budget, "_measure", pace_of(1.0))
    finetune([labelled_store], tmp_path, tuned(preset=budget.PRESET), init=None, budget_s=2.0)
    assert "leave most words wrong: give a longer --budget" in capsys.readouterr().err


def test_the_amounts_that_were_tried_rise() -> None:
    minutes, updates = list(USEFUL_UPDATES), list(USEFUL_UPDATES.values())
    assert minutes == sorted(minutes)
    assert updates == sorted(updates)
    assert min(updates) >= FEW_UPDATES


def test_processes_that_share_updates_are_refused(
    labelled_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "distributed", SimpleNamespace(count=lambda: 2))

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
