"""MP3: frames that each tell their own length."""

import struct
from typing import BinaryIO

from speechssl.audio.containers.layout import Layout, read_at

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


def mp3_frame_bytes(head: bytes) -> int | None:
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


def walk_mp3(raw: BinaryIO, start: int, size: int) -> Layout:
    first = read_at(raw, start, 4096)
    frame_bytes = mp3_frame_bytes(first)
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

        head = read_at(raw, position, 4)
        frame_bytes = mp3_frame_bytes(head)

    rest = read_at(raw, position, 16)
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
    num_bytes = mp3_frame_bytes(header)
    assert num_bytes is not None

    xing_offset = _xing_offset(header)
    xing = _XING.pack(b"Xing", _XING_HAS_COUNT, count)
    frame = header.ljust(xing_offset, b"\0") + xing
    return frame.ljust(num_bytes, b"\0")
