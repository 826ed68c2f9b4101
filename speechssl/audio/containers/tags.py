"""Tags with titles and pictures, which stand before, between or behind the audio of any container.

Sources: the definitions of ID3v1, ID3v2.4 (id3.org), APEv2 (wiki.hydrogenaud.io) and Lyrics3.
"""

import re
import struct
from typing import BinaryIO

from speechssl.audio.containers.layout import read_at

_ID3V2_HEADER_BYTES = 10
_ID3V2_HAS_FOOTER = 0x10
_ID3V1_BYTES = 128
_ID3V1_YEAR = slice(93, 97)
_ID3V1_LONGER_BYTES = 227  # "TAG+": longer titles, in front of the tag that everyone knows

# Both ends of an APE tag: name, version, size without the header, number of items, flags.
_APE_NAME = b"APETAGEX"
_APE = struct.Struct("<8sIIII8x")
_APE_HAS_HEADER = 1 << 31
_APE_IS_HEADER = 1 << 29

_LYRICS_BEGIN = b"LYRICSBEGIN"
_LYRICS_ENDS = (b"LYRICSEND", b"LYRICS200")
_LYRICS_END_BYTES = 9
_LYRICS_SIZE_BYTES = 6  # in front of the end, in version 2
_MOST_LYRICS = 1_000_015  # six digits, their own place and the end

_TAG_BEGIN = re.compile(rb"TAG|APETAGEX|LYRICSBEGIN|ID3")
_LONGEST_TAIL = 8192  # bytes, of tags and padding behind samples whose end nothing tells

_PADDING = b"\0\r\n"  # zeros, and the ends of lines that a transfer as text leaves
_LONGEST_PADDING = 4096  # bytes of it that are let pass
_FEW_BYTES = 7  # of any kind that are let pass: less than the header of a chunk, and no audio


def skip_tags(raw: BinaryIO, position: int, size: int) -> int:
    """Return the offset behind all tags that follow one another from ``position`` on."""
    while True:
        length = _tag_bytes(raw, position, size)
        # Tags that claim more than the file holds are not believed.
        if not length or position + length > size:
            return position
        position += length


def tags_start(raw: BinaryIO, least: int, size: int) -> int:
    """Return where the tags at the end of a file begin, which a little padding may follow.

    Args:
        least: where they may begin at the earliest.
        size: where the file ends, which is also what is returned without tags.
    """
    end = _last_tags_start(raw, least, size)

    first = max(least, end - _LONGEST_TAIL)
    tail = read_at(raw, first, end - first)
    for found in _TAG_BEGIN.finditer(tail):
        start = first + found.start()
        is_tag = skip_tags(raw, start, size) > start
        if is_tag and is_no_audio(raw, start, size):
            return start
    return end


def _last_tags_start(raw: BinaryIO, least: int, size: int) -> int:
    """Return where the tags begin of which the last ends at ``size``; ``size`` without any."""
    end = size
    while True:
        length = _last_tag_bytes(raw, end)
        if not length or end - length < least:
            return end
        end -= length


def is_no_audio(raw: BinaryIO, position: int, size: int) -> bool:
    """Whether the bytes from ``position`` to the end are tags, padding and a few others alone."""
    padding_left = _LONGEST_PADDING
    while position < size:
        behind = skip_tags(raw, position, size)
        if behind > position:
            position = behind
            continue

        rest = read_at(raw, position, min(padding_left, size - position))
        num_padding = len(rest) - len(rest.lstrip(_PADDING))
        if not num_padding:
            break
        position += num_padding
        padding_left -= num_padding

    num_unknown = _last_tags_start(raw, position, size) - position
    return num_unknown <= _FEW_BYTES


def begins_like(head: bytes, magic: bytes) -> bool:
    """Whether bytes at the end of a file are the beginning of a magic number that was cut off."""
    return bool(head) and magic.startswith(head[: len(magic)])


def _tag_bytes(raw: BinaryIO, position: int, size: int) -> int:
    """Return the length of the tag that begins at ``position``; 0 where none does."""
    head = read_at(raw, position, _APE.size)

    if head.startswith(b"ID3") and len(head) >= _ID3V2_HEADER_BYTES:
        body = _seven_bits_each(head[6:10])
        if body is None:
            return 0
        has_footer = head[5] & _ID3V2_HAS_FOOTER
        num_ends = 2 if has_footer else 1
        return num_ends * _ID3V2_HEADER_BYTES + body

    if head.startswith(_APE_NAME) and len(head) == _APE.size:
        _, _, length, _, flags = _APE.unpack(head)
        return _APE.size + length if flags & _APE_IS_HEADER else 0

    if head.startswith(_LYRICS_BEGIN):
        lyrics = read_at(raw, position, _MOST_LYRICS)
        ends = [lyrics.find(name) for name in _LYRICS_ENDS]
        found = [end for end in ends if end >= 0]
        return min(found) + _LYRICS_END_BYTES if found else 0

    if head.startswith(b"TAG+"):
        return _ID3V1_LONGER_BYTES
    if head.startswith(b"TAG"):
        tag = read_at(raw, position, _ID3V1_BYTES)
        return _ID3V1_BYTES if _is_id3v1(tag) else 0

    return 0


def _last_tag_bytes(raw: BinaryIO, end: int) -> int:
    """Return the length of the tag that ends at ``end``; 0 where none does."""
    tail = _read_before(raw, end, _ID3V1_LONGER_BYTES)

    if _is_id3v1(tail[-_ID3V1_BYTES:]):
        return _ID3V1_BYTES
    if tail.startswith(b"TAG+"):
        return _ID3V1_LONGER_BYTES

    footer = tail[-_APE.size :]
    if footer.startswith(_APE_NAME):
        _, _, length, _, flags = _APE.unpack(footer)
        has_header = flags & _APE_HAS_HEADER
        return int(length) + (_APE.size if has_header else 0)

    if tail.endswith(_LYRICS_ENDS):
        return _last_lyrics_bytes(raw, end, tail)

    footer = tail[-_ID3V2_HEADER_BYTES:]
    if footer.startswith(b"3DI"):
        body = _seven_bits_each(footer[6:])
        return 0 if body is None else 2 * _ID3V2_HEADER_BYTES + body

    return 0


def _last_lyrics_bytes(raw: BinaryIO, end: int, tail: bytes) -> int:
    """Return the length of the Lyrics3 tag that ends at ``end``, whose last bytes are ``tail``."""
    digits = tail[-_LYRICS_END_BYTES - _LYRICS_SIZE_BYTES : -_LYRICS_END_BYTES]
    if tail.endswith(b"LYRICS200") and digits.isdigit():
        return int(digits) + _LYRICS_SIZE_BYTES + _LYRICS_END_BYTES

    # Version 1 does not tell its length.
    before = _read_before(raw, end, _MOST_LYRICS)
    begin = before.rfind(_LYRICS_BEGIN)
    return len(before) - begin if begin >= 0 else 0


def _is_id3v1(tag: bytes) -> bool:
    """Whether 128 bytes are an ID3v1 tag, and not samples that happen to begin like one."""
    if len(tag) < _ID3V1_BYTES or not tag.startswith(b"TAG"):
        return False
    year = tag[_ID3V1_YEAR].strip(b"\0 ")
    return not year or year.isdigit()


def _seven_bits_each(size_bytes: bytes) -> int | None:
    """Read a number of ID3v2, whose bytes have seven bits each; None if one has more."""
    if max(size_bytes) > 127:
        return None

    number = 0
    for byte in size_bytes:
        number = number << 7 | byte
    return number


def _read_before(raw: BinaryIO, end: int, count: int) -> bytes:
    """Read up to ``count`` bytes that stand before ``end``."""
    start = max(0, end - count)
    return read_at(raw, start, end - start)
