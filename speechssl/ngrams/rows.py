"""N-grams as rows of numbers: sorting, adding up, comparing, compiled by numba.

A row is uint32. Its first k numbers are the ids of the n-gram's words, the LAST WORD FIRST, so that
an n-gram without its first words is the beginning of its row. Behind them stand numbers that belong
to the n-gram: counts, or float32 values as ``floats`` shows them.

"Suffix order" compares the columns from the left: last words first. "Context order" compares column
1 and those after it before column 0: n-grams with one context stand together.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

Rows = NDArray[np.uint32]
Columns = NDArray[np.int64]
Float32s = NDArray[np.float32]

# Bits that one pass of the radix sort looks at: its 2,048 buckets stay in the fastest cache.
_DIGIT_BITS = 11
_NUM_BUCKETS = 1 << _DIGIT_BITS
_DIGIT_MASK = np.uint32(_NUM_BUCKETS - 1)


def suffix_order(length: int) -> Columns:
    """Columns by which n-grams of ``length`` words are in suffix order, the first one first."""
    return np.arange(length)


def context_order(length: int) -> Columns:
    """Columns by which n-grams of ``length`` words are in context order."""
    return np.roll(np.arange(length), -1)


def floats(rows: Rows, column: int) -> Float32s:
    """Show one column of rows as float32, in place: writing into it writes into the rows."""
    return rows.view(np.float32)[:, column]


@njit(cache=True)
def sort_rows(rows: Rows, scratch: Rows, columns: Columns) -> Rows:
    """Sort rows by columns (radix sort, stable).

    Args:
        rows: (N, C); its content is lost.
        scratch: (N, C), as large.

    Returns:
        ``rows`` or ``scratch``, whichever holds the sorted rows.
    """
    num_rows, width = rows.shape

    for column in columns[::-1]:
        largest = np.uint32(0)
        for i in range(num_rows):
            largest = max(largest, rows[i, column])

        shift = np.uint32(0)
        while largest >> shift:
            places = np.zeros(_NUM_BUCKETS + 1, np.int64)
            for i in range(num_rows):
                digit = (rows[i, column] >> shift) & _DIGIT_MASK
                places[digit + 1] += 1

            # Where the rows of each bucket begin.
            places = np.cumsum(places)
            for i in range(num_rows):
                digit = (rows[i, column] >> shift) & _DIGIT_MASK
                place = places[digit]
                places[digit] += 1
                for c in range(width):
                    scratch[place, c] = rows[i, c]

            rows, scratch = scratch, rows
            shift += np.uint32(_DIGIT_BITS)
            if shift >= 32:
                break

    return rows


@njit(cache=True)
def add_up(rows: Rows, length: int) -> int:
    """Make one row of neighbours with the same first ``length`` columns; the others are summed.

    Returns:
        How many rows are left: they stand at the beginning.
    """
    num_rows, width = rows.shape
    if num_rows == 0:
        return 0

    last = 0
    for i in range(1, num_rows):
        is_same = True
        for c in range(length):
            if rows[i, c] != rows[last, c]:
                is_same = False
                break

        if is_same:
            for c in range(length, width):
                rows[last, c] += rows[i, c]
        else:
            last += 1
            for c in range(width):
                rows[last, c] = rows[i, c]

    return last + 1


@njit(cache=True)
def compare(a: Rows, i: int, b: Rows, j: int, columns: Columns) -> int:
    """Give -1, 0 or 1 where row i of ``a`` comes before, with or after row j of ``b``."""
    for column in columns:
        if a[i, column] < b[j, column]:
            return -1
        if a[i, column] > b[j, column]:
            return 1
    return 0


@njit(cache=True)
def num_up_to(rows: Rows, limit: Rows, columns: Columns) -> int:
    """Count sorted rows that do not come after ``limit``, which is (1, C)."""
    low, high = 0, len(rows)
    while low < high:
        middle = (low + high) // 2
        if compare(rows, middle, limit, 0, columns) <= 0:
            low = middle + 1
        else:
            high = middle
    return low
