"""Where the frames of an MP3 begin, and how long those of a free bit rate are.

The header of a frame of free bit rate does not tell its length. All such frames of a recording have
one length, apart from a padding, so it is the distance to the next header of the same kind.
"""

from typing import BinaryIO

from speechssl.audio.containers.layout import read_at
from speechssl.audio.containers.mp3_frame import (
    LONGEST_FRAME,
    FrameHeader,
    mp3_frame_bytes,
    padding_bytes,
    read_header,
)

# So many frames on end are no coincidence.
_SURE_FRAMES = 4


def find_mp3(raw: BinaryIO, start: int, size: int) -> int | None:
    """Find the first whole frame of an MP3, which may begin inside a frame.

    Returns:
        its offset; None where several frames do not follow one another from there.
    """
    # A text in UTF-16 begins like layer I, so other layers are not believed at once. Neither is a
    # free bit rate, which a single header does not show to be one.
    header = read_header(read_at(raw, start, 4))
    if header is not None and header.layer == 3 and not header.is_free:
        return start

    head = read_at(raw, start, LONGEST_FRAME + 1)
    at = head.find(b"\xff")
    while at >= 0:
        free_bytes = free_frame_bytes(raw, start + at, size)
        if are_frames(raw, start + at, size, free_bytes):
            return start + at
        at = head.find(b"\xff", at + 1)
    return None


def are_frames(
    raw: BinaryIO, position: int, size: int, free_bytes: int | None, count: int = _SURE_FRAMES
) -> bool:
    """Whether ``count`` frames of one kind follow one another from ``position`` on.

    Args:
        free_bytes: as ``mp3_frame_bytes`` takes it.
    """
    first = read_header(read_at(raw, position, 4))
    for _ in range(count):
        head = read_at(raw, position, 4)
        frame_bytes = mp3_frame_bytes(head, free_bytes)
        if frame_bytes is None or read_header(head) != first:
            return False
        position += frame_bytes
    return position <= size


def free_frame_bytes(raw: BinaryIO, position: int, size: int) -> int | None:
    """Find the length of the frames of a free bit rate that begin at ``position``.

    Returns:
        bytes, without padding; None where several such frames do not follow one another.
    """
    first: FrameHeader | None = read_header(read_at(raw, position, 4))
    if first is None or not first.is_free:
        return None

    data = read_at(raw, position, LONGEST_FRAME + 4)
    at = data.find(b"\xff", 4)
    while at >= 0:
        free_bytes = at - padding_bytes(data)
        is_like_first = read_header(data[at : at + 4]) == first
        if is_like_first and are_frames(raw, position, size, free_bytes):
            return free_bytes
        at = data.find(b"\xff", at + 1)
    return None
