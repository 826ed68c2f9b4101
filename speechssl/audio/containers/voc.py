"""VOC of Sound Blaster: a header, then blocks of (type, size in three bytes, bytes).

Source: the description of the format in SoX's voc.c. libsndfile reads one block of sound, and takes
the headers of others for sound or refuses them. A block holds 16 MB at most, so longer recordings
have several.
"""

from dataclasses import dataclass, field
from typing import BinaryIO

from speechssl.audio.containers.layout import Layout, read_at, too_long, too_short, unsupported
from speechssl.audio.containers.tags import is_no_audio

VOC_MAGIC = b"Creative Voice File\x1a"
_OFFSET_AT = 20  # of the place of the first block
_BLOCK_HEADER_BYTES = 4
_MOST_BLOCK_BYTES = (1 << 24) - 1

# Types of blocks. The terminator has no size.
_TERMINATOR = 0
_CONTINUATION = 2
_EXTENSION = 8  # tells the coding of the block behind it
_LAST_TYPE = 9
# What stands in a block of sound in front of its samples: rate, coding and channels.
_SOUND_HEADER_BYTES = {1: 2, 9: 12}
# Silence of a length that it tells, and what is between two others so many times.
_SILENCE_OR_REPETITION = (3, 6, 7)


@dataclass(slots=True)
class _Sound:
    """The blocks of sound that were found.

    Attributes:
        header: what tells the coding of the first one.
        begin: where the first one begins, or what tells its coding before it.
        size_at: where the size of the first one stands in the file.
        spans: (start, end) of the samples of each.
    """

    header: bytes = b""
    begin: int | None = None
    size_at: int = 0
    spans: list[tuple[int, int]] = field(default_factory=list)


def walk_voc(raw: BinaryIO, start: int, size: int) -> Layout:
    """Follow the blocks to the end of the file, which is at ``size``, and join those of sound."""
    offset_bytes = read_at(raw, start + _OFFSET_AT, 2)
    first_block = start + int.from_bytes(offset_bytes, "little")
    position = first_block
    sound = _Sound()

    while position < size:
        header = read_at(raw, position, _BLOCK_HEADER_BYTES)
        if header[0] == _TERMINATOR:
            position += 1
            break
        is_no_block = header[0] > _LAST_TYPE and is_no_audio(raw, position, size)
        if is_no_block:
            break

        end = position + _BLOCK_HEADER_BYTES + int.from_bytes(header[1:], "little")
        refusal = _take_block(raw, position, end, sound)
        if refusal is not None:
            return refusal
        position = end

    # The terminator is not always there.
    if position > size:
        return too_short(position - size)
    if not is_no_audio(raw, position, size):
        return too_long(size - position)

    if sound.begin is None or not sound.spans:
        return Layout()
    return _joined(sound, (start, first_block), position, size)


def _take_block(raw: BinaryIO, position: int, end: int, sound: _Sound) -> Layout | None:
    """Take note of a block of sound; refuse what cannot be joined to those before it."""
    block_type = read_at(raw, position, 1)[0]
    begin = position + _BLOCK_HEADER_BYTES

    if block_type in _SILENCE_OR_REPETITION:
        return unsupported("a VOC file with blocks of silence or of repetition")
    if block_type == _CONTINUATION and sound.spans:
        sound.spans.append((begin, end))
        return None
    if block_type == _EXTENSION:
        if sound.spans:
            return _changed(position)
        sound.begin = position
    if block_type not in _SOUND_HEADER_BYTES:
        return None

    header_bytes = _SOUND_HEADER_BYTES[block_type]
    header = read_at(raw, begin, header_bytes)
    if not sound.spans:
        sound.header = header
        sound.begin = position if sound.begin is None else sound.begin
        sound.size_at = position + 1
    elif header != sound.header:
        return _changed(position)

    sound.spans.append((begin + header_bytes, end))
    return None


def _changed(position: int) -> Layout:
    return unsupported(f"a VOC file that may change its rate or its coding at byte {position}")


def _joined(sound: _Sound, head: tuple[int, int], end: int, size: int) -> Layout:
    """Present all sound as one block, with the last byte of the blocks as the terminator.

    Args:
        head: (start, end) of what stands before the blocks.
        end: of the terminator, or of the last block without one.
        size: where the file ends.
    """
    assert sound.begin is not None

    (_, first_end), *others = sound.spans
    is_alone = sound.begin == head[1] and first_end == end - 1
    is_whole_file = head[0] == 0 and end == size
    if is_alone and is_whole_file:
        return Layout()

    num_bytes = len(sound.header) + sum(end - begin for begin, end in sound.spans)
    # Of one that is too long for its three bytes, the decoder reads to the end all the same.
    size_bytes = min(num_bytes, _MOST_BLOCK_BYTES).to_bytes(3, "little")
    return Layout(
        spans=(head, (sound.begin, first_end), *others, (end - 1, end)),
        patches={sound.size_at: size_bytes},
    )
