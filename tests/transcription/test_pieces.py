"""Pieces of recordings: found, cut at pauses, the same however the file goes by."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from support.models import random_recogniser
from support.speech import RATE, sentence, speak, speech_with_pauses

from speechssl.audio.reader import stream_mono, write_wav
from speechssl.audio.silence import settled_chunks, split_at_silence
from speechssl.corpus.manifest import Manifest, Record
from speechssl.data.prepare import PrepareConfig, prepare
from speechssl.data.store import Store
from speechssl.errors import ConfigError
from speechssl.recognition.model import CtcModel
from speechssl.transcription.pieces import CHUNK_S, Piece, find_audio, read_pieces
from speechssl.transcription.transcribe import transcribe


@pytest.fixture(scope="module")
def model() -> CtcModel:
    return random_recogniser()


@pytest.mark.slow
def test_a_file_of_many_windows_is_cut_as_if_it_were_one(
    model: CtcModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "long.wav"
    write_wav(path, speech_with_pauses(80), RATE)
    monkeypatch.setattr("speechssl.transcription.pieces.WINDOW_S", 50.0)
    samples = np.concatenate(list(stream_mono(path, RATE, block_s=1000)))
    assert len(samples) > 4 * 60 * RATE  # as many windows: a block of a minute fills one
    pieces = [p for p in read_pieces(model, [path]) if isinstance(p, Piece)]
    assert [(round(p.start * RATE), round(p.end * RATE)) for p in pieces] == split_at_silence(
        samples, RATE, *CHUNK_S
    )


def test_a_link_to_nothing_is_found_and_fails_by_name(tmp_path: Path) -> None:
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/deep/x.wav").symlink_to(tmp_path / "gone.wav")
    assert find_audio([tmp_path / "in"]) == [tmp_path / "in/deep/x.wav"]


def test_find_audio_searches_folders_and_names_what_is_missing(tmp_path: Path) -> None:
    for name in ("b/x.wav", "b/z.M4A", "a/deep/y.flac", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [p.name for p in find_audio([tmp_path])] == ["y.flac", "x.wav", "z.M4A"]
    with pytest.raises(ConfigError, match="no such file"):
        find_audio([tmp_path / "missing.wav"])


def test_a_piece_is_what_the_store_holds_at_any_level(model: CtcModel, tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    records = []
    for name, peak in {"quiet": 2e-3, "usual": 0.5, "above": 1.7, "integers": 2e4}.items():
        samples = speak(sentence(rng), rng)
        samples *= peak / np.abs(samples).max()
        offset = peak * rng.choice([0, 0.3])
        soundfile.write(tmp_path / f"{name}.wav", samples + offset, RATE, subtype="FLOAT")
        records.append(Record(name, f"{name}.wav", text="words", speaker="s"))

    features = model.encoder.config.features
    prepare(Manifest(tmp_path, tuple(records)), tmp_path / "s", PrepareConfig(features=features))
    store = Store(tmp_path / "s")
    assert len(store) == len(records)

    for number in range(len(store)):
        name = store.record(number).id
        piece, _ = read_pieces(model, [tmp_path / f"{name}.wav"])
        assert isinstance(piece, Piece)
        np.testing.assert_array_equal(piece.array, store.array(number))


def test_the_threshold_of_silence_can_be_given(
    model: CtcModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.wav"
    write_wav(path, speech_with_pauses(8), RATE)
    given = []

    def settled(*arguments: Any, top_db: float, **others: Any) -> Any:
        given.append(top_db)
        return settled_chunks(*arguments, top_db=top_db, **others)

    monkeypatch.setattr("speechssl.transcription.pieces.settled_chunks", settled)
    list(transcribe(model, [path], top_db=45.0))
    assert set(given) == {45.0}
