"""Import models of other libraries and export ours; each conversion is checked on audio.

Shapes: S samples, T frames, D width of the encoder, V tokens or codes, G codebooks, P width of the
projections.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from speechssl.config import Table, as_table, build
from speechssl.encoder.config import EncoderConfig
from speechssl.encoder.encoder import Encoder, load_encoder
from speechssl.errors import CheckpointError, ConfigError, SpeechsslError
from speechssl.interop.fairseq import is_fairseq, load_fairseq, read_fairseq
from speechssl.interop.foreign_model import Foreign
from speechssl.interop.huggingface import read_huggingface, write_huggingface
from speechssl.interop.onnx import export_onnx
from speechssl.interop.our_models import Model, encoder_of
from speechssl.interop.safe_loading import read_json
from speechssl.interop.torchaudio import read_torchaudio, write_torchaudio
from speechssl.pretraining.contrastive import Contrastive
from speechssl.pretraining.settings import TaskSettings
from speechssl.pretraining.tasks import make_task
from speechssl.recognition.model import CtcConfig, CtcModel, load_ctc
from speechssl.storage.atomic import new_folder
from speechssl.storage.checkpoint import load_folder, load_into, load_record, save_folder
from speechssl.storage.saved_folders import RECORD, model_folder
from speechssl.storage.wrong_paths import check_exists
from speechssl.text.normalise import DEFAULT_NORMALISER
from speechssl.text.vocabulary_tokenizer import VocabularyTokenizer
from speechssl.training.setting_names import with_current_names

ExportFormat = Literal["hf", "torchaudio", "onnx"]

# Largest difference between the outputs of two models that count as equal, see ``difference``.
TOLERANCE = 1e-4

# How references are normalised when an imported recogniser is scored: a foreign vocabulary says
# nothing of punctuation.
NORMALISER = DEFAULT_NORMALISER

# What writes a model into an empty folder. A graph for onnx is written and compared elsewhere.
_WRITERS = {"hf": write_huggingface, "torchaudio": write_torchaudio}

# Lengths of the recordings that both models are run on, seconds; the first has a few frames only.
_TRIAL_S = (0.1, 0.83, 2.4)


@dataclass(frozen=True)
class Conversion:
    """What was converted, and how far apart both models are."""

    kind: str
    """encoder, pretraining or ctc"""
    difference: float
    """The largest over all outputs for the trial audio, see ``difference``."""


def import_model(source: str | Path, out: str | Path, language: str | None = None) -> Conversion:
    """Write a model of transformers, torchaudio or fairseq as a model folder of ours.

    Args:
        source: a Hugging Face folder, a torchaudio ``state_dict`` or the folder of one, or a
            fairseq ``.pt``.
        out: folder to write.
        language: of an MMS model with adapters.

    Raises:
        ConfigError: ``out`` is there, transformers is missing, or there is no such language.
        CheckpointError: damaged, not a wav2vec 2.0 that we can be equal to, or outputs more than
            1e-4 apart.
    """
    source = Path(source)
    out = Path(out)
    _require_new(out)

    try:
        foreign = _read(source, language)
        model, record = _our_model(foreign)
        _fill(model, foreign.tensors, source)
        found = difference(model.eval(), foreign.run)
    except SpeechsslError:
        raise
    # Files of others hold anything at any place. What no check above has named is damage in them.
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise CheckpointError(
            f"{source} is damaged, or no wav2vec 2.0 that can be imported ({what})"
        ) from error

    agrees = found <= TOLERANCE  # false for NaN too
    if not agrees:
        raise CheckpointError(
            f"{source} is refused: our outputs and its own differ by {found:.1e}, above {TOLERANCE}"
        )

    record["about"]["imported"] = {"from": source.resolve().name, "difference": found}
    files = model.tokenizer.files() if isinstance(model, CtcModel) else {}
    save_folder(out, foreign.tensors, record, files)
    return Conversion(record["kind"], found)


def export_model(source: str | Path, out: str | Path, to: ExportFormat) -> Conversion:
    """Write a model folder or finished run for another library, as a new folder ``out``.

    Raises:
        ConfigError: ``out`` is there, a package is missing, or the library has no such model.
        CheckpointError: the model cannot be read, or the exported one is more than 1e-4 apart
            from it.
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
        write = _WRITERS[to]
        found = difference(model, write(model, partial))
        agrees = found <= TOLERANCE  # false for NaN too
        if not agrees:
            raise CheckpointError(
                f"{out} is not written: the exported model differs by {found:.1e}, "
                f"above {TOLERANCE}"
            )

    return Conversion(str(load_record(folder)["kind"]), found)


def load_model(folder: Path) -> Model:
    """Load whatever a model folder holds, ready for evaluation.

    Of pretext tasks only the contrastive one is loaded whole. Of the others it is the encoder.

    Raises:
        CheckpointError: not a model folder, or damaged.
    """
    record = load_record(folder)
    kind = record.get("kind")
    if kind == "ctc":
        return load_ctc(folder)
    if kind not in ("pretraining", "encoder"):
        raise CheckpointError(f"{folder} holds a {kind!r}, not a model")

    about = record.get("about", {})
    is_contrastive = about.get("task", "contrastive") == "contrastive"
    has_decoder = bool(about.get("decoder", {}).get("num_layers"))
    if not is_contrastive or has_decoder:
        # No other library has the rest of such a model.
        return load_encoder(folder).eval()

    tensors, _ = load_folder(folder)
    encoder = Encoder(build(EncoderConfig, record["encoder"], folder / RECORD))
    model: Model = encoder
    if kind == "pretraining":
        model = _contrastive_task(encoder, record["about"])
    _fill(model, tensors, folder)
    return model.eval()


@torch.no_grad()
def outputs(model: Model, samples: Tensor) -> tuple[Tensor, ...]:
    """Compute what is compared of a model, for one utterance of (S,) float32 samples.

    Returns:
        An encoder: its context (T, D). A recogniser: its logits (T, V). A contrastive task: the
        projected context (T, P), the logits of the codes (T, G V), and the projected vector of code
        v in every codebook, for each v (V, P).
    """
    encoder = encoder_of(model)
    frames, num_frames = encoder.extract(samples[None], torch.tensor([len(samples)]))
    normed = encoder.norm(frames)
    context = encoder.contextualise(normed, num_frames)[0]

    if isinstance(model, CtcModel):
        return (model.head(context),)

    if isinstance(model, Contrastive):
        # Code v of every codebook side by side, for each v.
        vectors = model.quantizer.codebook.transpose(0, 1).flatten(1)
        return (
            model.context_projection(context),
            model.quantizer.logits(normed[0]),
            model.target_projection(vectors),
        )

    return (context,)


def difference(model: Model, run: Callable[[Tensor], tuple[Tensor, ...]]) -> float:
    """Find the largest difference between ``outputs`` of our model and ``run`` of the other one.

    It is taken over the trial audio, and is absolute, or relative to the largest value of a channel
    (a column) where that is above 1.

    Returns:
        NaN where shapes differ or a value is not finite.
    """
    worst = 0.0

    for samples in _trial_audio(encoder_of(model).config):
        for ours, theirs in zip(outputs(model, samples), run(samples), strict=True):
            if ours.shape != theirs.shape:
                return float("nan")
            if not (ours.isfinite().all() and theirs.isfinite().all()):
                return float("nan")

            # Each channel by its own size: one of a thousand times the others must hide nothing.
            size = theirs.abs().amax(0).clamp_min(1.0)
            apart = (ours - theirs).abs() / size
            worst = max(worst, float(apart.max()))

    return worst


def _require_new(out: Path) -> None:
    """Refuse a path that exists."""
    if out.exists() or out.is_symlink():
        raise ConfigError(
            f"{out} is there already and stays as it is: give another folder, or remove it"
        )


def _read(source: Path, language: str | None) -> Foreign:
    """Read a model of whichever library wrote it."""
    check_exists(source, "model")

    settings_file = source / "config.json"
    settings = read_json(settings_file, dict) if settings_file.exists() else {}
    if "model_type" in settings:
        return read_huggingface(source, language)

    if language is not None:
        raise ConfigError("--language is for MMS models in Hugging Face folders")

    if source.is_file() and source.suffix != ".safetensors":
        loaded = load_fairseq(source)
        if is_fairseq(loaded):
            return read_fairseq(source, loaded)

    if source.is_file() or "extractor_mode" in settings:
        return read_torchaudio(source)

    raise CheckpointError(
        f"{source} is no model: give a Hugging Face folder, or the file of a torchaudio state_dict "
        "or fairseq .pt"
    )


def _our_model(foreign: Foreign) -> tuple[Model, Table]:
    """Make the model that the weights fit, and the record of its folder."""
    encoder = Encoder(foreign.encoder)

    # The preset whose training settings fine-tuning starts from.
    preset = "large" if foreign.encoder.conv_norm == "layer" else "base"
    about: dict[str, Any] = {"preset": preset}
    record: Table = {"encoder": as_table(foreign.encoder), "about": about}

    if foreign.tokens:
        tokenizer = VocabularyTokenizer(foreign.tokens)
        record["kind"] = "ctc"
        record["normaliser"] = NORMALISER
        return CtcModel(encoder, tokenizer, NORMALISER, CtcConfig()), record

    if foreign.settings is not None:
        about.update(foreign.settings)
        record["kind"] = "pretraining"
        return _contrastive_task(encoder, foreign.settings), record

    record["kind"] = "encoder"
    return encoder, record


def _contrastive_task(encoder: Encoder, settings: Table) -> Contrastive:
    """Make the contrastive task of a record or of another library.

    Its masks are the default ones: no output that is compared or exported depends on them.

    Args:
        settings: holds the tables ``quantizer`` and ``contrastive``.
    """
    tables = {
        "quantizer": settings["quantizer"],
        "contrastive": with_current_names(settings)["contrastive"],
    }
    task_settings = build(TaskSettings, tables)
    task = make_task(encoder, task_settings)
    assert isinstance(task, Contrastive)
    return task


def _fill(model: nn.Module, tensors: Mapping[str, Tensor], origin: Path) -> None:
    """Load a model folder's tensors, in which an encoder has its name before its own names."""
    if isinstance(model, Encoder):
        model = nn.ModuleDict({"encoder": model})
    load_into(model, tensors, str(origin))


def _trial_audio(config: EncoderConfig) -> list[Tensor]:
    """Make seeded recordings of gliding tones in noise, as loud as speech: (S,) float32 each."""
    rng = np.random.default_rng(0)
    rate = config.features.sample_rate_hz
    recordings = []

    for seconds in _TRIAL_S:
        time = np.arange(round(seconds * rate)) / rate

        tones = np.zeros(len(time))
        for _ in range(4):
            start_hz = rng.uniform(100, 1500)
            tones += np.sin(2 * np.pi * start_hz * time * (1 + 0.2 * time))

        # Three swells a second, as syllables are.
        loudness = 1 + np.sin(2 * np.pi * 3 * time)
        noise = 0.01 * rng.standard_normal(len(time))
        wave = 0.05 * tones * loudness + noise
        recordings.append(torch.from_numpy(wave.astype(np.float32)))

    return recordings
