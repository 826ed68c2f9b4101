"""Everything that decides a pretraining run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field

from speechssl.config import Settings, Table, as_table, merge
from speechssl.data.batches import BatchConfig
from speechssl.encoder.masking import MaskConfig
from speechssl.pretraining.contrastive import ContrastiveConfig
from speechssl.pretraining.hidden_units import HiddenUnitsConfig
from speechssl.pretraining.masked_prediction import MaskDecoderConfig
from speechssl.pretraining.quantizer import QuantizerConfig
from speechssl.pretraining.random_projection import RandomProjectionConfig
from speechssl.pretraining.reconstruction import ReconstructionConfig
from speechssl.pretraining.two_views import TwoViewsConfig
from speechssl.storage.checkpoint import load_record
from speechssl.storage.saved_folders import model_folder
from speechssl.training.optim import OptimConfig
from speechssl.training.presets import RunSettings, preset_of, resolve_settings
from speechssl.training.setting_names import with_current_names
from speechssl.training.settings import TrainConfig

# Seconds of audio that longer chunks are cut to, as wav2vec 2.0 BASE was trained.
CROP_S = 15.6

TaskName = Literal[
    "contrastive", "random_projection", "reconstruction", "hidden_units", "two_views"
]


class TaskSettings(Settings):
    """Which pretext task a run has. The settings of each task are a table of its name."""

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


class PretrainSettings(TaskSettings, RunSettings):
    """Everything that decides a pretraining run."""

    preset_table = "pretrain"

    optim: OptimConfig = OptimConfig()
    batch: BatchConfig = BatchConfig(crop_s=CROP_S)
    train: TrainConfig = TrainConfig()

    def in_use(self) -> Table:
        """Give the settings that the run reads: without the tables of other tasks."""
        of_tasks = {*get_args(TaskName), "quantizer"}
        read: set[str] = {self.task}
        if self.task == "contrastive":
            read.add("quantizer")

        unread = of_tasks - read
        return {name: value for name, value in as_table(self).items() if name not in unread}


def pretrain_settings(
    init: str | Path | None, preset: str | None, overrides: Mapping[str, Any]
) -> PretrainSettings:
    """Resolve the settings of a pretraining.

    With ``init`` they start from the settings of its encoder, and of its task if it has one.

    Args:
        init: run or model folder; None = random weights.
        preset: a name or TOML file; None = the one that ``init`` was made with, else ``tiny``.
        overrides: nested tables of what to change.
    """
    if init is None:
        return resolve_settings(PretrainSettings, preset or "tiny", overrides)

    record = load_record(model_folder(Path(init)))
    changes = merge(_task_settings_of(record), with_current_names(overrides))
    return resolve_settings(
        PretrainSettings, preset or preset_of(record), changes, record["encoder"]
    )


def _task_settings_of(record: Table) -> Table:
    """The settings of the task that a model was pretrained with; none where it has no task."""
    if record.get("kind") != "pretraining":
        return {}

    about = with_current_names(record.get("about", {}))
    settings = {name: about[name] for name in TaskSettings.model_fields if name in about}

    if "hidden_units" in settings:
        # Its teacher taught it already, and may be gone.
        settings["hidden_units"] = {**settings["hidden_units"], "teacher": None}
    return settings
