"""Sorting more rows than memory holds: sorted runs on the disk, which are merged."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from speechssl.ngrams.rows import Columns, Rows, add_up, compare, num_up_to, sort_rows

# Rows that are read at once of each run at least, however many runs there are.
_MIN_BLOCK_ROWS = 256


class RowFile:
    """A file of rows, which is written from beginning to end and then read so.

    It is open only while it is read or written: there can be more files than a process may open.
    """

    def __init__(self, path: Path, width: int) -> None:
        self.path = path
        self.width = width
        self.num_rows = 0
        self._num_read = 0
        path.touch(exist_ok=False)

    def write(self, rows: Rows) -> None:
        """Append rows."""
        with self.path.open("ab") as file:
            file.write(np.ascontiguousarray(rows).data)
        self.num_rows += len(rows)

    def rewind(self) -> None:
        """Go to the beginning, for reading."""
        self._num_read = 0

    def read(self, num_rows: int) -> Rows:
        """Read the next rows; fewer at the end of the file."""
        row_bytes = self.width * np.dtype(np.uint32).itemsize
        numbers = np.fromfile(
            self.path, np.uint32, num_rows * self.width, offset=self._num_read * row_bytes
        )
        rows = numbers.reshape(-1, self.width)
        self._num_read += len(rows)
        return rows

    def blocks(self, num_rows: int) -> Iterator[Rows]:
        """Read all rows from the beginning, some at once."""
        self.rewind()
        while len(block := self.read(num_rows)):
            yield block

    def delete(self) -> None:
        """Give its place on the disk back."""
        self.path.unlink()


class RowSorter:
    """Takes rows in any order and gives them sorted; rows of one n-gram become one, their sum.

    Memory is that of ``capacity`` rows, twice. What does not fit goes to the disk as sorted runs.

    Args:
        folder: for the runs; removed with their content by whoever made it.
        name: no other sorter in the folder has it.
        columns: by which to sort; all words of the n-gram.
        width: columns of a row.
        capacity: rows that are in memory at most.
    """

    def __init__(
        self, folder: Path, name: str, columns: Columns, width: int, capacity: int
    ) -> None:
        self._folder = folder
        self._name = name
        self._columns = columns
        self._width = width
        self._capacity = capacity
        self._buffer = np.empty((0, width), np.uint32)
        self._num_buffered = 0
        self._runs: list[RowFile] = []

    def add(self, rows: Rows) -> None:
        """Take rows."""
        while len(rows):
            if self._num_buffered == self._capacity:
                self._spill()
            self._grow(self._num_buffered + len(rows))

            num_free = len(self._buffer) - self._num_buffered
            taken = rows[:num_free]
            end = self._num_buffered + len(taken)
            self._buffer[self._num_buffered : end] = taken
            self._num_buffered = end
            rows = rows[num_free:]

    def blocks(self) -> Iterator[Rows]:
        """Give all rows in order, some at once. The sorter is empty afterwards."""
        if not self._runs:
            rows = self._sorted_buffer()
            self._forget_buffer()
            if len(rows):
                yield rows
            return

        self._spill()
        self._forget_buffer()
        yield from self._merged()

    def _grow(self, num_rows: int) -> None:
        """Make room for more rows: small inputs need no large buffers."""
        room = len(self._buffer)
        if num_rows <= room or room == self._capacity:
            return

        larger_room = min(self._capacity, max(num_rows, 2 * room))
        larger = np.empty((larger_room, self._width), np.uint32)
        larger[: self._num_buffered] = self._buffer[: self._num_buffered]
        self._buffer = larger

    def _forget_buffer(self) -> None:
        self._buffer = np.empty((0, self._width), np.uint32)

    def _sorted_buffer(self) -> Rows:
        """Empty the buffer, sorted and added up."""
        rows = self._buffer[: self._num_buffered]
        self._num_buffered = 0
        return self._sorted(rows)

    def _sorted(self, rows: Rows) -> Rows:
        ordered = sort_rows(rows, np.empty_like(rows), self._columns)
        num_left = add_up(ordered, len(self._columns))
        return ordered[:num_left]

    def _spill(self) -> None:
        """Write the buffer as a run."""
        number = len(self._runs)
        run = RowFile(self._folder / f"{self._name}-{number}", self._width)
        run.write(self._sorted_buffer())
        self._runs.append(run)

    def _merged(self) -> Iterator[Rows]:
        """Merge the runs.

        A block of each run is in memory. What comes up to the smallest of the blocks' last rows is
        complete: no run holds more of it on the disk. It is sorted and given.
        """
        num_runs = len(self._runs)
        block_rows = max(_MIN_BLOCK_ROWS, self._capacity // num_runs)
        waiting = [run.read(block_rows) for run in self._runs]
        is_open = [len(block) == block_rows for block in waiting]

        while True:
            limit = self._limit(waiting, is_open)
            parts: list[Rows] = []
            for number, block in enumerate(waiting):
                num_complete = len(block)
                if limit is not None:
                    num_complete = num_up_to(block, limit, self._columns)
                parts.append(block[:num_complete])

                rest = block[num_complete:]
                if is_open[number]:
                    wanted = block_rows - len(rest)
                    more = self._runs[number].read(wanted)
                    is_open[number] = len(more) == wanted
                    rest = np.concatenate((rest, more))
                waiting[number] = rest

            rows = np.concatenate(parts)
            del parts
            if len(rows):
                yield self._sorted(rows)
            if limit is None:
                break

        for run in self._runs:
            run.delete()
        self._runs.clear()

    def _limit(self, waiting: list[Rows], is_open: list[bool]) -> Rows | None:
        """Find the smallest last row of those blocks that have more behind them on the disk."""
        limit: Rows | None = None
        for block, has_more in zip(waiting, is_open, strict=True):
            if has_more:
                last = block[-1:]
                if limit is None or compare(last, 0, limit, 0, self._columns) < 0:
                    limit = last
        return limit
