"""Check the container of an audio file from its bytes, before anything is decoded.

libsndfile believes headers. It stops at a length that is too small, clips one that is too large to
the file and says nothing, skips a damaged Ogg page, plays only the first of several chained
streams, and guesses the length of an MP3 without a Xing header from its first frame. So each
container is walked here first. What is broken is reported as a fault. What is merely unknown, or
wrong in a way that can be repaired, becomes a patch that the decoder sees in place of the bytes.
"""

import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

_HEAD_BYTES = 64  # enough for every fixed header below


@dataclass(frozen=True, slots=True)
class Layout:
    """What was found in a container, and how the decoder should see the file.

    Attributes:
        reason: short code of what is wrong, empty when nothing is.
        detail: one sentence about it.
        declared: samples per channel in the header, where the decoder is not to stop there; None
            when unknown.
        start: first byte that the decoder should see.
        prefix: bytes to present before it.
        patches: file offset -> bytes to present in place.
    """

    reason: str = ""
    detail: str = ""
    declared: int | None = None
    start: int = 0
    prefix: bytes = b""
    patches: Mapping[int, bytes] = field(default_factory=dict)


def inspect(raw: BinaryIO) -> Layout:
    """Walk the container of an open binary file; an unknown format gives an empty ``Layout``."""
    size = raw.seek(0, os.SEEK_END)
    start = _skip_id3(raw, size)
    raw.seek(start)
    head = raw.read(_HEAD_BYTES)

    if head[:4] == b"fLaC":
        return _walk_flac(head, start)
    if head[:4] == b"OggS":
        return _walk_ogg(raw, start, size)
    for magic, chunks in _CHUNKED.items():
        if head.startswith(magic):
            return _walk_chunks(raw, size, chunks)
    if head[:4] == b".snd":
        return _walk_au(head, size)
    if _mp3_frame(head):
        return _walk_mp3(raw, start, size)

    return Layout()


def _skip_id3(raw: BinaryIO, size: int) -> int:
    """Return the offset behind the ID3v2 tags at the front of a file."""
    start = 0
    while start < size:
        raw.seek(start)
        head = raw.read(10)
        if len(head) < 10 or head[:3] != b"ID3" or max(head[6:10]) > 127:
            break

        # The size of a tag is four bytes of seven bits, without its header of ten bytes.
        start += 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])

    # Tags that claim the whole file are not believed.
    return start if start < size else 0


def _too_short(missing: int) -> Layout:
    return Layout("truncated", f"the header declares {missing} more bytes than the file holds")


def _too_long(left: int) -> Layout:
    return Layout("header mismatch", f"{left} bytes follow the samples that the header declares")


# ---- FLAC ----------------------------------------------------------------------------------------


def _walk_flac(head: bytes, start: int) -> Layout:
    """Present a total of 0 samples ("unknown"): libFLAC then decodes to the last frame."""
    begins_with_stream_info = len(head) >= 26 and head[4] & 0x7F == 0
    if not begins_with_stream_info:
        return Layout()

    total = _flac_total(head, 21)
    # The upper half of the first byte belongs to the bit depth and stays.
    unknown_total = bytes([head[21] & 0xF0, 0, 0, 0, 0])
    return Layout(declared=total or None, patches={start + 21: unknown_total})


def _flac_total(data: bytes, at: int) -> int:
    """Read STREAMINFO's number of samples: the lower half of byte ``at`` and the four after it."""
    return (data[at] & 0x0F) << 32 | int.from_bytes(data[at + 1 : at + 5], "big")


# ---- RIFF and its relatives: a chain of (identifier, size, bytes) --------------------------------


@dataclass(frozen=True, slots=True)
class _Chunks:
    """How the chunks of one format are written.

    Attributes:
        first: offset of the first chunk.
        id_bytes: length of an identifier.
        size_format: ``struct`` format of a chunk's size.
        size_has_header: whether the size counts the chunk's header, as in Wave64 alone.
        align: chunks begin at multiples of so many bytes.
        audio: how the identifier of the samples' chunk begins.
    """

    first: int
    id_bytes: int
    size_format: str
    size_has_header: bool
    align: int
    audio: bytes


_CHUNKED: dict[bytes, _Chunks] = {
    b"RIFF": _Chunks(12, 4, "<I", False, 2, b"data"),
    b"RIFX": _Chunks(12, 4, ">I", False, 2, b"data"),
    b"RF64": _Chunks(12, 4, "<I", False, 2, b"data"),
    b"FORM": _Chunks(12, 4, ">I", False, 2, b"SSND"),
    b"caff": _Chunks(8, 4, ">q", False, 1, b"data"),
    b"riff\x2e\x91\xcf\x11": _Chunks(40, 16, "<Q", True, 8, b"data"),
}
_FILES = frozenset(magic[:4] for magic in _CHUNKED)  # a whole file is no chunk of another
# Sizes that writers leave when they cannot seek back: the samples go on to the end of the file.
_STREAMED_SIZES = frozenset(
    {-1, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF}
)
_SIZE_IS_ELSEWHERE = 0xFFFFFFFF  # in RF64: the true size is in the chunk ds64
_LARGEST_SIZE = 0xFFFFFFFE  # that four bytes hold and that is none of the above


def _walk_chunks(raw: BinaryIO, size: int, chunks: _Chunks) -> Layout:
    header = _header_bytes(chunks)
    position = chunks.first
    long_size = None
    audio_seen = False

    while position + header <= size:
        identifier, length = _read_chunk_header(raw, position, chunks)
        if identifier == b"ds64":
            long_size = struct.unpack("<Q", raw.read(16)[8:].ljust(8, b"\0"))[0]

        is_audio = not audio_seen and identifier.startswith(chunks.audio)
        if is_audio and length == _SIZE_IS_ELSEWHERE and long_size is not None:
            length = long_size

        body = position + header
        end = position + length if chunks.size_has_header else body + length

        if is_audio:
            if length in _STREAMED_SIZES:
                return Layout()

            # A size of 0 is believed where more chunks follow; otherwise it was never filled in.
            if length == 0 and body < size and not _chain_ends(raw, body, size, chunks):
                rest = struct.pack(chunks.size_format, min(size - body, _LARGEST_SIZE))
                return Layout(patches={position + chunks.id_bytes: rest})

            if end > size:
                return _too_short(end - size)
            audio_seen = True
        else:
            is_chunk = body <= end <= size and identifier[:4] not in _FILES
            if not is_chunk:
                break

        position = end + (-end % chunks.align)

    if audio_seen and not _is_padding(raw, position, size, header):
        return _too_long(size - position)

    return Layout()


def _header_bytes(chunks: _Chunks) -> int:
    return chunks.id_bytes + struct.calcsize(chunks.size_format)


def _read_chunk_header(raw: BinaryIO, position: int, chunks: _Chunks) -> tuple[bytes, int]:
    """Read identifier and size of the chunk at ``position``."""
    raw.seek(position)
    head = raw.read(_header_bytes(chunks))
    length = struct.unpack(chunks.size_format, head[chunks.id_bytes :])[0]
    return head[: chunks.id_bytes], length


def _chain_ends(raw: BinaryIO, position: int, size: int, chunks: _Chunks) -> bool:
    """Whether valid chunks lead from ``position`` to the end of the file."""
    header = _header_bytes(chunks)
    least = header if chunks.size_has_header else 0

    while position + header <= size:
        identifier, length = _read_chunk_header(raw, position, chunks)
        name = identifier[:4]
        is_text = name.isascii() and name.decode("ascii").isprintable()
        if not is_text or length < least:
            return False

        position += length if chunks.size_has_header else header + length
        position += -position % chunks.align

    return size <= position <= size + chunks.align


def _is_padding(raw: BinaryIO, position: int, size: int, limit: int) -> bool:
    """Whether the bytes from ``position`` mean nothing: too few for a chunk, or zeros."""
    left = size - position
    if left < limit:
        return True

    raw.seek(position)
    rest = raw.read(4096)
    return left <= 4096 and not rest.strip(b"\0")


# ---- AU: one header, then the samples ------------------------------------------------------------


def _walk_au(head: bytes, size: int) -> Layout:
    if len(head) < 12:
        return Layout()

    offset, length = struct.unpack(">II", head[4:12])
    if length in _STREAMED_SIZES:
        return Layout()

    end = offset + length
    if end > size:
        return _too_short(end - size)
    if end < size:
        return _too_long(size - end)

    return Layout()


# ---- Ogg: pages with checksums, sequence numbers and first/last flags ----------------------------


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


_OGG_HEADER = struct.Struct("<4sBBqIIIB")
_FIRST_PAGE = 2  # flags of a stream's first and last page
_LAST_PAGE = 4
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _walk_ogg(raw: BinaryIO, start: int, size: int) -> Layout:
    position = start
    granule = 0
    flac_total = 0
    ended = False
    next_sequence: dict[int, int] = {}  # of each stream that has begun and not ended

    while position < size:
        raw.seek(position)
        head = raw.read(_OGG_HEADER.size)
        is_cut_off = len(head) < _OGG_HEADER.size
        if is_cut_off or head[:4] != b"OggS":
            if ended and not next_sequence:
                left = size - position
                return Layout("header mismatch", f"{left} bytes follow the end of the Ogg stream")
            reason = "truncated" if is_cut_off else "decode error"
            return Layout(reason, f"no Ogg page at byte {position}")

        page = _OggHeader._make(_OGG_HEADER.unpack(head))
        lacing = raw.read(page.num_segments)
        body = raw.read(sum(lacing))
        if len(lacing) < page.num_segments or len(body) < sum(lacing):
            return Layout("truncated", f"the Ogg page at byte {position} is cut off")

        # The checksum is of the page with zeros in the checksum's own place.
        if _ogg_checksum(head[:22] + b"\0\0\0\0" + head[26:] + lacing + body) != page.checksum:
            return Layout("decode error", f"the Ogg page at byte {position} fails its checksum")

        if page.flags & _FIRST_PAGE:
            if ended:
                return Layout(
                    "chained stream",
                    "several Ogg streams one after another: decode and save it anew",
                )
            if body[:5] == b"\x7fFLAC" and len(body) >= 35:
                flac_total = _flac_total(body, 30)
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
        return Layout(
            "header mismatch", f"the header declares {flac_total} samples, the pages hold {granule}"
        )

    return Layout()


def _ogg_checksum(page: bytes) -> int:
    """Compute Ogg's CRC-32: zlib's polynomial with the bits in the other order, 0 at both ends."""
    reflected = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reflected:032b}"[::-1], 2)


# ---- MP3: frames that each tell their own length -------------------------------------------------

_MPEG_1 = 3  # codes of the version in a frame's header; 2 is MPEG 2, 0 is MPEG 2.5
_RESERVED_VERSION = 1
_RATES_HZ = (44100, 48000, 32000)  # of MPEG 1
_RATE_HALVINGS = {_MPEG_1: 0, 2: 1, 0: 2}
# Bit rates of Layer III, kbit/s, by their code in the header: of MPEG 1, and of MPEG 2 and 2.5.
_KBIT_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBIT_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_NO_BIT_RATE = (0, 15)  # codes: "free", whose length no table gives, and invalid
_TAGS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"ID3", b"3DI")  # what may follow the last frame


def _mp3_frame(head: bytes) -> tuple[int, int] | None:
    """Read (bytes, samples) of the Layer III frame that begins with ``head``; None if none does."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None

    version = (head[1] >> 3) & 3
    bit_rate_code = head[2] >> 4
    rate_code = (head[2] >> 2) & 3
    padding = (head[2] >> 1) & 1
    if version == _RESERVED_VERSION or rate_code == 3 or bit_rate_code in _NO_BIT_RATE:
        return None

    rate_hz = _RATES_HZ[rate_code] >> _RATE_HALVINGS[version]
    if version == _MPEG_1:
        kbit = _KBIT_1[bit_rate_code]
        samples = 1152
    else:
        kbit = _KBIT_2[bit_rate_code]
        samples = 576

    return samples // 8 * 1000 * kbit // rate_hz + padding, samples


def _walk_mp3(raw: BinaryIO, start: int, size: int) -> Layout:
    raw.seek(start)
    first = raw.read(4096)
    frame = _mp3_frame(first)
    if frame is None:
        return Layout()

    declared = _declared_mp3_frames(first[: frame[0]])
    position = start
    count = 0
    while frame is not None:
        position += frame[0]
        count += 1
        if position > size:
            return Layout("truncated", "the last MP3 frame is cut off")

        raw.seek(position)
        frame = _mp3_frame(raw.read(4))

    raw.seek(position)
    rest = raw.read(16)
    if rest.strip(b"\0") and not rest.startswith(_TAGS):
        return Layout(
            "decode error",
            f"no MP3 frame at byte {position}, {size - position} bytes before the end",
        )

    if declared is None:
        return Layout(start=start, prefix=_xing_frame(first, count))

    held = count - 1  # the frame with the Xing header holds no sound
    difference = f"the header declares {declared} MP3 frames, the file holds {held}"
    if held < declared:
        return Layout("truncated", difference)
    if held > declared + 1:
        return Layout("header mismatch", difference)

    return Layout()


def _side_info_bytes(head: bytes) -> int:
    """Return how many bytes stand between a frame's header and its Xing header."""
    is_mono = head[3] >> 6 == 3
    is_mpeg_1 = (head[1] >> 3) & 3 == _MPEG_1
    if is_mpeg_1:
        return 17 if is_mono else 32
    return 9 if is_mono else 17


def _declared_mp3_frames(frame: bytes) -> int | None:
    """Read the number of frames from a Xing, Info or VBRI header; None without such a header."""
    at = 4 + _side_info_bytes(frame)
    is_xing = frame[at : at + 4] in (b"Xing", b"Info") and len(frame) >= at + 12
    if is_xing and frame[at + 7] & 1:
        return int(struct.unpack(">I", frame[at + 8 : at + 12])[0])

    if frame[36:40] == b"VBRI" and len(frame) >= 54:
        return int(struct.unpack(">I", frame[50:54])[0])

    return None


def _xing_frame(head: bytes, count: int) -> bytes:
    """Make a silent frame that tells the decoder how many frames follow, which it else guesses."""
    # Like the frame of ``head``, but without a checksum, and of a bit rate with enough room.
    header = bytes([head[0], head[1] | 1, head[2] & 0x0F | 0x80, head[3]])
    frame = _mp3_frame(header)
    assert frame is not None

    at = 4 + _side_info_bytes(header)
    xing = b"Xing" + struct.pack(">II", 1, count)
    return (header.ljust(at, b"\0") + xing).ljust(frame[0], b"\0")
