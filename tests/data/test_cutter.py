"""Chunks of a recording: whole utterances, pieces between silences, window by window."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.recordings import WAVEFORM, adds_up, replace_config, talk
from support.speech import RATE

from speechssl.audio.feature_config import FeatureConfig
from speechssl.audio.features import featurise
from speechssl.audio.reader import load_audio, write_wav
from speechssl.config import build
from speechssl.corpus.layouts import scan
from speechssl.corpus.manifest import Manifest, Record
from speechssl.data.prepare import PrepareConfig, prepare
from speechssl.data.store import Store


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


@pytest.mark.parametrize("seed", range(3))
def test_raised_chunks_are_counted_with_the_largest_gain(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    levels = {"usual": 0.1, "quiet": rng.uniform(0.003, 0.006), "quieter": rng.uniform(0.001, 2e-3)}
    given = {}
    for name, level in levels.items():
        given[f"{name}.wav"] = talk([(level, 3)], seed=seed)
        soundfile.write(corpus / f"{name}.wav", given[f"{name}.wav"], RATE, subtype="FLOAT")

    report = prepare(corpus, tmp_path / "s", WAVEFORM)
    store = Store(tmp_path / "s")
    gains_db = {}
    for position in range(len(store)):
        kept = store.array(position) / 32768
        audio = store.record(position).audio
        gains_db[audio] = 20 * np.log10(kept.std() / given[audio].std())

    assert gains_db["usual.wav"] == pytest.approx(0, abs=0.01)
    assert report.num_raised == 2
    assert report.max_gain_db == pytest.approx(max(gains_db.values()), abs=0.1)
    assert report.max_gain_db > gains_db["quiet.wav"] + 1
    assert report.num_lowered == 0


@pytest.mark.parametrize("seed", range(3))
def test_chunks_with_a_bang_are_counted_with_the_largest_lowering(
    tmp_path: Path, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    where = slice(21_000, 21_000 + round(rng.uniform(0.03, 0.12) * RATE))
    peaks = {"none": 0.0, "loud": rng.uniform(0.3, 0.4), "louder": rng.uniform(0.6, 0.9)}
    for name, peak in peaks.items():
        samples = talk([(0.03, 1.2), (1e-4, 0.5), (0.03, 1)], seed=seed)
        samples[where] += peak * rng.uniform(-1, 1, samples[where].shape).astype(np.float32)
        soundfile.write(corpus / f"{name}.wav", samples, RATE, subtype="FLOAT")

    report = prepare(corpus, tmp_path / "s", WAVEFORM)
    store = Store(tmp_path / "s")
    lowerings_db = {}
    for position in range(len(store)):
        audio = store.record(position).audio
        given, _ = soundfile.read(corpus / audio)
        kept = store.array(position) / 32768
        lowerings_db[audio] = 20 * np.log10(given[where].std() / kept[where].std())

    assert lowerings_db["none.wav"] == pytest.approx(0, abs=0.1)
    assert report.num_lowered == 2
    # Not every step of a bang is lowered as far as the loudest one.
    assert report.max_lowering_db == pytest.approx(lowerings_db["louder.wav"], abs=4)
    assert report.max_lowering_db > lowerings_db["loud.wav"] + 1
    assert report.num_raised == 0


def test_digital_silence_is_dropped_as_silence(tmp_path: Path) -> None:
    write_wav(tmp_path / "x.wav", np.zeros(5 * RATE, np.float32), RATE)
    report = prepare(tmp_path / "x.wav", tmp_path / "s")
    assert report.rows()[2][:4] == ("dropped: silence", 1, 0, 5 * RATE)


def test_silence_with_a_transcript_is_rejected(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    time = np.arange(2 * RATE) / RATE
    silent = {
        "zeros": np.zeros(2 * RATE),
        "dither": rng.integers(-1, 2, 2 * RATE) / 32768,
        "offset": np.full(2 * RATE, rng.uniform(-0.9, 0.9)),
        "hum": 0.3 * np.sin(2 * np.pi * 50 * time + rng.uniform(0, 6)),
    }
    for name, samples in silent.items():
        write_wav(tmp_path / f"{name}.wav", samples.astype(np.float32), RATE)
    write_wav(tmp_path / "spoken.wav", talk([(1e-5, 1), (0.01, 1)]), RATE)

    names = [*silent, "spoken"]
    records = tuple(Record(name, f"{name}.wav", text="words", speaker="s") for name in names)
    report = prepare(Manifest(tmp_path, records), tmp_path / "s", WAVEFORM)
    adds_up(report)
    assert report.kept.chunks == 1
    assert report.dropped["silent utterance"].files == 4
    assert report.dropped["silent utterance"].samples == 4 * 2 * RATE
    assert report.num_rejected == 4
