"""A run folder: held by one process, of one set of settings, deleted only when it is one."""

import fcntl
from collections.abc import Collection
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from support.toy import Toy, ToyBatches, run_toy

from speechssl.config import build
from speechssl.data.collate import Batch
from speechssl.errors import CheckpointError, ConfigError, SpeechsslError
from speechssl.runtime.machine import describe_machine
from speechssl.storage.checkpoint import load_folder, save_folder
from speechssl.storage.json_text import read_json_lines
from speechssl.storage.saved_folders import checkpoints
from speechssl.training.loop import fit
from speechssl.training.optim import OptimConfig
from speechssl.training.run_folder import (
    LOCK,
    MACHINE,
    claim,
    note_machine,
    only_process,
    start_anew,
)
from speechssl.training.settings import TrainConfig


def test_force_deletes_run_folders_only(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")

    with pytest.raises(ConfigError, match="--force deletes run folders only"):
        start_anew(precious, force=True)
    assert (precious / "thesis.txt").exists()

    (precious / "settings.json").write_text("{}")
    origin_and_teacher = (None, precious / "model")
    for stores, models in (([precious / "store"], ()), ((), (precious,)), ((), origin_and_teacher)):
        with pytest.raises(ConfigError, match="which this command reads"):
            start_anew(precious, True, stores, *models)

    with pytest.raises(SpeechsslError, match="no finished store"):
        start_anew(precious, force=True, stores=[tmp_path / "misspelt"])

    with (
        only_process(precious),
        pytest.raises(ConfigError, match="another process trains in"),
    ):
        start_anew(precious, force=True)
    assert precious.exists()

    (tmp_path / "killed at once").mkdir()
    (tmp_path / "killed at once" / LOCK).touch()
    start_anew(tmp_path / "killed at once", force=True)
    assert not (tmp_path / "killed at once").exists()
    assert precious.exists()

    start_anew(precious, force=True)
    assert not precious.exists()


def test_a_lock_is_on_the_folder_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another process deletes the run between opening and locking, the lock keeps nobody out."""
    (tmp_path / "run").mkdir()
    with only_process(tmp_path / "run"):
        pass
    inner = fcntl.flock

    def late(file: Any, operation: int) -> None:
        (tmp_path / "run").rename(tmp_path / "gone")
        inner(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(ConfigError, match="was deleted just now"), only_process(tmp_path / "run"):
        pytest.fail("it was held")


def test_a_refused_folder_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"theirs": 1}')
    (tmp_path / ".lock").write_text("pid 42")
    with pytest.raises(ConfigError, match="other settings"):
        run_toy(Toy(), tmp_path, [12])
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        "settings.json": '{"theirs": 1}',
        ".lock": "pid 42",
    }


def test_a_run_is_held_until_its_model_is_saved(labelled_store: Path, tmp_path: Path) -> None:
    """Another process with the same command would delete what is half written of it."""
    config = build(TrainConfig, {"steps": 2, "device": "cpu"})
    held: list[bool] = []

    def finish() -> None:
        with pytest.raises(ConfigError, match="another process trains in"):
            run_toy(Toy(), tmp_path / "run", [12], steps=2, save_every=200, log_every=25)
        held.append(True)

    fit(Toy(), ToyBatches([12]), OptimConfig(lr=0.01), config, tmp_path / "run", finish=finish)
    assert held


def test_only_an_empty_folder_or_a_run_is_trained_in(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "metrics.jsonl").write_text('{"step": 99}\n')

    with pytest.raises(
        ConfigError, match=r"no run folder and not empty \(it holds 'metrics.jsonl'\)"
    ):
        run_toy(Toy(), mine, [12])
    assert [p.name for p in mine.iterdir()] == ["metrics.jsonl"]
    assert (mine / "metrics.jsonl").read_text() == '{"step": 99}\n'

    with pytest.raises(ConfigError, match="is a file: give another --run"):
        run_toy(Toy(), mine / "metrics.jsonl", [12])

    half = tmp_path / "half"  # killed before it had settings
    half.mkdir()
    (half / ".speechssl-999999999-ab.tmp").write_text("{")
    run_toy(Toy(), half, [12])
    assert not list(half.glob("*.tmp"))

    (half / "settings.json").write_text("{")
    with pytest.raises(ConfigError, match=r"settings\.json is damaged"):
        run_toy(Toy(), half, [12])


def test_checkpoints_that_were_passed_over_do_not_crowd_out_new_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All are damaged: the run begins anew, and a second kill loses no more than any."""
    run_toy(Toy(), tmp_path / "run", [12], keep=1)
    (last,) = checkpoints(tmp_path / "run")
    (last / "record.json").write_text("{}")
    steps: list[int] = []

    class Watching(ToyBatches):
        def micro_batches(self, step: int, rank: int = 0, ranks: int = 1) -> list[Batch]:
            steps.append(step)
            if step == 5:
                raise KeyboardInterrupt
            return super().micro_batches(step, rank, ranks)

    config = build(
        TrainConfig, {"steps": 8, "save_every": 4, "log_every": 2, "device": "cpu", "keep": 1}
    )
    with pytest.raises(KeyboardInterrupt):
        fit(Toy(), Watching([12]), OptimConfig(lr=0.01), config, tmp_path / "run")
    assert "no checkpoint can be read: starting from the first update" in capsys.readouterr().err
    with pytest.raises(KeyboardInterrupt):
        fit(Toy(), Watching([12]), OptimConfig(lr=0.01), config, tmp_path / "run")
    assert steps == [0, 1, 2, 3, 4, 5, 4, 5]
    run_toy(Toy(), tmp_path / "run", [12], keep=1)
    assert [path.name for path in checkpoints(tmp_path / "run")] == [last.name]


def test_settings_that_change_no_update_may_differ_when_a_run_continues(tmp_path: Path) -> None:
    run_toy(Toy(), tmp_path / "run", [12], log_every=2)
    run_toy(Toy(), tmp_path / "run", [12], log_every=4, keep=1)
    with pytest.raises(ConfigError, match=r"train\.seed: 0 -> 1"):
        run_toy(Toy(), tmp_path / "run", [12], seed=1)


def test_a_run_that_is_out_of_memory_may_go_on_in_smaller_parts(tmp_path: Path) -> None:
    """The message says to lower batch.micro_seconds, and the run was refused with it."""

    class TooLarge(ToyBatches):
        def micro_batches(self, step: int, rank: int = 0, ranks: int = 1) -> list[Batch]:
            if step == 2:
                raise torch.OutOfMemoryError
            return super().micro_batches(step, rank, ranks)

    config = TrainConfig(steps=4, save_every=2, device="cpu")

    def go_on(batches: ToyBatches, micro_seconds: float, preset: str) -> None:
        about = {"preset": preset, "batch": {"seconds": 10.0, "micro_seconds": micro_seconds}}
        fit(Toy(), batches, OptimConfig(), config, tmp_path / "run", settings=about)

    with pytest.raises(torch.OutOfMemoryError):
        go_on(TooLarge([12]), 10.0, "mine")
    go_on(ToyBatches([5, 7]), 5.0, "/from/now/on/mine.toml")
    assert [row["step"] for row in read_json_lines(tmp_path / "run/metrics.jsonl")] == [1, 2, 3, 4]


def test_a_checkpoint_that_lacks_a_weight_is_not_continued(tmp_path: Path) -> None:
    run_toy(Toy(), tmp_path / "run", [12])
    newest = checkpoints(tmp_path / "run")[0]
    tensors, record = load_folder(newest)
    del tensors["model.linear.bias"]
    save_folder(newest, tensors, record)
    with pytest.raises(CheckpointError, match=r"missing linear\.bias"):
        run_toy(Toy(), tmp_path / "run", [12])


def claim_for_now(run: Path, settings: dict[str, Any], free: Collection[str] = ()) -> None:
    with ExitStack() as held:
        claim(run, settings, free, held)


def test_a_caller_names_further_settings_that_may_change(tmp_path: Path) -> None:
    before = {"init": {"path": "here", "files": "digest"}, "preset": "tiny"}
    after = {"init": {"path": "there", "files": "digest"}, "preset": "mine"}
    claim_for_now(tmp_path, before)

    with pytest.raises(ConfigError, match=r"init\.path: 'here' -> 'there'"):
        claim_for_now(tmp_path, after)
    claim_for_now(tmp_path, after, ["init.path"])

    changed = {"init": {"path": "there", "files": "another"}, "preset": "mine"}
    with pytest.raises(ConfigError, match=r"init\.files: 'digest' -> 'another'"):
        claim_for_now(tmp_path, changed, ["init.path"])


def test_a_start_and_its_machine_are_noted(tmp_path: Path) -> None:
    device = torch.device("cpu")
    note_machine(tmp_path, 0, device)
    # A kill on a file system that lost the end of the file.
    with (tmp_path / MACHINE).open("a") as file:
        file.write('{"time": "20')
    note_machine(tmp_path, 12, device)

    rows = read_json_lines(tmp_path / MACHINE)
    assert [row["step"] for row in rows] == [0, 12]
    for row in rows:
        age = datetime.now(UTC) - datetime.fromisoformat(row["time"])
        assert timedelta(0) <= age < timedelta(minutes=5)
        assert {key: row[key] for key in row if key not in ("time", "step")} == describe_machine(
            device
        )
