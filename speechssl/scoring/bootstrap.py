"""The bootstrap: how far a rate depends on which utterances there happened to be."""

import numpy as np
from numpy.typing import NDArray

NUM_BOOTSTRAP = 1000  # resamples of an interval

# Counts that are held at once: about 32 MB, whatever the number of utterances.
_CELLS_PER_BLOCK = 4_000_000


def bootstrap_sums(
    table: NDArray[np.float64], seed: int, num_bootstrap: int
) -> NDArray[np.float64]:
    """Sum the rows of a table as they are drawn with replacement, as many as it has.

    How often each row was drawn is multinomial. The draws depend on N, ``seed`` and
    ``num_bootstrap`` alone, so tables of the same utterances get the same draws.

    Args:
        table: (N, K), a row for each utterance.
        seed: of the draws.
        num_bootstrap: number of resamples.

    Returns:
        (num_bootstrap, K) sums over the rows drawn.
    """
    n = len(table)
    equal_chances = np.full(n, 1 / n)
    rng = np.random.default_rng(seed)
    block = max(1, _CELLS_PER_BLOCK // n)

    sums = []
    for start in range(0, num_bootstrap, block):
        size = min(block, num_bootstrap - start)
        times_drawn = rng.multinomial(n, equal_chances, size=size)  # (size, N)
        sums.append(times_drawn @ table)

    return np.concatenate(sums)


def rates(sums: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute word and character error rates from sums of counts.

    Args:
        sums: (..., 4): errors and reference length in words, then in characters.

    Returns:
        Word error rates (...) and character error rates (...). An empty reference counts as length
        1.
    """
    wer = sums[..., 0] / np.maximum(sums[..., 1], 1)
    cer = sums[..., 2] / np.maximum(sums[..., 3], 1)
    return wer, cer


def percentiles(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the bounds (low, high) of the middle 95 % of bootstrap draws."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
