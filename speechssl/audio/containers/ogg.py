"""Ogg: pages with checksums, sequence numbers and first/last flags."""

import struct
import zlib
from typing import BinaryIO, NamedTuple

from speechssl.audio.containers.flac import FLAC_TOTAL_BYTES, read_flac_total
from speechssl.audio.containers.layout import Layout, read_at


class _OggHeader(NamedTuple):
    """The fixed part of a page's header.

    ``granule`` is the number of samples up to the end of the page, -1 where no packet ends in it.
    """

    capture: bytes
    version: int
    flags: int
    granule: int
    stream: int
    sequence: int
    checksum: int
    num_segments: int


OGG_CAPTURE = b"OggS"  # how every page begins
_OGG_HEADER = struct.Struct("<4sBBqIIIB")
_CHECKSUM = slice(22, 26)  # where the checksum stands in the header
_FIRST_PAGE = 2  # flags of a stream's first and last page
_LAST_PAGE = 4
# The first packet of FLAC in Ogg, and where the number of samples stands in it.
_OGG_FLAC = b"\x7fFLAC"
_OGG_FLAC_TOTAL_AT = 30


def _reversed_bits(value: int, width: int) -> int:
    bits = f"{value:0{width}b}"
    return int(bits[::-1], 2)


_REVERSED = bytes(_reversed_bits(byte, 8) for byte in range(256))


def walk_ogg(raw: BinaryIO, start: int, size: int) -> Layout:
    position = start
    granule = 0
    flac_total = 0
    ended = False
    next_sequence: dict[int, int] = {}  # of each stream that has begun and not ended

    while position < size:
        head = read_at(raw, position, _OGG_HEADER.size)
        is_cut_off = len(head) < _OGG_HEADER.size
        if is_cut_off or not head.startswith(OGG_CAPTURE):
            if ended and not next_sequence:
                left = size - position
                return Layout("header mismatch", f"{left} bytes follow the end of the Ogg stream")
            reason = "truncated" if is_cut_off else "decode error"
            return Layout(reason, f"no Ogg page at byte {position}")

        fields = _OGG_HEADER.unpack(head)
        page = _OggHeader(*fields)

        lacing = raw.read(page.num_segments)  # the lengths of the body's segments
        body_bytes = sum(lacing)
        body = raw.read(body_bytes)
        if len(lacing) < page.num_segments or len(body) < body_bytes:
            return Layout("truncated", f"the Ogg page at byte {position} is cut off")

        # The checksum is of the page with zeros in the checksum's own place.
        blanked = bytearray(head)
        blanked[_CHECKSUM] = bytes(4)
        checksum = ogg_checksum(b"".join((blanked, lacing, body)))
        if checksum != page.checksum:
            return Layout("decode error", f"the Ogg page at byte {position} fails its checksum")

        if page.flags & _FIRST_PAGE:
            if ended:
                advice = "several Ogg streams one after another: decode and save it anew"
                return Layout("chained stream", advice)

            total_end = _OGG_FLAC_TOTAL_AT + FLAC_TOTAL_BYTES
            if body.startswith(_OGG_FLAC) and len(body) >= total_end:
                flac_total = read_flac_total(body, _OGG_FLAC_TOTAL_AT)
        elif next_sequence.get(page.stream) != page.sequence:
            return Layout("decode error", f"Ogg pages are missing before byte {position}")

        next_sequence[page.stream] = page.sequence + 1
        if page.granule >= 0:
            granule = page.granule
        if page.flags & _LAST_PAGE:
            next_sequence.pop(page.stream)
            ended = True

        position += len(head) + len(lacing) + len(body)

    if next_sequence:
        return Layout("truncated", "the Ogg stream stops before its last page")

    if flac_total and flac_total != granule:
        difference = f"the header declares {flac_total} samples, the pages hold {granule}"
        return Layout("header mismatch", difference)

    return Layout()


def ogg_checksum(page: bytes) -> int:
    """Compute Ogg's CRC-32: zlib's polynomial with the bits in the other order, 0 at both ends."""
    # zlib inverts its value at both ends, which is undone here.
    reflected = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF)
    return _reversed_bits(reflected ^ 0xFFFFFFFF, 32)
