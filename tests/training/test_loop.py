"""The loop: resumes bit for bit after any kill, divides once, refuses non-finite updates, stops lost runs."""

import fcntl
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import SMALL_ENCODER
from support.settings import SETTINGS, as_toml
from support.speech import make_labelled
from torch import Tensor, nn

from speechssl.config import build
from speechssl.data.dataset import Batch
from speechssl.data.prepare import prepare
from speechssl.errors import CheckpointError, ConfigError, TrainingError
from speechssl.pretraining.pretrain import pretrain
from speechssl.pretraining.settings import PretrainSettings
from speechssl.storage.checkpoint import checkpoints, load_folder, save_folder
from speechssl.storage.json_text import read_json_lines
from speechssl.training.health import Health
from speechssl.training.loop import BAD_STEPS, TrainConfig, Validation, _Journal, fit
from speechssl.training.loss import LossOutput
from speechssl.training.optim import OptimConfig
from speechssl.training.run_folder import only_process


def losses(run: Path) -> list[str]:
    """Every logged loss and gradient norm, digit by digit."""
    return [
        f"{row['step']} {row['loss']!r} {row['grad_norm']!r}"
        for row in read_json_lines(run / "metrics.jsonl")
    ]


def weights(run: Path) -> dict[str, Tensor]:
    return load_folder(run / "model")[0]


@pytest.fixture(scope="module")
def undisturbed(labelled_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    pretrain([labelled_store], run, build(PretrainSettings, SETTINGS))
    return run


def start(store: Path, run: Path, *more: str) -> "subprocess.Popen[str]":
    """The same run as ``undisturbed``, as a user would start it."""
    preset = run.parent / f"{run.name}.toml"
    pretrain_table = {k: v for k, v in SETTINGS.items() if k != "encoder"}
    preset.write_text(
        as_toml({"encoder": SMALL_ENCODER, "pretrain": pretrain_table}), encoding="utf-8"
    )
    command = [
        sys.executable,
        "-m",
        "speechssl.cli",
        "pretrain",
        str(store),
        "--run",
        str(run),
        "--preset",
        str(preset),
    ]
    # Reductions depend on the number of threads: a child must use as many as this process.
    threads = {
        name: str(torch.get_num_threads()) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    }
    return subprocess.Popen(
        [*command, *more], stderr=subprocess.PIPE, text=True, env=os.environ | threads
    )


def wait_for(run: Path, step: int, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 60
    while not (checkpoints(run) and int(checkpoints(run)[0].name[5:]) >= step):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_sigkill_and_resume_equal_an_undisturbed_run(
    labelled_store: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    for step in (5, 10):
        process = start(labelled_store, run)
        wait_for(run, step, process)
        with pytest.raises(ConfigError, match="another process trains in"):
            pretrain([labelled_store], run, build(PretrainSettings, SETTINGS))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.communicate()
    assert not (run / "model").exists()
    process = start(labelled_store, run)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "continuing after update" in errors
    assert "are done already" not in errors
    assert losses(run) == losses(undisturbed)
    for name, value in weights(undisturbed).items():
        assert torch.equal(value, weights(run)[name]), name


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_exits_with_its_code(
    sent: signal.Signals, labelled_store: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "stopped"
    process = start(labelled_store, run)
    wait_for(run, 5, process)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + sent, errors
    assert f"{sent.name}: saved" in errors
    saved = int(checkpoints(run)[0].name[5:])
    assert [row["step"] for row in read_json_lines(run / "metrics.jsonl")] == list(
        range(1, saved + 1)
    )
    process = start(labelled_store, run)
    process.communicate(timeout=120)
    assert losses(run) == losses(undisturbed)


def test_a_damaged_checkpoint_is_passed_over(
    labelled_store: Path, undisturbed: Path, tmp_path: Path
) -> None:
    settings = build(PretrainSettings, SETTINGS)
    run = tmp_path / "damaged"
    pretrain([labelled_store], run, settings)
    newest, older = checkpoints(run)
    path = newest / "tensors.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    pretrain([labelled_store], run, settings)
    assert losses(run) == losses(undisturbed)
    assert older.name < newest.name
    assert all(torch.equal(v, weights(run)[n]) for n, v in weights(undisturbed).items())


def test_a_lock_is_on_the_folder_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking the file another process may have deleted the run: its lock would keep nobody out."""
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


def test_another_runs_folder_is_refused(labelled_store: Path, undisturbed: Path) -> None:
    other = build(PretrainSettings, SETTINGS | {"optim": {"lr": 2e-3}})
    with pytest.raises(ConfigError, match=r"optim\.lr: 0\.001 -> 0\.002"):
        pretrain([labelled_store], undisturbed, other)


def test_a_run_on_other_stores_is_refused(
    labelled_store: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(make_labelled(tmp_path / "corpus", {"train": 4}, seed=1), tmp_path / "other")
    with pytest.raises(ConfigError, match=r"data\.stores: "):
        pretrain([tmp_path / "other"], undisturbed, build(PretrainSettings, SETTINGS))
    with pytest.raises(ConfigError, match=r"data\.splits: \['train'\] -> \['dev'\]"):
        pretrain([labelled_store], undisturbed, build(PretrainSettings, SETTINGS), ["dev"])
    moved = tmp_path / "moved"
    shutil.copytree(labelled_store, moved)
    pretrain(
        [moved], undisturbed, build(PretrainSettings, SETTINGS)
    )  # where a store lies does not matter
    assert f"all 24 updates of {undisturbed} are done already" in capsys.readouterr().err


class Toy(nn.Module):
    """Least squares on the batch's inputs; reports what the loop hands it."""

    def __init__(self, poison: set[int] | None = None, chance: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)
        nn.init.constant_(self.linear.weight, 0.3)
        nn.init.zeros_(self.linear.bias)
        self.poison, self.chance = poison or set(), chance

    def forward(self, batch: Batch, step: int) -> LossOutput:
        error = (self.linear(batch.inputs) - 1).square().sum()
        if step in self.poison:
            error = error * float("nan")
        n = len(batch.ids)
        extra = {
            "chance": 2.0 * n,
            "accuracy": 0.1 * n,
            "code_perplexity": 9.0 * n,
            "loss": torch.tensor(2.0 * n),
        }
        return LossOutput(error, n, extra if self.chance else {"loss": error.detach()})


class ToyBatches:
    def __init__(self, cuts: list[int]) -> None:
        self.cuts = cuts

    def micro_batches(self, step: int, rank: int = 0, ranks: int = 1) -> list[Batch]:
        rows = torch.randn(12, 3, generator=torch.Generator().manual_seed(step))
        pieces = rows.split(self.cuts)
        return [
            Batch(
                tuple(f"{step}-{i}" for i in range(len(p))),
                (0,) * len(p),
                p,
                torch.ones(len(p)),
                (None,) * len(p),
                1,
            )
            for p in pieces
        ]


def run_toy(model: Toy, run: Path, cuts: list[int], **train: object) -> Toy:
    config = build(
        TrainConfig, {"steps": 8, "save_every": 4, "log_every": 2, "device": "cpu"} | train
    )
    fit(model, ToyBatches(cuts), OptimConfig(lr=0.01), config, run)
    return model


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


def test_every_update_reaches_the_progress_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also those that a checkpoint between two lines writes to the file."""
    validation = Validation(lambda: {"dev_wer": 0.25}, "dev_wer", lambda _: None)
    config = TrainConfig(steps=12, validate_every=4, save_every=3, log_every=6, device="cpu")
    fit(Toy(), ToyBatches([12]), OptimConfig(), config, tmp_path / "run", validation=validation)
    lines = capsys.readouterr().err.splitlines()
    shown = [
        (int(found[1]), "dev_wer 25.0%" in line)
        for line in lines
        if (found := re.search(r"update (\d+)/", line))
    ]
    assert shown == [(4, True), (6, False), (8, True), (12, True)]
    losses = [row["loss"] for row in read_json_lines(tmp_path / "run/metrics.jsonl")]
    assert f"loss {sum(losses[:4]) / 4:.3g} " in lines[0]


def test_fit_works_outside_the_main_thread(tmp_path: Path) -> None:
    worker = threading.Thread(target=run_toy, args=(Toy(), tmp_path / "run", [12]))
    worker.start()
    worker.join()
    assert checkpoints(tmp_path / "run")[0].name == "step-00000008"


def test_a_step_does_not_depend_on_its_micro_batches(tmp_path: Path) -> None:
    whole = run_toy(Toy(), tmp_path / "whole", [12])
    parts = run_toy(Toy(), tmp_path / "parts", [1, 4, 7])
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    pairs = zip(
        read_json_lines(tmp_path / "whole/metrics.jsonl"),
        read_json_lines(tmp_path / "parts/metrics.jsonl"),
        strict=True,
    )
    assert all(a["loss"] == pytest.approx(b["loss"], abs=1e-5) for a, b in pairs)


def test_a_non_finite_update_changes_nothing_and_names_its_utterances(tmp_path: Path) -> None:
    poisoned = run_toy(Toy(poison={7}), tmp_path / "poisoned", [12])
    tensors = load_folder(tmp_path / "poisoned/checkpoints/step-00000004")[0]
    assert all(torch.isfinite(p).all() for p in poisoned.parameters())
    assert not torch.equal(
        tensors["model.linear.weight"], poisoned.linear.weight
    )  # updates 5 to 7 did count
    (bad,) = [
        json.loads(line)
        for line in (tmp_path / "poisoned/bad_steps.jsonl").read_text().splitlines()
    ]
    assert bad == {"step": 8, "utterances": [f"7-{i}" for i in range(12)]}
    alone = run_toy(Toy(poison={0}), tmp_path / "alone", [12], steps=1)
    assert torch.equal(alone.linear.weight, torch.full((1, 3), 0.3))


def test_non_finite_updates_in_a_row_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="3 updates in a row were not finite"):
        run_toy(Toy(poison={4, 5, 6}), tmp_path / "run", [12], max_bad_steps=3)
    assert checkpoints(tmp_path / "run")[0].name == "step-00000004"
    run_toy(Toy(poison={1, 3, 5, 7}), tmp_path / "scattered", [12], max_bad_steps=2)


def test_a_resumed_run_is_judged_like_one_that_never_stopped(tmp_path: Path) -> None:
    """An update that was not finite tells nothing, before a kill or after it; what a kill threw away is listed once."""
    config = build(TrainConfig, {"steps": 40, "health": {"window": 4, "chance_after": 0.625}})
    rows = [{"step": k + 1, "loss": math.nan if k == 22 else 2.0, "chance": 2.0} for k in range(40)]

    def judge(health: Health, first: int) -> None:
        for k, row in enumerate(rows[first:], first):
            health.check(k, row)

    with pytest.raises(TrainingError, match="chance after 25 updates"):
        judge(Health(config.health, config.steps), 0)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:29]))
    (tmp_path / BAD_STEPS).write_text(
        "".join(json.dumps({"step": k, "utterances": ["a"]}) + "\n" for k in (23, 26))
    )
    with pytest.raises(TrainingError, match="chance after 25 updates"):
        judge(_Journal(tmp_path, config, 24).health, 24)
    assert [row["step"] for row in read_json_lines(tmp_path / BAD_STEPS)] == [23]


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


def test_a_run_at_chance_stops_with_its_cause(tmp_path: Path) -> None:
    health = {"window": 5, "chance_after": 0.5}
    with pytest.raises(TrainingError, match="stuck at chance after 25 updates"):
        run_toy(Toy(chance=True), tmp_path / "run", [12], steps=40, health=health)
    assert checkpoints(tmp_path / "run")  # the last one before the verdict stays


@pytest.mark.parametrize("chance", [True, False])
def test_a_short_run_that_ends_at_chance_says_so(
    chance: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is too young for the verdict above, and its model is kept."""
    run_toy(Toy(chance=chance), tmp_path / "run", [12])
    assert ("the run ends at chance" in capsys.readouterr().err) is chance


def test_the_best_model_is_kept_by_the_development_score(tmp_path: Path) -> None:
    scores, kept = iter([0.5, 0.3, 0.4, 0.3]), list[float]()
    validation = Validation(
        lambda: {"dev_wer": next(scores)}, "dev_wer", lambda m: kept.append(m["dev_wer"])
    )
    config = TrainConfig(steps=8, validate_every=2, save_every=4, device="cpu")
    fit(Toy(), ToyBatches([12]), OptimConfig(), config, tmp_path / "run", validation=validation)
    assert kept == [0.5, 0.3]
    rows = [
        row["dev_wer"]
        for row in read_json_lines(tmp_path / "run/metrics.jsonl")
        if "dev_wer" in row
    ]
    assert rows == [0.5, 0.3, 0.4, 0.3]
    assert (tmp_path / "run/wer.png").read_bytes().startswith(b"\x89PNG")


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


def test_the_weight_decay_of_the_settings_reaches_the_weights(tmp_path: Path) -> None:
    """Decoupled: after one update the weights differ by rate x decay x what they were, whatever the gradient."""
    found = []
    for decay in (0.0, 0.5):
        model = Toy()
        train = TrainConfig(steps=1, device="cpu")
        fit(
            model,
            ToyBatches([12]),
            OptimConfig(lr=0.01, weight_decay=decay),
            train,
            tmp_path / str(decay),
        )
        found.append(model.linear.weight.detach())
    rate = read_json_lines(tmp_path / "0.5/metrics.jsonl")[0]["lr"]
    assert (found[0] - found[1]).ravel().tolist() == pytest.approx([rate * 0.5 * 0.3] * 3, rel=1e-3)


def test_a_checkpoint_that_lacks_a_weight_is_not_continued(tmp_path: Path) -> None:
    run_toy(Toy(), tmp_path / "run", [12])
    newest = checkpoints(tmp_path / "run")[0]
    tensors, record = load_folder(newest)
    del tensors["model.linear.bias"]
    save_folder(newest, tensors, record)
    with pytest.raises(CheckpointError, match=r"missing linear\.bias"):
        run_toy(Toy(), tmp_path / "run", [12])
