"""Models from other libraries into ours and back; each conversion runs both on audio and is refused above 1e-4."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from speechssl.config import Table, as_table, build
from speechssl.encoder.config import EncoderConfig
from speechssl.encoder.encoder import Encoder, load_encoder
from speechssl.encoder.masking import MaskConfig
from speechssl.errors import CheckpointError, ConfigError, SpeechsslError
from speechssl.interop.fairseq import is_fairseq, load_fairseq, read_fairseq
from speechssl.interop.foreign_model import Foreign
from speechssl.interop.huggingface import read_huggingface, write_huggingface
from speechssl.interop.onnx import export_onnx
from speechssl.interop.safe_loading import read_json
from speechssl.interop.torchaudio import read_torchaudio, write_torchaudio
from speechssl.pretraining.contrastive import Contrastive, ContrastiveConfig
from speechssl.pretraining.quantizer import QuantizerConfig
from speechssl.recognition.model import CtcConfig, CtcModel, load_ctc
from speechssl.storage.atomic import new_folder
from speechssl.storage.checkpoint import (
    load_folder,
    load_into,
    load_record,
    model_folder,
    save_folder,
)
from speechssl.text.tokenizers import VocabularyTokenizer
from speechssl.training.setting_names import with_current_names

TOLERANCE = 1e-4
NORMALISER = (
    "basic-1"  # for scores: the vocabulary of an imported recogniser says nothing of punctuation
)
ExportFormat = Literal["hf", "torchaudio", "onnx"]


@dataclass(frozen=True)
class Conversion:
    """What was converted, and how far both models are apart."""

    kind: str
    """encoder, pretraining or ctc"""
    difference: float
    """the largest over all outputs for the trial audio, see ``difference``"""


def import_model(source: str | Path, out: str | Path, language: str | None = None) -> Conversion:
    """A model of transformers, torchaudio or fairseq as a model folder of ours.

    Args:
        source: a Hugging Face folder, a torchaudio ``state_dict`` or the folder of one, or a fairseq ``.pt``.
        out: folder to write.
        language: of an MMS model with adapters.

    Raises:
        ConfigError: ``out`` is there, transformers is missing, there is no such language.
        CheckpointError: damaged, not a wav2vec 2.0 that we can be equal to, or outputs more than 1e-4 apart.
    """
    source, out = Path(source), Path(out)
    _require_new(out)
    try:
        foreign = _read(source, language)
        model, record = _ours(foreign)
        _fill(model, foreign.tensors, source)
        found = difference(model.eval(), foreign.run)
    except SpeechsslError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError) as error:
        # Files of others hold anything at any place: what no check above has named is damage, not our mistake.
        what = f"{type(error).__name__}: {error}"
        raise CheckpointError(
            f"{source} is damaged, or no wav2vec 2.0 that can be imported ({what})"
        ) from error
    if not found <= TOLERANCE:
        raise CheckpointError(
            f"{source} is refused: our outputs and its own differ by {found:.1e}, above {TOLERANCE}"
        )
    about = record["about"] | {"imported": {"from": source.resolve().name, "difference": found}}
    files = model.tokenizer.files() if isinstance(model, CtcModel) else {}
    save_folder(out, foreign.tensors, record | {"about": about}, files)
    return Conversion(record["kind"], found)


def export_model(source: str | Path, out: str | Path, to: ExportFormat) -> Conversion:
    """A model folder or finished run for another library, as a new folder ``out``.

    Raises:
        ConfigError: ``out`` is there, a package is missing, or the library has no such model.
        CheckpointError: the model cannot be read, or the exported one is more than 1e-4 apart from it.
    """
    out = Path(out)
    _require_new(out)
    folder = model_folder(Path(source))
    model = load_model(folder)
    if to == "onnx":
        if not isinstance(model, CtcModel):
            raise ConfigError(
                f"{source} is no recogniser: export --to onnx takes a fine-tuned model"
            )
        return Conversion("ctc", export_onnx(model, out))

    with new_folder(out) as partial:
        run = (write_huggingface if to == "hf" else write_torchaudio)(model, partial)
        found = difference(model, run)
        if not found <= TOLERANCE:
            raise CheckpointError(
                f"{out} is not written: the exported model differs by {found:.1e}, above {TOLERANCE}"
            )

    return Conversion(str(load_record(folder)["kind"]), found)


def load_model(folder: Path) -> Encoder | Contrastive | CtcModel:
    """Whatever a model folder holds, ready for evaluation.

    Raises:
        CheckpointError: not a model folder, or damaged.
    """
    record = load_record(folder)
    if record.get("kind") == "ctc":
        return load_ctc(folder)
    if record.get("kind") not in ("pretraining", "encoder"):
        raise CheckpointError(f"{folder} holds a {record.get('kind')!r}, not a model")
    about = record.get("about", {})
    if about.get("task", "contrastive") != "contrastive" or about.get("decoder", {}).get(
        "num_layers"
    ):
        return load_encoder(folder).eval()  # no other library has the rest
    tensors, _ = load_folder(folder)
    encoder = Encoder(build(EncoderConfig, record["encoder"]))
    model = encoder if record["kind"] == "encoder" else _objective(encoder, record["about"])
    _fill(model, tensors, folder)
    return model.eval()


@torch.no_grad()
def outputs(model: Encoder | Contrastive | CtcModel, samples: Tensor) -> tuple[Tensor, ...]:
    """What is compared of a model, for one utterance of (S,) float32 samples.

    An encoder: its context (T, D). A recogniser: its logits (T, V). An objective: the projected context (T, P), the
    logits of the codes (T, G V), and the projected vector of code v in every codebook, for each v (V, P).
    """
    encoder = model if isinstance(model, Encoder) else model.encoder
    frames, num_frames = encoder.extract(samples[None], torch.tensor([len(samples)]))
    normed = encoder.norm(frames)
    context = encoder.contextualise(normed, num_frames)[0]
    if isinstance(model, CtcModel):
        return (model.head(context),)
    if isinstance(model, Contrastive):
        vectors = model.quantizer.codebook.transpose(0, 1).flatten(1)
        return (
            model.context_projection(context),
            model.quantizer.logits(normed[0]),
            model.target_projection(vectors),
        )
    return (context,)


def difference(
    model: Encoder | Contrastive | CtcModel, run: Callable[[Tensor], tuple[Tensor, ...]]
) -> float:
    """Largest difference between ``outputs`` of ours and ``run`` of the other over the trial audio.

    Absolute, or relative to the largest value of a channel (a column) where that is above 1. NaN where shapes differ
    or a value is not finite.
    """
    worst = 0.0
    for samples in _trial_audio((model if isinstance(model, Encoder) else model.encoder).config):
        for ours, theirs in zip(outputs(model, samples), run(samples), strict=True):
            if ours.shape != theirs.shape or not (
                ours.isfinite().all() and theirs.isfinite().all()
            ):
                return float("nan")
            apart = (ours - theirs).abs() / theirs.abs().amax(0).clamp_min(1.0)
            worst = max(worst, float(apart.max()))
    return worst


def _trial_audio(config: EncoderConfig) -> list[Tensor]:
    """Three seeded utterances of gliding tones in noise, as loud as speech; the shortest has a few frames only."""
    rng, rate = np.random.default_rng(0), config.features.sample_rate_hz
    found = []
    for seconds in (0.1, 0.83, 2.4):
        time = np.arange(round(seconds * rate)) / rate
        tones = sum(
            np.sin(2 * np.pi * rng.uniform(100, 1500) * time * (1 + 0.2 * time)) for _ in range(4)
        )
        wave = 0.05 * tones * (1 + np.sin(2 * np.pi * 3 * time)) + 0.01 * rng.standard_normal(
            len(time)
        )
        found.append(torch.from_numpy(wave.astype(np.float32)))
    return found


def _read(source: Path, language: str | None) -> Foreign:
    if not source.exists():
        raise ConfigError(f"no such file or folder: {source}")
    settings = read_json(source / "config.json", dict) if (source / "config.json").exists() else {}
    if "model_type" in settings:
        return read_huggingface(source, language)
    if language is not None:
        raise ConfigError("--language is for MMS models in Hugging Face folders")
    if (
        source.is_file()
        and source.suffix != ".safetensors"
        and is_fairseq(loaded := load_fairseq(source))
    ):
        return read_fairseq(source, loaded)
    if source.is_file() or "extractor_mode" in settings:
        return read_torchaudio(source)
    raise CheckpointError(
        f"{source} is no model: give a Hugging Face folder, or the file of a torchaudio state_dict or fairseq .pt"
    )


def _ours(foreign: Foreign) -> tuple[Encoder | Contrastive | CtcModel, Table]:
    """The model that the weights fit, and the record of its folder."""
    encoder = Encoder(foreign.encoder)
    # The preset whose training settings fine-tuning starts from.
    about: dict[str, Any] = {"preset": "large" if foreign.encoder.conv_norm == "layer" else "base"}
    record = {"encoder": as_table(foreign.encoder), "about": about}
    if foreign.tokens:
        model = CtcModel(encoder, VocabularyTokenizer(foreign.tokens), NORMALISER, CtcConfig())
        return model, record | {"kind": "ctc", "normaliser": NORMALISER}
    if foreign.settings is not None:
        about |= foreign.settings
        return _objective(encoder, foreign.settings), record | {"kind": "pretraining"}
    return encoder, record | {"kind": "encoder"}


def _fill(model: torch.nn.Module, tensors: Mapping[str, Tensor], origin: Path) -> None:
    """Load a model folder's tensors, in which an encoder has its name before its own names."""
    load_into(
        torch.nn.ModuleDict({"encoder": model}) if isinstance(model, Encoder) else model,
        tensors,
        str(origin),
    )


def _objective(encoder: Encoder, settings: Table) -> Contrastive:
    quantizer = build(QuantizerConfig, settings["quantizer"])
    return Contrastive(
        encoder,
        build(ContrastiveConfig, with_current_names(settings)["contrastive"]),
        quantizer,
        MaskConfig(),
    )


def _require_new(out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise ConfigError(
            f"{out} is there already and stays as it is: give another folder, or remove it"
        )
