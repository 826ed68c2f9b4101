"""Evaluation and transcription: independent of batching, bad files named, silence empty, long files cut at pauses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import RATE, SMALL_ENCODER, sentence, speak

from speechssl.audio import write_wav
from speechssl.batching import Dataset
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


def test_hypotheses_do_not_depend_on_the_batch(model: CtcModel, labelled_store: Path) -> None:
    dataset = Dataset([Store(labelled_store)], ["train"])
    alone = {}
    for position in range(len(dataset)):
        batch = dataset.batch([position])
        alone[batch.ids[0]] = decode_batch(model, batch)[0]
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


def test_find_audio_searches_folders_and_names_what_is_missing(tmp_path: Path) -> None:
    for name in ("b/x.wav", "b/z.M4A", "a/deep/y.flac", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [p.name for p in find_audio([tmp_path])] == ["y.flac", "x.wav", "z.M4A"]
    with pytest.raises(ConfigError, match="no such file"):
        find_audio([tmp_path / "missing.wav"])
