"""Writes stopped before each file operation, in four ways, leave the old state or the new one."""

import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support.crashes import Fate, attempt
from support.folders import files_of
from support.models import SMALL_ENCODER
from support.recordings import SMALL
from support.settings import SETTINGS
from support.speech import RATE, speak

from speechssl.audio.reader import write_wav
from speechssl.config import build
from speechssl.data.prepare import prepare
from speechssl.data.store import Store
from speechssl.errors import CheckpointError
from speechssl.pretraining.pretrain import pretrain
from speechssl.pretraining.settings import PretrainSettings
from speechssl.storage import checkpoint
from speechssl.storage.atomic import remove_leftovers, write_atomic
from speechssl.storage.checkpoint import load_folder, save_folder
from speechssl.storage.json_text import read_json_lines, read_json_table
from speechssl.storage.saved_folders import step_folder
from speechssl.training.run_folder import start_anew
from speechssl.transcription.cues import CueLimits
from speechssl.transcription.output_folder import (
    DONE,
    MADE_BY,
    claim,
    plan_outputs,
    read_done,
)
from speechssl.transcription.transcript import Transcript

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="open files are told by /proc")


@pytest.mark.parametrize("fate", Fate)
def test_a_saved_folder(fate: Fate, tmp_path: Path, campaign: Any) -> None:
    folder, at, reached = tmp_path / "model", 0, True
    save_folder(folder, {"a": torch.zeros(999)}, {"kind": "old"}, {"words": b"old"})

    while reached:
        kind = f"new {at}"
        new = partial(
            save_folder, folder, {"a": torch.ones(999)}, {"kind": kind}, {"words": b"new"}
        )
        reached, message = attempt(new, fate, at, tmp_path)

        tensors, record = load_folder(folder)
        assert record["kind"] in ("old", *(f"new {k}" for k in range(at + 1)))
        assert bool(tensors["a"].all()) == (record["kind"] != "old")
        assert (
            (message.startswith("OSError") and str(tmp_path) in message)
            or fate in (Fate.killed, Fate.power_cut)
            or (
                not reached
                or record["kind"]
                == kind  # what fails after the rename only leaves something behind
            )
        )

        at += 1

    assert record["kind"] == kind
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    campaign.figures |= {"tries": at, "failures": 0}


def test_a_save_that_does_not_flush_would_be_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The campaign itself: a power cut after the rename takes what the new folder holds."""
    monkeypatch.setattr(checkpoint, "_write_durably", Path.write_bytes)
    save_folder(tmp_path / "model", {"a": torch.zeros(999)}, {"kind": "old"})
    lost, at, reached = 0, 0, True
    while reached:
        save = partial(save_folder, tmp_path / "model", {"a": torch.ones(999)}, {"kind": "new"})
        reached, _ = attempt(save, Fate.power_cut, at, tmp_path)
        try:
            load_folder(tmp_path / "model")
        except CheckpointError:
            lost += 1
        at += 1
    assert lost


@pytest.mark.parametrize("fate", Fate)
def test_the_deletion_of_a_run(fate: Fate, tmp_path: Path, campaign: Any) -> None:
    """--force: stopped anywhere, the same command deletes the rest."""
    run, at, reached = tmp_path / "run", 0, True
    while reached:
        for step in (1, 2):
            save_folder(step_folder(run, step), {"a": torch.zeros(9)}, {"kind": "checkpoint"})
        write_atomic(run / "settings.json", "{}")
        reached, _ = attempt(lambda: start_anew(run, force=True), fate, at, tmp_path)
        start_anew(run, force=True)
        assert not list(tmp_path.iterdir())
        at += 1
    campaign.figures |= {"tries": at, "failures": 0}


@pytest.mark.parametrize("fate", Fate)
def test_a_text(fate: Fate, tmp_path: Path, campaign: Any) -> None:
    path, at, reached = tmp_path / "deep/x.txt", 0, True
    while reached:
        reached, _ = attempt(lambda: write_atomic(path, ["new" * 99, "\n"]), fate, at, tmp_path)
        assert not path.exists() or path.read_text() == "new" * 99 + "\n"
        assert path.exists() or reached
        at += 1
    remove_leftovers(tmp_path)
    assert [p.name for p in path.parent.iterdir()] == ["x.txt"]
    campaign.figures |= {"tries": at, "failures": 0}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import numpy as np

    folder, rng = tmp_path_factory.mktemp("crashes") / "in", np.random.default_rng(0)
    folder.mkdir()
    for number in range(5):
        write_wav(folder / f"{number}.wav", speak("abcdef" * 4, rng), RATE)
    return folder


def survives(
    action: Callable[[Path], object],
    same: Callable[[Path], object],
    fate: Fate,
    folder: Path,
    step: int,
) -> int:
    """Stop an action before each ``step``-th operation, do it again and compare; the tries."""
    expected, at, tries, reached = None, 0, 0, True
    action(folder / "whole")
    expected = same(folder / "whole")
    while reached:
        out = folder / str(at)
        reached, message = attempt(lambda out=out: action(out), fate, at, folder)
        assert message == "" or message.startswith(("OSError", "SpeechsslError")), message
        action(out)
        assert same(out) == expected, (fate, at)
        shutil.rmtree(out)
        at, tries = at + step, tries + 1
    return tries


@pytest.mark.parametrize("fate", Fate)
def test_a_store(fate: Fate, corpus: Path, tmp_path: Path, campaign: Any) -> None:
    def same(out: Path) -> object:
        Store(out).verify()
        return files_of(out)

    tries = survives(
        lambda out: prepare(corpus, out, SMALL), same, fate, tmp_path, campaign.size(7, 1)
    )
    campaign.figures |= {"tries": tries, "failures": 0}


@pytest.mark.parametrize("fate", Fate)
def test_a_store_in_the_place_of_an_unfinished_one(
    fate: Fate, corpus: Path, tmp_path: Path, campaign: Any
) -> None:
    """--force: what is deleted is never so much that the folder is not known again."""
    unfinished, other = tmp_path / "unfinished", SMALL.model_copy(update={"max_chunk_s": 3.0})
    assert attempt(lambda: prepare(corpus, unfinished, other), Fate.killed, 16, unfinished)[0]
    assert list(unfinished.glob("shard-*"))
    prepare(corpus, tmp_path / "whole", SMALL)

    at, reached = 0, True
    while reached:
        shutil.copytree(unfinished, tmp_path / "s")
        reached, _ = attempt(
            lambda: prepare(corpus, tmp_path / "s", SMALL, force=True), fate, at, tmp_path / "s"
        )
        prepare(corpus, tmp_path / "s", SMALL, force=True)
        assert files_of(tmp_path / "s") == files_of(tmp_path / "whole"), at
        shutil.rmtree(tmp_path / "s")
        at += campaign.size(5, 1)

    campaign.figures |= {"tries": at // campaign.size(5, 1), "failures": 0}


@pytest.mark.parametrize("fate", Fate)
def test_a_folder_of_transcripts(fate: Fate, tmp_path: Path, campaign: Any) -> None:
    """The same command finishes what it was stopped at, also one that made all anew by --force."""
    (tmp_path / "in/deep").mkdir(parents=True)
    for name in ("a", "deep/a"):
        (tmp_path / f"in/{name}.wav").write_bytes(name.encode())

    def transcribe(out: Path, model: str, force: bool = False) -> None:
        outputs = plan_outputs([tmp_path / "in"], ["txt", "tsv"], CueLimits(), out, tmp_path)
        if not force:
            outputs.check_unclaimed()
        claim(out, {"model": model}, force)
        for path in outputs.files if force else outputs.waiting():
            outputs.put(Transcript(str(path), f"{model} {path.read_text()}", (), 1.5, model))

    def same(out: Path) -> object:
        remove_leftovers(out)
        files = files_of(out)
        del files[DONE]
        return files, read_done(out)

    step = campaign.size(5, 1)
    tries = survives(lambda out: transcribe(out, "first"), same, fate, tmp_path, step)
    transcribe(tmp_path / "other", "second")
    expected = same(tmp_path / "other")

    at, reached = 0, True
    while reached:
        out = tmp_path / f"forced{at}"
        transcribe(out, "first")
        reached, _ = attempt(lambda out=out: transcribe(out, "second", True), fate, at, tmp_path)
        # Until the folder is the second one's, --force must be given again.
        is_claimed = read_json_table(out / MADE_BY) == {"model": "second"}
        transcribe(out, "second", force=not is_claimed)
        assert same(out) == expected, (fate, at)
        at += step
    campaign.figures |= {"tries": tries + at // step, "failures": 0}


@pytest.mark.parametrize("fate", Fate)
def test_a_run(fate: Fate, labelled_store: Path, tmp_path: Path, campaign: Any) -> None:
    table = SETTINGS | {"train": {"steps": 6, "save_every": 2, "log_every": 1, "device": "cpu"}}
    settings = build(PretrainSettings, {**table, "encoder": SMALL_ENCODER})

    def same(run: Path) -> object:
        rows = read_json_lines(run / "metrics.jsonl")
        weights = load_folder(run / "model")[0]
        return [row["loss"] for row in rows], {
            name: value.numpy().tobytes() for name, value in weights.items()
        }

    tries = survives(
        lambda run: pretrain([labelled_store], run, settings),
        same,
        fate,
        tmp_path,
        campaign.size(13, 1),
    )
    campaign.figures |= {"tries": tries, "failures": 0}
