"""FLAC: the number of samples that its header declares.

Source: RFC 9639, section 8.2.
"""

from typing import BinaryIO

from speechssl.audio.containers.layout import Layout, read_at, spans_of, unsupported
from speechssl.audio.containers.tags import tags_start

FLAC_INFO_BYTES = 18  # of STREAMINFO to the end of the number of samples
_INFO_AT = 8  # of STREAMINFO in a file, behind the name of the format and a header
_STREAM_INFO = 0  # type of that block
_BITS = (8, 16, 24)  # per sample, that libsndfile reads
_TOTAL_AT = 13  # of the number of samples in STREAMINFO
_TOTAL_BITS = 0x0F_FFFF_FFFF  # of its five bytes the number has the lower 36 bits


def walk_flac(raw: BinaryIO, start: int, size: int) -> Layout:
    """Present a total of 0 samples ("unknown"): libFLAC then decodes to the last frame.

    Args:
        start: where the container begins.
        size: where the file ends.
    """
    head = read_at(raw, start, _INFO_AT + FLAC_INFO_BYTES)
    info = head[_INFO_AT:]
    if len(info) < FLAC_INFO_BYTES or head[4] & 0x7F != _STREAM_INFO:
        return Layout()

    refusal = refused_flac(info)
    if refusal is not None:
        return refusal

    # The upper half of the first byte belongs to the bit depth and stays.
    bit_depth = info[_TOTAL_AT] & 0xF0
    unknown_total = bytes([bit_depth, 0, 0, 0, 0])
    patches = {start + _INFO_AT + _TOTAL_AT: unknown_total}

    end = tags_start(raw, start, size)
    total = flac_total(info)
    return Layout(declared=total or None, patches=patches, spans=spans_of(start, end, size))


def flac_total(info: bytes) -> int:
    """Read STREAMINFO's number of samples; 0 = unknown."""
    field_bytes = info[_TOTAL_AT:FLAC_INFO_BYTES]
    value = int.from_bytes(field_bytes, "big")
    return value & _TOTAL_BITS


def refused_flac(info: bytes) -> Layout | None:
    """Refuse a number of bits that libsndfile does not read; None where it reads them."""
    # The number of bits less one: the lowest bit of one byte, the upper four of the next.
    high, low = info[_TOTAL_AT - 1 : _TOTAL_AT + 1]
    bits = ((high & 1) << 4 | low >> 4) + 1
    return None if bits in _BITS else unsupported(f"FLAC of {bits} bits a sample")
