"""The bootstrap: how far a rate depends on which utterances there happened to be."""

import numpy as np
from numpy.typing import NDArray

# Counts, rates or draws of them, one row an utterance or a draw.
Array = NDArray[np.float64]

NUM_BOOTSTRAP = 1000  # resamples of an interval

# Counts that are held at once: about 32 MB, whatever the number of utterances.
_CELLS_PER_BLOCK = 4_000_000

_MIDDLE_95_PERCENT = (0.025, 0.975)  # quantiles of its bounds


def bootstrap_sums(table: Array, seed: int, num_bootstrap: int) -> Array:
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
        block_sums = times_drawn @ table  # (size, K)
        sums.append(block_sums)

    return np.concatenate(sums)


def rates(sums: Array) -> tuple[Array, Array]:
    """Compute word and character error rates from sums of counts.

    Args:
        sums: (..., 4): errors and reference length in words, then in characters.

    Returns:
        Word error rates (...) and character error rates (...). An empty reference counts as length
        1.
    """
    word_errors, num_words, character_errors, num_characters = np.moveaxis(sums, -1, 0)

    wer = word_errors / np.maximum(num_words, 1)
    cer = character_errors / np.maximum(num_characters, 1)
    return wer, cer


def percentiles(values: Array) -> tuple[float, float]:
    """Return the bounds (low, high) of the middle 95 % of bootstrap draws."""
    low, high = np.quantile(values, _MIDDLE_95_PERCENT)
    return float(low), float(high)
