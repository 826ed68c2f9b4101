"""FLAC: the number of samples that its header declares."""

from speechssl.audio.containers.layout import Layout

_FLAC_STREAM_INFO = 0  # type of the block that holds the number of samples
_FLAC_TOTAL_AT = 21  # offset of that number's first byte in a file
FLAC_TOTAL_BYTES = 5
_FLAC_TOTAL_BITS = 0x0F_FFFF_FFFF  # of these bytes the number has the lower 36 bits


def walk_flac(head: bytes, start: int) -> Layout:
    """Present a total of 0 samples ("unknown"): libFLAC then decodes to the last frame."""
    total_end = _FLAC_TOTAL_AT + FLAC_TOTAL_BYTES
    if len(head) < total_end:
        return Layout()

    block_type = head[4] & 0x7F
    if block_type != _FLAC_STREAM_INFO:
        return Layout()

    total = read_flac_total(head, _FLAC_TOTAL_AT)
    # The upper half of the first byte belongs to the bit depth and stays.
    bit_depth = head[_FLAC_TOTAL_AT] & 0xF0
    unknown_total = bytes([bit_depth, 0, 0, 0, 0])

    patches = {start + _FLAC_TOTAL_AT: unknown_total}
    return Layout(declared=total or None, patches=patches)


def read_flac_total(data: bytes, at: int) -> int:
    """Read STREAMINFO's number of samples: the lower half of byte ``at`` and the four after it."""
    field_bytes = data[at : at + FLAC_TOTAL_BYTES]
    value = int.from_bytes(field_bytes, "big")
    return value & _FLAC_TOTAL_BITS
