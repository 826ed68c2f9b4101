"""Everything that decides a fine-tuning run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from speechssl.config import Table, merge
from speechssl.data.batches import BatchConfig
from speechssl.recognition.model import CtcConfig
from speechssl.storage.checkpoint import load_record
from speechssl.storage.saved_folders import model_folder
from speechssl.text.normalise import DEFAULT_NORMALISER
from speechssl.training.optim import OptimConfig
from speechssl.training.presets import RunSettings, preset_of, resolve_settings
from speechssl.training.run_folder import SETTINGS, settings_of_run
from speechssl.training.settings import TrainConfig


class FinetuneSettings(RunSettings):
    """Everything that decides a fine-tuning run."""

    preset_table = "finetune"

    ctc: CtcConfig = CtcConfig()
    optim: OptimConfig = OptimConfig(lr=5e-5, schedule="tri_stage", warmup=0.1)
    batch: BatchConfig = BatchConfig()
    train: TrainConfig = TrainConfig()
    tokenizer: str = Field(
        "chars", description="chars, bpe:N, unigram:N, phones:LEXICON or phones:espeak-ng:LANGUAGE"
    )
    normaliser: str = Field(
        DEFAULT_NORMALISER, description="what is done to transcripts before tokenising and scoring"
    )
    minutes: float | None = Field(None, gt=0, description="labelled minutes to use; None = all")


def finetune_settings(
    init: str | Path | None, preset: str | None, overrides: Mapping[str, Any]
) -> FinetuneSettings:
    """Resolve the settings for fine-tuning: the encoder of ``init``, then preset, then changes.

    Args:
        init: run or model folder; None means random weights.
        preset: a name or a TOML file; None takes the preset that ``init`` was made with, or tiny.
        overrides: nested tables of what to change, such as ``{"train": {"steps": 400}}``. Updates
            that are given here are all done, however few labels there are.

    Raises:
        ConfigError: a preset or setting that does not exist, or a value that is not allowed.
        CheckpointError: ``init`` is no model.
    """
    train = overrides.get("train")
    if isinstance(train, Mapping) and "steps" in train:
        all_updates: Table = {"ctc": {"max_epochs": None}}
        overrides = merge(all_updates, overrides)

    if init is None:
        # Random weights must all learn: what the reference keeps fixed is fixed because it was
        # pretrained.
        all_learn: Table = {"ctc": {"train_front_end": True, "head_only_steps": 0}}
        changes = merge(all_learn, overrides)
        return resolve_settings(FinetuneSettings, preset or "tiny", changes)

    record = load_record(model_folder(Path(init)))
    name = preset or preset_of(record)
    return resolve_settings(FinetuneSettings, name, overrides, record["encoder"])


def begun_settings(run: Path) -> Table:
    """Give what a run was begun with where defaults have changed, as settings; nothing if none was.

    Its normaliser may have been the default then, and a limit of passes was unknown before there
    was one. The run goes on as it began.

    Raises:
        ConfigError: the settings of the run are damaged.
    """
    if not (run / SETTINGS).exists():
        return {}

    begun = settings_of_run(run)
    kept = {name: value for name, value in begun.items() if name == "normaliser"}
    ctc = begun.get("ctc")
    if isinstance(ctc, Mapping) and "max_epochs" not in ctc:
        kept["ctc"] = {"max_epochs": None}
    return kept
