"""The last frame of a FLAC stream: where it ends, which only a walk along its bits tells.

Source: RFC 9639, section 9.
"""

import re
from typing import BinaryIO, NamedTuple

from speechssl.audio.containers.layout import read_at
from speechssl.audio.containers.tags import begins_like, is_no_audio

FLAC_MAGIC = b"fLaC"
_SYNC_BYTE = b"\xff"  # the first of a frame
_SYNC = re.compile(rb"\xff[\xf8\xf9]")
_LONGEST_FRAME = 1 << 20  # bytes, of frames that are looked for
_LONGEST_HEADER = 16
_CHECKSUM_BYTES = 2  # at the end of a frame
_TRIES = 4  # a few headers may be there by chance

# Samples of a frame by their code in its header; 6 and 7 say that one or two bytes tell it.
_BLOCK_SIZES = {1: 192}
_BLOCK_SIZES |= {code: 576 << (code - 2) for code in range(2, 6)}
_BLOCK_SIZES |= {code: 256 << (code - 8) for code in range(8, 16)}
_BLOCK_SIZE_BYTES = {6: 1, 7: 2}
_RATE_BYTES = {12: 1, 13: 2, 14: 2}  # that tell the rate, by its code
_SAMPLE_BITS = {1: 8, 2: 12, 4: 16, 5: 20, 6: 24, 7: 32}  # by their code; 0: as in STREAMINFO
# Of two channels one is told as the difference, which takes one bit more: by the code of channels.
_DIFFERENCES = {8: 1, 9: 0, 10: 1}


class _Frame(NamedTuple):
    """The header of a frame: its length in bytes, and what its bits hold."""

    num_bytes: int
    block_size: int
    channels_code: int
    sample_bits: int


def last_frame_end(raw: BinaryIO, start: int, size: int, sample_bits: int) -> int | None:
    """Find where the last frame of a stream ends, behind which no audio may follow.

    Args:
        start: where the stream begins.
        size: where what may be behind it ends.
        sample_bits: of a sample, where frames do not tell them.

    Returns:
        None where the last frame is damaged or cut off.
    """
    first = max(start, size - _LONGEST_FRAME)
    data = read_at(raw, first, size - first)

    tries = 0
    syncs = [found.start() for found in _SYNC.finditer(data)]
    for at in reversed(syncs):
        header = _read_header(data[at : at + _LONGEST_HEADER], sample_bits)
        if header is None:
            continue

        num_bytes = _frame_bytes(data[at:], header)
        if num_bytes is not None and _may_end(raw, first + at + num_bytes, size):
            return first + at + num_bytes
        tries += 1
        if tries == _TRIES:
            break
    return None


def _may_end(raw: BinaryIO, end: int, size: int) -> bool:
    """Whether no audio follows ``end``: a few bytes may be those of a frame or file cut short."""
    behind = read_at(raw, end, min(len(FLAC_MAGIC), size - end))
    is_cut_off = behind.startswith(_SYNC_BYTE) or begins_like(behind, FLAC_MAGIC)
    return not is_cut_off and is_no_audio(raw, end, size)


def _read_header(head: bytes, sample_bits: int) -> _Frame | None:
    """Read the header of the frame that begins with ``head``; None if none does."""
    # The shortest frame has ten bytes.
    if len(head) < 10:
        return None

    # A number as in UTF-8: the ones before the first zero tell how many bytes it has.
    num_ones = 8 - (~head[4] & 0xFF).bit_length()
    block_code, rate_code = head[2] >> 4, head[2] & 0x0F
    told_at = 4 + max(1, num_ones)
    told_end = told_at + _BLOCK_SIZE_BYTES.get(block_code, 0)
    end = told_end + _RATE_BYTES.get(rate_code, 0) + 1
    if end > len(head) or _checksum(head[:end], _CRC_8, bits=8):
        return None

    told = int.from_bytes(head[told_at:told_end], "big") + 1
    block_size = _BLOCK_SIZES.get(block_code, told)
    sample_bits = _SAMPLE_BITS.get(head[3] >> 1 & 7, sample_bits)
    return _Frame(end, block_size, head[3] >> 4, sample_bits)


def _frame_bytes(data: bytes, header: _Frame) -> int | None:
    """Return the length of the whole frame that begins with ``data``; None if it is not whole."""
    bits = _Bits(data)
    bits.skip(8 * header.num_bytes)
    difference = _DIFFERENCES.get(header.channels_code)
    num_channels = 2 if difference is not None else header.channels_code + 1

    try:
        for channel in range(num_channels):
            is_difference = channel == difference
            _skip_channel(bits, header.block_size, header.sample_bits + is_difference)
    except ValueError:
        return None

    num_bytes = -(-bits.position // 8) + _CHECKSUM_BYTES
    is_whole = num_bytes <= len(data)
    # The checksum of a frame with the checksum at its end is 0.
    is_right = is_whole and _checksum(data[:num_bytes], _CRC_16, bits=16) == 0
    return num_bytes if is_right else None


class _Bits:
    """The bits of some bytes, from the highest of the first to the lowest of the last.

    Reading behind the end raises ``ValueError``.
    """

    def __init__(self, data: bytes) -> None:
        # A one in front keeps zeros at the beginning.
        self._digits = f"{int.from_bytes(b'1' + data, 'big'):b}"[-8 * len(data) :]
        self.position = 0

    def read(self, count: int) -> int:
        """Read a number of ``count`` bits."""
        digits = self._digits[self.position : self.position + count]
        self.position += count
        return int(digits, 2)

    def read_zeros(self) -> int:
        """Read zeros up to the next one, and return how many they are."""
        one = self._digits.index("1", self.position)
        num_zeros = one - self.position
        self.position = one + 1
        return num_zeros

    def skip(self, count: int) -> None:
        self.position += count

    def skip_rice(self, count: int, num_low_bits: int) -> None:
        """Skip Rice codes: zeros, a one, and so many bits."""
        position = self.position
        for _ in range(count):
            position = self._digits.index("1", position) + 1 + num_low_bits
        self.position = position


def _skip_channel(bits: _Bits, block_size: int, sample_bits: int) -> None:
    """Skip the subframe of a channel.

    Raises:
        ValueError: these bits are none.
    """
    bits.skip(1)
    kind = bits.read(6)
    has_unused_bits = bits.read(1)
    if has_unused_bits:
        sample_bits -= bits.read_zeros() + 1

    if kind == 0:  # one value for all samples
        bits.skip(sample_bits)
    elif kind == 1:  # samples as they are
        bits.skip(block_size * sample_bits)
    elif 8 <= kind <= 12:  # a fixed predictor
        order = kind - 8
        bits.skip(order * sample_bits)
        _skip_residual(bits, block_size, order)
    elif kind >= 32:  # a predictor whose weights are told
        order = kind - 31
        bits.skip(order * sample_bits)
        weight_bits = bits.read(4) + 1
        bits.skip(5 + order * weight_bits)
        _skip_residual(bits, block_size, order)
    else:
        raise ValueError("a reserved kind of subframe")


def _skip_residual(bits: _Bits, block_size: int, order: int) -> None:
    """Skip what a predictor of an order left over."""
    parameter_bits = 4 + bits.read(2)
    num_partitions = 1 << bits.read(4)
    is_not_coded = (1 << parameter_bits) - 1

    for partition in range(num_partitions):
        count = block_size // num_partitions - (0 if partition else order)
        parameter = bits.read(parameter_bits)
        if parameter == is_not_coded:
            bits.skip(count * bits.read(5))
        else:
            bits.skip_rice(count, parameter)


def _checksum(data: bytes, table: tuple[int, ...], bits: int) -> int:
    register = 0
    for byte in data:
        high = register >> (bits - 8)
        register = (register << 8) & ((1 << bits) - 1) ^ table[high ^ byte]
    return register


def _table(polynomial: int, bits: int) -> tuple[int, ...]:
    """Compute what each byte makes of a checksum of so many bits."""
    entries: list[int] = []
    for byte in range(256):
        register = byte << (bits - 8)
        for _ in range(8):
            is_set = register >> (bits - 1)
            register = (register << 1) & ((1 << bits) - 1)
            register ^= polynomial if is_set else 0
        entries.append(register)
    return tuple(entries)


_CRC_8 = _table(0x07, 8)
_CRC_16 = _table(0x8005, 16)
