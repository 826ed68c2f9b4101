"""Evaluation and transcription: independent of batching, bad files named, silence empty, long files cut at pauses."""

import json
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import RATE, SMALL_ENCODER, sentence, speak
from numpy.typing import NDArray

from speechssl import recognise
from speechssl.audio import Samples, split_at_silence, stream_mono, write_wav
from speechssl.batching import Batch, Dataset
from speechssl.config import build
from speechssl.ctc import CtcConfig, CtcModel
from speechssl.encoder import Encoder, EncoderConfig
from speechssl.errors import ConfigError
from speechssl.features import FeatureConfig
from speechssl.formats import Transcript
from speechssl.recognise import Failure, decode_batch, evaluate, find_audio, hypotheses, transcribe, write_score
from speechssl.store import Store
from speechssl.text import CharTokenizer


@pytest.fixture(scope="module")
def model() -> CtcModel:
    """Random weights, a head wide enough that its texts differ between recordings."""
    torch.manual_seed(0)
    tokenizer = CharTokenizer.train(["abcdef "])
    model = CtcModel(Encoder(build(EncoderConfig, SMALL_ENCODER)), tokenizer, "basic-1", CtcConfig())
    torch.nn.init.normal_(model.head.weight, std=0.5)
    return model.eval()


def without_rounding(result: Transcript | Failure) -> Transcript | Failure:
    """With confidences to two digits: their last bits depend on the batch, words and times do not."""
    if isinstance(result, Failure):
        return result
    segments = [
        replace(s, words=tuple(replace(w, probability=round(w.probability, 2)) for w in s.words))
        for s in result.segments
    ]
    return replace(result, segments=tuple(segments))


def test_hypotheses_do_not_depend_on_the_batch(model: CtcModel, labelled_store: Path) -> None:
    dataset = Dataset([Store(labelled_store)], ["train"])
    alone = {}
    for position in range(len(dataset)):
        batch = dataset.batch([position])
        alone[batch.ids[0]] = " ".join(word.text for word in decode_batch(model, batch)[0])
    assert len(set(alone.values())) > 10  # else the comparison would say nothing
    assert hypotheses(model, dataset, batch_seconds=15) == alone
    assert hypotheses(model, dataset, batch_seconds=1000) == alone


def test_log_probabilities_do_not_depend_on_the_batch(model: CtcModel, labelled_store: Path) -> None:
    dataset = Dataset([Store(labelled_store)], ["train"])
    positions = list(range(0, len(dataset), 5))
    together, frames = model.log_probs(dataset.batch(positions))
    for row, position in enumerate(positions):
        single, count = model.log_probs(dataset.batch([position]))
        assert int(count) == int(frames[row])
        torch.testing.assert_close(together[row, : int(count)], single[0], rtol=0, atol=1e-5)


def test_evaluate_scores_against_the_transcripts(model: CtcModel, labelled_store: Path, tmp_path: Path) -> None:
    dataset = Dataset([Store(labelled_store)], ["test"])
    result = evaluate(model, dataset)
    references = dict(dataset.id_text(p) for p in range(len(dataset)))
    assert {u.utterance_id: u.reference for u in result.utterances} == references
    text = write_score(result, tmp_path / "out", {"model": "m"})
    assert f"{result.wer:.2%}" in text
    written = json.loads((tmp_path / "out/score.json").read_text())
    assert written["wer"] == result.wer
    assert written["model"] == "m"
    rows = [json.loads(line) for line in (tmp_path / "out/utterances.jsonl").read_text().splitlines()]
    assert sum(row["words"]["substitutions"] for row in rows) == result.words.substitutions


def test_evaluate_refuses_other_features(model: CtcModel, labelled_store: Path) -> None:
    dataset = Dataset([Store(labelled_store)], ["test"])
    dataset.features = FeatureConfig(num_mels=40)
    with pytest.raises(ConfigError, match="prepare the store anew"):
        evaluate(model, dataset)


def test_transcribe_equals_evaluation_on_the_same_files(
    model: CtcModel, labelled_folder: Path, labelled_store: Path
) -> None:
    dataset = Dataset([Store(labelled_store)], ["test"])
    expected = hypotheses(model, dataset)
    files = sorted(labelled_folder.glob("test*.wav"))
    results = list(transcribe(model, files, "name", batch_seconds=7))
    assert [r.path for r in results] == [str(f) for f in files]
    assert {Path(r.path).stem: r.text for r in results if isinstance(r, Transcript)} == expected


def test_bad_files_are_named_and_stop_nothing(model: CtcModel, labelled_folder: Path, tmp_path: Path) -> None:
    good = sorted(labelled_folder.glob("dev*.wav"))[:3]
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("not audio at all")
    paths = [good[0], tmp_path / "empty.wav", good[1], tmp_path / "text.wav", good[2]]
    results = list(transcribe(model, paths))
    assert [isinstance(r, Failure) for r in results] == [False, True, False, True, False]
    assert [r.path for r in results] == [str(p) for p in paths]
    assert "empty" in results[1].error  # type: ignore[union-attr]


def test_digital_silence_gives_an_empty_transcript(model: CtcModel, tmp_path: Path) -> None:
    write_wav(tmp_path / "silence.wav", np.zeros(5 * RATE, dtype=np.float32), RATE)
    (result,) = transcribe(model, [tmp_path / "silence.wav"])
    assert isinstance(result, Transcript)
    assert (result.text, result.segments, result.duration_s) == ("", (), 5.0)


def test_long_files_are_cut_at_pauses(model: CtcModel, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pause = np.zeros(2 * RATE, dtype=np.float32)
    parts = [speak(sentence(rng, 8), rng) for _ in range(9)]
    wave = np.concatenate([piece for part in parts for piece in (part, pause)])
    write_wav(tmp_path / "long.wav", wave, RATE)
    (result,) = transcribe(model, [tmp_path / "long.wav"])
    assert isinstance(result, Transcript)
    assert result.duration_s == pytest.approx(len(wave) / RATE)
    assert result.duration_s > 35
    assert len(result.segments) >= 3
    times = [t for s in result.segments for t in (s.start, s.end)]
    assert times == sorted(times)
    assert times[-1] <= result.duration_s
    assert result.text == " ".join(s.text for s in result.segments)


def speech_with_pauses(sentences: int, seed: int = 0) -> NDArray[np.float32]:
    """Sentences of four words with a second of silence after each: at least half a second is never joined over."""
    rng = np.random.default_rng(seed)
    pause = np.zeros(RATE, dtype=np.float32)
    return np.concatenate([part for _ in range(sentences) for part in (speak(sentence(rng), rng), pause)])


def test_a_file_of_many_windows_is_cut_as_if_it_were_one(
    model: CtcModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "long.wav"
    write_wav(path, speech_with_pauses(80), RATE)
    monkeypatch.setattr(recognise, "WINDOW_S", 50.0)
    samples = np.concatenate(list(stream_mono(path, RATE, block_s=1000)))
    assert len(samples) > 4 * 60 * RATE  # as many windows: a block of a minute fills one
    pieces = []
    monkeypatch.setattr(recognise, "_segments", lambda piece, *_: pieces.append((piece.start, piece.end)) or [])
    list(transcribe(model, [path]))
    assert [(round(a * RATE), round(b * RATE)) for a, b in sorted(pieces)] == split_at_silence(
        samples, RATE, *recognise.CHUNK_S
    )


def test_long_texts_depend_on_no_batch_and_no_other_file(
    model: CtcModel, labelled_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "long.wav"
    write_wav(path, speech_with_pauses(40), RATE)
    monkeypatch.setattr(recognise, "HORIZON_S", 30.0)
    monkeypatch.setattr(recognise, "WINDOW_S", 50.0)
    short = sorted(labelled_folder.glob("train*.wav"))[:6]
    (alone,) = transcribe(model, [path])
    for batch_seconds in (1.0, 10.0, 300.0):
        results = list(transcribe(model, [*short, path, *short], batch_seconds=batch_seconds))
        assert [r.path for r in results] == [str(p) for p in (*short, path, *short)]
        told = [without_rounding(r) for r in results]
        assert told[6] == without_rounding(alone)
        assert told[:6] == told[7:]


def test_damage_in_the_middle_makes_a_failure_of_that_file_only(
    model: CtcModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wave = speech_with_pauses(60)
    write_wav(tmp_path / "good.wav", wave, RATE)
    wave[130 * RATE] = np.nan
    soundfile.write(tmp_path / "bad.wav", wave, RATE, "FLOAT")
    recognised: list[int] = []
    monkeypatch.setattr(recognise, "HORIZON_S", 10.0)
    monkeypatch.setattr(recognise, "WINDOW_S", 50.0)
    monkeypatch.setattr(
        recognise, "decode_batch", lambda *args: recognised.append(len(args[1].ids)) or decode_batch(*args)
    )
    (expected,) = transcribe(model, [tmp_path / "good.wav"])
    recognised.clear()
    (failure,) = transcribe(model, [tmp_path / "bad.wav"])
    assert isinstance(failure, Failure)
    assert "NaN" in failure.error
    assert sum(recognised) > 10  # what came before the damage was at work already
    results = list(transcribe(model, [tmp_path / name for name in ("good.wav", "bad.wav", "good.wav")]))
    assert [without_rounding(r) for r in results] == [without_rounding(expected), failure, without_rounding(expected)]


def test_memory_does_not_grow_with_the_recording(
    model: CtcModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recognise, "HORIZON_S", 60.0)
    monkeypatch.setattr(recognise, "WINDOW_S", 60.0)
    wave = speech_with_pauses(75)
    peaks = []
    for times in (1, 1, 5):  # the first loads what only the first call loads
        write_wav(tmp_path / "long.wav", np.tile(wave, times), RATE)
        tracemalloc.start()
        (result,) = transcribe(model, [tmp_path / "long.wav"])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert isinstance(result, Transcript)
        assert result.duration_s == pytest.approx(times * len(wave) / RATE)
    assert peaks[2] < 1.2 * peaks[1]


def test_results_come_while_files_are_read_and_a_reader_nobody_wants_stops(
    model: CtcModel, labelled_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(labelled_folder.glob("train*.wav"))
    opened: list[Path] = []

    def counted(path: Path, rate: int) -> Iterator[Samples]:
        opened.append(path)
        return stream_mono(path, rate)

    monkeypatch.setattr(recognise, "stream_mono", counted)
    monkeypatch.setattr(recognise, "HORIZON_S", 5.0)
    monkeypatch.setattr(recognise, "AHEAD", 4)
    before = threading.active_count()
    results = transcribe(model, files, batch_seconds=3)
    assert next(results).path == str(files[0])
    results.close()  # type: ignore[attr-defined]
    assert len(opened) < len(files) / 2
    assert threading.active_count() == before


def test_short_files_waste_little_on_padding_and_none_waits_for_ever(
    model: CtcModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    padded = 0

    def measured(_: CtcModel, batch: Batch, _decode: object) -> list[str]:
        nonlocal padded
        padded += batch.inputs.shape[0] * batch.inputs.shape[1]
        return [""] * len(batch.ids)

    monkeypatch.setattr(recognise, "decode_batch", measured)
    lengths = np.random.default_rng(0).integers(100, 3000, size=300)  # rows of 10 ms
    pool, file = recognise._Pool(), recognise._File()
    for number, length in enumerate(lengths.tolist()):
        pool.add(file, recognise._Piece(0.0, length / 100, np.zeros((length, 80), np.float16)))
        while pool.seconds > recognise.HORIZON_S:
            oldest = file.segments.index(None)
            pool.recognise(model, round(100 * recognise.BATCH_SECONDS), None)
            assert file.segments[oldest] is not None
            assert number - oldest < 200
    while pool.entries:
        pool.recognise(model, round(100 * recognise.BATCH_SECONDS), None)
    assert None not in file.segments
    assert pool.seconds == 0
    assert lengths.sum() / padded > 0.95


def test_progress_ends_with_all_that_could_be_read(model: CtcModel, labelled_folder: Path, tmp_path: Path) -> None:
    write_wav(tmp_path / "silence.wav", np.zeros(5 * RATE, dtype=np.float32), RATE)
    told: list[float] = []
    files = [*sorted(labelled_folder.glob("dev*.wav")), tmp_path / "missing.wav", tmp_path / "silence.wav"]
    results = list(transcribe(model, files, progress=told.append))
    assert told == sorted(told)
    assert told[-1] == pytest.approx(sum(r.duration_s for r in results if isinstance(r, Transcript)))


def test_find_audio_searches_folders_and_names_what_is_missing(tmp_path: Path) -> None:
    for name in ("b/x.wav", "b/z.M4A", "a/deep/y.flac", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [p.name for p in find_audio([tmp_path])] == ["y.flac", "x.wav", "z.M4A"]
    with pytest.raises(ConfigError, match="no such file"):
        find_audio([tmp_path / "missing.wav"])
