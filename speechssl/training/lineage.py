"""Which model a run starts from, and how many trainings came before."""

from pathlib import Path

import torch

from speechssl.config import Table
from speechssl.runtime.seeds import derive_seed
from speechssl.storage.checkpoint import load_record, model_folder
from speechssl.training.loop import TrainConfig


def origin_of(folder: Path) -> Table:
    """Which model a run starts from. Another one under the same name is another run, so its checksums are in it."""
    return {"path": str(folder), "files": load_record(model_folder(folder))["files"]}


def stage_after(init: str | Path | None) -> int:
    """How many trainings a model comes after: 0 from random weights, else one more than what it starts from."""
    if init is None:
        return 0
    before = load_record(model_folder(Path(init))).get("about", {}).get("stage")
    return before + 1 if isinstance(before, int) else 1


def with_stage_seed(train: TrainConfig, stage: int) -> TrainConfig:
    """With a seed of the stage's own for order, masks, changes of inputs and dropout.

    With the same seed in every stage a second fine-tuning would see the first one's inputs again, changed alike and in
    the same order (docs/log.md 46).
    """
    return (
        train.model_copy(update={"seed": derive_seed(train.seed, "stage", stage)})
        if stage
        else train
    )


def millions(module: torch.nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f} M parameters"
