"""The command as a whole: exit codes, one-line errors, nothing overwritten."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.commands import call, one_line

from speechssl import __version__
from speechssl.cli import main
from speechssl.cli.verbs import VERBS


@pytest.mark.parametrize("verb", list(VERBS))
def test_after_an_interrupt_a_verb_is_given_again_as_it_goes_on(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --force, lm would refuse the file that it was to replace."""

    def interrupted() -> None:
        raise SystemExit(130)

    monkeypatch.setattr(main, "app", interrupted)
    monkeypatch.setattr("sys.argv", ["speechssl", "--debug", verb, "prepare", "--force"])
    with pytest.raises(SystemExit):
        main.main()

    goes_on = verb in ("prepare", "pretrain", "finetune", "transcribe")
    without = ", without --force" if goes_on else ""
    expected = f"speechssl: interrupted: give the command again{without}\n"
    assert capsys.readouterr().err == expected


def test_errors_are_one_line(
    model: Path,
    labelled_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def error(*arguments: object) -> str:
        return one_line(monkeypatch, capsys, *arguments)

    assert "did you mean 'optim.lr'" in error(
        "pretrain", labelled_store, "--run", tmp_path, "--set", "optim.lrr=1"
    )
    assert "instead of --set preset" in error(
        "pretrain", labelled_store, "--run", tmp_path, "--set", "preset=large"
    )
    assert "give base, large, minutes, small, tiny" in error(
        "pretrain", labelled_store, "--run", tmp_path, "--preset", "huge"
    )
    assert "name=value" in error("pretrain", labelled_store, "--run", tmp_path, "--set", "optim.lr")

    assert "neither a model folder" in error("transcribe", tmp_path, labelled_store / "store.json")
    assert "allowed are txt, srt, vtt" in error(
        "transcribe", model, labelled_store, "--output-format", "srt9"
    )
    assert "no such file" in error("transcribe", model, tmp_path / "missing.wav")
    assert "no audio found" in error("transcribe", model, tmp_path)

    both = (labelled_store / "store.json", labelled_store / "chunks.jsonl")
    assert "srt holds one recording, and these are 2" in error(
        "transcribe", model, *both, "--output-format", "srt"
    )
    assert "stdout takes one format" in error(
        "transcribe", model, tmp_path, "--output-format", "txt,json"
    )

    assert "give a folder that speechssl evaluate wrote" in error("compare", tmp_path)
    assert "missing" in error("prepare", tmp_path / "missing", tmp_path / "store")
    assert "holds a model: give another --out" in error(
        "evaluate", model, labelled_store, "--out", model / "model"
    )

    holdout = error("evaluate", model, labelled_store, "--out", tmp_path, "--split", "holdout")
    assert "split holdout" in holdout
    assert "dev (8 transcripts), test (8 transcripts), train (40 transcripts)" in holdout

    nan = error("prepare", labelled_store, tmp_path / "store", "--min-chunk", "nan")
    assert "min_chunk_s" in nan
    assert "finite number" in nan


def test_files_and_folders_in_the_way_are_one_line(
    model: Path,
    labelled_folder: Path,
    labelled_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def error(*arguments: object) -> str:
        return one_line(monkeypatch, capsys, *arguments)

    file = tmp_path / "file"
    file.write_text("mine")
    wave = labelled_folder / "test000.wav"

    assert str(file) in error("prepare", labelled_folder, file / "store")
    assert str(file) in error("transcribe", model, wave, "--output-dir", file)
    assert f"{file} is there already and holds no scores" in error(
        "evaluate", model, labelled_store, "--out", file
    )
    for verb in (["pretrain"], ["finetune", "--init-from", "none"]):
        done = call(*verb, labelled_store, "--run", file, "--set", "train.steps=1")
        assert f"{file} is a file: give another --run" in str(done.exception)
    lexicon = ("finetune", labelled_store, "--run", tmp_path / "run", "--init-from", "none")
    assert f"did you mean phones:{file}?" in error(*lexicon, "--tokenizer", file)
    assert "--force deletes run folders only" in error(
        "pretrain", labelled_store, "--run", file, "--force"
    )

    (tmp_path / "utterances.jsonl").write_text("{}")
    assert f"no scores can be read from {tmp_path} ('utterance_id')" in error("compare", tmp_path)

    assert file.read_text() == "mine"


@pytest.mark.parametrize("seed", range(3))
def test_an_address_in_any_place_of_a_command_is_one_line(
    seed: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Outputs went to a folder "s3:" below the current one."""
    rng = random.Random(seed)
    monkeypatch.chdir(tmp_path)
    address = f"{rng.choice(['s3', 'gs', 'https', 'file', 'hf'])}://bucket/{rng.randint(0, 9)}"
    text = tmp_path / "text.txt"
    text.write_text("the cat sat\n" * 5)

    commands: list[list[object]] = [
        ["lm", text, "--out", address],
        ["lm", text, f"--out={address}"],
        ["lm", address, "--out", "made.arpa"],
        ["evaluate", "model", "store", "--out", address],
        ["transcribe", "model", address],
        ["finetune", "store", "--init-from", "none", "--run", address],
        ["prepare", tmp_path, address],
        ["lexicon", "make", "--from", "x", "--out", address],
    ]
    for command in commands:
        said = one_line(monkeypatch, capsys, *command)
        assert f"{address} is an address, and only files on this machine" in said
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_a_gpu_out_of_memory_says_what_to_lower(
    model: Path,
    labelled_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def load(_: Path) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("speechssl.transcription.recogniser.load_recogniser", load)
    assert "lower batch.micro_seconds" in one_line(
        monkeypatch, capsys, "evaluate", model, labelled_store, "--out", tmp_path / "score"
    )


def test_wrong_usage_and_version() -> None:
    assert call("pretrain").exit_code == 2
    assert call("nonsense").exit_code == 2
    assert call("--version").stdout.strip() == __version__
    help_text = call("--help").stdout
    assert all(
        verb in help_text for verb in ("prepare", "pretrain", "finetune", "evaluate", "transcribe")
    )


LATE_SIGNAL = """
import atexit, os, signal, sys
from speechssl.cli import app
from speechssl.cli.main import main

def receive(*_):
    os.kill(os.getpid(), signal.SIGTERM)

atexit.register(receive)
if sys.argv[1] == "stopped":
    app.typer.echo = receive
sys.argv = ["speechssl", "--version"]
main()
"""


@pytest.mark.parametrize(("fate", "code"), [("done", 0), ("stopped", 143)])
def test_a_signal_after_the_work_changes_no_exit_code(fate: str, code: int) -> None:
    """While Python leaves, which takes a second where torch is loaded."""
    done = subprocess.run(
        [sys.executable, "-c", LATE_SIGNAL, fate], capture_output=True, text=True, check=False
    )
    printed = f"{__version__}\n" if fate == "done" else ""
    assert (done.returncode, done.stdout) == (code, printed), done.stderr
