"""``speechssl prepare``: it prints the account and bounds rejects."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from support.commands import call
from support.recordings import talk
from support.speech import RATE, make_labelled

from speechssl.audio.reader import write_wav
from speechssl.data.store import Store, meta_checksum


def test_prepare_finds_a_kaldi_folders_audio_elsewhere(
    labelled_folder: Path, tmp_path: Path
) -> None:
    """Absolute paths are the rule there, and a folder beside the audio is too."""
    audio = sorted(labelled_folder.rglob("*.wav"))[:3]
    (tmp_path / "kaldi").mkdir()
    (tmp_path / "kaldi/wav.scp").write_text("".join(f"{path.stem} {path}\n" for path in audio))

    refused = call("prepare", tmp_path / "kaldi", tmp_path / "store")
    assert refused.exit_code == 1
    assert "--root" in str(refused.exception)

    done = call(
        "prepare",
        tmp_path / "kaldi",
        tmp_path / "store",
        "--root",
        labelled_folder,
        "--ignore-transcripts",  # the folder of the audio has a table, and the Kaldi folder no text
        "--min-chunk",
        0.1,
    )
    assert done.exit_code == 0, done.stderr

    store = Store(tmp_path / "store")
    assert {store.record(k).audio for k in range(len(store))} == {
        str(p.relative_to(labelled_folder)) for p in audio
    }


@pytest.mark.slow
def test_prepare_prints_the_account_and_rejects_are_bounded(tmp_path: Path) -> None:
    folder = make_labelled(tmp_path / "corpus", {"train": 3, "dev": 1, "test": 1})
    result = call("prepare", folder, tmp_path / "store")
    assert result.exit_code == 0
    assert "kept" in result.stdout

    (folder / "train001.wav").write_bytes(b"no audio")
    result = call("prepare", folder, tmp_path / "second")
    assert result.exit_code == 3
    assert "1 of 5 files rejected, 1 lines in " in result.stderr
    assert "split as given (dev 1, test 1, train 3 recordings)" in result.stderr

    assert call("prepare", folder, tmp_path / "third", "--max-bad-fraction", "0.2").exit_code == 0

    for path in folder.glob("*.wav"):
        path.write_bytes(b"")
    assert call("prepare", folder, tmp_path / "fourth").exit_code == 4

    assert "no chunk at all in" in str(
        call("pretrain", tmp_path / "fourth", "--run", tmp_path / "run").exception
    )

    rejects = [
        json.loads(line) for line in (tmp_path / "fourth/rejects.jsonl").read_text().splitlines()
    ]
    assert len(rejects) == 5


def test_prepare_tells_of_a_part_that_its_file_does_not_hold(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-0.1, 0.1, 3 * RATE)
    write_wav(tmp_path / "news.wav", samples.astype(np.float32), RATE)
    parts = [
        {"audio_filepath": "news.wav", "offset": start, "duration": 1, "text": "a"}
        for start in (0, 1, 99)
    ]
    (tmp_path / "news.jsonl").write_text("".join(f"{json.dumps(part)}\n" for part in parts))
    result = call("prepare", tmp_path / "news.jsonl", tmp_path / "store")
    assert result.exit_code == 0
    assert "0 of 1 files rejected, 1 lines in " in result.stderr


def test_nothing_kept_is_not_done_and_names_the_option(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for number in range(3):
        samples = 0.1 * rng.standard_normal(round(rng.uniform(0.2, 1.9) * RATE))
        (tmp_path / "in").mkdir(exist_ok=True)
        write_wav(tmp_path / "in" / f"{number}.wav", samples.astype(np.float32), RATE)
    result = call("prepare", tmp_path / "in", tmp_path / "store")
    assert result.exit_code == 4
    assert "nothing was kept: chunks last 2 s (--min-chunk)" in result.stderr
    assert "too short: 3 (0.wav, 1.wav, 2.wav)" in result.stderr
    assert "s of speech were left out: chunks last 2 s or more (--min-chunk)" in result.stderr
    assert "0 of 3 files rejected, 3 lines in " in result.stderr
    kept = call("prepare", tmp_path / "in", tmp_path / "short", "--min-chunk", "0.1")
    assert kept.exit_code == 0


def test_silence_is_said_in_seconds_and_its_threshold_can_be_given(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    loud = 0.1 * rng.standard_normal(3 * RATE)
    faint = 0.02 * loud
    samples = np.concatenate([loud, faint, loud]).astype(np.float32)
    (tmp_path / "in").mkdir()
    write_wav(tmp_path / "in/x.wav", samples, RATE)

    coarse = call("prepare", tmp_path / "in", tmp_path / "coarse", "--silence-db", "20")
    assert coarse.exit_code == 0
    assert "2.8 s were left out as silence: 20 dB or more below" in coarse.stderr
    fine = call("prepare", tmp_path / "in", tmp_path / "fine", "--silence-db", "45")
    assert fine.exit_code == 0
    assert "left out as silence" not in fine.stderr


def test_files_of_several_channels_are_counted_in_one_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    (tmp_path / "in").mkdir()
    for number in range(4):
        left = (0.1 * rng.standard_normal(3 * RATE)).astype(np.float32)
        right = left if number else left[::-1]
        write_wav(tmp_path / f"in/{number}.wav", np.stack([left, right], axis=1), RATE)

    equal = "files have several channels that are equal; they are heard as one"
    averaged = "files have several channels that differ; their mean is heard"
    result = call("prepare", tmp_path / "in", tmp_path / "store")
    assert result.exit_code == 0
    (line,) = [line for line in result.stderr.splitlines() if "channels" in line]
    assert f"3 of 4 {equal}; 1 of 4 {averaged}" in line

    for number in range(1, 4):
        (tmp_path / f"in/{number}.wav").unlink()
    alone = call("prepare", tmp_path / "in", tmp_path / "other")
    (line,) = [line for line in alone.stderr.splitlines() if "channels" in line]
    assert f"1 of 1 {averaged}" in line


def test_raised_speech_is_said_in_one_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    (tmp_path / "in").mkdir()
    for number, level in enumerate([0.001, 0.002, 0.1]):
        samples = level * rng.standard_normal(3 * RATE)
        write_wav(tmp_path / f"in/{number}.wav", samples.astype(np.float32), RATE)

    result = call("prepare", tmp_path / "in", tmp_path / "store")
    assert result.exit_code == 0
    lines = [line for line in result.stderr.splitlines() if "raised" in line]
    assert len(lines) == 1
    assert "quiet speech was raised in 2 of 3 chunks, by up to " in lines[0]

    for number in range(2):
        (tmp_path / f"in/{number}.wav").unlink()
    usual = call("prepare", tmp_path / "in", tmp_path / "other")
    assert "raised" not in usual.stderr


def test_lowered_bangs_are_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number, peak in enumerate([0.4, 0.8, 0]):
        samples = talk([(0.03, 1.2), (1e-4, 0.5), (0.03, 1)], seed=number)
        samples[21_000:21_800] += talk([(peak / 2, 0.05)], seed=number)
        write_wav(tmp_path / f"in/{number}.wav", samples, RATE)

    result = call("prepare", tmp_path / "in", tmp_path / "store")
    assert result.exit_code == 0
    lines = [line for line in result.stderr.splitlines() if "lowered" in line]
    assert len(lines) == 1
    assert "bangs were lowered in 2 of 3 chunks, by up to " in lines[0]

    again = call("prepare", tmp_path / "in", tmp_path / "store")
    assert lines[0] in again.stderr

    for number in range(2):
        (tmp_path / f"in/{number}.wav").unlink()
    usual = call("prepare", tmp_path / "in", tmp_path / "other")
    assert "lowered" not in usual.stderr


@pytest.mark.parametrize("seed", range(3))
def test_a_store_of_another_format_is_refused_with_what_to_do(
    tmp_path: Path, labelled_folder: Path, seed: int
) -> None:
    """By whatever reads it; prepare alone can make it anew."""
    draws = random.Random(seed)
    store = tmp_path / "store"
    assert call("prepare", labelled_folder, store).exit_code == 0

    version = draws.choice([0, 2, draws.randrange(3, 99), None, "1", 1.5])
    meta = json.loads((store / "store.json").read_text()) | {"version": version}
    del meta["checksum"]
    (store / "store.json").write_text(json.dumps(meta | {"checksum": meta_checksum(meta)}))

    remedy = "read it with the version that wrote it, or prepare it anew with --force"
    command = ["prepare", labelled_folder, store]
    others = [["lm", store, "--out", tmp_path / "lm.arpa"], ["pretrain", store, "--run", tmp_path]]
    for one in (command, *others):
        refused = call(*one)
        assert refused.exit_code == 1
        assert f"{store} has store format {version!r}" in str(refused.exception)
        assert remedy in str(refused.exception)

    assert call(*command, "--force").exit_code == 0
    Store(store).verify()
