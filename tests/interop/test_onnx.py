"""The exported graph hears what transcription hears, for any batch and length."""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from reference.models import tiny_encoder

from speechssl.audio.feature_config import FeatureConfig
from speechssl.audio.features import LOG_FLOOR, featurise, mel_filters
from speechssl.audio.levelling import levelled
from speechssl.audio.reader import load_audio
from speechssl.data.collate import Batch, collate
from speechssl.decoding.greedy import greedy
from speechssl.encoder.encoder import EncoderOutput
from speechssl.errors import CheckpointError, ConfigError
from speechssl.interop import onnx
from speechssl.interop.onnx import (
    TOLERANCE,
    export_onnx,
    min_samples,
    onnx_log_probs,
    onnx_session,
    output_difference,
)
from speechssl.recognition.model import CtcConfig, CtcModel
from speechssl.text.character_tokenizer import CharTokenizer
from speechssl.text.tokenizer import Tokenizer
from speechssl.text.tokenizers import load_tokenizer, train_tokenizer
from speechssl.text.vocabulary_tokenizer import VocabularyTokenizer
from speechssl.transcription.pieces import Piece, read_pieces

# Low rates: frames are few, and rounding to int16 and float16 matters as much.
WAVEFORM = {"features": {"kind": "waveform", "sample_rate_hz": 2000}}
LOGMEL = {"features": {"kind": "logmel", "sample_rate_hz": 4000, "num_mels": 6}}
KINDS = {
    "base": WAVEFORM,
    "large": WAVEFORM | {"adapter_width": 4},
    "logmel-2": LOGMEL,
    "logmel-4": LOGMEL,
    "convolutions": LOGMEL,
    "batch-norm": LOGMEL,
    "speech-norm": LOGMEL,
}


class Exported(NamedTuple):
    model: CtcModel
    folder: Path
    session: Any
    difference: float


def make(kind: str, tokenizer: Tokenizer | None = None, seed: int = 0) -> CtcModel:
    encoder = tiny_encoder(kind, seed, **KINDS[kind])
    config = CtcConfig(tokens_per_frame=1 if KINDS[kind]["features"]["kind"] == "waveform" else 2)
    model = CtcModel(encoder, tokenizer or CharTokenizer(" abcdefgh"), "basic-1", config)
    with torch.no_grad():
        model.head.weight.normal_(std=0.3)
        model.head.bias.normal_(std=0.3)
    return model


@pytest.fixture(scope="session", params=list(KINDS))
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    model, folder = make(request.param), tmp_path_factory.mktemp(request.param) / "new" / "onnx"
    difference = export_onnx(model, folder)
    return Exported(model, folder, onnx_session(folder), difference)


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporting takes seconds: tests of what surrounds it get a file that agrees instead."""
    monkeypatch.setattr(onnx, "_write_graph", lambda _, path: path.write_bytes(b"graph"))
    monkeypatch.setattr(onnx, "largest_difference", lambda *_: 3e-6)


def sound(model: CtcModel, more_samples: int, seed: int, level: float = 0.3) -> NDArray[np.float32]:
    """So many samples more than one frame needs: a tone that rises and falls, in noise."""
    random = np.random.default_rng(seed)
    length = min_samples(model.encoder.config) + more_samples
    wave = np.sin(
        np.cumsum(0.2 + 0.8 * np.sin(np.arange(length) / 900) ** 2)
    ) + 0.3 * random.standard_normal(length)
    return (level * wave).astype(np.float32)


def heard(model: CtcModel, recordings: list[NDArray[np.float32]]) -> Batch:
    """What transcription makes of recordings."""
    config = model.encoder.config.features
    arrays = [featurise(samples, config) for samples in recordings]
    return collate([str(i) for i in range(len(arrays))], arrays, [None] * len(arrays), config)


def assert_close(found: EncoderOutput, expected: EncoderOutput) -> None:
    assert found.num_frames.tolist() == expected.num_frames.tolist()
    for row, count in enumerate(expected.num_frames.tolist()):
        torch.testing.assert_close(
            found.hidden[row, :count], expected.hidden[row, :count], atol=2e-5, rtol=0
        )


# --- the graph ------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [[0], [1], [3000], [2, 0], [700, 41, 3000, 0, 333]], ids=str)
def test_the_graph_equals_the_model_for_any_length_and_batch(
    exported: Exported, batch: list[int]
) -> None:
    model = exported.model
    recordings = [sound(model, more, seed) for seed, more in enumerate(batch)]
    with torch.no_grad():
        expected = model.log_probs(heard(model, recordings))
    assert_close(onnx_log_probs(exported.session, recordings), expected)


@pytest.mark.parametrize("level", [3.0, 1e-3, 0.0], ids=["clipped", "few steps of int16", "silent"])
def test_the_graph_rounds_as_the_features_do(exported: Exported, level: float) -> None:
    model = exported.model
    recordings = [sound(model, 1000, seed, level) for seed in range(2)]
    with torch.no_grad():
        expected = model.log_probs(heard(model, recordings))
    assert_close(onnx_log_probs(exported.session, recordings), expected)


@pytest.mark.parametrize("fill", [np.nan, 0.9])
def test_neither_padding_nor_batch_mates_change_a_frame(exported: Exported, fill: float) -> None:
    recordings = [sound(exported.model, more, more) for more in (900, 55, 0)]
    padding = np.full(777, fill, dtype=np.float32)
    together = onnx_log_probs(exported.session, recordings, padding)
    for row, samples in enumerate(recordings):
        alone = onnx_log_probs(exported.session, [samples])
        count = int(alone.num_frames)
        torch.testing.assert_close(together.hidden[row, :count], alone.hidden[0], atol=2e-5, rtol=0)
        assert int(together.num_frames[row]) == count


def test_transcripts_are_those_of_the_package(exported: Exported) -> None:
    model = exported.model
    recordings = [sound(model, 200 * seed, seed, 0.1 * (seed + 1)) for seed in range(12)]
    log_probs, num_frames = onnx_log_probs(exported.session, recordings)
    texts = [model.tokenizer.decode(ids) for ids in greedy(log_probs, num_frames)]
    with torch.no_grad():
        expected = greedy(*model.log_probs(heard(model, recordings)))
    assert texts == [model.tokenizer.decode(ids) for ids in expected]
    assert len(set(texts)) > 6


@pytest.mark.parametrize("seed", range(3))
def test_transcription_hears_what_the_graph_hears_of_levelled_recordings(
    exported: Exported, tmp_path: Path, seed: int
) -> None:
    model = exported.model
    rate = model.encoder.config.features.sample_rate_hz
    draws = np.random.default_rng(seed)
    clean = sound(model, 3 * rate, seed, level=0.7)
    clean *= np.hanning(len(clean))
    time = np.arange(len(clean)) / rate
    disturbed = {
        "quiet": clean * draws.uniform(2e-3, 5e-3),
        "offset": 0.1 * clean + draws.uniform(0.1, 0.5),
        "hum": 0.1 * clean + draws.uniform(0.5, 1) * np.sin(2 * np.pi * 50 * time),
        "above full scale": clean * draws.uniform(3, 3e4),
    }

    differences = []
    for name, samples in disturbed.items():
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, samples, rate, subtype="FLOAT")
        piece, _ = read_pieces(model, [path])
        assert isinstance(piece, Piece)
        batch = collate(["x"], [piece.array], [None], model.encoder.config.features)
        with torch.no_grad():
            expected = model.log_probs(batch)

        recording = load_audio(path, rate)
        made_ready, _ = levelled(recording, rate)
        assert_close(onnx_log_probs(exported.session, [made_ready]), expected)
        as_given = onnx_log_probs(exported.session, [recording])
        differences.append(output_difference(as_given, expected))

    assert max(differences) > 0.01


def test_what_is_too_short_has_no_frames_and_harms_nobody(exported: Exported) -> None:
    recordings = [
        sound(exported.model, 300, 0),
        sound(exported.model, -1, 1),
        np.zeros(0, dtype=np.float32),
    ]
    log_probs, num_frames = onnx_log_probs(exported.session, recordings)
    assert num_frames[1:].tolist() == [0, 0]
    alone = onnx_log_probs(exported.session, recordings[:1])
    torch.testing.assert_close(log_probs[:1], alone.hidden, atol=2e-5, rtol=0)


def test_frames_are_counted_exactly_beyond_what_float32_holds(exported: Exported) -> None:
    waveform = np.zeros((4, 2000), dtype=np.float32)
    lengths = np.array([2**24 + 1, 2**30 + 7, 3, 0])
    _, found = exported.session.run(None, {"waveform": waveform, "num_samples": lengths})
    config = exported.model.encoder.config
    for kernel, stride in [(config.features.window, config.features.hop), *config.frame_windows]:
        lengths = np.maximum(0, (lengths - kernel) // stride + 1)
    assert found.tolist() == (lengths * exported.model.config.tokens_per_frame).tolist()


def test_the_shortest_recording_has_one_frame(exported: Exported) -> None:
    model = exported.model
    assert model.log_probs(heard(model, [sound(model, 0, 0)])).num_frames.tolist() == [
        model.config.tokens_per_frame
    ]
    units = torch.tensor([len(featurise(sound(model, -1, 0), model.encoder.config.features))])
    assert model.encoder.num_frames(units).tolist() == [0]


@pytest.mark.parametrize(
    "config", [FeatureConfig(), FeatureConfig(window_ms=32, hop_ms=20, num_mels=40)], ids=str
)
def test_log_mel_is_the_exact_value_rounded_once(config: FeatureConfig) -> None:
    """In the store and in the graph: both equal numpy's transform in float64, to the last bit."""
    random = np.random.default_rng(0)
    wave = (random.standard_normal(60_000) * np.linspace(0.5, 0, 60_000) ** 2).astype(np.float32)
    window, filters = (table.double().numpy() for table in mel_filters(config))
    frames = np.lib.stride_tricks.sliding_window_view(wave.astype(np.float64), config.window)[
        :: config.hop
    ]
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    expected = np.log(np.maximum(power @ filters, LOG_FLOOR)).astype(np.float16)
    assert (featurise(wave, config) == expected).all()
    in_graph = onnx._LogMel(config)(torch.from_numpy(wave)[None])
    assert (in_graph[0].numpy() == expected.astype(np.float32)).all()


# --- the folder -----------------------------------------------------------------------------------


def test_the_folder_says_what_a_program_needs_to_know(exported: Exported) -> None:
    folder, model = exported.folder, exported.model
    assert sorted(path.name for path in folder.iterdir()) == [
        "about.json",
        "model.onnx",
        "tokenizer.json",
    ]
    assert [path.name for path in folder.parent.iterdir()] == ["onnx"]

    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    features = model.encoder.config.features
    assert about["sample_rate_hz"] == features.sample_rate_hz
    assert about["min_samples"] == len(sound(model, 0, 0))
    assert (about["blank_id"], about["normaliser"]) == (0, "basic-1")
    assert about["tokens"] == ["<pad>", "⁇", *" abcdefgh"]
    assert "speechssl.audio.levelling.levelled" in about["levelling"]
    assert about["max_difference"] == exported.difference < 2e-5

    assert [i.name for i in exported.session.get_inputs()] == list(reversed(about["inputs"]))
    assert [i.name for i in exported.session.get_outputs()] == list(about["outputs"])

    assert load_tokenizer(folder).decode([2, 3, 4]) == model.tokenizer.decode([2, 3, 4])


def test_the_graph_names_no_path_of_the_machine(exported: Exported) -> None:
    graph = (exported.folder / "model.onnx").read_bytes()
    assert b".py" not in graph
    assert str(Path(onnx.__file__).parent).encode() not in graph


@pytest.mark.parametrize(
    ("tokenizer", "texts"),
    [
        (VocabularyTokenizer(["[PAD]", "<unk>", "ch", " "]), ["[PAD]", "<unk>", "ch", " "]),
        (train_tokenizer("bpe:5", ["ab a ab ba", "ba ab"]), ["<pad>", "⁇", " a", "b", "a", " "]),
    ],
    ids=["vocabulary", "bpe"],
)
@pytest.mark.usefixtures("no_export")
def test_every_tokenizer_goes_along(tmp_path: Path, tokenizer: Tokenizer, texts: list[str]) -> None:
    assert export_onnx(make("base", tokenizer), tmp_path / "onnx") == 3e-6
    found = json.loads((tmp_path / "onnx" / "about.json").read_text(encoding="utf-8"))["tokens"]
    assert sorted(found) == sorted(texts)
    assert found[:2] == texts[:2]
    assert load_tokenizer(tmp_path / "onnx").files() == tokenizer.files()


# --- what is refused ------------------------------------------------------------------------------


def test_the_graph_of_other_weights_is_not_written(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = (exported.folder / "model.onnx").read_bytes()
    monkeypatch.setattr(onnx, "_write_graph", lambda _, path: path.write_bytes(graph))
    other = make(
        {4000: "logmel-4", 2000: "base"}[exported.model.encoder.config.features.sample_rate_hz],
        seed=1,
    )
    with pytest.raises(
        CheckpointError, match=r"^the ONNX graph differs from the model by [\d.infe+-]+ in log-prob"
    ):
        export_onnx(other, tmp_path / "onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize(
    ("difference", "good"), [(0.99e-4, True), (1.01e-4, False), (float("nan"), False)]
)
def test_the_tolerance_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, difference: float, good: bool
) -> None:
    monkeypatch.setattr(onnx, "largest_difference", lambda *_: difference)
    if good:
        assert export_onnx(make("base"), tmp_path / "onnx") == difference
    else:
        with pytest.raises(
            CheckpointError, match=r"allowed are 0\.0001; nothing was written: try another version"
        ):
            export_onnx(make("base"), tmp_path / "onnx")
        assert list(tmp_path.iterdir()) == []


def test_a_difference_counts_where_it_matters() -> None:
    base = EncoderOutput(torch.full((2, 3, 2), -1.0), torch.tensor([3, 2]))

    def changed(row: int, frame: int, value: float) -> EncoderOutput:
        hidden = base.hidden.clone()
        hidden[row, frame, 0] = value
        return EncoderOutput(hidden, base.num_frames)

    assert output_difference(base, base) == 0
    assert output_difference(changed(1, 1, -1.5), base) == 0.5
    assert output_difference(changed(1, 2, float("nan")), base) == 0  # padding
    assert np.isnan(output_difference(changed(0, 2, float("nan")), base))
    assert output_difference(changed(0, 0, -10_000.001), changed(0, 0, -10_000)) == 0
    assert output_difference(changed(0, 0, -10_000), base) > TOLERANCE
    assert output_difference(EncoderOutput(base.hidden, torch.tensor([3, 3])), base) == float("inf")


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("there", ["file", "folder", "dangling link"])
def test_an_existing_path_is_refused(tmp_path: Path, there: str) -> None:
    path = tmp_path / "onnx"
    if there == "file":
        path.write_text("mine")
    elif there == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "gone")
    with pytest.raises(
        ConfigError, match=r"onnx exists already: give the export another folder, or remove"
    ):
        export_onnx(make("base"), path)
    assert [p.name for p in tmp_path.iterdir()] == ["onnx"]


@pytest.mark.usefixtures("no_export")
def test_what_a_killed_export_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".onnx.partial").mkdir()
    (tmp_path / ".onnx.partial" / "model.onnx.data").write_text("half")
    export_onnx(make("base"), tmp_path / "onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["onnx"]
    assert not (tmp_path / "onnx" / "model.onnx.data").exists()


@pytest.mark.parametrize("name", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    message = rf"^ONNX export needs {name}, which is missing: pip install 'speechssl\[convert\]'$"
    with pytest.raises(ConfigError, match=message):
        export_onnx(make("base"), tmp_path / "onnx")
    assert list(tmp_path.iterdir()) == []
