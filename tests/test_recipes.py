"""The recipes run end to end on small data: every stage, every stage again, and a stage by itself."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import RATE, SMALL_ENCODER, make_labelled, sentence, speak
from test_train import _toml

ROOT = Path(__file__).parents[1]
FEW = {"train": {"steps": 4, "device": "cpu"}, "batch": {"seconds": 10}}


def run(recipe: str, *options: object) -> "subprocess.CompletedProcess[str]":
    """The recipe with this interpreter's commands first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", str(ROOT / "recipes" / recipe / "run.sh"), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PATH": path}, check=False)


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    path = tmp_path / "preset.toml"
    path.write_text(_toml({"encoder": SMALL_ENCODER, "pretrain": FEW, "finetune": FEW}), encoding="utf-8")
    return path


def make_librispeech(root: Path) -> Path:
    """A tree of LibriSpeech's shape: part/speaker/chapter/*.flac with a transcript file per chapter."""
    rng = np.random.default_rng(0)
    for part, speakers in (("train-clean-100", 4), ("dev-clean", 2), ("test-clean", 2)):
        for speaker in range(speakers):
            folder = root / part / f"{100 + speaker}" / "7"
            folder.mkdir(parents=True)
            lines = []
            for number in range(5):
                name, text = f"{100 + speaker}-7-{number:04d}", sentence(rng, 5)
                soundfile.write(folder / f"{name}.flac", speak(text, rng), RATE)
                lines.append(f"{name} {text.upper()}")
            (folder / f"{100 + speaker}-7.trans.txt").write_text("\n".join(lines) + "\n")
    return root


def test_librispeech(tmp_path: Path, preset: Path) -> None:
    data = make_librispeech(tmp_path / "LibriSpeech")
    options = ("--data", data, "--exp", tmp_path / "exp", "--preset", preset, "--jobs", 1)
    done = run("librispeech", *options)
    assert done.returncode == 0, done.stderr
    assert "train-other-500 is not in" in done.stderr
    assert re.search(r"\| test-clean +\|.*\| +10 \|", done.stdout), done.stdout
    again = run("librispeech", *options, "--stage", 4)
    assert again.stdout == done.stdout
    assert run("librispeech", "--data", tmp_path).returncode == 2


def test_kathleen_on_a_small_tree_of_the_same_shape(tmp_path: Path) -> None:
    data = tmp_path / "speech"
    for seed, corpus in enumerate(("kathleen", "speechocean", "digits")):
        make_labelled(data / corpus, {"train": 8, "dev": 3, "test": 3}, seed)
    rng = np.random.default_rng(9)
    for corpus in ("librispeech", "coffee_commands", "wake_words"):
        (data / corpus / "a").mkdir(parents=True)
        soundfile.write(data / corpus / "a" / "x.ogg", speak(sentence(rng, 6), rng), RATE)
    steps = ("--pretrain-steps", 3, "--few-steps", 3, "--all-steps", 3, "--few-minutes", 0.2, "--jobs", 1)
    done = run("kathleen", "--data", data, "--exp", tmp_path / "exp", *steps)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("from scratch") == 2
    assert done.stdout.count("frozen random encoder") == 2
