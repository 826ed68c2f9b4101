"""Everything that decides a pretraining run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field

from speechssl.config import Table, merge
from speechssl.data.batches import BatchConfig
from speechssl.encoder.masking import MaskConfig
from speechssl.pretraining.contrastive import ContrastiveConfig
from speechssl.pretraining.hidden_units import HiddenUnitsConfig
from speechssl.pretraining.masked_prediction import MaskDecoderConfig
from speechssl.pretraining.quantizer import QuantizerConfig
from speechssl.pretraining.random_projection import RandomProjectionConfig
from speechssl.pretraining.reconstruction import ReconstructionConfig
from speechssl.pretraining.two_views import TwoViewsConfig
from speechssl.storage.checkpoint import load_record, model_folder
from speechssl.training.optim import OptimConfig
from speechssl.training.presets import RunSettings, preset_of, resolve_settings
from speechssl.training.setting_names import with_current_names
from speechssl.training.settings import TrainConfig

TaskName = Literal[
    "contrastive", "random_projection", "reconstruction", "hidden_units", "two_views"
]


class PretrainSettings(RunSettings):
    """Everything that decides a pretraining run."""

    preset_table = "pretrain"

    task: TaskName = Field(
        "contrastive",
        description="what is asked of the encoder; the tables of the other tasks are not read",
    )
    quantizer: QuantizerConfig = Field(QuantizerConfig(), description="of the contrastive task")
    contrastive: ContrastiveConfig = ContrastiveConfig()
    random_projection: RandomProjectionConfig = RandomProjectionConfig()
    reconstruction: ReconstructionConfig = ReconstructionConfig()
    hidden_units: HiddenUnitsConfig = HiddenUnitsConfig()
    two_views: TwoViewsConfig = TwoViewsConfig()
    mask: MaskConfig = MaskConfig()
    decoder: MaskDecoderConfig = MaskDecoderConfig()
    optim: OptimConfig = OptimConfig()
    batch: BatchConfig = BatchConfig(crop_s=15.6)
    train: TrainConfig = TrainConfig()


def pretrain_settings(
    init: str | Path | None, preset: str | None, overrides: Mapping[str, Any]
) -> PretrainSettings:
    """Settings for pretraining; with ``init`` its encoder's, and those of its task if it has one.

    Args:
        init: run or model folder; None = random weights.
        preset: a name or TOML file; None = the one that ``init`` was made with, else ``tiny``.
        overrides: nested tables of what to change.
    """
    if init is None:
        return resolve_settings(PretrainSettings, preset or "tiny", overrides)
    record = load_record(model_folder(Path(init)))
    own: Table = {}

    if record.get("kind") == "pretraining":
        about = with_current_names(record.get("about", {}))
        of_the_task = ("task", "quantizer", *get_args(TaskName), "mask", "decoder")
        own = {name: about[name] for name in of_the_task if name in about}

    if "hidden_units" in own:
        # Its teacher taught it already, and may be gone.
        own["hidden_units"] = {**own["hidden_units"], "teacher": None}

    overrides = merge(own, with_current_names(overrides))
    return resolve_settings(
        PretrainSettings, preset or preset_of(record), overrides, record["encoder"]
    )
