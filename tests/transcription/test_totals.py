"""What is said of all transcripts together: texts that are empty, and channels that were mixed."""

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from support.commands import call
from support.models import random_recogniser

from speechssl.audio.reader import load_audio, write_wav
from speechssl.recognition.model import save_ctc
from speechssl.scoring.calibration import Scaling
from speechssl.transcription.totals import Totals
from speechssl.transcription.transcript import Transcript

RATE = 16000


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model that hears letters everywhere, and one that gives nothing but blanks."""
    root = tmp_path_factory.mktemp("models")
    talkative = random_recogniser()
    save_ctc(talkative, root / "talkative", {})

    blank = random_recogniser()
    blank.head.bias.data[blank.tokenizer.blank_id] = 1e3
    save_ctc(blank, root / "blank", {})
    return {name: root / name for name in ("talkative", "blank")}


@pytest.mark.parametrize("seed", range(3))
def test_sound_without_a_word_is_told_in_one_line(
    seed: int, folders: dict[str, Path], labelled_folder: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(seed)
    speech = load_audio(labelled_folder / "test000.wav", RATE)
    num_files = int(rng.integers(2, 5))
    for number in range(num_files):
        write_wav(tmp_path / f"{number}.wav", np.tile(speech, number + 1), RATE)
    write_wav(tmp_path / "silent.wav", np.zeros(RATE, np.float32), RATE)

    done = call("transcribe", folders["talkative"], tmp_path)
    assert "no word was recognised" not in done.stderr

    done = call("transcribe", folders["blank"], tmp_path)
    assert done.exit_code == 0
    said = [line for line in done.stderr.splitlines() if "no word was recognised" in line]
    assert len(said) == 1
    # Nobody expects words of silence.
    named = ", ".join(str(tmp_path / f"{number}.wav") for number in range(min(num_files, 3)))
    more = ", ..." if num_files > 3 else ""
    count = f"{num_files} of {num_files + 1} files have no text ({named}{more}): "
    assert f"; {count}" in said[0]
    assert "the recogniser may not be trained far enough" in said[0]

    seconds, total = re.findall(r"[0-9.]+", said[0].split("recognised in ")[1])[:2]
    assert seconds == total
    expected = len(speech) * num_files * (num_files + 1) / 2 / RATE
    assert float(seconds) == pytest.approx(expected, abs=0.1 * num_files)


def test_sound_without_words_is_told_where_a_file_has_a_text() -> None:
    """Nobody would see in the text what is missing in it."""
    totals = Totals()
    totals.add(Transcript("a.wav", "a word", (), 120.0, "m", 20.0))
    assert not any("no word" in line for line in totals.lines())

    stretches = ((3.0, 4.5), (10.0, 17.25))
    totals.add(Transcript("b.wav", "a word", (), 60.0, "m", 10.0, wordless=stretches))
    totals.add(Transcript("c.wav", "a word", (), 20.0, "m", 0.0, wordless=((1.0, 2.0),)))
    (line,) = [line for line in totals.lines() if "no word" in line]
    assert line.startswith(
        "no word was recognised in 9.8 of 170.0 s of sound (longest: 10.0 to 17.2 s of b.wav); "
        "0 of 3 files have no text"
    )


@pytest.mark.parametrize("channels", [2, 5])
def test_channels_that_are_averaged_are_counted(
    channels: int, folders: dict[str, Path], labelled_folder: Path, tmp_path: Path
) -> None:
    """Equal ones have a line of their own, and of ones that cancel no mean is taken."""
    speech = load_audio(labelled_folder / "test000.wav", RATE)
    rng = np.random.default_rng(channels)
    others = 0.02 * rng.standard_normal((len(speech), channels - 1))
    mixed = np.column_stack([speech, others]).astype(np.float32)
    equal = np.column_stack([speech] * channels)
    cancelling = np.column_stack([speech, -speech])

    for name, samples in (("mono", speech), ("equal", equal), ("cancel", cancelling)):
        write_wav(tmp_path / f"{name}.wav", samples, RATE)
    done = call("transcribe", folders["talkative"], tmp_path)
    assert "their mean is heard" not in done.stderr

    write_wav(tmp_path / "a.wav", mixed, RATE)
    write_wav(tmp_path / "b.wav", mixed[:, ::-1].copy(), RATE)
    done = call("transcribe", folders["talkative"], tmp_path)
    assert done.stderr.count("their mean is heard") == 1
    assert "2 of 5 files have several channels that differ; their mean is heard" in done.stderr


@pytest.mark.parametrize("seed", range(3))
def test_noise_on_another_channel_is_named_where_there_is_no_text(
    seed: int, folders: dict[str, Path], labelled_folder: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(seed)
    speech = load_audio(labelled_folder / "test000.wav", RATE)
    noises = rng.uniform(0.1, 0.3) * rng.standard_normal((len(speech), rng.integers(1, 4)))
    num_mono, num_stereo = rng.integers(1, 3, 2)
    for number in range(num_mono):
        write_wav(tmp_path / f"mono{number}.wav", speech, RATE)

    hint = "noise on one channel may hide speech on another"
    assert hint not in call("transcribe", folders["blank"], tmp_path).stderr

    channels = np.column_stack([speech, noises]).astype(np.float32)
    for number in range(num_stereo):
        write_wav(tmp_path / f"stereo{number}.wav", channels, RATE)
    done = call("transcribe", folders["blank"], tmp_path)
    names = ", ".join(str(tmp_path / f"stereo{number}.wav") for number in range(num_stereo))
    count = f"{num_stereo} of {num_mono + num_stereo} files ({names})"
    said = f"no word was recognised in the mean of several channels of {count}: {hint}"
    assert said in done.stderr


@pytest.mark.parametrize("seed", range(2))
def test_confidences_that_nothing_scales_are_told(
    seed: int, labelled_folder: Path, labelled_store: Path, tmp_path: Path
) -> None:
    """In every format that holds them, in labels and in scores, and in no other."""
    draws = random.Random(seed)
    speech = labelled_folder / "test000.wav"
    model = random_recogniser()
    save_ctc(model, tmp_path / "raw", {})
    scaling = Scaling(draws.uniform(0.5, 0.9), draws.uniform(-1, 1))
    save_ctc(model, tmp_path / "scaled", {}, scaling)

    for name in ("raw", "scaled"):
        folder = tmp_path / name
        is_told = name == "raw"
        for form in ("json", "jsonl", "ctm", "txt", "srt"):
            done = call("transcribe", folder, speech, "--output-format", form)
            has_confidences = form in ("json", "jsonl", "ctm")
            assert ("confidences of words are raw" in done.stderr) == (is_told and has_confidences)
            if form in ("json", "jsonl"):
                assert json.loads(done.stdout)["probabilities_scaled"] == (not is_told)

        scores = call("evaluate", folder, labelled_store, "--out", tmp_path / f"{name}-score")
        labels = call("label", folder, labelled_store, "--out", tmp_path / f"{name}.jsonl")
        for done in (scores, labels):
            assert ("confidences of words are raw" in done.stderr) == is_told
