"""The header of a frame of MPEG audio, layers I to III: the kind of its sound, and its length.

Source: ISO 11172-3 and ISO 13818-3.
"""

from typing import NamedTuple

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
_FREE_BIT_RATE = 0  # a code: no table gives the length of the frame
_NO_BIT_RATE = 15
# Bytes of side information behind a frame's header, by whether it is of MPEG 1 and mono.
_SIDE_INFO_BYTES = {
    (True, True): 17,
    (True, False): 32,
    (False, True): 9,
    (False, False): 17,
}
# The decoder finds no longer frames of a free bit rate. Others have at most 1729 bytes: layer II,
# 384 kbit/s at 32 kHz, and a byte of padding.
LONGEST_FRAME = 3460


class FrameHeader(NamedTuple):
    """What the header of a frame says of its sound. All frames of a recording have it in common.

    Attributes:
        is_free: whether the header leaves the bit rate open, and with it the length of the frame.
    """

    layer: int
    version: int
    rate_hz: int
    is_mono: bool
    is_free: bool

    @property
    def num_samples(self) -> int:
        """Samples per channel of a frame."""
        if self.layer == 1:
            return 384
        is_half = self.layer == 3 and self.version != _MPEG_1
        return 576 if is_half else 1152


def read_header(head: bytes) -> FrameHeader | None:
    """Read the header of the frame that begins with ``head``; None if none does."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None

    version = (head[1] >> 3) & 3
    layer = 4 - ((head[1] >> 1) & 3)
    rate_code = (head[2] >> 2) & 3
    if version == _RESERVED_VERSION or layer == _RESERVED_LAYER or rate_code == _RESERVED_RATE:
        return None
    bit_rate_code = head[2] >> 4
    if bit_rate_code == _NO_BIT_RATE:
        return None

    rate_hz = _RATES_HZ[rate_code] >> _RATE_HALVINGS[version]
    is_mono = head[3] >> 6 == 3
    is_free = bit_rate_code == _FREE_BIT_RATE
    return FrameHeader(layer, version, rate_hz, is_mono, is_free)


def mp3_frame_bytes(head: bytes, free_bytes: int | None = None) -> int | None:
    """Read the length of the frame that begins with ``head``; None if none does.

    Args:
        free_bytes: length of a frame of free bit rate without its padding; None where such frames
            count as none.
    """
    header = read_header(head)
    if header is None:
        return None

    if header.is_free:
        return None if free_bytes is None else free_bytes + padding_bytes(head)

    bit_rate_code = head[2] >> 4
    kbit = _kbit(header)[bit_rate_code]
    slot_bytes = _slot_bytes(header.layer)
    slots_per_kbit = header.num_samples * 1000 // (8 * slot_bytes)
    num_slots = slots_per_kbit * kbit // header.rate_hz
    return num_slots * slot_bytes + padding_bytes(head)


def padding_bytes(head: bytes) -> int:
    """Return how many bytes the frame that begins with ``head`` has beyond the usual ones."""
    layer = 4 - ((head[1] >> 1) & 3)
    padding = (head[2] >> 1) & 1
    return padding * _slot_bytes(layer)


def _slot_bytes(layer: int) -> int:
    """Return the unit in which the length of a frame is counted, bytes."""
    return 4 if layer == 1 else 1


def side_info_end(head: bytes) -> int:
    """Return where the side information ends of a frame of layer III that has no checksum."""
    is_mono = head[3] >> 6 == 3
    is_mpeg_1 = (head[1] >> 3) & 3 == _MPEG_1
    return 4 + _SIDE_INFO_BYTES[is_mpeg_1, is_mono]


def needs_frames_before(head: bytes) -> bool:
    """Whether a frame of layer III keeps some of its sound in the room that frames before it left.

    The first frame of a recording never does.
    """
    has_checksum = not head[1] & 1
    side_info = head[6:] if has_checksum else head[4:]
    is_mpeg_1 = (head[1] >> 3) & 3 == _MPEG_1

    # How many bytes before the frame its sound begins: nine bits of MPEG 1, eight of MPEG 2.
    num_bits = 9 if is_mpeg_1 else 8
    first_bits = int.from_bytes(side_info[:2], "big")
    return first_bits >> (16 - num_bits) > 0


def _kbit(header: FrameHeader) -> tuple[int, ...]:
    """Return the bit rates of a kind of frame by their codes, kbit/s."""
    if header.version == _MPEG_1:
        return _KBIT_1[header.layer]
    return _KBIT_2_LAYER_1 if header.layer == 1 else _KBIT_2
