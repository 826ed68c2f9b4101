"""SIGTERM or SIGHUP at any moment: its exit code, and the same command makes what is missing."""

import random
from pathlib import Path

import pytest
from support import children, signalled
from support.short_runs import write_preset

from speechssl.storage.checkpoint import load_folder

SCRIPT = Path(signalled.__file__)
TRAINING = ("pretrain", "finetune")

# Moments of each verb: of training only those after the last update, when nothing but the saved
# model is missing.
MOMENTS = {
    "pretrain": (
        "speechssl.training.loop.save_checkpoint",
        "speechssl.pretraining.pretrain.save_pretrained",
        "speechssl.cli.training.write_stdout",
    ),
    "finetune": (
        "speechssl.training.loop.save_checkpoint",
        "speechssl.recognition.finetune._warn_if_nothing_is_right",
        "speechssl.recognition.finetune.load_ctc",
        "speechssl.cli.training.write_stdout",
    ),
    "prepare": (
        "speechssl.data.prepare.make_plan",
        "speechssl.data.prepare._collect",
        "speechssl.data.store_writer.write_atomic",
        "speechssl.cli.data.write_stdout",
    ),
    "lm": (
        "speechssl.recognition.lm_training.write_atomic",
        "speechssl.storage.atomic.sync_folder",
        "speechssl.cli.lm.write_stdout",
    ),
    "evaluate": (
        "speechssl.recognition.evaluation_files.write_score",
        "speechssl.scoring.score_files.write_atomic",
        "speechssl.cli.recognition.write_stdout",
    ),
}


def arguments(verb: str, folder: Path, store: Path, out: Path) -> list[object]:
    """A command of the verb that writes ``out``; every training does one update."""
    preset = write_preset(out.parent)
    one_update = ["--preset", preset, "--set", "train.steps=1", "--run", out]
    return {
        "pretrain": [verb, store, *one_update],
        "finetune": [verb, store, "--init-from", "none", *one_update],
        "prepare": [verb, folder, out, "--jobs", 2],
        "lm": [verb, folder / "books.txt", "--order", 2, "--out", out, "--force"],
        "evaluate": [verb, folder / "model", store, "--out", out],
    }[verb]


@pytest.fixture(scope="module")
def inputs(
    labelled_folder: Path, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A folder for each verb's input."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "books.txt").write_text("one two three\ntwo three one\n" * 20, encoding="utf-8")
    (folder / "model").symlink_to(model / "model")
    return {"prepare": labelled_folder} | dict.fromkeys(("lm", "evaluate", *TRAINING), folder)


@pytest.mark.parametrize("verb", list(MOMENTS))
def test_an_end_signal_at_any_moment(
    verb: str, inputs: dict[str, Path], labelled_store: Path, tmp_path: Path
) -> None:
    draws = random.Random(verb)
    moment = draws.choice(MOMENTS[verb])
    name, code = draws.choice([("SIGTERM", 143), ("SIGHUP", 129)])
    out, log = tmp_path / "out", tmp_path / "log"
    command = arguments(verb, inputs[verb], labelled_store, out)

    first = children.start_script(SCRIPT, [name, moment, *command], log, {})
    first.join()
    assert first.exitcode == code, (name, moment, log.read_text())
    if verb in TRAINING:
        load_folder(out / "model")

    again = children.start(command, log)
    again.join()
    assert again.exitcode == 0, (moment, log.read_text())
    hidden = [path for path in tmp_path.rglob(".*.tmp")]
    assert not hidden, moment
