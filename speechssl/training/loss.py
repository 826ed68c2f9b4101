"""What the training loop asks of a model: the loss of a batch, as sums.

Every model is called as ``model(batch, step)`` and returns a ``LossOutput``. A model whose loss
needs sums over the whole update is a ``StatisticsModel``, and is called as ``model(batch, step,
statistics)``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from speechssl.data.collate import Batch
from speechssl.runtime import distributed


@dataclass(frozen=True)
class LossOutput:
    """Sums over a micro-batch.

    The loop adds them up over the micro-batches of an update and divides once by their whole
    weight.
    """

    total: Tensor
    """() float32, what is differentiated: a sum, not a mean."""

    weight: int
    """Items that ``total`` sums over: masked frames or target tokens."""

    metrics: Mapping[str, Tensor | float] = field(default_factory=dict)
    """Each the sum over the same items, so that metric / weight is its mean."""

    shares: Mapping[str, tuple[Tensor | float, int]] = field(default_factory=dict)
    """Part and whole of what is a share of other things than these items, such as of all frames."""

    used: Mapping[str, Tensor] = field(default_factory=dict)
    """(G, V) how often each of V things was used, in G groups. What tells is how many were used."""


class UpdateMetrics:
    """Adds up what the micro-batches of an update measured, on all ranks.

    No metric depends on how the update was divided: everything is added first, and divided or
    counted once.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor | float] = {}

    def add(self, output: LossOutput) -> None:
        """Take a micro-batch."""
        for name, value in output.metrics.items():
            self._add_to("mean", name, value)
        for name, (part, whole) in output.shares.items():
            self._add_to("part", name, part)
            self._add_to("whole", name, whole)
        for name, counts in output.used.items():
            self._add_to("used", name, counts)

    def _add_to(self, kind: str, name: str, value: Tensor | float) -> None:
        key = f"{kind} {name}"
        self._sums[key] = self._sums[key] + value if key in self._sums else value

    def sum_over_ranks(self, device: torch.device) -> None:
        """Add up all ranks, each of which must call it."""
        self._sums = distributed.sum_over_ranks(self._sums, device)

    def row(self, weight: int) -> dict[str, Tensor | float]:
        """Give the metrics of the update, by name.

        Args:
            weight: of the whole update, at least 1.
        """
        found: dict[str, Tensor | float] = {}
        for key, value in self._sums.items():
            kind, _, name = key.partition(" ")
            if kind == "mean":
                found[name] = value / weight
            elif kind == "part":
                found[name] = value / max(1, self._sums[f"whole {name}"])
            elif kind == "used":
                is_used = torch.as_tensor(value) > 0
                found[name] = is_used.sum(-1).float().mean()
        return found


@runtime_checkable
class StatisticsModel(Protocol):
    """A model whose loss is not a sum over utterances: it needs statistics of the whole update.

    An example is the diversity of the codes, which depends on how often each code is used in all
    micro-batches together.
    """

    def statistics(self, batch: Batch, step: int) -> Any:
        """Measure one batch, without gradients.

        Returns:
            A dataclass of sums (numbers and tensors). ``+`` adds up those of several batches.
        """

    def __call__(self, batch: Batch, step: int, statistics: Any) -> LossOutput:
        """Compute the loss of a batch.

        Args:
            statistics: of the whole update; None where the batch is the whole update.
        """
