"""Conversions are refused when outputs differ, leave nothing behind, and can be trained on."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from reference.folders import save_fairseq, save_transformers
from reference.models import tiny_encoder
from support.commands import call
from support.foreign import recogniser

from speechssl.data.prepare import PrepareConfig, prepare
from speechssl.encoder.encoder import load_encoder
from speechssl.errors import CheckpointError, ConfigError
from speechssl.interop import fairseq, huggingface
from speechssl.interop import torchaudio as torchaudio_models
from speechssl.interop.convert import difference, export_model, import_model, load_model, outputs
from speechssl.pretraining.contrastive import Contrastive
from speechssl.pretraining.pretrain import pretrain
from speechssl.pretraining.settings import pretrain_settings
from speechssl.recognition.finetune import finetune
from speechssl.recognition.model import CtcModel, load_ctc, save_ctc
from speechssl.recognition.settings import finetune_settings
from speechssl.storage.checkpoint import load_record

FEW: dict[str, Any] = {
    "steps": 2,
    "validate_every": 2,
    "save_every": 2,
    "log_every": 1,
    "device": "cpu",
}
BATCH: dict[str, Any] = {"seconds": 3, "micro_seconds": None}


@pytest.fixture(scope="module")
def waveform_store(labelled_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("stores") / "waveform"
    prepare(
        labelled_folder, store, PrepareConfig.model_validate({"features": {"kind": "waveform"}})
    )
    return store


# --- what is compared -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1.05e-4, 1e-2, float("nan"), float("inf")])
def test_a_model_that_differs_is_refused_and_nothing_is_left(
    tmp_path: Path, size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_transformers(tmp_path / "theirs")
    real = huggingface.take_rows
    monkeypatch.setattr(huggingface, "take_rows", lambda *given: _shifted(real(*given), size))
    with pytest.raises(CheckpointError, match="refused: our outputs and its own differ by"):
        import_model(tmp_path / "theirs", tmp_path / "ours")
    save_ctc(recogniser("base"), tmp_path / "mine", {})
    with pytest.raises(CheckpointError, match="not written: the exported model differs by"):
        export_model(tmp_path / "mine", tmp_path / "out", "hf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "theirs"]


def test_a_model_that_differs_by_less_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_transformers(tmp_path / "theirs")
    real = huggingface.take_rows
    monkeypatch.setattr(huggingface, "take_rows", lambda *given: _shifted(real(*given), 9e-5))
    assert import_model(tmp_path / "theirs", tmp_path / "ours").difference == pytest.approx(
        9e-5, rel=0.05
    )


def _shifted(values: torch.Tensor, size: float) -> torch.Tensor:
    """One value moved by ``size``, in units of the largest of its column, or of 1."""
    values = values.clone()
    values[0, -1] += size * values[:, -1].abs().max().clamp_min(1.0)
    return values


@pytest.mark.slow
def test_one_changed_weight_is_seen_in_every_kind_of_model(tmp_path: Path) -> None:
    for kind in ("Wav2Vec2Model", "Wav2Vec2ForPreTraining", "Wav2Vec2ForCTC"):
        folder = tmp_path / kind
        save_transformers(folder / "theirs", kind, "large")
        found = huggingface.read_huggingface(folder / "theirs")
        import_model(folder / "theirs", folder / "ours")
        model = load_model(folder / "ours")
        assert difference(model, found.run) < 1e-5

        for name, parameter in model.named_parameters():
            if name.endswith(("k_proj.bias", "mask_embedding")):
                continue  # neither has a part in the outputs

            before = parameter.detach().clone()
            with torch.no_grad():
                parameter.view(-1)[-1] += 0.5
            # The bias of the keys cancels in the softmax: take the last third, that of the values.
            assert difference(model, found.run) > 1e-5, (kind, name)

            with torch.no_grad():
                parameter.copy_(before)


SOURCES = ("transformers", "torchaudio", "fairseq")


@pytest.mark.parametrize(
    "change", [{"num_heads": 1}, {"norm": "post"}, {"normalise_input": False}, {"stride": 1}]
)
@pytest.mark.parametrize("library", SOURCES)
def test_a_misread_setting_is_seen(
    tmp_path: Path, library: str, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No shape tells these settings: the other model must take them from the file, not from us."""
    source = tmp_path / "theirs"
    if library == "transformers":
        save_transformers(source, "Wav2Vec2Model", "large")
    elif library == "torchaudio":
        save_transformers(tmp_path / "first", "Wav2Vec2Model", "large")
        import_model(tmp_path / "first", tmp_path / "mine")
        export_model(tmp_path / "mine", source, "torchaudio")
    else:
        source = tmp_path / "theirs.pt"
        save_fairseq(source, tiny_encoder("large"), normalize=True)

    assert import_model(source, tmp_path / "right").difference < 1e-5

    modules = {"transformers": huggingface, "torchaudio": torchaudio_models, "fairseq": fairseq}
    module = modules[library]
    name = "_encoder_config" if library == "fairseq" else "encoder_config"
    real = getattr(module, name)

    def misread(*given: Any) -> Any:
        config = real(*given)
        if "stride" in change:
            (first, *others) = config.conv_layers
            return config.model_copy(update={"conv_layers": ((*first[:2], first[2] - 1), *others)})
        return config.model_copy(update=change)

    monkeypatch.setattr(module, name, misread)
    with pytest.raises(CheckpointError, match="refused: our outputs and its own differ by"):
        import_model(source, tmp_path / "wrong")


def test_a_channel_is_measured_by_its_own_size() -> None:
    """One of a thousand times the others must not hide what is wrong in them."""
    model = tiny_encoder("base")
    with torch.no_grad():
        model.context.layers[-1].ffn_norm.bias[0] += 1e3  # type: ignore[union-attr, index]

    def wrong(samples: torch.Tensor) -> tuple[torch.Tensor, ...]:
        (found,) = outputs(model, samples)
        return (torch.cat([found[:, :1], found[:, 1:] + 1e-3], 1),)

    assert difference(model, wrong) > 1e-4


def test_outputs_have_the_shapes_that_are_said() -> None:
    samples = torch.randn(2000)
    frames = 99
    assert [o.shape for o in outputs(tiny_encoder("base"), samples)] == [(frames, 16)]
    assert [o.shape for o in outputs(recogniser("base"), samples)] == [(frames, 8)]


# --- what is given --------------------------------------------------------------------------------


def test_nothing_is_overwritten_and_nothing_is_guessed(tmp_path: Path) -> None:
    save_transformers(tmp_path / "theirs")
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigError, match="there already and stays as it is"):
        import_model(tmp_path / "theirs", tmp_path / "there")

    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="there already and stays as it is"):
        import_model(tmp_path / "theirs", tmp_path / "dangling")

    with pytest.raises(CheckpointError, match="needs speechssl import first"):
        load_encoder(tmp_path / "theirs")

    with pytest.raises(ConfigError, match="no such file or folder"):
        import_model(tmp_path / "nowhere", tmp_path / "ours")

    with pytest.raises(CheckpointError, match="is no model: give a Hugging Face folder"):
        import_model(tmp_path / "there", tmp_path / "ours")

    with pytest.raises(CheckpointError, match="neither a model folder"):
        export_model(tmp_path / "there", tmp_path / "out", "hf")

    import_model(tmp_path / "theirs", tmp_path / "ours")
    with pytest.raises(ConfigError, match="there already and stays as it is"):
        export_model(tmp_path / "ours", tmp_path / "there", "hf")


def test_languages_are_for_hugging_face_folders(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "model.pt")
    with pytest.raises(ConfigError, match="--language is for MMS models"):
        import_model(tmp_path / "model.pt", tmp_path / "ours", language="deu")


def test_an_encoder_is_no_recogniser_for_onnx(tmp_path: Path) -> None:
    save_transformers(tmp_path / "theirs", "Wav2Vec2Model")
    import_model(tmp_path / "theirs", tmp_path / "ours")
    with pytest.raises(ConfigError, match="takes a fine-tuned model"):
        export_model(tmp_path / "ours", tmp_path / "out", "onnx")


def test_without_transformers_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_transformers(tmp_path / "theirs")
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'speechssl\[convert\]'"):
        import_model(tmp_path / "theirs", tmp_path / "ours")


def test_the_folder_says_where_it_comes_from_and_no_path(tmp_path: Path) -> None:
    save_transformers(tmp_path / "theirs")
    conversion = import_model(tmp_path / "theirs", tmp_path / "ours")
    record = load_record(tmp_path / "ours")
    assert record["about"]["imported"] == {"from": "theirs", "difference": conversion.difference}
    assert str(tmp_path) not in json.dumps(record)


# --- the command ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_import_and_export_print_the_folder_and_the_difference(tmp_path: Path) -> None:
    save_transformers(tmp_path / "theirs")
    result = call("import", tmp_path / "theirs", tmp_path / "ours")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'ours'}\n")
    assert "ctc: both models run on audio, largest difference" in result.stderr
    for library, file in (
        ("hf", "config.json"),
        ("torchaudio", "labels.json"),
        ("onnx", "model.onnx"),
    ):
        result = call("export", tmp_path / "ours", tmp_path / library, "--to", library)
        assert (result.exit_code, result.stdout) == (0, f"{tmp_path / library}\n")
        assert (tmp_path / library / file).is_file()
    assert call("export", tmp_path / "ours", tmp_path / "x", "--to", "nemo").exit_code == 2


# --- training on ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_converted_encoder_is_fine_tuned_from(tmp_path: Path, waveform_store: Path) -> None:
    save_transformers(tmp_path / "theirs", "Wav2Vec2Model", "large")
    import_model(tmp_path / "theirs", tmp_path / "ours")

    settings = finetune_settings(
        tmp_path / "ours", None, {"train": FEW, "batch": BATCH, "ctc": {"head_only_steps": 0}}
    )
    assert settings.preset == "large"
    assert settings.encoder == load_encoder(tmp_path / "ours").config

    model = finetune([waveform_store], tmp_path / "run", settings, tmp_path / "ours")

    # The front end stays as it came; the rest has learnt.
    imported = safetensors.torch.load_file(tmp_path / "ours" / "tensors.safetensors")
    found = model.state_dict()
    front = [name for name in imported if ".front_end." in name]
    assert front
    assert all(torch.equal(found[name], imported[name]) for name in front)
    assert not torch.equal(
        found["encoder.projection.weight"], imported["encoder.projection.weight"]
    )

    assert export_model(tmp_path / "run", tmp_path / "back", "hf").kind == "ctc"


@pytest.mark.slow
def test_pretraining_goes_on_from_a_converted_objective(
    tmp_path: Path, waveform_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_transformers(tmp_path / "theirs", "Wav2Vec2ForPreTraining", num_negatives=6)
    import_model(tmp_path / "theirs", tmp_path / "ours")

    small = {
        "train": FEW | {"precision": "float32"},
        "batch": BATCH | {"crop_s": 1.0},
        "optim": {"lr": 1e-9},
    }
    settings = pretrain_settings(tmp_path / "ours", None, small)
    assert settings.preset == "base"
    assert settings.contrastive.num_negatives == 6
    assert settings.quantizer.num_codes == 5
    assert settings.contrastive.penalty_weight == 10.0  # of the preset: theirs has no such setting

    pretrain([waveform_store], tmp_path / "run", settings, init=tmp_path / "ours")
    before, after = load_model(tmp_path / "ours"), load_model(tmp_path / "run" / "model")
    assert isinstance(before, Contrastive)
    # With so small a rate they are still what they were.
    for name, tensor in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], tensor, atol=1e-6, rtol=0)
    assert "all else of the task starts anew" not in capsys.readouterr().err

    assert export_model(tmp_path / "run", tmp_path / "back", "hf").kind == "pretraining"

    # Another quantiser does not fit, and that is said before anything is trained.
    other = pretrain_settings(tmp_path / "ours", None, small | {"quantizer": {"num_codes": 9}})
    with pytest.raises(CheckpointError, match=r"quantizer\.codebook is .*, the model has"):
        pretrain([waveform_store], tmp_path / "other", other, init=tmp_path / "ours")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("kind", ["Wav2Vec2Model", "Wav2Vec2ForCTC"])
def test_pretraining_goes_on_from_an_encoder_with_a_new_quantiser(
    tmp_path: Path, waveform_store: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save_transformers(tmp_path / "theirs", kind)
    import_model(tmp_path / "theirs", tmp_path / "ours")

    small = FEW | {"precision": "float32"}
    changes = [
        *(f"train.{name}={value}" for name, value in small.items()),
        "batch.seconds=3",
        "batch.micro_seconds=3",
        "optim.lr=1e-9",
        "quantizer.num_codes=12",
        "quantizer.width=8",
        "contrastive.width=8",
    ]
    settings = [part for change in changes for part in ("--set", change)]
    where = ("--run", tmp_path / "run", "--init-from", tmp_path / "ours")

    result = call("pretrain", waveform_store, *where, *settings)
    assert result.exit_code == 0, result.output
    assert "is of use here: all else of the task starts anew" in result.stderr

    after = load_encoder(tmp_path / "run").state_dict()
    for name, tensor in load_encoder(tmp_path / "ours").state_dict().items():
        torch.testing.assert_close(after[name], tensor, atol=1e-6, rtol=0)


def test_an_imported_recogniser_is_a_model_like_any_other(
    tmp_path: Path, waveform_store: Path
) -> None:
    save_transformers(tmp_path / "theirs")
    import_model(tmp_path / "theirs", tmp_path / "ours")
    assert isinstance(load_ctc(tmp_path / "ours"), CtcModel)

    score = ("--out", tmp_path / "score", "--split", "dev")
    result = call("evaluate", tmp_path / "ours", waveform_store, *score)
    assert result.exit_code == 0, result.output

    rows = [
        json.loads(line)
        for line in (tmp_path / "score" / "utterances.jsonl").read_text().splitlines()
    ]
    # Its vocabulary is upper case, the transcripts are lower case: both are normalised.
    assert any(set(row["hypothesis"]) & set("ab") for row in rows)
    assert not any(set(row["hypothesis"]) & set("AB") for row in rows)
