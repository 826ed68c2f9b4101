"""The recipes run end to end on small data: every stage, all again, and one by itself."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.models import SMALL_ENCODER
from support.places import ROOT
from support.settings import as_toml
from support.speech import RATE, make_labelled, sentence, speak

from speechssl.storage.checkpoint import load_record
from speechssl.text.pronunciations import read_lexicon

pytestmark = pytest.mark.slow
SPLITS = ("train", "dev", "test")
FEW = {"train": {"steps": 4, "device": "cpu"}, "batch": {"seconds": 10}}
# Sounds that are made are learned within 40 updates, so that there is something to label.
QUICK_ENCODER = {
    "features": {"kind": "logmel"},
    "front_end": "conv2d",
    "batch_norm": True,
    "channels": 8,
    "mel_stride": 4,
    "subsampling": 3,
    "width": 64,
    "context": "convolution",
}
UNMASKED = {"train_front_end": True, "channel_mask_prob": 0.0, "time_mask": {"prob": 0.0}}
QUICK = FEW | {"ctc": UNMASKED, "optim": {"lr": 1e-2, "warmup": 0.1}}


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(speechssl_command: Path) -> Run:
    """Run a recipe, with commands that start fast and this interpreter first on the path."""
    first = (speechssl_command.parent, Path(sys.executable).parent)
    path = os.pathsep.join([*map(str, first), os.environ["PATH"]])

    def run_recipe(recipe: str, *options: object) -> "subprocess.CompletedProcess[str]":
        command = ["bash", str(ROOT / "recipes" / recipe / "run.sh"), *map(str, options)]
        return subprocess.run(
            command, capture_output=True, text=True, env=os.environ | {"PATH": path}, check=False
        )

    return run_recipe


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    path = tmp_path / "preset.toml"
    path.write_text(
        as_toml({"encoder": SMALL_ENCODER, "pretrain": FEW, "finetune": FEW}), encoding="utf-8"
    )
    return path


def make_librispeech(root: Path) -> Path:
    """A tree of LibriSpeech's shape: part/speaker/chapter/*.flac, a transcript file a chapter."""
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


def test_librispeech(tmp_path: Path, preset: Path, run: Run) -> None:
    data = make_librispeech(tmp_path / "LibriSpeech")
    options = ("--data", data, "--exp", tmp_path / "exp", "--preset", preset, "--jobs", 1)
    done = run("librispeech", *options)
    assert done.returncode == 0, done.stderr
    assert "train-other-500 is not in" in done.stderr
    assert re.search(r"\| test-clean +\|.*\| +10 \|", done.stdout), done.stdout
    again = run("librispeech", *options, "--stage", 4)
    assert again.stdout == done.stdout
    assert run("librispeech", "--data", tmp_path).returncode == 2


def make_speaker(folder: Path) -> dict[str, list[str]]:
    """A corpus of one speaker, a lexicon, and texts of others; returns its transcripts by split.

    The lexicon gives the letters of a word as its phones.
    """
    name = folder / "speaker" / "metadata.csv"
    make_labelled(name.parent, {"train": 40, "dev": 4, "test": 4})
    rows = [row.split(",") for row in name.read_text().splitlines()[1:]]
    texts = {split: [row[1] for row in rows if row[3] == split] for split in SPLITS}

    others = [sentence(np.random.default_rng(seed)) for seed in range(50)]
    general = [*texts["dev"], *texts["test"], *others]
    (folder / "general.txt").write_text("\n".join(general) + "\n")
    words = {
        word for spoken in (*texts.values(), others) for text in spoken for word in text.split()
    }
    lines = [f"{word} {' '.join(word.upper())}\n" for word in sorted(words)]
    (folder / "letters.txt").write_text("".join(lines))
    return texts


def speaker_options(folder: Path, recipe: str) -> tuple[object, ...]:
    (folder / "speaker").rename(folder / recipe)
    given = {"data": folder, "exp": folder / "exp", "lexicon": folder / "letters.txt"}
    counts = {"few-minutes": 0.4, "jobs": 1, "peer-few-senones": 4, "peer-all-senones": 4}
    return tuple(part for name, value in (given | counts).items() for part in (f"--{name}", value))


def test_kathleen_measures_all_systems_with_each_language_model(
    tmp_path: Path, preset: Path, run: Run
) -> None:
    make_speaker(tmp_path)
    preset.write_text(
        as_toml({"encoder": QUICK_ENCODER, "pretrain": FEW, "finetune": QUICK}), encoding="utf-8"
    )
    steps = ("--few-steps", 40, "--all-steps", 40, "--pretrain-steps", 3, "--made-steps", 3)
    texts = ("--text", tmp_path / "general.txt")
    options = (*speaker_options(tmp_path, "kathleen"), *steps, *texts, "--preset", preset)
    options += ("--made-minutes", 0.7)

    done = run("kathleen", *options, "--stop-stage", 5)
    assert done.returncode == 0, done.stderr
    tables = run("kathleen", *options, "--stage", 7)
    assert tables.returncode == 0, tables.stderr

    titles = [line for line in tables.stdout.splitlines() if line.endswith(":")]
    assert titles == [
        f"{labels}, language model {lm}:"
        for labels, lms in (("0.4 minutes of labels", ("general", "own", "few")),
                            ("all labels", ("general", "own")))
        for lm in lms
    ]  # fmt: skip

    rows = re.findall(r"^\| (\w[^|]*?) +\| +\d", tables.stdout, re.MULTILINE)
    with_other_words = ["phones", "phones, other words too"]
    assert rows == [
        *with_other_words,
        "phones and unlabelled audio",
        "the same, other words too",
        "phones, as many updates",
        "phones, pretrained",
        "letters",
        "phones, from made voices",
        *(4 * with_other_words),
    ]

    # Both trainings of the one together are as long as the other.
    few = tmp_path / "exp/few"
    updates = {
        name: json.loads((few / name / "settings.json").read_text())["train"]["steps"]
        for name in ("heard-first", "heard", "longer")
    }
    assert updates["heard-first"] + updates["heard"] == updates["longer"] == 80

    # What the audio says is not known to the language model that helps to hear it.
    about = load_record(few / "heard-first/model/lm")["about"]
    assert Path(about["lm"]).name == "general.arpa"


def test_kerstin_makes_language_models_and_a_lexicon_of_their_words(
    tmp_path: Path, run: Run
) -> None:
    texts = make_speaker(tmp_path)
    options = speaker_options(tmp_path, "kerstin")
    exp = tmp_path / "exp"

    done = run("kerstin", *options, "--stop-stage", 2)
    assert done.returncode == 0, done.stderr
    for path in (exp / "own.arpa", exp / "few.arpa", exp / "lexicon.txt"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() in done.stdout
    few = (exp / "few.txt").read_text().splitlines()
    assert 0 < len(few) < len(texts["train"])
    assert set(few) <= set(texts["train"])
    known = set(read_lexicon(exp / "lexicon.txt").words)
    assert known >= {word for text in texts["train"] for word in text.split()}
    # It lacks none of them, so none is guessed.
    lines = (tmp_path / "letters.txt").read_text().splitlines()
    assert known == {line.split()[0] for line in lines}

    tables = run("kerstin", *options, "--stage", 7)
    assert tables.stdout.count("no system was measured") == 3


def make_digits(folder: Path, per_speaker: int) -> Path:
    """Recordings of one "digit" each: a letter of the toy language."""
    rng = np.random.default_rng(3)
    folder.mkdir(parents=True)
    rows = ["file_name,transcription,speaker,split"]
    for speaker, split in (("ann", "train"), ("bob", "train"), ("cy", "dev"), ("di", "test")):
        for n in range(per_speaker):
            letter = "abcdef"[n % 6]
            soundfile.write(folder / f"{speaker}{n}.wav", speak(letter, rng)[::2], RATE // 2)
            rows.append(f"{speaker}{n}.wav,{letter},{speaker},{split}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def test_digits_joins_every_recording_once_and_trains_four_systems(
    tmp_path: Path, preset: Path, run: Run
) -> None:
    make_digits(tmp_path / "speech" / "digits", 60)
    options = (
        "--data",
        tmp_path / "speech",
        "--exp",
        tmp_path / "exp",
        "--minutes",
        0.2,
        "--jobs",
        1,
    )
    options += ("--steps", 3, "--pretrain-steps", 3, "--again-steps", 3, "--preset", preset)

    done = run("digits", *options)
    assert done.returncode == 0, done.stderr

    systems = (
        r"pretrained \+ fine-tuned",
        "fine-tuned twice",
        "from scratch",
        "frozen random encoder",
    )
    rows_in_order = r".*\n.*".join(systems)
    assert re.search(rows_in_order, done.stdout)

    rows = [
        line.split(",")
        for line in (tmp_path / "exp/strings/metadata.csv").read_text().splitlines()[1:]
    ]
    for speaker, split in (("ann", "train"), ("bob", "train"), ("cy", "dev"), ("di", "test")):
        own = [row for row in rows if row[2] == speaker]
        assert {row[3] for row in own} == {split}
        assert sorted("".join(row[1] for row in own).replace(" ", "")) == sorted(
            "abcdef"[n % 6] for n in range(60)
        )
        assert all(3 <= len(row[1].split()) <= 7 for row in own)

    other = run("digits", *options, "--seed", 1, "--stop-stage", 1)
    assert other.returncode == 1
    assert "holds strings of seed 0: give another folder for those of 1" in other.stderr

    name, text = rows[0][0], rows[0][1]
    seconds = soundfile.info(tmp_path / "exp/strings" / name).duration
    letters = len(text.split())
    assert letters * (0.15 + 0.05) <= seconds <= letters * (0.21 + 0.3) + 0.3


@pytest.mark.parametrize("wrong", ["di0.wav,a,,test", "di0.wav,a,di,train"])
def test_digits_takes_no_recording_whose_side_is_unclear(
    tmp_path: Path, wrong: str, run: Run
) -> None:
    """One without a speaker was left out silently; a speaker of two splits went to the first."""
    table = make_digits(tmp_path / "speech" / "digits", 6) / "metadata.csv"
    table.write_text(table.read_text().replace("di0.wav,a,di,test", wrong))
    done = run(
        "digits", "--data", tmp_path / "speech", "--exp", tmp_path / "exp", "--stop-stage", 1
    )
    assert done.returncode == 1
    assert "di" in done.stderr
    assert "needs a speaker, all of whose recordings are in one split" in done.stderr
    assert not (tmp_path / "exp/strings").exists()
