"""RIFF and its relatives: a chain of (identifier, size, bytes)."""

import struct
from dataclasses import dataclass
from typing import BinaryIO

from speechssl.audio.containers.layout import Layout, read_at, too_long, too_short


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
CHUNKED = {
    b"RIFF": _Chunks("<I"),
    b"RIFX": _Chunks(">I"),
    b"RF64": _Chunks("<I"),
    b"FORM": _Chunks(">I", b"SSND"),
    b"caff": _Chunks(">q", first=8, align=1),
    _WAVE64: _Chunks("<Q", first=40, id_bytes=16, size_has_header=True, align=8),
}
_FILES = frozenset(magic[:4] for magic in CHUNKED)  # a whole file is no chunk of another
# Sizes that writers leave when they cannot seek back: the samples go on to the end of the file.
STREAMED_SIZES = frozenset({-1, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF})
_SIZE_IS_ELSEWHERE = 0xFFFFFFFF  # in RF64: the true size is in the chunk ds64
_LARGEST_SIZE = 0xFFFFFFFE  # that four bytes hold and that is none of the above
_LONGEST_PADDING = 4096  # bytes of zeros behind the last chunk that are let pass


def walk_chunks(raw: BinaryIO, size: int, chunks: _Chunks) -> Layout:
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
            if length in STREAMED_SIZES:
                return Layout()

            # A size of 0 is believed where more chunks follow; otherwise it was never filled in.
            is_empty = length == 0 and body < size
            if is_empty and not _chain_ends(raw, body, size, chunks):
                true_size = min(size - body, _LARGEST_SIZE)
                size_offset = position + chunks.id_bytes
                patch = struct.pack(chunks.size_format, true_size)
                return Layout(patches={size_offset: patch})

            if end > size:
                return too_short(end - size)
            audio_seen = True
        else:
            is_inside = body <= end <= size
            is_file = identifier[:4] in _FILES
            if not is_inside or is_file:
                break

        position = chunks.next_multiple(end)

    if audio_seen and not _is_padding(raw, position, size, header_bytes):
        return too_long(size - position)

    return Layout()


def _read_chunk_header(raw: BinaryIO, position: int, chunks: _Chunks) -> tuple[bytes, int]:
    """Read identifier and size of the chunk at ``position``."""
    header = read_at(raw, position, chunks.header_bytes)
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

    rest = read_at(raw, position, _LONGEST_PADDING)
    return not rest.strip(b"\0")
