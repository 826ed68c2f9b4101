"""``speechssl pretrain``: a dry run, and probes on the way."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest
from support.commands import call
from support.models import SMALL_ENCODER
from support.settings import as_toml

from speechssl.analysis import probe_heads, probing
from speechssl.config import build
from speechssl.errors import ConfigError
from speechssl.pretraining.settings import PretrainSettings, TaskName
from speechssl.storage.json_text import read_json_lines


@pytest.mark.slow
def test_pretrain_dry_run_prints_settings_and_trains_nothing(
    labelled_store: Path, tmp_path: Path
) -> None:
    result = call(
        "pretrain", labelled_store, "--run", tmp_path / "run", "--dry-run", "--set", "optim.lr=0.25"
    )
    assert result.exit_code == 0
    shown = json.loads(result.stdout)
    assert shown["optim"]["lr"] == 0.25
    assert {"contrastive", "quantizer", "encoder", "train"} <= shown.keys()
    # What the run reads, a line for each table, and nothing of the trial's own end.
    assert not {"two_views", "hidden_units"} & shown.keys()
    assert len(result.stdout.splitlines()) == len(shown) + 2
    assert "ends at chance" not in result.stderr
    assert not (tmp_path / "run").exists()
    assert re.search(
        r"GB at most; \d+ hours of audio per hour; .* epochs of 0\.0\d h; 2500 updates in",
        result.stderr,
    )


@pytest.mark.slow
def test_probe_prints_a_table_and_pretraining_probes_on_the_way(
    labelled_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_heads, "UPDATES", 5)
    preset = tmp_path / "small.toml"
    preset.write_text(as_toml({"encoder": SMALL_ENCODER}), encoding="utf-8")

    run, asked = tmp_path / "run", f"characters={labelled_store}"
    probes = ("--probe", asked, "--probe-every", 2)
    few = ("--set", "train.steps=10", "--set", "batch.seconds=10", "--set", "train.device=cpu")

    made = call("pretrain", labelled_store, "--preset", preset, "--run", run, *probes, *few)
    assert made.exit_code == 0, made.output
    assert "nothing held out is measured" not in made.stderr

    rows = read_json_lines(run / "metrics.jsonl")
    assert [row["step"] for row in rows if "probe_characters" in row] == [2, 4, 6, 8, 10]
    assert all(row["probe_mean"] == row["probe_characters"] for row in rows if "probe_mean" in row)
    assert (run / "probe.png").is_file()

    found = call("probe", run, asked, f"speaker={labelled_store}", "--out", tmp_path / "out")
    assert found.exit_code == 0, found.output
    assert [line.split("|")[2].strip() for line in found.stdout.splitlines()[2:]] == [
        "model",
        "random",
        "log-mel",
    ] * 2
    assert (tmp_path / "out" / "probe.json").is_file()


def test_a_word_is_said_when_the_probes_no_longer_get_better(
    labelled_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = iter([0.9, 0.8, 0.8, 0.8, 0.8, 0.8, 0.7])
    monkeypatch.setattr(probing, "watch", lambda *_: lambda _encoder: {"probe_mean": next(errors)})
    preset = tmp_path / "small.toml"
    preset.write_text(as_toml({"encoder": SMALL_ENCODER}), encoding="utf-8")
    run = ("--preset", preset, "--run", tmp_path / "run")
    probes = ("--probe", f"digit={labelled_store}", "--probe-every", 1)
    few = ("--set", "train.steps=7", "--set", "batch.seconds=10", "--set", "train.device=cpu")
    made = call("pretrain", labelled_store, *run, *probes, *few)
    assert made.exit_code == 0, made.output
    assert re.findall(r"no better probe for (\d+) updates", made.stderr) == ["3", "4"]


def test_a_longer_run_is_told_to_go_on_elsewhere(labelled_store: Path, tmp_path: Path) -> None:
    """The way that keeps what was learned comes first, and what --force does is said."""
    preset = tmp_path / "small.toml"
    preset.write_text(as_toml({"encoder": SMALL_ENCODER}), encoding="utf-8")
    run = tmp_path / "run"
    start = ("pretrain", labelled_store, "--preset", preset, "--run", run)
    few = ("--set", "batch.seconds=10", "--set", "train.device=cpu", "--set")
    made = call(*start, *few, "train.steps=2")
    assert made.exit_code == 0, made.output
    assert "nothing held out is measured, and the last model is kept: --probe" in made.stderr

    advice = f"another --run, with --init-from {run} to go on"
    again = call(*start, *few, "train.steps=2")
    assert advice in again.stderr
    longer = call(*start, *few, "train.steps=4")
    assert advice in str(longer.exception)
    assert "--force would delete it" in str(longer.exception)


@pytest.mark.parametrize("budget", ["", "15", "m", "-2m", "0s", "infh", "nanm", "15 minutes", "1d"])
def test_a_budget_is_a_time_with_its_unit(
    budget: str, labelled_store: Path, tmp_path: Path
) -> None:
    start = ("finetune", labelled_store, "--run", tmp_path / "run", "--init-from", "none")
    refused = call(*start, "--budget", budget)
    wanted = f"--budget {budget}: give a time with its unit, such as 90s, 15m or 1.5h"
    assert str(refused.exception) == wanted
    assert not (tmp_path / "run").exists()


def test_a_budget_and_a_number_of_updates_are_refused_together(
    labelled_store: Path, tmp_path: Path
) -> None:
    start = ("finetune", labelled_store, "--run", tmp_path / "run", "--init-from", "none")
    refused = call(*start, "--budget", "1m", "--set", "train.steps=5")
    assert "--budget chooses train.steps: leave one of the two out" in str(refused.exception)
    wrong = call(*start, "--budget", "1m", "--set", "train=5")
    assert isinstance(wrong.exception, ConfigError)


@pytest.mark.parametrize("task", get_args(TaskName))
def test_settings_that_no_task_of_the_run_reads_are_not_shown(task: str) -> None:
    settings = build(PretrainSettings, {"task": task})
    others = set(get_args(TaskName)) - {task}
    shown = settings.in_use()
    assert task in shown
    assert not others & shown.keys()
    assert ("quantizer" in shown) == (task == "contrastive")
    assert {"encoder", "mask", "decoder", "optim", "batch", "train", "task"} <= shown.keys()


@pytest.mark.parametrize(
    ("command", "option", "told"),
    [
        (("finetune", "store", "--run", "run"), "--init-from", "none = train from scratch"),
        (("lexicon", "make", "--out", "x"), "--from", "espeak-ng:LANGUAGE, or a lexicon"),
        (("lm", "text"), "--out", "ARPA file to write"),
        (("export", "model", "out"), "--to", "hf"),
        (("evaluate", "model", "store"), "--out", "Folder for score.json"),
    ],
)
def test_what_a_missing_option_takes_is_said(
    command: tuple[str, ...], option: str, told: str
) -> None:
    done = call(*command)
    assert done.exit_code == 2
    # Without the frame and the line breaks of the terminal.
    said = " ".join(done.output.replace("│", " ").split())
    assert f"Missing option '{option}'. " in said
    assert told in said
