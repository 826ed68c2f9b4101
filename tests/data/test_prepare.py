"""Every sample is accounted for, planted faults are listed, and bytes are equal after any kill."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from support.folders import files_of
from support.places import ROOT
from support.recordings import SMALL, WAVEFORM, damage, replace_config, talk
from support.speech import RATE, make_labelled

from speechssl.audio.features import FeatureConfig, featurise
from speechssl.audio.reader import load_audio, write_wav
from speechssl.config import build
from speechssl.corpus.layouts import scan
from speechssl.corpus.manifest import Manifest, Record, write_jsonl
from speechssl.data.prepare import PrepareConfig, PrepareReport, prepare
from speechssl.data.shards import ShardJob, ShardPart, join_parts
from speechssl.data.store import Store
from speechssl.errors import AudioError, ConfigError, ManifestError


def adds_up(report: PrepareReport) -> None:
    (_, *total), *parts = report.rows()
    for column in range(3):
        assert total[column] == sum(part[column + 1] for part in parts)
    assert total[3] == pytest.approx(total[2] / RATE / 3600)


def test_every_sample_is_accounted_for(corpus: Path, tmp_path: Path) -> None:
    hours: list[float] = []
    report = prepare(
        corpus, tmp_path / "s", WAVEFORM, progress=lambda done, total: hours.append(done)
    )
    adds_up(report)
    assert report.total.samples == sum(len(load_audio(p)) for p in corpus.rglob("*.*"))
    assert (report.num_files, report.num_rejected, report.too_many_bad, report.all_bad) == (
        12,
        0,
        False,
        False,
    )
    assert hours == sorted(hours)
    assert hours[-1] == pytest.approx(report.rows()[0][4])
    store = Store(tmp_path / "s")
    store.verify()
    assert (report.kept.chunks, report.kept.samples) == (len(store), store.num_samples.sum())
    assert set(report.dropped) <= {"silence", "too short"}
    covered: dict[str, list[tuple[int, int]]] = {}
    for k in range(len(store)):
        chunk = store.record(k)
        start = round(chunk.offset_s * RATE)
        assert chunk.id.endswith(f"@{start}")
        assert WAVEFORM.min_chunk_s <= chunk.duration_s <= WAVEFORM.max_chunk_s
        assert (chunk.split, chunk.text) == ("train", None)
        expected = load_audio(corpus / chunk.audio)[start : start + chunk.num_samples]
        np.testing.assert_allclose(store.array(k) / 32768, expected, atol=1 / 32768)
        covered.setdefault(chunk.audio, []).append((start, start + chunk.num_samples))
    for spans in covered.values():
        edges = [edge for span in sorted(spans) for edge in span]
        assert edges == sorted(edges)
    assert str(tmp_path).encode() not in b"".join(files_of(tmp_path / "s").values())
    assert str(corpus).encode() not in b"".join(files_of(tmp_path / "s").values())
    assert report.table().count("\n") == 2 + len(report.rows())


def test_a_long_file_goes_window_by_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    pattern = [(level, rng.uniform(1, 9)) for _ in range(30) for level in (0.1, 1e-5)]
    (tmp_path / "a").mkdir()
    write_wav(tmp_path / "a" / "x.wav", talk(pattern), RATE)
    config = PrepareConfig(features=FeatureConfig(kind="waveform"), max_chunk_s=10)
    whole = prepare(tmp_path / "a", tmp_path / "whole", config)
    monkeypatch.setattr("speechssl.data.cutter.WINDOW_S", 40.0)
    pieces = prepare(tmp_path / "a", tmp_path / "pieces", config)
    adds_up(pieces)
    assert pieces.total == whole.total or pieces.total.samples == whole.total.samples
    ids = [
        {Store(tmp_path / n).record(k).id for k in range(len(Store(tmp_path / n)))}
        for n in ("whole", "pieces")
    ]
    assert len(ids[0] & ids[1]) > 0.9 * len(ids[0])  # windows hardly show


@pytest.mark.parametrize("shard_files", [3, 100])
def test_planted_faults_are_the_reject_list(tmp_path: Path, shard_files: int) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    planted = damage(corpus)
    for k in range(20):
        write_wav(corpus / f"good{k:02d}.wav", talk([(0.1, 2.5)], seed=k), RATE)
    config = PrepareConfig(max_duration_s=60, shard_files=shard_files)
    report = prepare(corpus, tmp_path / "s", config)
    rejects = [
        json.loads(line) for line in (tmp_path / "s" / "rejects.jsonl").read_text().splitlines()
    ]
    assert {r["audio"]: r["reason"] for r in rejects} == planted
    assert all(r["id"] and r["detail"] for r in rejects)
    adds_up(report)
    assert (report.num_files, report.num_rejected, report.num_reject_lines) == (32, 12, 12)
    assert report.kept.files == len(Store(tmp_path / "s")) == 20
    assert report.too_many_bad
    assert not report.all_bad
    # What was decoded of a file before the fault showed is counted under the fault.
    assert report.dropped["header mismatch"].samples == 3 * RATE
    assert report.dropped["truncated"].files == 3
    relaxed = prepare(corpus, tmp_path / "s", replace_config(config, max_bad_fraction=0.5))
    assert not relaxed.too_many_bad  # the same store: only the verdict differs


def test_only_bad_files(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "x.wav").write_bytes(b"junk")
    report = prepare(tmp_path / "c", tmp_path / "s")
    assert report.all_bad
    assert report.too_many_bad
    assert len(Store(tmp_path / "s")) == 0
    assert prepare(tmp_path / "c", tmp_path / "s") == report


# ---- transcripts, parts --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["waveform", "logmel"])
def test_labelled_utterances_stay_whole(tmp_path: Path, kind: str) -> None:
    samples = {
        f"{k:02d}": talk([(1e-6, 1), (0.1, 0.5 + k / 10), (1e-6, 2)], seed=k) for k in range(20)
    }
    for name, one in samples.items():
        write_wav(tmp_path / f"{name}.wav", one, RATE)
    records = tuple(Record(n, f"{n}.wav", text=f"words {n}", speaker="s") for n in samples)
    config = PrepareConfig(features=build(FeatureConfig, {"kind": kind}))
    report = prepare(Manifest(tmp_path, records), tmp_path / "s", config)
    adds_up(report)
    assert report.kept.chunks == 20
    assert report.total.samples == sum(map(len, samples.values()))
    store = Store(tmp_path / "s")
    assert set(store.splits) == {"train", "dev", "test"}
    for k in range(20):
        chunk = store.record(k)
        assert (chunk.text, chunk.offset_s, chunk.speaker) == (f"words {chunk.id}", 0.0, "s")
        expected = featurise(load_audio(tmp_path / chunk.audio), config.features)
        np.testing.assert_array_equal(store.array(k), expected)
    all_train = prepare(
        Manifest(tmp_path, records), tmp_path / "t", replace_config(config, dev=0.0, test=0.0)
    )
    assert Store(tmp_path / "t").splits == ("train",)
    assert all_train.kept == report.kept


def test_parts_of_a_file(tmp_path: Path) -> None:
    write_wav(tmp_path / "x.wav", talk([(0.1, 100)], 44100), 44100)
    whole = load_audio(tmp_path / "x.wav")
    records = (
        Record("a", "x.wav", 1.0, 2.5, "a"),
        Record("b", "x.wav", 2.0, 70.25, "b"),  # overlaps a, and a block's end
        Record("c", "x.wav", 97.5, 2.55, "c"),  # 50 ms too long: rounding
        Record("d", "x.wav", 98.0, 4.0, "d"),
        Record("e", "x.wav", 120.0, 1.0, "e"),
        Record("f", "x.wav", 90.0, 5.0),  # unlabelled
        Record("g", "x.wav", 96.0, 0.001, "g"),
        Record("h", "x.wav", 0.0, 80.0, "h"),
    )
    config = replace_config(PrepareConfig(max_utterance_s=75), dev=0, test=0)
    report = prepare(Manifest(tmp_path, records), tmp_path / "s", config)
    adds_up(report)
    store = Store(tmp_path / "s")
    chunks = {store.record(k).id: (store.record(k), store.array(k)) for k in range(len(store))}
    assert set(chunks) == {"a", "b", "c", f"f@{90 * RATE}"}
    for chunk, array in chunks.values():
        start = round(chunk.offset_s * RATE)
        expected = featurise(whole[start : start + chunk.num_samples], config.features)
        np.testing.assert_allclose(array.astype(np.float32), expected.astype(np.float32), atol=0.02)
    assert chunks["b"][0].num_samples == 70.25 * RATE
    rejects = [
        json.loads(line) for line in (tmp_path / "s" / "rejects.jsonl").read_text().splitlines()
    ]
    assert {r["id"]: r["reason"] for r in rejects} == {
        "d": "outside the file",
        "e": "outside the file",
        "g": "utterance too short",
        "h": "utterance too long",
    }
    asked = sum(min(r.offset_s + (r.duration_s or 0), 100) - min(r.offset_s, 100) for r in records)
    assert report.total.samples == round(asked * RATE) + report.dropped["not in any part"].samples
    not_asked = 10 + 1 + 1.499  # 80 to 90, 95 to 96, 96.001 to 97.5 s
    assert report.dropped["not in any part"].samples == round(not_asked * RATE)
    assert report.num_rejected == 0  # the file itself is fine


def test_peaks_above_one_are_scaled_not_clipped(tmp_path: Path) -> None:
    loud = 4 * np.sin(np.arange(3 * RATE) / 20).astype(np.float32)
    soundfile.write(tmp_path / "x.wav", loud, RATE, subtype="FLOAT")
    report = prepare(scan(tmp_path), tmp_path / "s", WAVEFORM)
    assert report.num_scaled == 1
    np.testing.assert_allclose(
        Store(tmp_path / "s").array(0) / 32768, loud / np.abs(loud).max(), atol=1e-4
    )


def test_digital_silence_is_dropped_as_silence(tmp_path: Path) -> None:
    write_wav(tmp_path / "x.wav", np.zeros(5 * RATE, np.float32), RATE)
    report = prepare(tmp_path / "x.wav", tmp_path / "s")
    assert report.rows()[2][:4] == ("dropped: silence", 1, 0, 5 * RATE)


# ---- the same bytes, whatever happens ------------------------------------------------------------


def test_processes_do_not_change_a_byte(corpus: Path, tmp_path: Path) -> None:
    first = prepare(corpus, tmp_path / "one", SMALL)
    second = prepare(corpus, tmp_path / "two", SMALL, jobs=2)
    assert first == second
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    write_jsonl(scan(corpus), corpus.parent / "corpus.jsonl")
    names = set(files_of(tmp_path / "one"))
    tables = {"store.json", "index.npy", "chunks.jsonl", "rejects.jsonl"}
    assert names == tables | {f"shard-{k:05d}.bin" for k in range(6)}


def test_a_shard_divided_among_processes_has_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, config = tmp_path / "corpus", PrepareConfig(max_duration_s=60)
    corpus.mkdir()
    planted = damage(corpus)
    for k in range(20):
        write_wav(corpus / f"good{k:02d}.wav", talk([(0.1, 2.5)], seed=k), RATE)
    first = prepare(corpus, tmp_path / "one", config)
    monkeypatch.setattr("speechssl.data.shards.PART_FILES", 5)
    joined: list[int] = []

    def counted(task: ShardJob, pieces: list[ShardPart]) -> None:
        joined.append(len(pieces))
        join_parts(task, pieces)

    monkeypatch.setattr("speechssl.data.prepare.join_parts", counted)
    hours: list[float] = []
    second = prepare(
        corpus, tmp_path / "two", config, jobs=2, progress=lambda done, total: hours.append(done)
    )
    assert joined == [6]  # 32 files
    assert second == first
    assert second.num_reject_lines == len(planted)
    assert hours[-1] == pytest.approx(first.rows()[0][4])
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")


RUN = """
import sys
from speechssl.data.prepare import PrepareConfig, prepare
if __name__ == "__main__":
    source, store, settings, jobs = sys.argv[1:]
    prepare(source, store, PrepareConfig.model_validate_json(settings), jobs=int(jobs))
"""


def start(corpus: Path, out: Path, jobs: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", RUN, str(corpus), str(out), SMALL.model_dump_json(), str(jobs)]
    return subprocess.Popen(command, start_new_session=True, cwd=ROOT)


def test_killed_and_run_again_gives_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    expected = prepare(corpus, tmp_path / "never killed", SMALL)
    out = tmp_path / "s"
    run = start(corpus, out, 2)
    while run.poll() is None and not (out / "parts" / "00001.json").exists():
        time.sleep(0.002)
    run.kill()  # the parent only: its workers must follow
    run.wait()
    for _ in range(100):
        try:
            os.killpg(run.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("workers outlive their parent")
    assert not (out / "store.json").exists(), "the kill came too late to test anything"
    made = {
        path: path.stat().st_mtime_ns
        for path in (out / "parts").glob("*.json")
        if path.name != "plan.json"
    }
    kept = {path.name: (out / f"shard-{path.stem}.bin").stat().st_ino for path in made}
    (out / "shard-00005.bin.tmp").write_bytes(b"left over")
    assert prepare(corpus, out, SMALL) == expected
    assert files_of(out) == files_of(tmp_path / "never killed")
    assert kept == {
        name: (out / f"shard-{name[:5]}.bin").stat().st_ino for name in kept
    }  # finished shards stay


@pytest.mark.parametrize("wait_s", [0.0, 0.05, 1.0])
def test_an_interrupt_of_all_processes_is_one_line(
    corpus: Path, tmp_path: Path, wait_s: float
) -> None:
    """As a terminal sends it: to the workers too, at whatever they are."""
    command = [
        sys.executable,
        "-m",
        "speechssl.cli",
        "prepare",
        str(corpus),
        str(tmp_path / "s"),
        "--jobs",
        "2",
    ]
    root = ROOT
    run = subprocess.Popen(
        command, start_new_session=True, cwd=root, stderr=subprocess.PIPE, text=True
    )
    while run.poll() is None and not (tmp_path / "s/parts").exists():  # then the processes start
        time.sleep(0.01)
    time.sleep(wait_s)
    os.killpg(run.pid, signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert (run.returncode, errors) == (
        130,
        "speechssl: interrupted: give the command again, without --force\n",
    )


def test_an_interrupt_while_the_processes_start_does_not_wait_for_the_corpus(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = ProcessPoolExecutor.submit

    def interrupted(*args: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return submit(*args)

    monkeypatch.setattr(ProcessPoolExecutor, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(corpus, tmp_path / "s", SMALL, jobs=1)
    assert not list((tmp_path / "s").glob("shard-*.bin"))


def test_an_invented_split_and_sentences_on_both_sides_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_labelled(tmp_path / "in", {"": 8})
    table = (folder / "metadata.csv").read_text().splitlines()
    rows = [line.split(",") for line in table[1:]]
    same = "\n".join([table[0], *(f"{name},Abc def,," for name, *_ in rows)])
    (folder / "metadata.csv").write_text(same + "\n")
    prepare(folder, tmp_path / "s", SMALL)
    told = capsys.readouterr().err
    assert (
        "else by file, or by part of fewer files than splits (dev 2, test 1, train 5 recordings)"
        in told
    )
    assert "2 of 2 transcripts of dev are in train too" in told
    assert "1 of 1 transcripts of test are in train too" in told


class KilledError(Exception):
    """Stands for a SIGKILL at one write."""


def test_a_kill_before_any_write_is_survived(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = prepare(corpus, tmp_path / "never killed", SMALL)
    out, renames = tmp_path / "s", 0
    rename = Path.replace
    for stop in range(60):
        renames = 0

        def counted(self: Path, target: Path, stop: int = stop) -> Path:
            nonlocal renames
            renames += 1
            if renames > stop:
                raise KilledError
            return rename(self, target)

        monkeypatch.setattr(Path, "replace", counted)
        try:
            report = prepare(corpus, out, SMALL)
        except KilledError:
            continue
        finally:
            monkeypatch.setattr(Path, "replace", rename)
        break
    assert report == expected
    assert files_of(out) == files_of(tmp_path / "never killed")


def test_a_finished_store_is_left_alone(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "s"
    report = prepare(corpus, out, SMALL)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert prepare(corpus, out, SMALL) == report
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    other = replace_config(SMALL, min_chunk_s=1.0)
    with pytest.raises(ConfigError, match="--force"):
        prepare(corpus, out, other)
    prepare(corpus, out, other, force=True)
    prepare(corpus, tmp_path / "fresh", other)
    assert files_of(out) == files_of(tmp_path / "fresh")


def test_force_replaces_a_damaged_store_but_never_other_files(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "s"
    prepare(corpus, out, SMALL)
    good = files_of(out)
    (out / "store.json").write_text("{")
    with pytest.raises(ManifestError):
        prepare(corpus, out, SMALL)
    prepare(corpus, out, SMALL, force=True)
    assert files_of(out) == good
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    for force in (False, True):
        with pytest.raises(ConfigError, match="not a store"):
            prepare(corpus, tmp_path / "mine", SMALL, force=force)
    assert files_of(tmp_path / "mine") == {"thesis.txt": b"precious"}
    with pytest.raises(ConfigError):
        prepare(corpus, tmp_path / "mine" / "thesis.txt", SMALL)


def test_settings_that_contradict(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="longer than the longest"):
        prepare(corpus, tmp_path / "s", replace_config(SMALL, min_chunk_s=20))
    with pytest.raises(ConfigError, match="jobs"):
        prepare(corpus, tmp_path / "s", SMALL, jobs=-1)
    with pytest.raises(ConfigError, match="shares"):
        prepare(corpus, tmp_path / "s", replace_config(SMALL, dev=0.6, test=0.6))


# ---- recorded speech -----------------------------------------------------------------------------


@pytest.mark.speech
def test_damaged_recordings_are_fourteen_named_rejects(speech_folder: Path, tmp_path: Path) -> None:
    report = prepare(speech_folder / "broken", tmp_path / "s")
    assert report.all_bad
    rejects = [
        json.loads(line) for line in (tmp_path / "s" / "rejects.jsonl").read_text().splitlines()
    ]
    assert {r["audio"] for r in rejects} == {
        path.name for path in (speech_folder / "broken").iterdir()
    }
    assert len(rejects) == 14


@pytest.mark.speech
def test_recorded_speech_keeps_most_of_its_audio(speech_folder: Path, tmp_path: Path) -> None:
    manifest = scan(speech_folder / "librispeech")
    some = replace(manifest, records=manifest.records[:25])
    report = prepare(some, tmp_path / "s", WAVEFORM)
    adds_up(report)
    assert report.num_rejected == 0
    assert report.kept.samples > 0.8 * report.total.samples
    with pytest.raises(AudioError):
        load_audio(next((speech_folder / "broken").glob("*.flac")))
