"""What a model returns for a batch: sums, a weight, and metrics."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class LossOutput:
    """Sums over a micro-batch; the loop adds them up and divides once by the whole step's weight."""

    total: Tensor
    """() float32, what is differentiated: a sum, not a mean."""
    weight: int
    """Items that ``total`` sums over: masked frames or target tokens."""
    metrics: Mapping[str, Tensor | float] = field(default_factory=dict)
    """Each the sum over the same items, so that metric / weight is its mean."""
