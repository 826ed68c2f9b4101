"""VOC of Sound Blaster: a header, then blocks of (type, size in three bytes, bytes).

Source: the description of the format in SoX's voc.c.
"""

from typing import BinaryIO

from speechssl.audio.containers.layout import Layout, read_at, too_long, too_short
from speechssl.audio.containers.tags import is_no_audio

VOC_MAGIC = b"Creative Voice File\x1a"
_OFFSET_AT = 20  # of the place of the first block
_BLOCK_HEADER_BYTES = 4
_TERMINATOR = 0  # a type, without a size


def walk_voc(raw: BinaryIO, start: int, size: int) -> Layout:
    """Follow the blocks to the end of the file, which is at ``size``."""
    offset_bytes = read_at(raw, start + _OFFSET_AT, 2)
    position = start + int.from_bytes(offset_bytes, "little")

    while position < size:
        header = read_at(raw, position, _BLOCK_HEADER_BYTES)
        if header[0] == _TERMINATOR:
            position += 1
            break

        block_bytes = int.from_bytes(header[1:], "little")
        position += _BLOCK_HEADER_BYTES + block_bytes

    # The terminator is not always there.
    if position > size:
        return too_short(position - size)
    if not is_no_audio(raw, position, size):
        return too_long(size - position)
    return Layout()
