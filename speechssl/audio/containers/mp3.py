"""MP3, and layers I and II of the same MPEG audio: frames that each tell their own length.

Source: ISO 11172-3 and ISO 13818-3; the Xing and VBRI headers as their makers published them.
"""

import struct
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

from speechssl.audio.containers.layout import Layout, read_at, unsupported
from speechssl.audio.containers.tags import is_no_audio, skip_tags

_MPEG_1 = 3  # codes of the version in a frame's header; 2 is MPEG 2, 0 is MPEG 2.5
_RESERVED_VERSION = 1
_RESERVED_LAYER = 4
_RESERVED_RATE = 3
_RATES_HZ = (44100, 48000, 32000)  # of MPEG 1
_RATE_HALVINGS = {_MPEG_1: 0, 2: 1, 0: 2}
# Bit rates, kbit/s, by their code in the header: of MPEG 1 by layer, and of MPEG 2 and 2.5.
_KBIT_1 = {
    1: tuple(range(0, 480, 32)),
    2: (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
_KBIT_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_KBIT_2_LAYER_1 = (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256)
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
# A frame is at most so long: layer II, 384 kbit/s at 32 kHz, and a byte of padding.
_LONGEST_FRAME = 1729
# So many frames on end are no coincidence.
_SURE_FRAMES = 4
_HEAD_BYTES = 64  # of a frame, to the end of a Xing header's name or a VBRI header's


class _Header(NamedTuple):
    """What the header of a frame says of its sound. All frames of a recording have it in common."""

    layer: int
    version: int
    rate_hz: int
    is_mono: bool

    @property
    def num_samples(self) -> int:
        """Samples per channel of a frame."""
        if self.layer == 1:
            return 384
        is_half = self.layer == 3 and self.version != _MPEG_1
        return 576 if is_half else 1152


def _read_header(head: bytes) -> _Header | None:
    """Read the header of the frame that begins with ``head``; None if none does."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None

    version = (head[1] >> 3) & 3
    layer = 4 - ((head[1] >> 1) & 3)
    rate_code = (head[2] >> 2) & 3
    if version == _RESERVED_VERSION or layer == _RESERVED_LAYER or rate_code == _RESERVED_RATE:
        return None
    if head[2] >> 4 in _NO_BIT_RATE:
        return None

    rate_hz = _RATES_HZ[rate_code] >> _RATE_HALVINGS[version]
    is_mono = head[3] >> 6 == 3
    return _Header(layer, version, rate_hz, is_mono)


def mp3_frame_bytes(head: bytes) -> int | None:
    """Read the length of the frame that begins with ``head``; None if none does."""
    header = _read_header(head)
    if header is None:
        return None

    bit_rate_code = head[2] >> 4
    padding = (head[2] >> 1) & 1
    kbit = _kbit(header)[bit_rate_code]

    # In layer I a frame is counted in slots of four bytes.
    slot_bytes = 4 if header.layer == 1 else 1
    slots_per_kbit = header.num_samples * 1000 // (8 * slot_bytes)
    num_slots = slots_per_kbit * kbit // header.rate_hz + padding
    return num_slots * slot_bytes


def _kbit(header: _Header) -> tuple[int, ...]:
    """Return the bit rates of a kind of frame by their codes, kbit/s."""
    if header.version == _MPEG_1:
        return _KBIT_1[header.layer]
    return _KBIT_2_LAYER_1 if header.layer == 1 else _KBIT_2


def find_mp3(raw: BinaryIO, start: int, size: int) -> int | None:
    """Find the first whole frame of an MP3, which may begin inside a frame.

    Returns:
        its offset; None where several frames do not follow one another from there.
    """
    # A text in UTF-16 begins like layer I, so other layers are not believed at once.
    header = _read_header(read_at(raw, start, 4))
    if header is not None and header.layer == 3:
        return start

    head = read_at(raw, start, _LONGEST_FRAME + 1)
    at = head.find(b"\xff")
    while at >= 0:
        if _are_frames(raw, start + at, size):
            return start + at
        at = head.find(b"\xff", at + 1)
    return None


def _are_frames(raw: BinaryIO, position: int, size: int) -> bool:
    """Whether several frames of one kind follow one another from ``position`` on."""
    first = _read_header(read_at(raw, position, 4))
    for _ in range(_SURE_FRAMES):
        head = read_at(raw, position, 4)
        frame_bytes = mp3_frame_bytes(head)
        if frame_bytes is None or _read_header(head) != first:
            return False
        position += frame_bytes
    return position <= size


def walk_mp3(raw: BinaryIO, start: int, size: int) -> Layout:
    """Count the frames, and leave out what stands between them.

    A header that tells the length of its file ends the decoding there, and it may tell how much the
    encoder put around the sound. So MP3s that were joined with such headers become parts.

    Args:
        start: where the first whole frame, or the rest of a frame before it, begins.
        size: where the file ends.
    """
    first_frame = find_mp3(raw, start, size)
    if first_frame is None:
        return Layout()

    kind = _read_header(read_at(raw, first_frame, 4))
    assert kind is not None

    parts: list[Layout] = []
    place: int | None = first_frame
    while place is not None:
        walk = _follow(raw, place, size, kind)
        if walk.refusal is not None:
            return walk.refusal

        left_out = 0 if parts else first_frame - start
        part = _checked(raw, place, walk, kind, left_out)
        if part.reason:
            return part

        parts.append(part)
        place = walk.next_file

    if len(parts) > 1:
        return Layout(parts=tuple(parts))

    # The decoder knows the tags in front, and not all of those that may stand elsewhere.
    (alone,) = parts
    tells_length = not alone.prefix and alone.declared is None
    is_whole = tells_length and alone.spans == ((first_frame, size),)
    return Layout() if is_whole else alone


def _checked(
    raw: BinaryIO, first_frame: int, walk: "_Walk", header: _Header, before: int
) -> Layout:
    """Compare what one MP3 tells of its length with its frames; without a length, give it one.

    Args:
        walk: along its frames, which are all of the kind that ``header`` tells.
        before: bytes in front of its first frame that are left out.
    """
    first = read_at(raw, first_frame, _LONGEST_FRAME)
    first_bytes = mp3_frame_bytes(first)
    assert first_bytes is not None
    declared = _declared_mp3_frames(first[:first_bytes])
    spans = tuple(walk.spans)

    if declared is None:
        note = _note(before, walk.cut_off)
        if header.layer < 3:
            num_samples = walk.num_frames * header.num_samples
            return Layout(note=note, spans=spans, declared=num_samples)
        xing_frame = _xing_frame(first, walk.num_frames)
        return Layout(note=note, spans=spans, prefix=xing_frame)

    if walk.cut_off:
        return Layout("truncated", "the last MP3 frame is cut off")

    held = walk.num_frames - 1  # the frame with the Xing header holds no sound
    difference = f"the header declares {declared} MP3 frames, the file holds {held}"
    if held < declared:
        return Layout("truncated", difference)
    if held > declared + 1:
        return Layout("header mismatch", difference)

    if _is_vbri(first):
        # The decoder would take this header for sound, and guess the length.
        header_end = first_frame + first_bytes
        sound = ((header_end, spans[0][1]), *spans[1:])
        return Layout(spans=sound, prefix=_xing_frame(first, held))
    return Layout(spans=spans)


@dataclass(slots=True)
class _Walk:
    """What a walk along the frames of an MP3 found.

    Attributes:
        spans: (start, end) of frames that follow one another.
        num_frames: in all of them.
        cut_off: bytes of a frame that the file does not hold to its end.
        next_file: where another MP3 begins, with a header that tells its length; None at the end.
        refusal: why the file cannot be used.
    """

    spans: list[tuple[int, int]] = field(default_factory=list)
    num_frames: int = 0
    cut_off: int = 0
    next_file: int | None = None
    refusal: Layout | None = None


def _follow(raw: BinaryIO, first_frame: int, size: int, kind: _Header) -> _Walk:
    """Walk along all frames of one MP3, over the tags that may stand between them."""
    walk = _Walk()
    position = first_frame
    span_start = first_frame

    while position < size:
        head = read_at(raw, position, _HEAD_BYTES)
        header = _read_header(head)
        frame_bytes = mp3_frame_bytes(head)

        if header is not None and frame_bytes is not None:
            walk.refusal = _change(kind, header, position)
            if walk.refusal is not None:
                return walk

            if walk.num_frames and _counts_frames(head):
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


def _change(first: _Header, now: _Header, position: int) -> Layout | None:
    """Refuse a frame of another kind than the first, where libsndfile stops; None where it is."""
    if now == first:
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


def _counts_frames(head: bytes) -> bool:
    """Whether a frame begins with a header that tells how many follow, as those of a new file."""
    xing_offset = _xing_offset(head)
    side_info = head[4:xing_offset]
    is_xing = head[xing_offset:].startswith((b"Xing", b"Info")) and not side_info.strip(b"\0")
    return is_xing or _is_vbri(head)


def _is_vbri(head: bytes) -> bool:
    """Whether a frame begins with the header of Fraunhofer's encoders."""
    return head.startswith(b"VBRI", _VBRI_AT)


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
    if _is_vbri(frame) and len(vbri) >= count_end:
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
    num_bytes = mp3_frame_bytes(header)
    assert num_bytes is not None

    xing_offset = _xing_offset(header)
    xing = _XING.pack(b"Xing", _XING_HAS_COUNT, count)
    frame = header.ljust(xing_offset, b"\0") + xing
    return frame.ljust(num_bytes, b"\0")
