"""The bench of learning: equal work for all systems, none twice, a table and a picture."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import SMALL_ENCODER
from support.places import ROOT
from support.scripts import load_script

from speechssl.errors import TrainingError
from speechssl.storage.checkpoint import load_record

learn = load_script(ROOT / "tools" / "learn.py")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tool sets torch's threads for the whole process."""
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)


def row(name: str, system: str, minutes: float | None, seed: int, cer: float) -> dict[str, Any]:
    return {
        "name": name,
        "system": system,
        "minutes": minutes,
        "seed": seed,
        "cer": cer,
        "wer": 2 * cer,
    }


ROWS = [
    row("b", "scratch", 10, 1, 61),
    row("a", "pretrained", 10, 0, 40),
    row("b", "scratch", 10, 0, 59),
    row("a", "pretrained", None, 0, 20),
    row("a", "pretrained", 10, 1, 44),
]


def test_the_table_has_mean_and_range_of_the_seeds_the_best_first() -> None:
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in learn.as_text(ROWS).splitlines()[2:]
    ]
    assert lines == [
        ["10", "a", "pretrained", "2", "42.0 (40.0 .. 44.0)", "84.0 (80.0 .. 88.0)"],
        ["10", "b", "scratch", "2", "60.0 (59.0 .. 61.0)", "120.0 (118.0 .. 122.0)"],
        ["all", "a", "pretrained", "1", "20.0 (20.0 .. 20.0)", "40.0 (40.0 .. 40.0)"],
    ]


def of_task(task: str, loss: float, accuracy: float | None, cer: float) -> dict[str, Any]:
    own = {"loss": loss} | ({} if accuracy is None else {"accuracy": accuracy})
    pretrain = [] if task == "contrastive" else [f"task={task}", "batch.seconds=20"]
    return row("x", "pretrained", 10, 0, cer) | {
        "pretraining": own,
        "pretrain": pretrain,
        "finetune": [],
    }


def test_rank_correlations_are_worked_out_for_each_task_by_itself() -> None:
    """By hand, without ties: 1 - 6 sum(d^2) / (n (n^2 - 1)).

    Two neighbours of the contrastive runs are swapped.
    """
    rows = [
        of_task("contrastive", loss, -loss, cer)
        for loss, cer in ((1, 50), (2, 70), (3, 60), (4, 80))
    ]
    rows += [
        of_task("reconstruction", loss, None, cer)
        for loss, cer in ((0.1, 9), (0.2, 8), (0.3, 7), (0.4, 6))
    ]
    rows += [
        of_task("contrastive", 9 - loss, None, 9 * loss) | {"labelled": "other"}
        for loss in (1, 2, 3, 4)
    ]
    rows += [of_task("two_views", 1, None, cer) for cer in (1, 2, 3)] + [
        row("y", "scratch", 10, 0, 5)
    ]

    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in learn.correlations(rows).splitlines()[3:]
    ]
    assert lines == [
        ["10", "contrastive", "4", "-1.00", "-1.00", "-", "-"],
        ["10", "contrastive", "4", "+0.80", "+0.80", "-0.80", "-0.80"],
        ["10", "reconstruction", "4", "-1.00", "-1.00", "-", "-"],
    ]

    assert learn.correlations(ROWS) == ""


def test_results_become_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = "".join(json.dumps(r) + "\n" for r in ROWS) + '{"name": "cut off'  # by a kill
    (tmp_path / "results.jsonl").write_text(lines, encoding="utf-8")
    assert learn.main(["show", "--out", str(tmp_path), "--png", str(tmp_path / "curve.png")]) == 0
    assert capsys.readouterr().out == learn.as_text(ROWS)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_trials_of_one_amount_stand_beside_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Any] = []
    monkeypatch.setattr(learn, "save_figure", lambda figure, _: figures.append(figure))

    rows = [
        row(name, "pretrained", None, seed, 40.0 + seed)
        for name in ("a", "b", "c")
        for seed in (0, 2)
    ]

    learn.plot(rows, tmp_path / "x.png")
    learn.plot([], tmp_path / "x.png")  # before the first result

    (axes,) = figures[0].axes
    drawn = axes.get_legend_handles_labels()
    assert drawn[1] == ["a, pretrained", "b, pretrained", "c, pretrained"]

    places = [bars[0].get_xdata()[0] for bars in drawn[0]]
    assert min(b - a for a, b in pairwise(places)) > 0.1
    assert [bars[0].get_ydata()[0] for bars in drawn[0]] == [41.0] * 3
    assert [[y for _, y in bars[2][0].get_segments()[0]] for bars in drawn[0]] == [[40.0, 42.0]] * 3
    assert [label.get_text() for label in axes.get_xticklabels()] == ["all"]


@pytest.mark.slow
def test_a_trial_gives_each_system_the_same_updates_and_is_done_once(
    labelled_store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(learn, "cpu_s_per_update", lambda *_: 2.0)
    shape = [
        f"{key}={json.dumps(value)}"
        for key, value in SMALL_ENCODER.items()
        if not isinstance(value, dict)
    ]
    command = [
        "try",
        "first",
        "--labelled",
        str(labelled_store),
        "--unlabelled",
        str(labelled_store),
    ]
    command += [
        "--cpu-minutes",
        "0.1",
        "--seeds",
        "3",
        "--encoder",
        *shape,
        "--finetune",
        "train.steps=2",
    ]
    command += ["--pretrain", "batch.seconds=15", "--out", str(tmp_path)]

    assert learn.main(command) == 0
    rows = learn.read_rows(tmp_path)
    assert [(r["system"], r["minutes"], r["seed"]) for r in rows] == [
        (s, None, 3) for s in learn.SYSTEMS
    ]
    assert rows[0]["pretraining"]["steps"] == 3  # 6 s of processor time
    assert rows[0]["pretraining"]["hours"] > 0
    assert all(0 < r["cer"] <= 1000 and 0 < r["wer"] <= 1000 for r in rows)

    runs = tmp_path / "first" / "3"
    settings = [
        json.loads((runs / f"{s}-all" / "settings.json").read_text(encoding="utf-8"))
        for s in learn.SYSTEMS
    ]
    assert [s["train"]["steps"] for s in settings] == [2, 2, 2]
    assert settings[0]["encoder"] == settings[1]["encoder"] == settings[2]["encoder"]
    assert [s["ctc"]["frozen"] for s in settings] == [False, False, True]
    assert [s["init"] for s in settings[1:]] == ["none", "none"]
    assert settings[0]["init"]["path"] == str(runs / "pretrained")
    assert load_record(runs / "pretrained" / "model")["kind"] == "pretraining"

    monkeypatch.setattr(learn, "finetune", None)  # would be called, and fail
    capsys.readouterr()
    assert learn.main(command) == 0
    assert capsys.readouterr().out == ""
    assert len(learn.read_rows(tmp_path)) == 3

    assert learn.main([*command, "--cpu-minutes", "0.2"]) == 1  # never mixed under one name
    assert "trial first was begun with another cpu_minutes" in capsys.readouterr().err


def test_a_trial_that_cannot_be_run_says_why(
    labelled_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        learn.main(["try", "x", "--labelled", str(labelled_store)])
    assert "give stores as --unlabelled, or a run as --init" in capsys.readouterr().err

    command = [
        "try",
        "x",
        "--labelled",
        str(labelled_store),
        "--systems",
        "scratch",
        "--out",
        str(tmp_path),
    ]
    command += ["--finetune", "optim.rl=1"]

    assert learn.main(command) == 1
    assert "error: unknown setting 'optim.rl'" in capsys.readouterr().err

    assert learn.main([*command[:-1], "encoder.dropout=0.2"]) == 1
    assert "--finetune encoder.dropout is not free" in capsys.readouterr().err

    assert learn.main([*command[:-1], "train.seed=4"]) == 1
    assert "--finetune train.seed is not free" in capsys.readouterr().err

    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_stopped_trial_is_never_gone_on_with_under_other_settings(
    labelled_store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed in its first fine-tuning, without a result: its updates were the first budget's."""
    monkeypatch.setattr(learn, "cpu_s_per_update", lambda *_: 2.0)
    stores = [
        "--labelled",
        str(labelled_store),
        "--unlabelled",
        str(labelled_store),
        "--out",
        str(tmp_path),
    ]

    monkeypatch.setattr(learn, "tuned", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        learn.main(["try", "x", *stores, "--cpu-minutes", "1"])
    assert json.loads((tmp_path / "x" / "trial.json").read_text(encoding="utf-8"))["steps"] == 30

    assert learn.main(["try", "x", *stores, "--cpu-minutes", "2"]) == 1
    assert "trial x was begun with another cpu_minutes" in capsys.readouterr().err


@pytest.mark.slow
def test_a_lost_run_is_a_line_and_the_others_go_on(
    labelled_store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def tuned(
        _options: object, _plan: object, system: str, _minutes: float | None, _seed: int
    ) -> dict[str, float]:
        if system == "scratch":
            raise TrainingError("collapsed after 3 updates")
        return {"cer": 50.0, "wer": 90.0}

    monkeypatch.setattr(learn, "tuned", tuned)
    (tmp_path / "results.jsonl").write_text('{"name": "cut o', encoding="utf-8")

    command = [
        "try",
        "x",
        "--labelled",
        str(labelled_store),
        "--systems",
        "scratch",
        "frozen",
        "scratch",
    ]
    assert (
        learn.main([*command, "--seeds", "1", "1", "--minutes", "all", "2", "--out", str(tmp_path)])
        == 0
    )

    rows = learn.read_rows(tmp_path)
    assert [(r["system"], r["minutes"], "failed" in r) for r in rows] == [
        ("scratch", None, True), ("scratch", 2, True), ("frozen", None, False), ("frozen", 2, False)
    ]  # fmt: skip
    assert "lost: x, scratch, seed 1: collapsed after 3 updates" in capsys.readouterr().out

    assert learn.main(["show", "--out", str(tmp_path), "--png", str(tmp_path / "x.png")]) == 0
