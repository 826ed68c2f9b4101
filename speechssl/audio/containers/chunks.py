"""A chain of chunks (identifier, size, bytes): what all relatives of RIFF consist of."""

import struct
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

from speechssl.audio.containers.layout import read_at


@dataclass(frozen=True, slots=True)
class ChunkFormat:
    """How the chunks of one format are written.

    Attributes:
        size_format: ``struct`` format of a chunk's size.
        audio: how the identifier of the samples' chunk may begin.
        needed: other chunks without which the samples mean nothing.
        first: offset of the first chunk.
        id_bytes: length of an identifier.
        size_has_header: whether the size counts the chunk's header, as in Wave64 alone.
        align: the body of a chunk is padded to a multiple of so many bytes.
    """

    size_format: str
    audio: tuple[bytes, ...] = (b"data",)
    needed: tuple[bytes, ...] = (b"fmt ", b"fact")
    first: int = 12
    id_bytes: int = 4
    size_has_header: bool = False
    align: int = 2

    @property
    def header_bytes(self) -> int:
        """Length of a chunk's header: its identifier and its size."""
        return self.id_bytes + struct.calcsize(self.size_format)

    @property
    def has_short_sizes(self) -> bool:
        """Whether a size has four bytes, which end at 4 GiB."""
        return struct.calcsize(self.size_format) == 4


_WAVE64 = b"riff\x2e\x91\xcf\x11"
CHUNK_FORMATS = {
    b"RIFF": ChunkFormat("<I"),
    b"RIFX": ChunkFormat(">I"),
    b"RF64": ChunkFormat("<I"),
    b"BW64": ChunkFormat("<I"),
    b"FORM": ChunkFormat(">I", (b"SSND", b"BODY"), (b"COMM", b"FVER", b"VHDR")),
    b"caff": ChunkFormat(">q", first=8, align=1),
    _WAVE64: ChunkFormat("<Q", first=40, id_bytes=16, size_has_header=True, align=8),
}
_FILES = frozenset(magic[:4] for magic in CHUNK_FORMATS)  # a whole file is no chunk of another

# Sizes that writers leave when they cannot seek back: the samples go on to the end of the file.
STREAMED_SIZES = frozenset(
    {
        -1,
        0x7FFF0000,  # GStreamer
        0x7FFFF000,  # SoX
        0x7FFFFF00,  # arecord
        0x7FFFFFFF,
        0x80000000,
        0xFFFFFFFF,
        2**63 - 1,
        2**64 - 1,
    }
)
# SoX leaves this in AIFF, rounded down to whole samples of all channels.
_STREAMED_AIFF_SIZE = 0x7F000008
_LARGEST_SAMPLE_BYTES = 1024
LARGEST_SIZE = 0xFFFFFFFE  # that four bytes hold and that is none of the above
LONG_FORMS = (b"RF64", b"BW64")  # RIFF with sizes of eight bytes in a chunk ds64
_SIZE_IS_ELSEWHERE = 0xFFFFFFFF  # in RF64: the true size is in the chunk ds64
_LONG_SIZE_AT = 8  # where it stands there, behind the size of the whole file
_LONGEST_NEEDED = 1 << 16  # bytes of a chunk that is needed; true ones have less than a hundred


class Chunk(NamedTuple):
    """A chunk: where its header and its body begin, where it ends, and its size as declared."""

    identifier: bytes
    position: int
    body: int
    end: int
    declared: int

    @property
    def length(self) -> int:
        return self.end - self.body


@dataclass(slots=True)
class Chain:
    """What a walk along the chunks of a file found.

    Attributes:
        position: where the next chunk would begin.
        end: where the last chunk ends, without the padding that may follow.
        audio: the chunk of the samples, to where its header says.
        is_parted: whether a second chunk of samples follows.
        is_open: whether that header knows nothing: the samples go on to the end of the file.
        needed: chunks that the decoder needs besides the samples.
        is_misaligned: whether a chunk of an odd length was not padded.
        long_size_at: where an eight-byte size of the samples stands.
    """

    position: int
    end: int
    audio: Chunk | None = None
    is_parted: bool = False
    is_open: bool = False
    needed: list[Chunk] = field(default_factory=list)
    is_misaligned: bool = False
    long_size_at: int | None = None


def follow_chunks(raw: BinaryIO, start: int, size: int, form: ChunkFormat) -> Chain:
    """Walk along the chunks, to the first bytes that are none."""
    first = start + form.first
    chain = Chain(position=first, end=first)

    while chain.position + form.header_bytes <= size:
        chunk = _read_chunk(raw, chain.position, form)
        if chunk.identifier == b"ds64":
            chain.long_size_at = chunk.body + _LONG_SIZE_AT

        if chain.audio is None and chunk.identifier.startswith(form.audio):
            if chunk.declared == _SIZE_IS_ELSEWHERE and chain.long_size_at is not None:
                size_bytes = read_at(raw, chain.long_size_at, 8)
                length = int.from_bytes(size_bytes, "little")
                chunk = chunk._replace(end=chunk.body + length, declared=length)

            chain.audio = chunk
            chain.is_open = _is_open(raw, chunk, start, size, form)
            if chain.is_open or chunk.end > size:
                break
        else:
            is_inside = chunk.body <= chunk.end <= size
            is_file = chunk.identifier[:4] in _FILES
            if is_inside and chunk.identifier.startswith(form.audio):
                chain.is_parted = True
            is_behind = chain.audio is not None  # where anything may stand
            if not is_inside or is_file or (is_behind and not _is_text(chunk)):
                break

        # The longer identifiers of Wave64 begin with the same names.
        if chunk.identifier[:4] in form.needed and chunk.length <= _LONGEST_NEEDED:
            chain.needed.append(chunk)

        chain.end = chunk.end
        padded = chunk.end + padding_of(chunk.length, form)
        chain.position = padded

        # Some writers forget the byte that makes a length even.
        is_odd = form.align == 2 and padded > chunk.end
        if is_odd and not _is_chunk(raw, padded, size, form):
            is_unpadded = _is_chunk(raw, chunk.end, size, form)
            if is_unpadded:
                chain.is_misaligned = True
                chain.position = chunk.end

    return chain


def _read_chunk(raw: BinaryIO, position: int, form: ChunkFormat) -> Chunk:
    """Read the header of the chunk at ``position``."""
    header = read_at(raw, position, form.header_bytes)
    identifier = header[: form.id_bytes]
    (length,) = struct.unpack_from(form.size_format, header, form.id_bytes)

    body = position + form.header_bytes
    counted_from = position if form.size_has_header else body
    return Chunk(identifier, position, body, counted_from + length, length)


def _is_chunk(raw: BinaryIO, position: int, size: int, form: ChunkFormat) -> bool:
    """Whether a chunk with a name in letters begins at ``position`` and fits into the file."""
    if position + form.header_bytes > size:
        return False

    chunk = _read_chunk(raw, position, form)
    is_inside = chunk.body <= chunk.end <= size
    is_audio = chunk.identifier.startswith(form.audio)  # its size may be unknown
    return _is_text(chunk) and (is_inside or is_audio)


def _is_text(chunk: Chunk) -> bool:
    """Whether the name of a chunk is written in letters, as all are."""
    name = chunk.identifier[:4]
    return name.isascii() and name.decode("ascii").isprintable()


def _is_open(raw: BinaryIO, audio: Chunk, start: int, size: int, form: ChunkFormat) -> bool:
    """Whether the samples go on to the end of the file, whatever their size says."""
    # A size of 0 is believed where more chunks follow; otherwise it was never filled in.
    if audio.declared == 0:
        return audio.body < size and not _chain_ends(raw, audio.body, size, form)

    # Some writers count from a size of the whole file that they do not know either.
    header_bytes = audio.body - start
    sizes = {audio.declared, audio.declared + header_bytes, audio.declared + header_bytes - 8}
    is_streamed_aiff = 0 <= _STREAMED_AIFF_SIZE - audio.declared < _LARGEST_SAMPLE_BYTES
    if not (sizes & STREAMED_SIZES or is_streamed_aiff):
        return False

    # A file may be as long as that by chance.
    is_inside = audio.body <= audio.end <= size
    behind = audio.end + padding_of(audio.length, form)
    return not (is_inside and _chain_ends(raw, behind, size, form))


def _chain_ends(raw: BinaryIO, position: int, size: int, form: ChunkFormat) -> bool:
    """Whether valid chunks lead from ``position`` to the end of the file."""
    while position + form.header_bytes <= size:
        if not _is_chunk(raw, position, size, form):
            return False
        chunk = _read_chunk(raw, position, form)
        position = chunk.end + padding_of(chunk.length, form)

    return size <= position <= size + form.align


def padding_of(length: int, form: ChunkFormat) -> int:
    """Return how many bytes should follow the body of a chunk."""
    return -length % form.align
