"""What the training loop asks of a model: the loss of a batch, as sums.

Every model is called as ``model(batch, step)`` and returns a ``LossOutput``. A model whose loss
needs sums over the whole update is a ``StatisticsModel``, and is called as ``model(batch, step,
statistics)``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from speechssl.data.collate import Batch


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
