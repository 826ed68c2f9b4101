"""What decides a run: defaults, then a preset or the model that is continued, then what the user changes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import Field

from speechssl.config import Settings, Table, as_table, build, merge, preset_names, read_preset
from speechssl.data.batches import BatchConfig
from speechssl.encoder.config import EncoderConfig
from speechssl.encoder.masking import MaskConfig
from speechssl.errors import ConfigError
from speechssl.pretraining.contrastive import ContrastiveConfig
from speechssl.pretraining.hidden_units import UnitsConfig
from speechssl.pretraining.masked_prediction import DecoderConfig
from speechssl.pretraining.quantizer import QuantizerConfig
from speechssl.pretraining.random_projection import RandomProjectionConfig
from speechssl.pretraining.reconstruction import ReconstructionConfig
from speechssl.pretraining.two_views import ViewsConfig
from speechssl.recognition.model import CtcConfig
from speechssl.storage.checkpoint import load_record, model_folder
from speechssl.training.loop import TrainConfig
from speechssl.training.optim import OptimConfig

TaskName = Literal["contrastive", "random_projection", "reconstruction", "units", "views"]


class PretrainSettings(Settings):
    """Everything that decides a pretraining run."""

    preset: str = Field("tiny", description="where the other settings started from")
    encoder: EncoderConfig = EncoderConfig()
    task: TaskName = Field(
        "contrastive", description="what is asked of the encoder; the tables of the other tasks are not read"
    )
    quantizer: QuantizerConfig = Field(QuantizerConfig(), description="of the contrastive task")
    objective: ContrastiveConfig = Field(ContrastiveConfig(), description="the contrastive task")
    random_projection: RandomProjectionConfig = RandomProjectionConfig()
    reconstruction: ReconstructionConfig = ReconstructionConfig()
    units: UnitsConfig = UnitsConfig()
    views: ViewsConfig = ViewsConfig()
    mask: MaskConfig = MaskConfig()
    decoder: DecoderConfig = DecoderConfig()
    optim: OptimConfig = OptimConfig()
    batch: BatchConfig = BatchConfig(crop_s=15.6)
    train: TrainConfig = TrainConfig()


class FinetuneSettings(Settings):
    """Everything that decides a fine-tuning run."""

    preset: str = Field("tiny", description="where the other settings started from")
    encoder: EncoderConfig = EncoderConfig()
    ctc: CtcConfig = CtcConfig()
    optim: OptimConfig = OptimConfig(lr=5e-5, schedule="tri_stage", warmup=0.1)
    batch: BatchConfig = BatchConfig()
    train: TrainConfig = TrainConfig()
    tokenizer: str = Field("chars", description="chars, bpe:N or unigram:N")
    normaliser: str = Field("basic-1", description="what is done to transcripts before tokenising and scoring")
    minutes: float | None = Field(None, gt=0, description="labelled minutes to use; None = all")


S = TypeVar("S", PretrainSettings, FinetuneSettings)


def resolve_settings(kind: type[S], preset: str, overrides: Mapping[str, Any], encoder: Table | None = None) -> S:
    """Defaults, then the preset (or the ``encoder`` of a model that is continued), then ``overrides``.

    Raises:
        ConfigError: unknown preset or setting, or the preset among the ``overrides``.
    """
    tables = read_preset(preset)
    known = {"encoder", "pretrain", "finetune"}
    wrong = sorted(name for name, table in tables.items() if name not in known or not isinstance(table, dict))
    if wrong:
        raise ConfigError(f"preset {preset}: {wrong[0]!r} is no table of a preset, allowed are {sorted(known)}")
    own = tables.get("pretrain" if kind is PretrainSettings else "finetune", {})
    if "preset" in overrides:
        raise ConfigError("preset decides what the other settings start from: give --preset instead of --set preset")
    defaults = as_table(kind(preset=preset))
    # An encoder table is complete or replaced as a whole: half of BASE and half of a preset would be neither.
    shape = as_table(build(EncoderConfig, encoder if encoder is not None else tables.get("encoder", {})))
    table = merge(merge(merge(defaults, own), {"encoder": shape}), overrides)
    return build(kind, table)


def pretrain_settings(init: str | Path | None, preset: str | None, overrides: Mapping[str, Any]) -> PretrainSettings:
    """Settings for pretraining; with ``init`` its encoder's, and those of its task if it has one.

    Args:
        init: run or model folder; None = random weights.
        preset: a name or TOML file; None = the one that ``init`` was made with, else ``tiny``.
        overrides: nested tables of what to change.
    """
    if init is None:
        return resolve_settings(PretrainSettings, preset or "tiny", overrides)
    record = load_record(model_folder(Path(init)))
    about = record.get("about", {})
    names = ("task", "quantizer", "objective", *get_args(TaskName)[1:], "mask", "decoder")
    own = [name for name in names if record.get("kind") == "pretraining" and name in about]
    tables: Table = {name: about[name] for name in own}
    if "units" in tables:  # its teacher taught it already, and may be gone
        tables["units"] = {**tables["units"], "teacher": None}
    overrides = merge(tables, overrides)
    return resolve_settings(PretrainSettings, preset or _made_with(record), overrides, record["encoder"])


def _made_with(record: Table) -> str:
    """The preset of a model.

    Raises:
        ConfigError: it was a file, and is not there.
    """
    name = str(record.get("about", {}).get("preset", "tiny"))
    if name not in preset_names() and not Path(name).is_file():
        raise ConfigError(f"the model was made with the preset {name}, which is not there: give one as --preset")
    return name


def finetune_settings(init: str | Path | None, preset: str | None, overrides: Mapping[str, Any]) -> FinetuneSettings:
    """Settings for fine-tuning ``init``: its own encoder, and by default the preset it was pretrained with.

    Args:
        init: run or model folder; None = random weights.
        preset: a name or TOML file; None = the one that ``init`` was made with, else ``tiny``.
        overrides: nested tables of what to change, such as ``{"train": {"steps": 400}}``.
    """
    if init is None:
        # Random weights must all learn: what the reference keeps fixed is fixed because it was pretrained.
        scratch: Table = {"ctc": {"train_front_end": True, "head_only_steps": 0}}
        return resolve_settings(FinetuneSettings, preset or "tiny", merge(scratch, overrides))
    record = load_record(model_folder(Path(init)))
    name = preset or _made_with(record)
    return resolve_settings(FinetuneSettings, name, overrides, record["encoder"])
