"""Transcription: independent of batching, bad files named, silence empty, memory flat."""

import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from support.models import random_recogniser
from support.speech import RATE, sentence, speak, speech_with_pauses
from torch import Tensor

from speechssl.audio.channels import Mixer
from speechssl.audio.features import featurise
from speechssl.audio.reader import Samples, stream_mono, write_wav
from speechssl.data.collate import Batch, collate
from speechssl.data.dataset import Dataset
from speechssl.data.store import Store
from speechssl.decoding.greedy import greedy
from speechssl.decoding.hypothesis import Decoded
from speechssl.recognition.decoders import CtcDecoder, emissions, greedy_decoder, recognise
from speechssl.recognition.defaults import BATCH_SECONDS
from speechssl.recognition.model import CtcModel
from speechssl.scoring.calibration import Scaling
from speechssl.transcription import transcribe as transcribe_module
from speechssl.transcription.pieces import Piece, read_pieces
from speechssl.transcription.transcribe import HORIZON_S, transcribe
from speechssl.transcription.transcript import Failure, Transcript


@pytest.fixture(scope="module")
def model() -> CtcModel:
    return random_recogniser()


def without_rounding(result: Transcript | Failure) -> Transcript | Failure:
    """With confidences to two digits: only their last bits depend on the batch."""
    if isinstance(result, Failure):
        return result
    segments = [
        replace(s, words=tuple(replace(w, probability=round(w.probability, 2)) for w in s.words))
        for s in result.segments
    ]
    return replace(result, segments=tuple(segments))


def test_transcribe_equals_evaluation_on_the_same_files(
    model: CtcModel, labelled_folder: Path, labelled_store: Path
) -> None:
    dataset = Dataset([Store(labelled_store)], ["test"])
    found = recognise(model, emissions(model, dataset), greedy_decoder(model))
    expected = {name: " ".join(word.text for word in words) for name, words in found.items()}
    files = sorted(labelled_folder.glob("test*.wav"))
    results = list(transcribe(model, files, "name", batch_seconds=7))
    assert [r.path for r in results] == [str(f) for f in files]
    assert {Path(r.path).stem: r.text for r in results if isinstance(r, Transcript)} == expected


def test_bad_files_are_named_and_stop_nothing(
    model: CtcModel, labelled_folder: Path, tmp_path: Path
) -> None:
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


@pytest.mark.parametrize("length_s", [2, 100])
@pytest.mark.parametrize("kind", ["white noise", "hum", "chord", "zeros"])
def test_what_is_no_speech_gives_an_empty_transcript(
    model: CtcModel, tmp_path: Path, kind: str, length_s: int
) -> None:
    time = np.arange(length_s * RATE) / RATE
    tones = {"hum": (50, 150, 250), "chord": (220.0, 277.18, 329.63, 440.0), "zeros": ()}
    wave = np.zeros(len(time)) + sum(
        0.1 * np.sin(2 * np.pi * f * time) for f in tones.get(kind, ())
    )
    if kind == "white noise":
        wave = 0.1 * np.random.default_rng(0).standard_normal(len(time))
    write_wav(tmp_path / "x.wav", wave.astype(np.float32), RATE)
    (result,) = transcribe(model, [tmp_path / "x.wav"])
    assert isinstance(result, Transcript)
    assert (result.text, result.segments) == ("", ())
    assert result.duration_s == length_s


def test_pieces_of_one_stretch_are_one_to_the_decoder(model: CtcModel, tmp_path: Path) -> None:
    """A minute without a pause: frames tile it, times go on, and it is decoded as one."""
    rng = np.random.default_rng(0)
    wave = np.concatenate([speak("abcdef" * 4, rng) for _ in range(20)])
    write_wav(tmp_path / "x.wav", wave, RATE)

    pieces = [p for p in read_pieces(model, [tmp_path / "x.wav"]) if isinstance(p, Piece)]
    assert len(pieces) > 2
    assert [p.goes_on for p in pieces] == [False] + [True] * (len(pieces) - 1)
    assert all(a.end == b.start for a, b in pairwise(pieces))

    per_frame = model.encoder.config.samples_per_frame / RATE
    for piece in pieces[:-1]:
        assert abs(piece.frames * per_frame - (piece.end - piece.start)) <= per_frame / 2

    samples = np.concatenate(list(stream_mono(tmp_path / "x.wav", RATE)))
    config = model.encoder.config.features
    for piece in pieces[1:]:
        first = round(piece.start * RATE) - piece.lead * model.encoder.config.samples_per_frame
        assert first == pytest.approx(
            (piece.start - 1) * RATE, abs=model.encoder.config.samples_per_frame
        )

        heard = samples[first : round(piece.end * RATE) + RATE]
        np.testing.assert_array_equal(piece.array, featurise(heard, config))

    lengths: list[int] = []

    def decode(log_probs: Tensor, frames: Tensor) -> list[Decoded]:
        lengths.extend(frames.tolist())
        return [Decoded(tuple(ids)) for ids in greedy(log_probs, frames)]

    (result,) = transcribe(model, [tmp_path / "x.wav"], decoder=CtcDecoder(decode, Scaling()))
    # Up to a minute is decoded as one; what is left, as the next one.
    assert len(lengths) == 2
    assert sum(lengths) == sum(p.frames for p in pieces) * model.config.tokens_per_frame
    assert 40 < lengths[0] * model.seconds_per_output <= 60 + per_frame

    assert isinstance(result, Transcript)
    words = [word for segment in result.segments for word in segment.words]
    assert len(words) > 10
    assert all(a.end <= b.start + 1e-9 for a, b in pairwise(words))
    assert " ".join(word.text for word in words) == result.text


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


def test_long_texts_depend_on_no_batch_and_no_other_file(
    model: CtcModel, labelled_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "long.wav"
    write_wav(path, speech_with_pauses(40), RATE)
    monkeypatch.setattr("speechssl.transcription.transcribe.HORIZON_S", 30.0)
    monkeypatch.setattr("speechssl.transcription.pieces.WINDOW_S", 50.0)
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
    monkeypatch.setattr("speechssl.transcription.transcribe.HORIZON_S", 10.0)
    monkeypatch.setattr("speechssl.transcription.pieces.WINDOW_S", 50.0)
    monkeypatch.setattr(
        "speechssl.transcription.transcribe.collate",
        lambda *args: recognised.append(len(args[0])) or collate(*args),
    )

    (expected,) = transcribe(model, [tmp_path / "good.wav"])
    recognised.clear()

    (failure,) = transcribe(model, [tmp_path / "bad.wav"])
    assert isinstance(failure, Failure)
    assert "NaN" in failure.error
    assert sum(recognised) > 10  # what came before the damage was at work already

    results = list(
        transcribe(model, [tmp_path / name for name in ("good.wav", "bad.wav", "good.wav")])
    )
    assert [without_rounding(r) for r in results] == [
        without_rounding(expected),
        failure,
        without_rounding(expected),
    ]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording(
    model: CtcModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speechssl.transcription.transcribe.HORIZON_S", 60.0)
    monkeypatch.setattr("speechssl.transcription.pieces.WINDOW_S", 60.0)
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

    def counted(path: Path, rate: int, max_duration_s: float, mixer: Mixer) -> Iterator[Samples]:
        opened.append(path)
        return stream_mono(path, rate, max_duration_s=max_duration_s, mixer=mixer)

    monkeypatch.setattr("speechssl.transcription.pieces.stream_mono", counted)
    monkeypatch.setattr("speechssl.transcription.transcribe.HORIZON_S", 5.0)
    monkeypatch.setattr("speechssl.transcription.pieces.AHEAD", 4)
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

    def measured(ids: list[str], arrays: list[NDArray[np.float16]], *_: object) -> Batch:
        nonlocal padded
        padded += len(ids) * max(map(len, arrays))
        return collate(
            ids, [array[:100] for array in arrays], [None] * len(ids), model.encoder.config.features
        )

    monkeypatch.setattr("speechssl.transcription.transcribe.collate", measured)
    pool, file = transcribe_module._Pool(), transcribe_module._File()

    lengths = np.random.default_rng(0).integers(100, 3000, size=300)  # rows of 10 ms
    for number, length in enumerate(lengths.tolist()):
        array = np.zeros((length, 80), np.float16)
        pool.add(file, Piece(0.0, length / 100, array, lead=0, frames=1, goes_on=False))

        while pool.seconds > HORIZON_S:
            oldest = file.log_probs.index(None)
            pool.recognise(model, round(100 * BATCH_SECONDS))
            assert file.log_probs[oldest] is not None
            assert number - oldest < 200

    while pool.waiting:
        pool.recognise(model, round(100 * BATCH_SECONDS))

    assert None not in file.log_probs
    assert all(piece.array.size == 0 for piece in file.pieces)  # of an hours-long file too
    assert pool.seconds == 0
    assert lengths.sum() / padded > 0.95


def test_progress_ends_with_all_that_could_be_read(
    model: CtcModel, labelled_folder: Path, tmp_path: Path
) -> None:
    write_wav(tmp_path / "silence.wav", np.zeros(5 * RATE, dtype=np.float32), RATE)
    told: list[float] = []
    files = [
        *sorted(labelled_folder.glob("dev*.wav")),
        tmp_path / "missing.wav",
        tmp_path / "silence.wav",
    ]
    results = list(transcribe(model, files, progress=told.append))
    assert told == sorted(told)
    assert told[-1] == pytest.approx(
        sum(r.duration_s for r in results if isinstance(r, Transcript))
    )
