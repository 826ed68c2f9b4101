"""A model of three weights and its made-up batches, trained by the real loop."""

from pathlib import Path

import torch
from torch import nn

from speechssl.config import build
from speechssl.data.collate import Batch
from speechssl.training.loop import fit
from speechssl.training.loss import LossOutput
from speechssl.training.optim import OptimConfig
from speechssl.training.settings import TrainConfig


class Toy(nn.Module):
    """Least squares on the batch's inputs; reports what the loop hands it."""

    def __init__(self, poison: set[int] | None = None, chance: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)
        nn.init.constant_(self.linear.weight, 0.3)
        nn.init.zeros_(self.linear.bias)
        self.poison, self.chance = poison or set(), chance

    def forward(self, batch: Batch, step: int) -> LossOutput:
        error = (self.linear(batch.inputs) - 1).square().sum()
        if step in self.poison:
            error = error * float("nan")
        n = len(batch.ids)
        extra = {
            "chance": 2.0 * n,
            "accuracy": 0.1 * n,
            "code_perplexity": 9.0 * n,
            "loss": torch.tensor(2.0 * n),
        }
        return LossOutput(error, n, extra if self.chance else {"loss": error.detach()})


class ToyBatches:
    def __init__(self, cuts: list[int]) -> None:
        self.cuts = cuts

    def micro_batches(self, step: int, rank: int = 0, ranks: int = 1) -> list[Batch]:
        rows = torch.randn(12, 3, generator=torch.Generator().manual_seed(step))
        pieces = rows.split(self.cuts)
        return [
            Batch(
                tuple(f"{step}-{i}" for i in range(len(p))),
                (0,) * len(p),
                p,
                torch.ones(len(p)),
                (None,) * len(p),
                1,
            )
            for p in pieces
        ]


def run_toy(model: Toy, run: Path, cuts: list[int], **train: object) -> Toy:
    config = build(
        TrainConfig, {"steps": 8, "save_every": 4, "log_every": 2, "device": "cpu"} | train
    )
    fit(model, ToyBatches(cuts), OptimConfig(lr=0.01), config, run)
    return model
