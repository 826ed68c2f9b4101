"""The silent frame in front of an MP3 that tells how many frames follow: Xing, Info or VBRI.

Source: the headers as their makers published them.
"""

import struct

from speechssl.audio.containers.mp3_frame import mp3_frame_bytes, side_info_end

# A Xing header as far as it is read: name, flags, number of frames where a flag says so.
_XING = struct.Struct(">4sII")
_XING_HAS_COUNT = 1
# A VBRI header stands here in every frame, and its number of frames here in the header.
_VBRI_AT = 36
_VBRI_COUNT_AT = 14


def counts_frames(head: bytes) -> bool:
    """Whether a frame begins with a header that tells how many follow, as those of a new file."""
    # The two bytes behind the frame's own header may be a checksum.
    xing_offset = side_info_end(head)
    side_info = head[6:xing_offset]
    is_xing = head[xing_offset:].startswith((b"Xing", b"Info")) and not side_info.strip(b"\0")
    return is_xing or is_vbri(head)


def is_vbri(head: bytes) -> bool:
    """Whether a frame begins with the header of Fraunhofer's encoders."""
    return head.startswith(b"VBRI", _VBRI_AT)


def declared_frames(frame: bytes) -> int | None:
    """Read the number of frames from a Xing, Info or VBRI header; None without such a header."""
    xing = frame[side_info_end(frame) :]
    if xing.startswith((b"Xing", b"Info")) and len(xing) >= _XING.size:
        _, flags, count = _XING.unpack_from(xing)
        if flags & _XING_HAS_COUNT:
            return int(count)

    vbri = frame[_VBRI_AT:]
    count_end = _VBRI_COUNT_AT + 4
    if is_vbri(frame) and len(vbri) >= count_end:
        count_bytes = vbri[_VBRI_COUNT_AT:count_end]
        return int.from_bytes(count_bytes, "big")

    return None


def with_count(frame: bytes, count: int) -> bytes:
    """Return a frame with a Xing or Info header that tells another number of frames."""
    count_end = side_info_end(frame) + _XING.size
    return frame[: count_end - 4] + count.to_bytes(4, "big") + frame[count_end:]


def xing_frame(head: bytes, count: int) -> bytes:
    """Make a silent frame that tells the decoder how many frames follow, which it else guesses."""
    # Like the frame of ``head``, but without a checksum, and of a bit rate with enough room.
    sync, version, rate, channels = head[:4]
    no_checksum = version | 1
    roomy = rate & 0x0F | 0x80
    header = bytes([sync, no_checksum, roomy, channels])
    num_bytes = mp3_frame_bytes(header)
    assert num_bytes is not None

    xing_offset = side_info_end(header)
    xing = _XING.pack(b"Xing", _XING_HAS_COUNT, count)
    frame = header.ljust(xing_offset, b"\0") + xing
    return frame.ljust(num_bytes, b"\0")
