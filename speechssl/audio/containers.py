"""What an audio file promises, read from its bytes without decoding.

libsndfile believes headers: it stops at a length that is too small, clips one that is too large to the file and says
nothing, skips a damaged Ogg page, plays only the first of several chained streams, and guesses the length of an MP3
that has no Xing header from its first frame. So each container is walked here first. What is broken becomes a fault;
what is merely unknown or a lie that can be repaired becomes a patch that the decoder sees in place of the bytes.
"""

import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

_HEAD_BYTES = 64  # enough for every fixed header below


@dataclass(frozen=True, slots=True)
class Layout:
    """A walked container.

    Attributes:
        reason: short code of what is wrong, empty when nothing is.
        detail: one sentence about it.
        declared: samples per channel in the header, where the decoder is not to stop there; None when unknown.
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
    """Offset behind the ID3v2 tags at the front (their size is four bytes of seven bits)."""
    start = 0
    while start < size:
        raw.seek(start)
        head = raw.read(10)
        if len(head) < 10 or head[:3] != b"ID3" or max(head[6:10]) > 127:
            break
        start += 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])
    return start if start < size else 0


def _walk_flac(head: bytes, start: int) -> Layout:
    """Present a total of 0 samples ("unknown"), so that libFLAC decodes to the last frame whatever is declared."""
    if len(head) < 26 or head[4] & 0x7F != 0:
        return Layout()
    total = (head[21] & 0x0F) << 32 | int.from_bytes(head[22:26], "big")
    return Layout(
        declared=total or None, patches={start + 21: bytes([head[21] & 0xF0, 0, 0, 0, 0])}
    )


# ---- RIFF and its relatives: a chain of (identifier, size, bytes) -------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Chunks:
    first: int  # offset of the first chunk
    id_bytes: int
    size_format: str  # struct format of a chunk's size
    size_has_header: bool  # Wave64 counts the chunk header, the others do not
    align: int
    audio: bytes  # how the identifier of the samples' chunk begins


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


def _walk_chunks(raw: BinaryIO, size: int, chunks: _Chunks) -> Layout:
    header = chunks.id_bytes + struct.calcsize(chunks.size_format)
    position, long_size, audio_seen = chunks.first, None, False
    while position + header <= size:
        raw.seek(position)
        head = raw.read(header)
        identifier = head[: chunks.id_bytes]
        length = struct.unpack(chunks.size_format, head[chunks.id_bytes :])[0]
        if identifier == b"ds64":  # RF64: the true size of the samples' chunk
            long_size = struct.unpack("<Q", raw.read(16)[8:].ljust(8, b"\0"))[0]
        is_audio = not audio_seen and identifier.startswith(chunks.audio)
        if is_audio and length == 0xFFFFFFFF and long_size is not None:
            length = long_size
        body = position + header
        end = position + length if chunks.size_has_header else body + length
        if is_audio:
            if length in _STREAMED_SIZES:
                return Layout()
            if length == 0 and body < size and not _chain_ends(raw, body, size, chunks):
                rest = struct.pack(chunks.size_format, min(size - body, 0xFFFFFFFE))
                return Layout(patches={position + chunks.id_bytes: rest})
            if end > size:
                return Layout(
                    "truncated", f"the header declares {end - size} more bytes than the file holds"
                )
            audio_seen = True
        elif end > size or end < body or identifier[:4] in _FILES:
            break
        position = end + (-end % chunks.align)
    if audio_seen and not _is_padding(raw, position, size, header):
        return Layout(
            "header mismatch",
            f"{size - position} bytes follow the samples that the header declares",
        )
    return Layout()


def _chain_ends(raw: BinaryIO, position: int, size: int, chunks: _Chunks) -> bool:
    """Whether valid chunks lead from ``position`` to the end of the file."""
    header = chunks.id_bytes + struct.calcsize(chunks.size_format)
    while position + header <= size:
        raw.seek(position)
        head = raw.read(header)
        length = struct.unpack(chunks.size_format, head[chunks.id_bytes :])[0]
        if not head[:4].isascii() or not head[:4].decode("ascii").isprintable() or length < 0:
            return False
        position += length if chunks.size_has_header else header + length
        position += -position % chunks.align
        if chunks.size_has_header and length < header:
            return False
    return position >= size and position <= size + chunks.align


def _is_padding(raw: BinaryIO, position: int, size: int, limit: int) -> bool:
    """Whether the bytes from ``position`` are nothing: too few for a chunk, or zeros."""
    if size - position < limit:
        return True
    raw.seek(position)
    rest = raw.read(4096)
    return size - position <= 4096 and not rest.strip(b"\0")


def _walk_au(head: bytes, size: int) -> Layout:
    if len(head) < 12:
        return Layout()
    offset, length = struct.unpack(">II", head[4:12])
    if length in _STREAMED_SIZES:
        return Layout()
    if offset + length > size:
        return Layout(
            "truncated",
            f"the header declares {offset + length - size} more bytes than the file holds",
        )
    if offset + length < size:
        return Layout(
            "header mismatch",
            f"{size - offset - length} bytes follow the samples that the header declares",
        )
    return Layout()


# ---- Ogg: pages with checksums, sequence numbers and first/last flags ---------------------------------------------

_CAPTURE = struct.Struct("<4sBBqIIIB")
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg_checksum(page: bytes) -> int:
    """Ogg's CRC-32: zlib's polynomial, but with the bits in the other order, and zero at both ends."""
    reflected = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reflected:032b}"[::-1], 2)


def _walk_ogg(raw: BinaryIO, start: int, size: int) -> Layout:
    position, granule, flac_total = start, 0, 0
    running: dict[int, int] = {}  # stream -> next sequence number
    ended = False
    while position < size:
        raw.seek(position)
        head = raw.read(_CAPTURE.size)
        if len(head) < _CAPTURE.size or head[:4] != b"OggS":
            if ended and not running:
                return Layout(
                    "header mismatch", f"{size - position} bytes follow the end of the Ogg stream"
                )
            reason = "truncated" if len(head) < _CAPTURE.size else "decode error"
            return Layout(reason, f"no Ogg page at byte {position}")
        _, _, flags, page_granule, stream, sequence, checksum, segments = _CAPTURE.unpack(head)
        lacing = raw.read(segments)
        body = raw.read(sum(lacing))
        if len(body) < sum(lacing) or len(lacing) < segments:
            return Layout("truncated", f"the Ogg page at byte {position} is cut off")
        if _ogg_checksum(head[:22] + b"\0\0\0\0" + head[26:] + lacing + body) != checksum:
            return Layout("decode error", f"the Ogg page at byte {position} fails its checksum")
        if flags & 2:
            if ended:
                return Layout(
                    "chained stream",
                    "several Ogg streams one after another: decode and save it anew",
                )
            if body[:5] == b"\x7fFLAC" and len(body) >= 35:
                flac_total = (body[30] & 0x0F) << 32 | int.from_bytes(body[31:35], "big")
        elif running.get(stream) != sequence:
            return Layout("decode error", f"Ogg pages are missing before byte {position}")
        running[stream] = sequence + 1
        granule = page_granule if page_granule >= 0 else granule
        if flags & 4:
            running.pop(stream)
            ended = True
        position += len(head) + len(lacing) + len(body)
    if running:
        return Layout("truncated", "the Ogg stream stops before its last page")
    if flac_total and flac_total != granule:
        return Layout(
            "header mismatch", f"the header declares {flac_total} samples, the pages hold {granule}"
        )
    return Layout()


# ---- MP3: frames that each tell their own length --------------------------------------------------------------------

_KBIT_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBIT_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_TAGS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"ID3", b"3DI")


def _mp3_frame(head: bytes) -> tuple[int, int] | None:
    """(bytes, samples) of the Layer III frame whose header begins ``head``; None when it is not one."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, rate_index, rate_code = (head[1] >> 3) & 3, head[2] >> 4, (head[2] >> 2) & 3
    if version == 1 or rate_code == 3 or rate_index in (0, 15):
        return None
    rate_hz = (44100, 48000, 32000)[rate_code] >> {3: 0, 2: 1, 0: 2}[version]  # MPEG 1, 2, 2.5
    kbit, samples = (_KBIT_1, 1152) if version == 3 else (_KBIT_2, 576)
    return samples // 8 * 1000 * kbit[rate_index] // rate_hz + (head[2] >> 1 & 1), samples


def _walk_mp3(raw: BinaryIO, start: int, size: int) -> Layout:
    raw.seek(start)
    first = raw.read(4096)
    frame = _mp3_frame(first)
    if frame is None:
        return Layout()
    declared = _xing_frames(first[: frame[0]])
    position, count = start, 0
    while (frame := _mp3_frame(first if count == 0 else raw.read(4))) is not None:
        position, count = position + frame[0], count + 1
        if position > size:
            return Layout("truncated", "the last MP3 frame is cut off")
        raw.seek(position)
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
    if held < declared:
        return Layout(
            "truncated", f"the header declares {declared} MP3 frames, the file holds {held}"
        )
    if held > declared + 1:
        return Layout(
            "header mismatch", f"the header declares {declared} MP3 frames, the file holds {held}"
        )
    return Layout()


def _side_info_bytes(head: bytes) -> int:
    mono, version_1 = head[3] >> 6 == 3, (head[1] >> 3) & 3 == 3
    return (17 if mono else 32) if version_1 else (9 if mono else 17)


def _xing_frames(frame: bytes) -> int | None:
    """Number of frames that a Xing, Info or VBRI header declares; None without such a header."""
    at = 4 + _side_info_bytes(frame)
    if frame[at : at + 4] in (b"Xing", b"Info") and len(frame) >= at + 12 and frame[at + 7] & 1:
        return int(struct.unpack(">I", frame[at + 8 : at + 12])[0])
    if frame[36:40] == b"VBRI" and len(frame) >= 54:
        return int(struct.unpack(">I", frame[50:54])[0])
    return None


def _xing_frame(head: bytes, count: int) -> bytes:
    """A silent frame that tells the decoder how many frames follow, so that it need not guess."""
    header = bytes(
        [head[0], head[1] | 1, head[2] & 0x0F | 0x80, head[3]]
    )  # no checksum; a rate with enough room
    frame = _mp3_frame(header)
    assert frame is not None
    at = 4 + _side_info_bytes(header)
    return (header.ljust(at, b"\0") + b"Xing" + struct.pack(">II", 1, count)).ljust(frame[0], b"\0")
