"""Voices that read a text: what is said stands beside it, and nothing is said twice."""

import csv
import importlib.util
import lzma
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from support.folders import files_of
from support.places import ROOT

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None,
    reason="VOICES NOT TESTED: no espeakng_loader, pip install 'speechssl[demo]'",
)

SCRIPT = ROOT / "recipes" / "synthetic" / "read_text.py"
ANIMALS = ["Hund", "Igel", "Esel", "Hase", "Löwe", "Wolf", "Bär", "Fuchs", "Hahn", "Storch"]
PLACES = ["Wald", "Garten", "Hof", "Park", "Haus", "Stall", "Dorf", "Feld", "Moor", "Hafen"]
READ = [
    f"Der {animal} lief schnell, aber nicht zum {place}." for animal in ANIMALS for place in PLACES
]
NOT_READ = [
    "Kapitel 12 beginnt hier und jetzt.",
    "Zu kurz.",
    "wort " * 15,
    "Preis: 3 $ je Stück",
    "- - - - . .",
]


def read_text(text: Path, out: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(SCRIPT), str(text), str(out), "--voices", "de", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.xz"
    with lzma.open(path, "wt", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in READ + NOT_READ + READ)
    return path


@pytest.fixture(scope="module")
def corpus(text: Path) -> Path:
    out = text.with_name("corpus")
    done = read_text(text, out, "--minutes", "0.7")
    assert done.returncode == 0, done.stderr
    return out


def test_each_recording_says_one_line_and_no_line_is_said_twice(corpus: Path) -> None:
    with (corpus / "labelled" / "metadata.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))

    said = [row["transcription"] for row in rows]
    assert set(said) <= set(READ)
    assert len(set(said)) == len(said)

    assert len({row["speaker"] for row in rows}) == 2
    assert {row["split"] for row in rows} == {"train", "dev"}

    seconds = [soundfile.info(corpus / "labelled" / row["file_name"]).duration for row in rows]
    assert min(seconds) > 1
    assert 42 <= sum(seconds) < 60


def test_the_same_text_and_seed_give_the_same_bytes(corpus: Path, text: Path) -> None:
    again = text.with_name("again")
    assert read_text(text, again, "--minutes", "0.7", "--jobs", "1").returncode == 0
    assert files_of(again) == files_of(corpus)


def test_what_cannot_be_read_is_one_line(text: Path, tmp_path: Path) -> None:
    for arguments, problem in (
        (["--minutes", "60"], "100 lines can be read, and 60 minutes may need "),
        (["--minutes", "0.7", "--voices", "xx-none"], "espeak-ng has no voice 'xx-none+"),
    ):
        done = read_text(text, tmp_path / "out", *arguments)
        assert done.returncode == 1
        assert problem in done.stderr
        assert done.stderr.count("\n") == 1

    done = read_text(tmp_path / "missing.txt", tmp_path / "out")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
