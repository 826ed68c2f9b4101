"""AU: one header, then the samples."""

import struct
from typing import BinaryIO

from speechssl.audio.containers.chunks import STREAMED_SIZES
from speechssl.audio.containers.layout import Layout, read_at, spans_of, too_long, too_short
from speechssl.audio.containers.tags import is_no_audio, tags_start

_LENGTH_AT = 8
_UNKNOWN_LENGTH = b"\xff\xff\xff\xff"


def walk_au(raw: BinaryIO, start: int, size: int) -> Layout:
    """Compare the size of the samples with the file.

    Args:
        start: where the container begins.
        size: where the file ends.
    """
    head = read_at(raw, start, 12)
    if len(head) < 12:
        return Layout()

    offset, length = struct.unpack(">II", head[4:12])
    end = start + offset + length
    patches: dict[int, bytes] = {}
    is_unknown = length in STREAMED_SIZES or length == 0
    if is_unknown and end != size:
        end = tags_start(raw, start + offset, size)
        # Of the sizes that writers leave, libsndfile knows this one.
        patches[start + _LENGTH_AT] = _UNKNOWN_LENGTH

    if end > size:
        return too_short(end - size)
    if end < size and not is_no_audio(raw, end, size):
        return too_long(size - end)

    return Layout(spans=spans_of(start, end, size), patches=patches)
