"""AU: one header, then the samples."""

import struct

from speechssl.audio.containers.layout import Layout, too_long, too_short
from speechssl.audio.containers.riff import STREAMED_SIZES


def walk_au(head: bytes, size: int) -> Layout:
    if len(head) < 12:
        return Layout()

    offset, length = struct.unpack(">II", head[4:12])
    if length in STREAMED_SIZES:
        return Layout()

    end = offset + length
    if end > size:
        return too_short(end - size)
    if end < size:
        return too_long(size - end)

    return Layout()
