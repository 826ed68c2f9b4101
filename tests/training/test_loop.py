"""The loop: resumed bit for bit after any kill, and no update that is not finite."""

import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from support.models import SMALL_ENCODER
from support.programs import running
from support.settings import SETTINGS, as_toml
from support.speech import make_labelled
from support.toy import Toy, ToyBatches, run_toy
from torch import Tensor

from speechssl.config import build
from speechssl.data.prepare import prepare
from speechssl.errors import ConfigError, TrainingError
from speechssl.pretraining.pretrain import pretrain
from speechssl.pretraining.settings import PretrainSettings
from speechssl.storage.checkpoint import load_folder
from speechssl.storage.json_text import read_json_lines
from speechssl.storage.saved_folders import checkpoints
from speechssl.training.health import Health
from speechssl.training.journal import BAD_STEPS, Journal
from speechssl.training.loop import Validation, fit
from speechssl.training.optim import OptimConfig
from speechssl.training.settings import TrainConfig


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


@contextmanager
def training(store: Path, run: Path) -> Iterator["subprocess.Popen[str]"]:
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
    environment = os.environ | threads

    with running(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        yield process


def wait_for(run: Path, step: int, process: "subprocess.Popen[str]") -> None:
    """Wait until a run has saved an update; that takes minutes only on a busy machine."""
    deadline = time.monotonic() + 600
    while not (checkpoints(run) and int(checkpoints(run)[0].name[5:]) >= step):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_sigkill_and_resume_equal_an_undisturbed_run(
    labelled_store: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "killed"
    for step in (5, 10):
        with training(labelled_store, run) as process:  # it is killed when the block ends
            wait_for(run, step, process)
            with pytest.raises(ConfigError, match="another process trains in"):
                pretrain([labelled_store], run, build(PretrainSettings, SETTINGS))
    assert not (run / "model").exists()

    pretrain([labelled_store], run, build(PretrainSettings, SETTINGS))
    printed = capsys.readouterr().err
    assert "continuing after update" in printed
    assert "are done already" not in printed

    assert losses(run) == losses(undisturbed)
    for name, value in weights(undisturbed).items():
        assert torch.equal(value, weights(run)[name]), name


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_saves_and_exits_with_its_code(
    sent: signal.Signals, labelled_store: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "stopped"
    with training(labelled_store, run) as process:
        wait_for(run, 5, process)
        process.send_signal(sent)
        _, errors = process.communicate(timeout=600)
    assert process.returncode == 128 + sent, errors
    assert f"{sent.name}: saved" in errors
    saved = int(checkpoints(run)[0].name[5:])
    assert [row["step"] for row in read_json_lines(run / "metrics.jsonl")] == list(
        range(1, saved + 1)
    )
    pretrain([labelled_store], run, build(PretrainSettings, SETTINGS))
    assert losses(run) == losses(undisturbed)


@pytest.mark.parametrize("moment", ["last measurement", "saving the model"])
def test_a_signal_after_the_last_update_leaves_once_the_model_is_saved(
    moment: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    number = random.Random(moment).choice([signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
    saved: list[str] = []

    def measure() -> dict[str, float]:
        if moment == "last measurement":
            os.kill(os.getpid(), number)
        return {"dev_wer": 0.25}

    def finish() -> None:
        if moment == "saving the model":
            os.kill(os.getpid(), number)
        saved.append("model")

    validation = Validation(measure, "dev_wer", lambda _: None)
    config = TrainConfig(steps=2, validate_every=2, device="cpu")
    handler = signal.getsignal(number)
    with pytest.raises(SystemExit, match=str(128 + number)):
        fit(
            Toy(),
            ToyBatches([12]),
            OptimConfig(),
            config,
            tmp_path,
            validation=validation,
            finish=finish,
        )

    assert saved == ["model"]
    assert "all 2 updates" in capsys.readouterr().err
    assert signal.getsignal(number) is handler


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
    """An update that was not finite tells nothing, before a kill or after it.

    What a kill threw away is listed once.
    """
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
        judge(Journal(tmp_path, config, 24).health, 24)
    assert [row["step"] for row in read_json_lines(tmp_path / BAD_STEPS)] == [23]


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


def test_the_weight_decay_of_the_settings_reaches_the_weights(tmp_path: Path) -> None:
    """Decoupled: one update makes a difference of rate x decay x weight, whatever the gradient."""
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
