"""Every sample is accounted for, planted faults are listed, and bytes are equal after any kill."""

import json
import os
import random
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
from support.folders import files_of
from support.places import ROOT
from support.programs import running
from support.recordings import SMALL, WAVEFORM, adds_up, damage, replace_config, talk
from support.speech import RATE

from speechssl.audio.reader import load_audio, write_wav
from speechssl.corpus.layouts import scan
from speechssl.corpus.manifest import write_jsonl
from speechssl.data.prepare import PrepareConfig, prepare
from speechssl.data.store import Store
from speechssl.errors import AudioError, ConfigError, ManifestError


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


# ---- the same bytes, whatever happens ------------------------------------------------------------


@pytest.mark.slow
def test_processes_do_not_change_a_byte(corpus: Path, tmp_path: Path) -> None:
    first = prepare(corpus, tmp_path / "one", SMALL)
    second = prepare(corpus, tmp_path / "two", SMALL, jobs=2)
    assert first == second
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    write_jsonl(scan(corpus), corpus.parent / "corpus.jsonl")
    names = set(files_of(tmp_path / "one"))
    tables = {"store.json", "index.npy", "chunks.jsonl", "rejects.jsonl"}
    assert names == tables | {f"shard-{k:05d}.bin" for k in range(6)}


RUN = """
import sys
from speechssl.data.prepare import PrepareConfig, prepare
if __name__ == "__main__":
    source, store, settings, jobs = sys.argv[1:]
    prepare(source, store, PrepareConfig.model_validate_json(settings), jobs=int(jobs))
"""


@pytest.mark.slow
def test_killed_and_run_again_gives_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    expected = prepare(corpus, tmp_path / "never killed", SMALL)
    out = tmp_path / "s"
    command = [sys.executable, "-c", RUN, corpus, out, SMALL.model_dump_json(), 2]
    with running(command, cwd=ROOT) as run:
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


@pytest.mark.slow
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
    with running(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as run:
        started = tmp_path / "s/parts"
        while run.poll() is None and not started.exists():  # then the processes start
            time.sleep(0.01)
        time.sleep(wait_s)
        os.killpg(run.pid, signal.SIGINT)
        _, errors = run.communicate(timeout=60)
    assert (run.returncode, errors) == (
        130,
        "speechssl: interrupted: give the command again, without --force\n",
    )


@pytest.mark.slow
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


class KilledError(Exception):
    """Stands for a SIGKILL at one write."""


@pytest.mark.slow
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


@pytest.mark.parametrize("text", ['{"format": "theirs", "version": 1}', "[1, 2]", "{}", "3"])
def test_another_programs_store_is_never_deleted(corpus: Path, tmp_path: Path, text: str) -> None:
    """Others call their files so too."""
    (tmp_path / "store.json").write_text(text)
    for force in (False, True):
        with pytest.raises(ConfigError, match=r"store\.json is another program's: give a new"):
            prepare(corpus, tmp_path, SMALL, force=force)
    assert files_of(tmp_path)["store.json"] == text.encode()


@pytest.mark.parametrize("seed", range(2))
def test_force_keeps_other_files_of_the_folder(corpus: Path, tmp_path: Path, seed: int) -> None:
    """Also those with a name much like that of a file of ours."""
    draws = random.Random(seed)
    out = tmp_path / "s"
    prepare(corpus, out, SMALL)
    expected = files_of(out)

    word = "".join(draws.choices("abc", k=3))
    mine = [f"{word}.tmp", f"shard-{word}.bin", f"{word}/shard-00001.bin", f"{word}.json"]
    for name in mine:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text(word)

    # As a kill leaves them, of a process that is gone.
    theirs = [f"shard-{draws.randrange(100):05}.bin.tmp", "index.npy.tmp", "shard-99999.bin"]
    theirs.append(f".speechssl-{2**22 + draws.randrange(9)}-0.tmp")
    for name in theirs:
        (out / name).write_text("left over")

    prepare(corpus, out, SMALL, force=True)
    found = files_of(out)
    for name in mine:
        assert found.pop(name) == word.encode()
    assert found == expected


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
