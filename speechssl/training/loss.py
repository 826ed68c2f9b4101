"""What the training loop asks of a model: the loss of a batch as sums, and for some losses statistics of an update.

Every model is called as ``model(batch, step)`` and returns a ``LossOutput``. A ``StatisticsModel`` is called as
``model(batch, step, statistics)``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from speechssl.data.dataset import Batch


@dataclass(frozen=True)
class LossOutput:
    """Sums over a micro-batch. The loop adds them up and divides once by the weight of the whole update."""

    total: Tensor
    """() float32, what is differentiated: a sum, not a mean."""

    weight: int
    """Items that ``total`` sums over: masked frames or target tokens."""

    metrics: Mapping[str, Tensor | float] = field(default_factory=dict)
    """Each the sum over the same items, so that metric / weight is its mean."""


@runtime_checkable
class StatisticsModel(Protocol):
    """A model whose loss is not a sum over utterances: it needs statistics of the whole update.

    An example is the diversity of the codes, which depends on the use of each code in all micro-batches together.
    """

    def statistics(self, batch: Batch, step: int) -> Any:
        """Measure one batch, without gradients.

        Returns:
            a dataclass of sums (numbers and tensors), which ``+`` adds up over the batches of an update.
        """

    def __call__(self, batch: Batch, step: int, statistics: Any) -> LossOutput:
        """Compute the loss of a batch.

        Args:
            statistics: of the whole update; None where the batch is the whole update.
        """
