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
_ID3_HEADER_BYTES = 10


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
    head = _read_at(raw, start, _HEAD_BYTES)

    if head.startswith(b"fLaC"):
        return _walk_flac(head, start)
    if head.startswith(_OGG_CAPTURE):
        return _walk_ogg(raw, start, size)
    if head.startswith(b".snd"):
        return _walk_au(head, size)

    for magic, chunks in _CHUNKED.items():
        if head.startswith(magic):
            return _walk_chunks(raw, size, chunks)

    if _mp3_frame_bytes(head) is not None:
        return _walk_mp3(raw, start, size)

    return Layout()


def _read_at(raw: BinaryIO, offset: int, count: int) -> bytes:
    """Read up to ``count`` bytes from ``offset`` on."""
    raw.seek(offset)
    return raw.read(count)


def _skip_id3(raw: BinaryIO, size: int) -> int:
    """Return the offset behind the ID3v2 tags at the front of a file."""
    start = 0
    while start < size:
        header = _read_at(raw, start, _ID3_HEADER_BYTES)
        is_whole = len(header) == _ID3_HEADER_BYTES
        if not is_whole or not header.startswith(b"ID3"):
            break

        # The size of a tag, without its header: four bytes of seven bits each.
        size_bytes = header[6:]
        if max(size_bytes) > 127:
            break

        tag_size = 0
        for byte in size_bytes:
            tag_size = tag_size << 7 | byte

        start += _ID3_HEADER_BYTES + tag_size

    # Tags that claim the whole file are not believed.
    return start if start < size else 0


def _too_short(missing: int) -> Layout:
    return Layout("truncated", f"the header declares {missing} more bytes than the file holds")


def _too_long(left: int) -> Layout:
    return Layout("header mismatch", f"{left} bytes follow the samples that the header declares")


# ---- FLAC ----------------------------------------------------------------------------------------

_FLAC_STREAM_INFO = 0  # type of the block that holds the number of samples
_FLAC_TOTAL_AT = 21  # offset of that number's first byte in a file
_FLAC_TOTAL_BYTES = 5
_FLAC_TOTAL_BITS = 0x0F_FFFF_FFFF  # of these bytes the number has the lower 36 bits


def _walk_flac(head: bytes, start: int) -> Layout:
    """Present a total of 0 samples ("unknown"): libFLAC then decodes to the last frame."""
    total_end = _FLAC_TOTAL_AT + _FLAC_TOTAL_BYTES
    if len(head) < total_end:
        return Layout()

    block_type = head[4] & 0x7F
    if block_type != _FLAC_STREAM_INFO:
        return Layout()

    total = _flac_total(head, _FLAC_TOTAL_AT)
    # The upper half of the first byte belongs to the bit depth and stays.
    bit_depth = head[_FLAC_TOTAL_AT] & 0xF0
    unknown_total = bytes([bit_depth, 0, 0, 0, 0])

    patches = {start + _FLAC_TOTAL_AT: unknown_total}
    return Layout(declared=total or None, patches=patches)


def _flac_total(data: bytes, at: int) -> int:
    """Read STREAMINFO's number of samples: the lower half of byte ``at`` and the four after it."""
    field_bytes = data[at : at + _FLAC_TOTAL_BYTES]
    value = int.from_bytes(field_bytes, "big")
    return value & _FLAC_TOTAL_BITS


# ---- RIFF and its relatives: a chain of (identifier, size, bytes) --------------------------------


@dataclass(frozen=True, slots=True)
class _Chunks:
    """How the chunks of one format are written.

    Attributes:
        size_format: ``struct`` format of a chunk's size.
        audio: how the identifier of the samples' chunk begins.
        first: offset of the first chunk.
        id_bytes: length of an identifier.
        size_has_header: whether the size counts the chunk's header, as in Wave64 alone.
        align: chunks begin at multiples of so many bytes.
    """

    size_format: str
    audio: bytes = b"data"
    first: int = 12
    id_bytes: int = 4
    size_has_header: bool = False
    align: int = 2

    @property
    def header_bytes(self) -> int:
        """Length of a chunk's header: its identifier and its size."""
        return self.id_bytes + struct.calcsize(self.size_format)

    def next_multiple(self, position: int) -> int:
        """Return the first place from ``position`` on where a chunk may begin."""
        return position + -position % self.align


_WAVE64 = b"riff\x2e\x91\xcf\x11"
_CHUNKED = {
    b"RIFF": _Chunks("<I"),
    b"RIFX": _Chunks(">I"),
    b"RF64": _Chunks("<I"),
    b"FORM": _Chunks(">I", b"SSND"),
    b"caff": _Chunks(">q", first=8, align=1),
    _WAVE64: _Chunks("<Q", first=40, id_bytes=16, size_has_header=True, align=8),
}
_FILES = frozenset(magic[:4] for magic in _CHUNKED)  # a whole file is no chunk of another
# Sizes that writers leave when they cannot seek back: the samples go on to the end of the file.
_STREAMED_SIZES = frozenset(
    {-1, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF}
)
_SIZE_IS_ELSEWHERE = 0xFFFFFFFF  # in RF64: the true size is in the chunk ds64
_LARGEST_SIZE = 0xFFFFFFFE  # that four bytes hold and that is none of the above
_LONGEST_PADDING = 4096  # bytes of zeros behind the last chunk that are let pass


def _walk_chunks(raw: BinaryIO, size: int, chunks: _Chunks) -> Layout:
    header_bytes = chunks.header_bytes
    position = chunks.first
    long_size = None
    audio_seen = False

    while position + header_bytes <= size:
        identifier, length = _read_chunk_header(raw, position, chunks)
        if identifier == b"ds64":
            long_size = _read_long_size(raw)

        is_audio = not audio_seen and identifier.startswith(chunks.audio)
        if is_audio and length == _SIZE_IS_ELSEWHERE and long_size is not None:
            length = long_size

        body = position + header_bytes
        counted_from = position if chunks.size_has_header else body
        end = counted_from + length

        if is_audio:
            if length in _STREAMED_SIZES:
                return Layout()

            # A size of 0 is believed where more chunks follow; otherwise it was never filled in.
            is_empty = length == 0 and body < size
            if is_empty and not _chain_ends(raw, body, size, chunks):
                true_size = min(size - body, _LARGEST_SIZE)
                size_offset = position + chunks.id_bytes
                patch = struct.pack(chunks.size_format, true_size)
                return Layout(patches={size_offset: patch})

            if end > size:
                return _too_short(end - size)
            audio_seen = True
        else:
            is_inside = body <= end <= size
            is_file = identifier[:4] in _FILES
            if not is_inside or is_file:
                break

        position = chunks.next_multiple(end)

    if audio_seen and not _is_padding(raw, position, size, header_bytes):
        return _too_long(size - position)

    return Layout()


def _read_chunk_header(raw: BinaryIO, position: int, chunks: _Chunks) -> tuple[bytes, int]:
    """Read identifier and size of the chunk at ``position``."""
    header = _read_at(raw, position, chunks.header_bytes)
    identifier = header[: chunks.id_bytes]
    (length,) = struct.unpack_from(chunks.size_format, header, chunks.id_bytes)
    return identifier, length


def _read_long_size(raw: BinaryIO) -> int:
    """Read the size of the samples in RF64: the second of the eight-byte numbers of ds64."""
    numbers = raw.read(16)
    size_bytes = numbers[8:]
    return int.from_bytes(size_bytes, "little")


def _chain_ends(raw: BinaryIO, position: int, size: int, chunks: _Chunks) -> bool:
    """Whether valid chunks lead from ``position`` to the end of the file."""
    header_bytes = chunks.header_bytes
    least = header_bytes if chunks.size_has_header else 0

    while position + header_bytes <= size:
        identifier, length = _read_chunk_header(raw, position, chunks)
        name = identifier[:4]
        is_text = name.isascii() and name.decode("ascii").isprintable()
        if not is_text or length < least:
            return False

        if not chunks.size_has_header:
            position += header_bytes
        position = chunks.next_multiple(position + length)

    return size <= position <= size + chunks.align


def _is_padding(raw: BinaryIO, position: int, size: int, limit: int) -> bool:
    """Whether the bytes from ``position`` mean nothing: too few for a chunk, or zeros."""
    left = size - position
    if left < limit:
        return True
    if left > _LONGEST_PADDING:
        return False

    rest = _read_at(raw, position, _LONGEST_PADDING)
    return not rest.strip(b"\0")


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


_OGG_CAPTURE = b"OggS"  # how every page begins
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


def _walk_ogg(raw: BinaryIO, start: int, size: int) -> Layout:
    position = start
    granule = 0
    flac_total = 0
    ended = False
    next_sequence: dict[int, int] = {}  # of each stream that has begun and not ended

    while position < size:
        head = _read_at(raw, position, _OGG_HEADER.size)
        is_cut_off = len(head) < _OGG_HEADER.size
        if is_cut_off or not head.startswith(_OGG_CAPTURE):
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
        checksum = _ogg_checksum(b"".join((blanked, lacing, body)))
        if checksum != page.checksum:
            return Layout("decode error", f"the Ogg page at byte {position} fails its checksum")

        if page.flags & _FIRST_PAGE:
            if ended:
                advice = "several Ogg streams one after another: decode and save it anew"
                return Layout("chained stream", advice)

            total_end = _OGG_FLAC_TOTAL_AT + _FLAC_TOTAL_BYTES
            if body.startswith(_OGG_FLAC) and len(body) >= total_end:
                flac_total = _flac_total(body, _OGG_FLAC_TOTAL_AT)
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


def _ogg_checksum(page: bytes) -> int:
    """Compute Ogg's CRC-32: zlib's polynomial with the bits in the other order, 0 at both ends."""
    # zlib inverts its value at both ends, which is undone here.
    reflected = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF)
    return _reversed_bits(reflected ^ 0xFFFFFFFF, 32)


# ---- MP3: frames that each tell their own length -------------------------------------------------

_MPEG_1 = 3  # codes of the version in a frame's header; 2 is MPEG 2, 0 is MPEG 2.5
_RESERVED_VERSION = 1
_RESERVED_RATE = 3
_RATES_HZ = (44100, 48000, 32000)  # of MPEG 1
_RATE_HALVINGS = {_MPEG_1: 0, 2: 1, 0: 2}
# Bit rates of Layer III, kbit/s, by their code in the header: of MPEG 1, and of MPEG 2 and 2.5.
_KBIT_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBIT_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_NO_BIT_RATE = (0, 15)  # codes: "free", whose length no table gives, and invalid
# Bytes of side information behind a frame's header, by whether it is of MPEG 1 and mono.
_SIDE_INFO_BYTES = {
    (True, True): 17,
    (True, False): 32,
    (False, True): 9,
    (False, False): 17,
}
# A Xing header as far as it is read: name, flags, number of frames where a flag says so.
_XING = struct.Struct(">4sII")
_XING_HAS_COUNT = 1
# A VBRI header stands here in every frame, and its number of frames here in the header.
_VBRI_AT = 36
_VBRI_COUNT_AT = 14
_TAGS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"ID3", b"3DI")  # what may follow the last frame


def _mp3_frame_bytes(head: bytes) -> int | None:
    """Read the length of the Layer III frame that begins with ``head``; None if none does."""
    if len(head) < 4:
        return None

    first, second, third, _ = head[:4]
    is_layer_3 = first == 0xFF and second & 0xE6 == 0xE2
    if not is_layer_3:
        return None

    version = (second >> 3) & 3
    bit_rate_code = third >> 4
    rate_code = (third >> 2) & 3
    padding = (third >> 1) & 1
    if version == _RESERVED_VERSION or rate_code == _RESERVED_RATE:
        return None
    if bit_rate_code in _NO_BIT_RATE:
        return None

    rate_hz = _RATES_HZ[rate_code] >> _RATE_HALVINGS[version]
    if version == _MPEG_1:
        kbit = _KBIT_1[bit_rate_code]
        samples = 1152
    else:
        kbit = _KBIT_2[bit_rate_code]
        samples = 576

    # Bytes at a bit rate of 1 kbit/s, times the sample rate.
    unit = samples // 8 * 1000
    return unit * kbit // rate_hz + padding


def _walk_mp3(raw: BinaryIO, start: int, size: int) -> Layout:
    first = _read_at(raw, start, 4096)
    frame_bytes = _mp3_frame_bytes(first)
    if frame_bytes is None:
        return Layout()

    first_frame = first[:frame_bytes]
    declared = _declared_mp3_frames(first_frame)

    position = start
    count = 0
    while frame_bytes is not None:
        position += frame_bytes
        count += 1
        if position > size:
            return Layout("truncated", "the last MP3 frame is cut off")

        head = _read_at(raw, position, 4)
        frame_bytes = _mp3_frame_bytes(head)

    rest = _read_at(raw, position, 16)
    is_silent = not rest.strip(b"\0")
    if not is_silent and not rest.startswith(_TAGS):
        left = size - position
        detail = f"no MP3 frame at byte {position}, {left} bytes before the end"
        return Layout("decode error", detail)

    if declared is None:
        xing_frame = _xing_frame(first, count)
        return Layout(start=start, prefix=xing_frame)

    held = count - 1  # the frame with the Xing header holds no sound
    difference = f"the header declares {declared} MP3 frames, the file holds {held}"
    if held < declared:
        return Layout("truncated", difference)
    if held > declared + 1:
        return Layout("header mismatch", difference)

    return Layout()


def _xing_offset(head: bytes) -> int:
    """Return where a frame's Xing header stands: behind its header and its side information."""
    is_mono = head[3] >> 6 == 3
    is_mpeg_1 = (head[1] >> 3) & 3 == _MPEG_1
    return 4 + _SIDE_INFO_BYTES[is_mpeg_1, is_mono]


def _declared_mp3_frames(frame: bytes) -> int | None:
    """Read the number of frames from a Xing, Info or VBRI header; None without such a header."""
    xing = frame[_xing_offset(frame) :]
    if xing.startswith((b"Xing", b"Info")) and len(xing) >= _XING.size:
        _, flags, count = _XING.unpack_from(xing)
        if flags & _XING_HAS_COUNT:
            return int(count)

    vbri = frame[_VBRI_AT:]
    count_end = _VBRI_COUNT_AT + 4
    if vbri.startswith(b"VBRI") and len(vbri) >= count_end:
        count_bytes = vbri[_VBRI_COUNT_AT:count_end]
        return int.from_bytes(count_bytes, "big")

    return None


def _xing_frame(head: bytes, count: int) -> bytes:
    """Make a silent frame that tells the decoder how many frames follow, which it else guesses."""
    # Like the frame of ``head``, but without a checksum, and of a bit rate with enough room.
    sync, version, rate, channels = head[:4]
    no_checksum = version | 1
    roomy = rate & 0x0F | 0x80
    header = bytes([sync, no_checksum, roomy, channels])
    num_bytes = _mp3_frame_bytes(header)
    assert num_bytes is not None

    xing_offset = _xing_offset(header)
    xing = _XING.pack(b"Xing", _XING_HAS_COUNT, count)
    frame = header.ljust(xing_offset, b"\0") + xing
    return frame.ljust(num_bytes, b"\0")
