"""FLAC: the number of samples that its header declares, and where its frames end.

Source: RFC 9639, section 8.
"""

import os
import re
from typing import BinaryIO

from speechssl.audio.containers.flac_frame import FLAC_MAGIC, last_frame_end
from speechssl.audio.containers.layout import Layout, read_at, spans_of, unsupported
from speechssl.audio.containers.tags import tags_start

FLAC_INFO_BYTES = 18  # of STREAMINFO to the end of the number of samples
_INFO_AT = 8  # of STREAMINFO in a file, behind the name of the format and a header
_STREAM_INFO = 0  # type of that block
_IS_LAST_BLOCK = 0x80  # flag beside the type of a block of metadata
_RATE_AT = 10  # of the rate in STREAMINFO, and of the channels behind it
_BITS = (8, 16, 24)  # per sample, that libsndfile reads
_TOTAL_AT = 13  # of the number of samples in STREAMINFO
_TOTAL_BITS = 0x0F_FFFF_FFFF  # of its five bytes the number has the lower 36 bits

# How a file begins, with the header of STREAMINFO, which has 34 bytes.
_BEGIN = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")
_BEGIN_BYTES = 8
_BLOCK_BYTES = 1 << 20  # that are searched at once


def walk_flac(raw: BinaryIO, start: int, size: int) -> Layout:
    """Leave out what stands behind the last frame, and part files that stand one after another.

    Args:
        start: where the container begins.
        size: where the file ends.
    """
    begins = [start, *_joined_at(raw, start, size)]
    ends = [*begins[1:], size]
    first = _read_info(raw, start)
    if first is None:
        return Layout()

    parts: list[Layout] = []
    for begin, end in zip(begins, ends, strict=True):
        info = _read_info(raw, begin)
        if info is None:
            return Layout("truncated", f"the FLAC file that begins at byte {begin} is cut off")
        refusal = refused_flac(info) or _change(first, info, begin)
        if refusal is not None:
            return refusal

        is_last = end == size
        part = _presented(raw, begin, end, info, is_last)
        if part.reason:
            return part
        parts.append(part)

    if len(parts) > 1:
        return Layout(parts=tuple(parts))

    (alone,) = parts
    return alone


def _presented(raw: BinaryIO, start: int, end: int, info: bytes, is_last: bool) -> Layout:
    """Present the frames of one FLAC file, to its last one.

    Its total becomes 0 samples ("unknown"), and libFLAC then decodes to the last frame. It stops
    with an error at whatever follows that.

    Args:
        end: where the next file begins, or this one ends.
    """
    size = raw.seek(0, os.SEEK_END)
    frames_end = last_frame_end(raw, start, end, _sample_bits(info))
    if frames_end is None and not is_last:
        return Layout("decode error", f"the last FLAC frame before byte {end} is not whole")
    if frames_end is None:
        # The decoder says what is wrong.
        frames_end = tags_start(raw, start, end)

    # The upper half of the first byte belongs to the bit depth and stays.
    bit_depth = info[_TOTAL_AT] & 0xF0
    unknown_total = bytes([bit_depth, 0, 0, 0, 0])
    patches = {start + _INFO_AT + _TOTAL_AT: unknown_total}
    total = flac_total(info)
    return Layout(declared=total or None, patches=patches, spans=spans_of(start, frames_end, size))


def _joined_at(raw: BinaryIO, start: int, size: int) -> list[int]:
    """Find where further FLAC files begin, behind the metadata of the first."""
    position = start + len(FLAC_MAGIC)
    is_last_block = False
    while position < size and not is_last_block:
        header = read_at(raw, position, 4)
        is_last_block = header[0] >= _IS_LAST_BLOCK
        position += 4 + int.from_bytes(header[1:], "big")

    begins: list[int] = []
    while position < size:
        data = read_at(raw, position, _BLOCK_BYTES + _BEGIN_BYTES - 1)
        begins += [position + found.start() for found in _BEGIN.finditer(data)]
        position += _BLOCK_BYTES
    return begins


def _read_info(raw: BinaryIO, start: int) -> bytes | None:
    """Read the beginning of STREAMINFO of the file at ``start``; None where it is missing."""
    head = read_at(raw, start, _INFO_AT + FLAC_INFO_BYTES)
    info = head[_INFO_AT:]
    is_whole = len(info) == FLAC_INFO_BYTES and head[4] & 0x7F == _STREAM_INFO
    return info if is_whole else None


def _change(first: bytes, now: bytes, position: int) -> Layout | None:
    """Refuse a file of another rate or other channels than the one before; None where it is not."""
    first_rate, first_channels = _rate_and_channels(first)
    rate, channels = _rate_and_channels(now)
    if rate != first_rate:
        change = f"its rate from {first_rate} to {rate} Hz"
    elif channels != first_channels:
        change = f"from {first_channels} to {channels} channels"
    else:
        return None
    return unsupported(f"a FLAC file that changes {change} at byte {position}")


def _rate_and_channels(info: bytes) -> tuple[int, int]:
    """Read the rate in Hz, of 20 bits, and the number of channels, of three bits and less one."""
    bits = int.from_bytes(info[_RATE_AT : _RATE_AT + 3], "big")
    return bits >> 4, (bits >> 1 & 7) + 1


def flac_total(info: bytes) -> int:
    """Read STREAMINFO's number of samples; 0 = unknown."""
    field_bytes = info[_TOTAL_AT:FLAC_INFO_BYTES]
    value = int.from_bytes(field_bytes, "big")
    return value & _TOTAL_BITS


def refused_flac(info: bytes) -> Layout | None:
    """Refuse a number of bits that libsndfile does not read; None where it reads them."""
    bits = _sample_bits(info)
    return None if bits in _BITS else unsupported(f"FLAC of {bits} bits a sample")


def _sample_bits(info: bytes) -> int:
    """Read the bits of a sample, of which STREAMINFO has one less."""
    # The lowest bit of one byte, the upper four of the next.
    high, low = info[_TOTAL_AT - 1 : _TOTAL_AT + 1]
    return ((high & 1) << 4 | low >> 4) + 1
