"""MP3, and layers I and II of the same MPEG audio: a walk along the frames of a file."""

from dataclasses import dataclass, field, replace
from typing import BinaryIO

from speechssl.audio.containers.layout import Layout, read_at, unsupported
from speechssl.audio.containers.mp3_frame import (
    LONGEST_FRAME,
    FrameHeader,
    mp3_frame_bytes,
    needs_frames_before,
    read_header,
)
from speechssl.audio.containers.mp3_length import (
    counts_frames,
    declared_frames,
    is_vbri,
    with_count,
    xing_frame,
)
from speechssl.audio.containers.mp3_sync import are_frames, find_mp3, free_frame_bytes
from speechssl.audio.containers.tags import is_no_audio, skip_tags

_HEAD_BYTES = 64  # of a frame, to the end of a Xing header's name or a VBRI header's

# A tag of ID3v2.4 that holds padding alone, shown to the decoder in front of each MP3. Without one,
# libsndfile first looks for the other half of a Mac's file in the folder that the command runs in,
# and takes a folder .AppleDouble for it.
_TAG = b"ID3\4\0\0\0\0\0\x0a" + bytes(10)


def walk_mp3(raw: BinaryIO, start: int, size: int) -> Layout:
    """Count the frames, and leave out what stands between them.

    A header that tells the length of its file ends the decoding there, and it may tell how much the
    encoder put around the sound. So MP3s that were joined become parts where one with such a header
    begins or ends. They do so too where frames of a free bit rate begin or end, as the decoder
    believes that all of them have the length of the first.

    Args:
        start: where the first whole frame, or the rest of a frame before it, begins.
        size: where the file ends.
    """
    first_frame = find_mp3(raw, start, size)
    if first_frame is None:
        return Layout()

    kind = read_header(read_at(raw, first_frame, 4))
    assert kind is not None

    parts: list[Layout] = []
    place: int | None = first_frame
    while place is not None:
        walk = _follow(raw, place, size, kind)
        if walk.refusal is not None:
            return walk.refusal

        left_out = 0 if parts else first_frame - start
        first = _frame_at(raw, place, size)
        part = _checked(first, place, walk, kind, left_out)
        if part.reason:
            return part

        shown = replace(part, prefix=_TAG + part.prefix)
        parts.append(shown)
        place = walk.next_file

    if len(parts) > 1:
        return Layout(parts=tuple(parts))

    (alone,) = parts
    return alone


def _checked(first: bytes, place: int, walk: "_Walk", header: FrameHeader, before: int) -> Layout:
    """Compare what one MP3 tells of its length with its frames; without a length, give it one.

    Args:
        first: its first frame, which begins at ``place`` in the file.
        walk: along its frames, which are all of the kind that ``header`` tells.
        before: bytes in front of its first frame that are left out.
    """
    declared = declared_frames(first)
    spans = tuple(walk.spans)

    if declared is None:
        note = _note(before, walk.cut_off)
        if header.layer < 3:
            num_samples = walk.num_frames * header.num_samples
            return Layout(note=note, spans=spans, declared=num_samples)
        told = xing_frame(first, walk.num_frames)
        return Layout(note=note, spans=spans, prefix=told)

    if walk.cut_off:
        return Layout("truncated", "the last MP3 frame is cut off")

    held = walk.num_frames - 1  # the frame with the Xing header holds no sound
    difference = f"the header declares {declared} MP3 frames, the file holds {held}"
    is_told = declared > 0  # 0 is of an encoder that could not go back to its header
    if is_told and held < declared:
        return Layout("truncated", difference)
    if is_told and held > declared + 1:
        return Layout("header mismatch", difference)

    if is_vbri(first):
        # The decoder would take this header for sound, and guess the length.
        header_end = place + len(first)
        sound = ((header_end, spans[0][1]), *spans[1:])
        return Layout(spans=sound, prefix=xing_frame(first, held))
    if held != declared:
        # The decoder would leave out what is not declared.
        return Layout(spans=spans, patches={place: with_count(first, held)})
    return Layout(spans=spans)


def _frame_at(raw: BinaryIO, position: int, size: int) -> bytes:
    """Read the first frame of an MP3, which begins at ``position``."""
    free_bytes = free_frame_bytes(raw, position, size)
    data = read_at(raw, position, LONGEST_FRAME)
    return data[: mp3_frame_bytes(data, free_bytes)]


@dataclass(slots=True)
class _Walk:
    """What a walk along the frames of an MP3 found.

    Attributes:
        spans: (start, end) of frames that follow one another.
        num_frames: in all of them.
        cut_off: bytes of a frame that the file does not hold to its end.
        next_file: where another MP3 begins, to be decoded by itself; None at the end.
        refusal: why the file cannot be used.
    """

    spans: list[tuple[int, int]] = field(default_factory=list)
    num_frames: int = 0
    cut_off: int = 0
    next_file: int | None = None
    refusal: Layout | None = None


def _follow(raw: BinaryIO, first_frame: int, size: int, kind: FrameHeader) -> _Walk:
    """Walk along all frames of one MP3, over the tags that may stand between them."""
    walk = _Walk()
    declared = declared_frames(_frame_at(raw, first_frame, size))
    free_bytes = free_frame_bytes(raw, first_frame, size)
    position = first_frame
    span_start = first_frame

    while position < size:
        head = read_at(raw, position, _HEAD_BYTES)
        header = read_header(head)

        if header is not None and _changes_length(raw, position, size, header, free_bytes):
            walk.refusal = _change(kind, header, position)
            walk.next_file = position
            break

        frame_bytes = mp3_frame_bytes(head, free_bytes)
        if header is not None and frame_bytes is not None:
            walk.refusal = _change(kind, header, position)
            if walk.refusal is not None:
                return walk

            # The frame with the header is one more than it declares.
            is_complete = declared and walk.num_frames > declared
            is_next = counts_frames(head) or (is_complete and _begins_anew(raw, position, size))
            if walk.num_frames and is_next:
                walk.next_file = position
                break

            if position + frame_bytes > size:
                walk.cut_off = size - position
                break
            position += frame_bytes
            walk.num_frames += 1
            continue

        is_header_cut_off = size - position < 4 and head.startswith(b"\xff")
        if is_header_cut_off:
            walk.cut_off = size - position
            break

        behind = skip_tags(raw, position, size)
        if behind in (position, size):
            break
        walk.spans.append((span_start, position))
        position = behind
        span_start = behind

    walk.spans.append((span_start, position))
    is_end = not walk.cut_off and walk.next_file is None
    if is_end and not is_no_audio(raw, position, size):
        left = size - position
        detail = f"no MP3 frame at byte {position}, {left} bytes before the end"
        walk.refusal = Layout("decode error", detail)
    return walk


def _begins_anew(raw: BinaryIO, position: int, size: int) -> bool:
    """Whether an MP3 without a header that tells its length begins behind one that has all frames.

    A single frame more than is declared belongs to the one before.
    """
    if needs_frames_before(read_at(raw, position, _HEAD_BYTES)):
        return False
    free_bytes = free_frame_bytes(raw, position, size)
    return are_frames(raw, position, size, free_bytes, count=2)


def _changes_length(
    raw: BinaryIO, position: int, size: int, header: FrameHeader, free_bytes: int | None
) -> bool:
    """Whether frames of another free length begin, or frames whose length the header tells.

    Args:
        header: of the frame at ``position``.
        free_bytes: the length of the frames before, where their bit rate is free.
    """
    if not header.is_free:
        return free_bytes is not None

    is_as_before = are_frames(raw, position, size, free_bytes, count=2)
    if is_as_before:
        return False

    length_now = free_frame_bytes(raw, position, size)
    return length_now not in (None, free_bytes)


def _change(first: FrameHeader, now: FrameHeader, position: int) -> Layout | None:
    """Refuse a frame of another kind than the first, where libsndfile stops; None where it is."""
    if now == first._replace(is_free=now.is_free):
        return None

    if now.rate_hz != first.rate_hz:
        change = f"its rate from {first.rate_hz} to {now.rate_hz} Hz"
    elif now.is_mono != first.is_mono:
        change = "between mono and stereo"
    else:
        change = "its layer"
    return unsupported(f"an MP3 that changes {change} at byte {position}")


def _note(before: int, behind: int) -> str:
    """Say what is left out of an MP3 that begins or ends inside a frame."""
    left_out = []
    if before:
        left_out.append(f"{before} bytes before the first whole MP3 frame")
    if behind:
        left_out.append(f"{behind} bytes of the last MP3 frame, which is cut off")

    parts = " and ".join(left_out)
    return f"{parts} are left out" if parts else ""
