"""RIFF and its relatives: the size of the samples against the file, and what can be repaired."""

import struct
from dataclasses import replace
from typing import BinaryIO

from speechssl.audio.containers.chunks import (
    LARGEST_SIZE,
    LONG_FORMS,
    Chain,
    Chunk,
    ChunkFormat,
    follow_chunks,
    padding_of,
)
from speechssl.audio.containers.layout import (
    Layout,
    read_at,
    spans_of,
    too_long,
    too_short,
    unsupported,
)
from speechssl.audio.containers.mp3 import walk_mp3
from speechssl.audio.containers.mp3_sync import find_mp3
from speechssl.audio.containers.tags import is_no_audio, tags_start

# Codings in the chunk "fmt ", and where the true one stands if the first says that it is elsewhere.
_MPEG_AUDIO = (0x50, 0x55)
_READ = (1, 2, 3, 6, 7, 0x11, 0x31, 0x38, 0x40)  # by libsndfile, besides MPEG audio
_NAMES = {
    0x22: "TrueSpeech",
    0x42: "G.723.1",
    0x45: "G.726",
    0x64: "G.726",
    0x83: "G.729",
    0xFF: "AAC",
    0x160: "Windows Media",
    0x161: "Windows Media",
    0x162: "Windows Media",
    0x163: "Windows Media",
    0x1600: "AAC (ADTS)",
    0x2000: "AC-3",
    0x674F: "Vorbis",
    0xA106: "AAC",
    0xA109: "Speex",
    0xF1AC: "FLAC",
}
# Codings in blocks: Microsoft's and IMA's ADPCM and GSM say how many samples a block has. One of
# G.721 has 128, and one of NMS 160.
_GSM = 0x31
_SAYS_BLOCK = (2, 0x11, _GSM)
_SAMPLES_OF_BLOCK = {0x38: 160, 0x40: 128}
_SAMPLES_OF_BLOCK_AT = 18
_BLOCK_BYTES_AT = 12
_CODING_IS_ELSEWHERE = 0xFFFE
_TRUE_CODING_AT = 24


def walk_chunks(raw: BinaryIO, start: int, size: int, form: ChunkFormat) -> Layout:
    """Compare the size of the samples with the file, and repair what can be repaired.

    Args:
        start: where the container begins.
        size: where the file ends.
    """
    chain = follow_chunks(raw, start, size, form)
    audio = chain.audio
    if audio is None:
        return Layout()

    if chain.is_parted:
        return unsupported("a file whose samples are parted into two chunks")

    end = audio.end
    if chain.is_open:
        end = tags_start(raw, audio.body, size)
        chain.position = end
    if end > size:
        return too_short(end - size)

    left = size - chain.position
    may_be_chunk = left >= form.header_bytes
    if may_be_chunk and not _ends_in_tags(raw, chain, size):
        return too_long(left)

    coding = _coding(raw, form, chain)
    if coding in _MPEG_AUDIO:
        return _mpeg(raw, audio.body, end)
    if coding is not None and coding not in _READ:
        name = _NAMES.get(coding, f"coding {coding:#x}")
        return unsupported(f"{name} in WAV")

    layout = _presented(raw, start, size, form, chain, audio._replace(end=end))
    num_samples = _recorded(raw, form, chain, coding, end - audio.body)
    if num_samples is not None:
        layout = replace(layout, declared=num_samples, is_filled_up=True)

    is_wave64 = form.size_has_header
    if is_wave64 and coding is not None:
        return _with_coding(raw, layout, form, chain, coding)
    return layout


def _mpeg(raw: BinaryIO, start: int, end: int) -> Layout:
    """Take an MP3 out of its WAV file: libsndfile believes what the latter says of its length."""
    if find_mp3(raw, start, end) is None:
        return Layout("decode error", "the WAV file is said to hold MP3, and holds no frame of it")

    return walk_mp3(raw, start, end)


def _ends_in_tags(raw: BinaryIO, chain: Chain, size: int) -> bool:
    """Whether tags and padding alone follow the last chunk, which may not be padded itself."""
    ends = {chain.position, chain.end}
    return any(is_no_audio(raw, end, size) for end in ends)


def _coding(raw: BinaryIO, form: ChunkFormat, chain: Chain) -> int | None:
    """Read how the samples of a WAV file are coded; None in other formats."""
    chunk = _chunk_of(chain, b"fmt ")
    number = struct.Struct(form.size_format[0] + "H")
    if chunk is None or chunk.length < number.size:
        return None

    fields = read_at(raw, chunk.body, chunk.length)
    (coding,) = number.unpack_from(fields)
    has_true_coding = chunk.length >= _TRUE_CODING_AT + number.size
    if coding == _CODING_IS_ELSEWHERE and has_true_coding:
        (coding,) = number.unpack_from(fields, _TRUE_CODING_AT)
    return int(coding)


def _with_coding(
    raw: BinaryIO, layout: Layout, form: ChunkFormat, chain: Chain, coding: int
) -> Layout:
    """Put the true coding of Wave64 where libsndfile looks for it.

    Where it is elsewhere, libsndfile takes all samples for integers, and hears noise.
    """
    chunk = _chunk_of(chain, b"fmt ")
    assert chunk is not None

    coding_bytes = struct.pack(form.size_format[0] + "H", coding)
    if read_at(raw, chunk.body, 2) == coding_bytes:
        return layout
    return replace(layout, patches={**layout.patches, chunk.body: coding_bytes})


def _recorded(
    raw: BinaryIO, form: ChunkFormat, chain: Chain, coding: int | None, num_bytes: int
) -> int | None:
    """Tell how many samples per channel were recorded, where the decoder makes more of them.

    The last block of these codings is filled up, and libsndfile decodes that with the rest: a step
    after an offset, or silence. What the chunk "fact" says is believed where it ends in one of the
    last two blocks. Of GSM libsndfile decodes a byte of padding too, as another block.

    Args:
        num_bytes: of all samples.
    """
    about = _chunk_of(chain, b"fmt ")
    if about is None or coding is None:
        return None

    short = struct.Struct(form.size_format[0] + "H")
    fields = read_at(raw, about.body, about.length)
    block_bytes = _number_at(fields, _BLOCK_BYTES_AT, short)
    samples_of_block = _SAMPLES_OF_BLOCK.get(coding)
    if coding in _SAYS_BLOCK:
        samples_of_block = _number_at(fields, _SAMPLES_OF_BLOCK_AT, short)
    if not block_bytes or not samples_of_block:
        return None

    most = -(-num_bytes // block_bytes) * samples_of_block
    fact = _chunk_of(chain, b"fact")
    if fact is not None:
        number = struct.Struct(form.size_format)
        counted = _number_at(read_at(raw, fact.body, number.size), 0, number) or 0
        if max(0, most - 2 * samples_of_block) < counted <= most:
            return counted
    return most if coding == _GSM else None


def _number_at(fields: bytes, offset: int, number: struct.Struct) -> int | None:
    """Read a number of a chunk; None where it ends before."""
    if len(fields) < offset + number.size:
        return None
    return int(number.unpack_from(fields, offset)[0])


def _chunk_of(chain: Chain, name: bytes) -> Chunk | None:
    """Return the first chunk that the samples need and that begins with a name."""
    for chunk in chain.needed:
        if chunk.identifier.startswith(name):
            return chunk
    return None


def _presented(
    raw: BinaryIO, start: int, size: int, form: ChunkFormat, chain: Chain, audio: Chunk
) -> Layout:
    """Return how the decoder should see a file whose samples end where ``audio`` ends."""
    magic = read_at(raw, start, 4)

    # libsndfile does not know BW64, and of RF64 it reads few codings and few other chunks.
    is_odd = chain.is_open or chain.is_misaligned or magic in LONG_FORMS
    if is_odd and form.has_short_sizes:
        if not chain.needed:
            return Layout()
        if audio.length > LARGEST_SIZE and magic not in (b"RIFF", *LONG_FORMS):
            return unsupported(f"a file of {audio.length} bytes, more than its header can declare")
        prefix = _new_header(raw, start, form, chain, audio)
        return Layout(prefix=prefix, spans=((audio.body, audio.end),))

    patches: dict[int, bytes] = {}
    if chain.is_open:
        counted_from = audio.position if form.size_has_header else audio.body
        length = struct.pack(form.size_format, audio.end - counted_from)
        patches[audio.position + form.id_bytes] = length

    # libsndfile takes what follows the samples of Wave64 for samples.
    end = audio.end if form.size_has_header else min(chain.position, size)
    return Layout(patches=patches, spans=spans_of(start, end, size))


def _new_header(raw: BinaryIO, start: int, form: ChunkFormat, chain: Chain, audio: Chunk) -> bytes:
    """Write all that should stand before the samples, as RF64 where their size is too large."""
    magic = read_at(raw, start, 4)
    file_type = read_at(raw, start + 8, form.first - 8)

    chunks = b""
    for chunk in chain.needed:
        chunk_bytes = read_at(raw, chunk.position, chunk.end - chunk.position)
        padding = padding_of(len(chunk_bytes), form)
        chunks += chunk_bytes + bytes(padding)

    if audio.length <= LARGEST_SIZE:
        short_magic = b"RIFF" if magic in LONG_FORMS else magic
        length = struct.pack(form.size_format, audio.length)
        rest = file_type + chunks + audio.identifier + length
        total = min(len(rest) + audio.length, LARGEST_SIZE)
        return short_magic + struct.pack(form.size_format, total) + rest

    # Sizes of the file and of the samples, the number of samples, which may be unknown, and no
    # further sizes.
    numbers = struct.pack("<QQQI", audio.end - start, audio.length, 0, 0)
    long_sizes = b"ds64" + struct.pack("<I", len(numbers)) + numbers
    elsewhere = b"\xff\xff\xff\xff"
    return b"RF64" + elsewhere + file_type + long_sizes + chunks + audio.identifier + elsewhere
