"""Gradients by central differences in float64."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def numerical_gradient(function: Callable[[Array], float], at: Array, step: float = 1e-5) -> Array:
    """Entry by entry; with values and derivatives near 1 it is right to about 1e-9."""
    found = np.zeros_like(at)
    for place in np.ndindex(at.shape):
        moved = at.copy()
        moved[place] = at[place] + step
        above = function(moved)
        moved[place] = at[place] - step
        found[place] = (above - function(moved)) / (2 * step)
    return found
