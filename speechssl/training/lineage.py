"""Which model a run starts from, and how many trainings came before it."""

from collections.abc import Sequence
from pathlib import Path

import torch

from speechssl.config import Table
from speechssl.runtime.seeds import derive_seed
from speechssl.storage.checkpoint import load_record
from speechssl.storage.json_text import read_json_table
from speechssl.storage.saved_folders import model_folder
from speechssl.training.run_folder import SETTINGS
from speechssl.training.settings import TrainConfig


def origin_of(folder: Path) -> Table:
    """Describe the model that a run starts from, for the run's settings.

    Its checksums are part of it: another model under the same name makes another run.
    """
    record = load_record(model_folder(folder))
    return {"path": str(folder), "files": record["files"]}


def stage_after(init: str | Path | None) -> int:
    """Count the trainings that a model comes after.

    Args:
        init: run or model folder that it starts from; None = random weights.

    Returns:
        0 from random weights, else one more than the count of the model that it starts from.
    """
    if init is None:
        return 0

    record = load_record(model_folder(Path(init)))
    before = record.get("about", {}).get("stage")
    if isinstance(before, int):
        return before + 1

    # A model of another library, or of a version that did not count.
    return 1


def has_learned(folder: Path, stores: Sequence[str]) -> bool:
    """Whether the run that a model folder lies in learned from one of some stores.

    Args:
        stores: digests of their recordings and settings, see ``Dataset.identity``.
    """
    run = folder.parent
    if not (run / SETTINGS).is_file():
        return False

    # Another program may have a file of this name beside a folder "model".
    data = (read_json_table(run / SETTINGS) or {}).get("data")
    learned = data.get("stores") if isinstance(data, dict) else None
    return isinstance(learned, list) and any(store in learned for store in stores)


def with_stage_seed(train: TrainConfig, stage: int) -> TrainConfig:
    """Give a stage of training its own seed for order, masks, changes of inputs and dropout.

    With the same seed in every stage a second fine-tuning would see the inputs of the first one
    again, changed in the same way and in the same order (docs/experiments/046).
    """
    if stage == 0:
        return train

    seed = derive_seed(train.seed, "stage", stage)
    return train.model_copy(update={"seed": seed})


def millions(module: torch.nn.Module) -> str:
    """Say how many parameters a model has, such as "4.10 M parameters"."""
    count = sum(p.numel() for p in module.parameters())
    return f"{count / 1e6:.2f} M parameters"
