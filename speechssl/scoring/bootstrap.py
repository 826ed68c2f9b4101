"""Bootstrap over utterances: how far a rate can be trusted."""

import numpy as np
from numpy.typing import NDArray

NUM_BOOTSTRAP = 1000  # resamples of an interval
_CELLS_PER_BLOCK = (
    4_000_000  # bootstrap counts held at once: about 32 MB, whatever the number of utterances
)


def bootstrap_sums(
    table: NDArray[np.float64], seed: int, num_bootstrap: int
) -> NDArray[np.float64]:
    """Sums (num_bootstrap, K) of a table (N, K) over as many rows as it has, drawn with replacement.

    How often each row was drawn is multinomial. The draws depend on N, ``seed`` and ``num_bootstrap`` alone, so
    tables of the same utterances get the same draws.
    """
    n = len(table)
    rng = np.random.default_rng(seed)
    block = max(1, _CELLS_PER_BLOCK // n)
    sums = [
        rng.multinomial(n, np.full(n, 1 / n), size=min(block, num_bootstrap - start)) @ table
        for start in range(0, num_bootstrap, block)
    ]
    return np.concatenate(sums)


def rates(sums: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Word and character error rates (...) of (..., 4): errors and reference length in words, then in characters."""
    return sums[..., 0] / np.maximum(sums[..., 1], 1), sums[..., 2] / np.maximum(sums[..., 3], 1)


def percentiles(values: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % (low, high) of bootstrap draws."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
