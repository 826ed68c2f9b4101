"""Values of sorted n-grams in a sorted file: both are gone through once."""

import numpy as np
from numba import njit

from speechssl.ngrams.external_sort import RowFile
from speechssl.ngrams.rows import Float32s, Rows, compare, floats, suffix_order

_BLOCK_ROWS = 1 << 16


class SortedLookup:
    """Looks up the float32 value behind the n-grams of a file in suffix order.

    Args:
        file: rows of n-grams of ``length`` words.
    """

    def __init__(self, file: RowFile, length: int) -> None:
        self._file = file
        self._length = length
        self._columns = suffix_order(length)
        file.rewind()
        self._block = file.read(_BLOCK_ROWS)
        self._position = 0

    def values(self, rows: Rows, missing: float) -> Float32s:
        """Find the values of the n-grams at the beginning of each row.

        Args:
            rows: (N, C) in suffix order, none before those of the last call.
            missing: the value of n-grams that are not in the file.
        """
        found = np.full(len(rows), missing, np.float32)
        num_done = 0

        while num_done < len(rows) and len(self._block):
            values = floats(self._block, self._length)
            num_done, self._position = _match(
                rows, num_done, self._block, values, self._position, self._columns, found
            )
            if self._position == len(self._block):
                self._block = self._file.read(_BLOCK_ROWS)
                self._position = 0

        return found


@njit(cache=True)
def _match(
    rows: Rows,
    row: int,
    block: Rows,
    values: Float32s,
    position: int,
    columns: np.ndarray[tuple[int], np.dtype[np.int64]],
    found: Float32s,
) -> tuple[int, int]:
    """Go on through rows and a block until one of them ends; the places reached are returned."""
    while row < len(rows) and position < len(block):
        side = compare(rows, row, block, position, columns)
        if side > 0:
            position += 1
        else:
            if side == 0:
                found[row] = values[position]
            # Several rows can have one n-gram at their beginning: the place in the block stays.
            row += 1

    return row, position
