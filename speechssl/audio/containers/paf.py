"""PAF of Ensoniq's PARIS: a header, then the samples, whose number it does not tell.

Source: libsndfile's reader paf.c.
"""

import struct
from typing import BinaryIO

from speechssl.audio.containers.layout import Layout, read_at, spans_of
from speechssl.audio.containers.tags import is_no_audio, tags_start

PAF_MAGIC = b" paf"  # highest byte first
PAF_MAGIC_SWAPPED = b"fap "
_HEADER_BYTES = 2048
_FORMAT_AT = 16  # of the format of the samples, and behind it of the number of channels
_24_BITS = 1  # ten samples of a channel in each block
_BLOCK_BYTES = 32


def walk_paf(raw: BinaryIO, start: int, size: int) -> Layout:
    """Leave out tags behind the samples, and of 24 bits what fills no block.

    libsndfile hears what is left in memory where a block is not whole.

    Args:
        start: where the container begins.
        size: where the file ends.
    """
    head = read_at(raw, start, _HEADER_BYTES)
    if len(head) < _HEADER_BYTES:
        return Layout()

    end = tags_start(raw, start + _HEADER_BYTES, size)
    order = ">" if head.startswith(PAF_MAGIC) else "<"
    sample_format, channels = struct.unpack_from(f"{order}II", head, _FORMAT_AT)
    if sample_format == _24_BITS and channels:
        num_left = (end - start - _HEADER_BYTES) % (_BLOCK_BYTES * channels)
        if not is_no_audio(raw, end - num_left, size):
            return Layout("truncated", "the last block of samples is cut off")
        end -= num_left

    return Layout(spans=spans_of(start, end, size))
