"""torchaudio's models, built by its own functions: imported, exported, and what its files do not say."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchaudio
from reference.folders import old_weight_norm, randomise
from reference.models import batch_of, noise, tiny_encoder
from test_huggingface import recogniser

from speechssl.checkpoint import save_folder
from speechssl.config import as_table
from speechssl.convert import export_model, import_model, load_model
from speechssl.ctc import load_ctc, save_ctc
from speechssl.errors import CheckpointError, ConfigError
from speechssl.experiments import load_encoder
from speechssl.torchaudio_models import encoder_config, read_torchaudio, their_settings

LABELS = ["-", "|", "E", "T", "'"]


def make(kind: str, aux_num_out: int | None = None) -> tuple[torchaudio.models.Wav2Vec2Model, dict[str, Any]]:
    settings = their_settings(tiny_encoder(kind).config)
    return randomise(torchaudio.models.wav2vec2_model(**settings, aux_num_out=aux_num_out)), settings


def save(folder: Path, model: torch.nn.Module, settings: dict[str, Any], labels: list[str] | None = None) -> Path:
    folder.mkdir()
    torch.save(model.state_dict(), folder / "model.pth")
    (folder / "config.json").write_text(json.dumps(settings))
    if labels:
        (folder / "labels.json").write_text(json.dumps(labels))
    return folder / "model.pth"


@pytest.mark.parametrize("kind", ["base", "base-pre", "large"])
def test_an_encoder_is_imported_as_the_same_model(tmp_path: Path, kind: str) -> None:
    theirs, settings = make(kind)
    source = save(tmp_path / "theirs", theirs, settings | {"normalize_waveform": False})
    assert import_model(source, tmp_path / "ours").difference < 1e-5
    encoder = load_encoder(tmp_path / "ours").eval()
    batch = batch_of(noise(encoder.config, [2000]))
    torch.testing.assert_close(
        encoder(batch.inputs, batch.num_units).hidden, theirs(batch.inputs)[0], atol=1e-5, rtol=0
    )
    assert (encoder.mask_embedding == 0).all()  # torchaudio has none


@pytest.mark.parametrize("kind", ["base", "large"])
def test_a_recogniser_keeps_its_labels_in_our_order(tmp_path: Path, kind: str) -> None:
    theirs, settings = make(kind, len(LABELS))
    import_model(save(tmp_path / "theirs", theirs, settings, LABELS), tmp_path / "ours")
    model = load_ctc(tmp_path / "ours")
    assert model.tokenizer.texts == ("-", "<unk>", " ", "E", "T", "'")
    assert torch.equal(model.head.weight[[0, 2, 3, 4, 5]], theirs.aux.weight)
    assert model.encoder.config.normalise_input == (kind == "large")


def test_labels_must_be_there_and_as_many_as_outputs(tmp_path: Path) -> None:
    theirs, settings = make("base", len(LABELS))
    source = save(tmp_path / "theirs", theirs, settings)
    with pytest.raises(CheckpointError, match=r"labels\.json beside it"):
        import_model(source, tmp_path / "ours")
    (tmp_path / "theirs" / "labels.json").write_text(json.dumps(LABELS[:3]))
    with pytest.raises(CheckpointError, match=r"has 3 labels, the CTC head .* 5"):
        import_model(source, tmp_path / "ours")


@pytest.mark.parametrize("name", ["wav2vec2_base", "wav2vec2_large_lv60k"])
def test_a_published_shape_needs_no_settings(tmp_path: Path, name: str) -> None:
    """One layer instead of 12 or 24, the widths as published; the old names of weight norm, as in the files."""
    factory = getattr(torchaudio.models, name)
    with torch.device("meta"):
        published = factory()
    layered = name.endswith("lv60k")
    settings = their_settings(read_config(published, 1, layered))
    theirs = torchaudio.models.wav2vec2_model(**settings, aux_num_out=None)
    torch.save(old_weight_norm(theirs.state_dict()), tmp_path / "weights.pth")
    config = read_torchaudio(tmp_path / "weights.pth").encoder
    assert config.num_heads == published.encoder.transformer.layers[0].attention.num_heads
    assert (config.norm == "pre") == published.encoder.transformer.layers[0].layer_norm_first
    assert their_settings(config)["extractor_conv_layer_config"] == settings["extractor_conv_layer_config"]
    assert import_model(tmp_path / "weights.pth", tmp_path / "ours").difference < 1e-5


def read_config(model: Any, num_layers: int, layered: bool) -> Any:
    """Our settings of torchaudio's model, read from its modules."""
    layer, first = model.encoder.transformer.layers[0], model.feature_extractor.conv_layers[0]
    convs = [(b.conv.out_channels, b.kernel_size, b.stride) for b in model.feature_extractor.conv_layers]
    return encoder_config(
        {
            "extractor_mode": "layer_norm" if layered else "group_norm",
            "extractor_conv_layer_config": convs,
            "extractor_conv_bias": first.conv.bias is not None,
            "encoder_embed_dim": layer.attention.embed_dim,
            "encoder_num_layers": num_layers,
            "encoder_num_heads": layer.attention.num_heads,
            "encoder_ff_interm_features": layer.feed_forward.intermediate_dense.out_features,
            "encoder_layer_norm_first": layer.layer_norm_first,
            "encoder_pos_conv_kernel": model.encoder.transformer.pos_conv_embed.kernel_size,
            "encoder_pos_conv_groups": 16,
            "encoder_dropout": 0.0,
            "encoder_attention_dropout": 0.0,
            "encoder_ff_interm_dropout": 0.0,
            "encoder_layer_drop": 0.0,
        }
    )


def test_another_shape_needs_settings_and_other_weights_are_refused(tmp_path: Path) -> None:
    theirs, _ = make("base")
    torch.save(theirs.state_dict(), tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"no published shape|no weights of torchaudio's"):
        import_model(tmp_path / "odd.pth", tmp_path / "ours")
    torch.save({"linear.weight": torch.zeros(2)}, tmp_path / "linear.pth")
    with pytest.raises(CheckpointError, match="no weights of torchaudio's wav2vec"):
        import_model(tmp_path / "linear.pth", tmp_path / "ours")
    (tmp_path / "config.json").write_text(json.dumps({"extractor_mode": "group_norm"}))
    with pytest.raises(CheckpointError, match=r"not the arguments of torchaudio\.models"):
        import_model(tmp_path / "odd.pth", tmp_path / "ours")


@pytest.mark.parametrize("kind", ["base", "large"])
def test_torchaudio_reads_an_exported_recogniser(tmp_path: Path, kind: str) -> None:
    model = recogniser(kind)
    save_ctc(model, tmp_path / "ours", {})
    assert export_model(tmp_path / "ours", tmp_path / "theirs", "torchaudio").difference < 1e-5
    settings = json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert settings.pop("normalize_waveform") == (kind == "large")
    labels = json.loads((tmp_path / "theirs" / "labels.json").read_text())
    assert labels == ["-", "<unk>", "'", "|", "a", "b", "c", "d"]
    theirs = torchaudio.models.wav2vec2_model(**settings, aux_num_out=len(labels)).eval()
    theirs.load_state_dict(safetensors.torch.load_file(tmp_path / "theirs" / "model.safetensors"), strict=True)
    samples = noise(model.encoder.config, [3000])[0]
    given = (samples - samples.mean()) / (samples.var(unbiased=False) + 1e-7).sqrt() if kind == "large" else samples
    found, expected = model.log_probs(batch_of([samples])).hidden, theirs(given[None])[0].log_softmax(-1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    import_model(tmp_path / "theirs", tmp_path / "again")
    again = load_ctc(tmp_path / "again")
    assert torch.equal(again.head.weight, model.head.weight)
    assert again.tokenizer.texts[2:] == model.tokenizer.texts[2:]


def test_what_torchaudio_does_not_have_is_refused(tmp_path: Path) -> None:
    adapted = tiny_encoder("large", adapter_width=4)
    tensors = {f"encoder.{name}": tensor for name, tensor in adapted.state_dict().items()}
    save_folder(tmp_path / "adapted", tensors, {"kind": "encoder", "encoder": as_table(adapted.config), "about": {}})
    assert torch.equal(load_model(tmp_path / "adapted").mask_embedding, adapted.mask_embedding)  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="neither adapters nor this objective"):
        export_model(tmp_path / "adapted", tmp_path / "out", "torchaudio")
    save_ctc(recogniser("logmel-2"), tmp_path / "logmel", {})
    with pytest.raises(ConfigError, match="export --to onnx"):
        export_model(tmp_path / "logmel", tmp_path / "out", "torchaudio")
    assert not (tmp_path / "out").exists()
