"""Ogg: pages with checksums, sequence numbers and first/last flags."""

import struct
import zlib
from typing import BinaryIO, NamedTuple

from speechssl.audio.containers.flac import FLAC_INFO_BYTES, flac_total, refused_flac
from speechssl.audio.containers.layout import CHAINED, Layout, read_at, spans_of, unsupported
from speechssl.audio.containers.tags import begins_like, is_no_audio


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
# The first packet of FLAC in Ogg, where a FLAC file begins in it, and where its STREAMINFO stands.
_OGG_FLAC = b"\x7fFLAC"
_OGG_FLAC_FILE_AT = 9
_OGG_FLAC_INFO_AT = 17
# First packets of streams that libsndfile does not read.
_UNREAD = {b"Speex   ": "Speex speech in Ogg", b"\x80theora": "video (Theora in Ogg)"}


def _reversed_bits(value: int, width: int) -> int:
    bits = f"{value:0{width}b}"
    return int(bits[::-1], 2)


_REVERSED = bytes(_reversed_bits(byte, 8) for byte in range(256))


def walk_ogg(raw: BinaryIO, start: int, size: int) -> Layout:
    """Check every page, and that none is missing.

    libsndfile does not read FLAC in Ogg. What its pages hold is a FLAC file, and is shown as one.

    Args:
        start: where the container begins.
        size: where the file ends.
    """
    position = start
    granule = 0
    flac_samples = 0
    flac_stream: int | None = None
    flac_spans: list[tuple[int, int]] = []
    ended = False
    next_sequence: dict[int, int] = {}  # of each stream that has begun and not ended

    while position < size:
        head = read_at(raw, position, _OGG_HEADER.size)
        is_cut_off = len(head) < _OGG_HEADER.size
        if is_cut_off or not head.startswith(OGG_CAPTURE):
            is_page = begins_like(head, OGG_CAPTURE)
            if ended and not next_sequence and not is_page:
                if is_no_audio(raw, position, size):
                    break
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
        if not _is_intact(head, lacing, body):
            return Layout("decode error", f"the Ogg page at byte {position} fails its checksum")

        if page.flags & _FIRST_PAGE:
            if ended:
                return Layout(CHAINED, "several Ogg streams stand one after another")

            refusal = _refused(body)
            if refusal is not None:
                return refusal
            flac_samples = _flac_samples(body) or flac_samples
            if body.startswith(_OGG_FLAC):
                flac_stream = page.stream
        elif next_sequence.get(page.stream) != page.sequence:
            return Layout("decode error", f"Ogg pages are missing before byte {position}")

        next_sequence[page.stream] = page.sequence + 1
        if page.granule >= 0:
            granule = page.granule
        if page.flags & _LAST_PAGE:
            next_sequence.pop(page.stream)
            ended = True

        body_start = position + len(head) + len(lacing)
        position = body_start + len(body)
        if page.stream == flac_stream:
            skipped = 0 if flac_spans else _OGG_FLAC_FILE_AT
            flac_spans.append((body_start + skipped, position))

    if next_sequence:
        return Layout("truncated", "the Ogg stream stops before its last page")

    if flac_samples and flac_samples != granule:
        difference = f"the header declares {flac_samples} samples, the pages hold {granule}"
        return Layout("header mismatch", difference)

    if flac_spans:
        return Layout(spans=tuple(flac_spans), declared=granule)
    return Layout(spans=spans_of(start, position, size))


def _is_intact(head: bytes, lacing: bytes, body: bytes) -> bool:
    """Whether a page has the checksum that stands in its header."""
    # It is of the page with zeros in the checksum's own place.
    blanked = bytearray(head)
    blanked[_CHECKSUM] = bytes(4)
    checksum = ogg_checksum(b"".join((blanked, lacing, body)))
    return checksum.to_bytes(4, "little") == head[_CHECKSUM]


def _refused(packet: bytes) -> Layout | None:
    """Refuse a stream by its first packet; None where libsndfile may read it."""
    for magic, what in _UNREAD.items():
        if packet.startswith(magic):
            return unsupported(what)

    info = packet[_OGG_FLAC_INFO_AT:]
    is_flac = packet.startswith(_OGG_FLAC) and len(info) >= FLAC_INFO_BYTES
    return refused_flac(info) if is_flac else None


def _flac_samples(packet: bytes) -> int:
    """Read how many samples FLAC in Ogg declares in its first packet; 0 = unknown, or other."""
    info = packet[_OGG_FLAC_INFO_AT:]
    is_flac = packet.startswith(_OGG_FLAC) and len(info) >= FLAC_INFO_BYTES
    return flac_total(info) if is_flac else 0


def ogg_checksum(page: bytes) -> int:
    """Compute Ogg's CRC-32: zlib's polynomial with the bits in the other order, 0 at both ends."""
    # zlib inverts its value at both ends, which is undone here.
    reflected = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF)
    return _reversed_bits(reflected ^ 0xFFFFFFFF, 32)
