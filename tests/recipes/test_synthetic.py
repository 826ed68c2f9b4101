"""The synthetic corpus: test is heard only there, the table is right, a seed gives equal bytes."""

import csv
import importlib.util
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
from support.places import ROOT
from support.scripts import load_script

SCRIPT = ROOT / "recipes" / "synthetic" / "prepare.py"
TINY = [
    "--unlabelled-minutes",
    "0.7",
    "--labelled-minutes",
    "0.1",
    "--dev-minutes",
    "0.05",
    "--test-minutes",
    "0.1",
    "--sentences",
    "50",
]

needs_espeak = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None,
    reason="SYNTHETIC SPEECH NOT TESTED: no espeakng_loader, pip install 'speechssl[demo]'",
)


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    return load_script(SCRIPT)


def prepare(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(out), *TINY, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def rows(corpus: Path) -> list[dict[str, str]]:
    with (corpus / "labelled" / "metadata.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "corpus"
    done = prepare(out, "--jobs", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:4] == ["part", "speakers", "recordings", "hours"]
    return out


def test_sentences_depend_on_the_seed_alone(recipe: ModuleType) -> None:
    assert recipe.sentences(3, 200) == recipe.sentences(3, 200)
    assert recipe.sentences(3, 200)[:50] == recipe.sentences(3, 50)
    assert recipe.sentences(3, 50) != recipe.sentences(4, 50)


def test_sentences_are_different_and_plain(recipe: ModuleType) -> None:
    found = recipe.sentences(0, 3000)
    assert len(set(found)) == 3000
    assert all(
        set(sentence) <= set("abcdefghijklmnopqrstuvwxyz ") and sentence == sentence.strip()
        for sentence in found
    )
    assert 150 <= len({word for sentence in found for word in sentence.split()}) <= 250


def test_no_sentence_has_two_parts_whatever_the_seeds(recipe: ModuleType) -> None:
    heard = {
        s
        for seed in (0, 1)
        for use in ("labelled", "unlabelled")
        for s in recipe.sentences(seed, 2000, "train", use)
    }
    kept = {
        part: {s for seed in (0, 1) for s in recipe.sentences(seed, 400, part)}
        for part in ("dev", "test")
    }
    assert not heard & kept["dev"]
    assert not heard & kept["test"]
    assert not kept["dev"] & kept["test"]


def test_the_general_text_has_no_sentence_of_dev_or_test(recipe: ModuleType) -> None:
    text = recipe.sentences(0, 2000, purpose="text")
    assert len(set(text)) == 2000
    assert {recipe.part_of(sentence) for sentence in text} == {"train"}
    assert set(text) - set(recipe.sentences(0, 2000))


def test_a_grammar_that_has_run_out_says_so(
    recipe: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "GRAMMAR", {"sentence": ["good morning"]})
    with pytest.raises(ValueError, match="fewer minutes"):
        recipe.sentences(0, 2, recipe.part_of("good morning"))


def test_resampling_keeps_a_tone_and_drops_what_16_khz_cannot_hold(recipe: ModuleType) -> None:
    at = np.arange(22_050) / 22_050
    heard = recipe.tilted_to_16k(
        np.sin(2 * np.pi * 1000 * at) + np.sin(2 * np.pi * 9000 * at), 22_050, 0.0
    )
    np.testing.assert_allclose(
        heard, np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000), atol=1e-9
    )


def test_a_tilt_is_measured_in_decibels_per_octave_around_1_khz(recipe: ModuleType) -> None:
    tone = np.sin(2 * np.pi * 4000 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(
        recipe.tilted_to_16k(tone, 16_000, -3.0), tone * 10 ** (-6 / 20), atol=1e-9
    )


def test_a_recording_has_the_level_and_the_noise_that_were_drawn(
    recipe: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("LEVEL_DB", -20.0), ("SNR_DB", 30.0), ("TILT_DB_PER_OCTAVE", 0.0)):
        monkeypatch.setattr(recipe, name, (value, value))
    # Its RMS is its peak: no sample is too quiet to count.
    square = np.tile([1.0] * 8 + [-1.0] * 8, 1000)
    samples = (
        recipe.record(np.concatenate([np.zeros(16_000), square]), 16_000, random.Random(0)) / 32767
    )
    assert 20 * np.log10(samples[16_000:].std()) == pytest.approx(-20, abs=0.1)
    assert 20 * np.log10(samples[:15_000].std()) == pytest.approx(-50, abs=0.3)


@needs_espeak
def test_voices_of_dev_and_test_are_heard_nowhere_else(recipe: ModuleType) -> None:
    parts = recipe.speakers(0)
    everybody = [speaker for who in parts.values() for speaker in who]
    assert (
        len(everybody) == len({speaker.name for speaker in everybody}) == len(recipe.voices()) > 90
    )
    assert not recipe.LEFT_OUT & set(recipe.voices())
    families = [{recipe.family(speaker.variant) for speaker in who} for who in parts.values()]
    assert sum(map(len, families)) == len(set.union(*families))
    assert parts != recipe.speakers(1)


@needs_espeak
def test_the_labelled_training_voices_are_a_few_of_the_unlabelled(
    recipe: ModuleType, tmp_path: Path
) -> None:
    jobs = recipe.plan(recipe.Settings(0, 90, 15, 3, 5, 0), tmp_path)
    who = {
        part: {job.speaker for job in jobs if job.part == part}
        for part in ("unlabelled", "train", "dev", "test")
    }
    assert len(who["train"]) == recipe.LABELLED_TRAIN_SPEAKERS
    assert who["train"] < who["unlabelled"]
    assert len(who["test"]) >= 8
    assert not (who["dev"] | who["test"]) & who["unlabelled"]
    assert not who["dev"] & who["test"]


@needs_espeak
def test_metadata_lists_each_labelled_file_once(recipe: ModuleType, corpus: Path) -> None:
    table = rows(corpus)
    assert list(table[0]) == ["file_name", "transcription", "speaker", "split"]

    listed = [row["file_name"] for row in table]
    on_disk = {
        str(path.relative_to(corpus / "labelled")) for path in (corpus / "labelled").rglob("*.flac")
    }
    assert len(listed) == len(on_disk)
    assert set(listed) == on_disk

    for row in table:
        assert row["file_name"].startswith(row["speaker"] + "/")
        assert recipe.part_of(row["transcription"]) == row["split"]

    speakers = {
        split: {row["speaker"] for row in table if row["split"] == split}
        for split in ("train", "dev", "test")
    }
    assert all(speakers.values())

    unlabelled = {path.name for path in (corpus / "unlabelled").iterdir()}
    assert speakers["train"] <= unlabelled
    assert not (speakers["dev"] | speakers["test"]) & unlabelled


@needs_espeak
def test_the_text_is_there_a_sentence_a_line(recipe: ModuleType, corpus: Path) -> None:
    text = (corpus / "text.txt").read_text(encoding="utf-8").splitlines()
    assert text == recipe.sentences(0, 50, purpose="text")


@needs_espeak
def test_recordings_are_16_khz_mono_flac_of_about_the_minutes_asked_for(corpus: Path) -> None:
    seconds = dict.fromkeys(("unlabelled", "labelled"), 0.0)
    for part in seconds:
        for path in (corpus / part).rglob("*.flac"):
            info = soundfile.info(path)
            assert (info.samplerate, info.channels, info.format, info.subtype) == (
                16_000,
                1,
                "FLAC",
                "PCM_16",
            )

            samples, _ = soundfile.read(path)
            assert 0.01 < np.abs(samples).max() < 1
            seconds[part] += info.duration

    assert 42 <= seconds["unlabelled"] < 54
    assert 15 <= seconds["labelled"] < 30


@needs_espeak
def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(
    corpus: Path, tmp_path: Path
) -> None:
    assert prepare(tmp_path / "again", "--jobs", "1").returncode == 0
    assert files(tmp_path / "again") == files(corpus)
    assert prepare(tmp_path / "again", "--seed", "1").returncode == 0  # rebuilt: other settings
    assert files(tmp_path / "again").keys() != files(corpus).keys()
    assert not list(tmp_path.glob(".*"))


@needs_espeak
def test_a_finished_corpus_is_not_made_again(corpus: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}
    assert prepare(corpus).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in corpus.rglob("*")} == before


@needs_espeak
def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("do not lose this")
    done = prepare(tmp_path)
    assert done.returncode == 1
    assert "not empty" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
