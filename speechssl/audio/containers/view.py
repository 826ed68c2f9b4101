"""A file as a ``Layout`` presents it to the decoder."""

import os
from bisect import bisect_right
from typing import BinaryIO

from speechssl.audio.containers.layout import Layout


class View:
    """The prefix of a ``Layout`` and behind it the spans of a file, with patched bytes.

    It has the methods of a file object that the decoder calls.
    """

    def __init__(self, raw: BinaryIO, layout: Layout) -> None:
        self._raw = raw
        self._prefix = layout.prefix
        self._patches = layout.patches
        self._position = 0

        file_size = raw.seek(0, os.SEEK_END)
        self._spans = layout.spans or ((0, file_size),)

        # Where each span begins in the view.
        self._begins: list[int] = []
        end = len(layout.prefix)
        for first, last in self._spans:
            self._begins.append(end)
            end += last - first
        self._size = end

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, which may lie behind the end."""
        origins = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}
        self._position = max(0, origins[whence] + offset)
        return self._position

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self._position

    def read(self, count: int) -> bytes:
        """Read up to ``count`` bytes; fewer only at the end."""
        data = bytearray(self._prefix[self._position : self._position + count])

        while len(data) < count:
            part = self._read_span(self._position + len(data), count - len(data))
            if not part:
                break
            data += part

        self._position += len(data)
        return bytes(data)

    def _read_span(self, position: int, count: int) -> bytes:
        """Read up to ``count`` bytes behind the prefix, from one span."""
        index = bisect_right(self._begins, position) - 1
        first, last = self._spans[index]
        offset = first + position - self._begins[index]
        if offset >= last:
            return b""

        self._raw.seek(offset)
        data = bytearray(self._raw.read(min(count, last - offset)))

        for place, patch in self._patches.items():
            # Where the patch begins in ``data``: it may hang out at either end.
            at = place - offset
            begin = max(0, -at)
            end = min(len(patch), len(data) - at)
            for k in range(begin, end):
                data[at + k] = patch[k]

        return bytes(data)
