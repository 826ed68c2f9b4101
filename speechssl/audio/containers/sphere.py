"""NIST SPHERE: a header of text lines, then the samples.

Source: the man pages of NIST's SPHERE 2.6. Its first line is the name of the format, the second the
size of the header in bytes, then come lines of name, type and value up to ``end_head``.
"""

from typing import BinaryIO

from speechssl.audio.containers.layout import (
    Layout,
    read_at,
    spans_of,
    too_long,
    too_short,
    unsupported,
)
from speechssl.audio.containers.tags import is_no_audio

SPHERE_MAGIC = b"NIST_1A\n"
_SIZE_LINE_BYTES = 8
_LARGEST_HEADER = 1 << 20

# The order of three or four bytes as the format names it, and as libsndfile reads it.
_BYTE_ORDERS = {"012": "01", "0123": "01", "210": "10", "3210": "10"}


def walk_sphere(raw: BinaryIO, start: int, size: int) -> Layout:
    """Compare the number of samples that the header declares with the file.

    Args:
        start: where the container begins.
        size: where the file ends.
    """
    size_line = read_at(raw, start + len(SPHERE_MAGIC), _SIZE_LINE_BYTES).strip()
    if not size_line.isdigit():
        return Layout()

    header_bytes = int(size_line)
    if header_bytes > _LARGEST_HEADER:
        return Layout()
    if start + header_bytes > size:
        return too_short(start + header_bytes - size)

    header = read_at(raw, start, header_bytes)
    fields = _fields(header)
    coding = fields.get("sample_coding", "pcm")
    _, comma, compression = coding.partition(",")
    if comma:
        return unsupported(f"a SPHERE file whose samples are compressed ({compression})")

    declared = _number(fields, "sample_count")
    channels = _number(fields, "channel_count")
    sample_bytes = _number(fields, "sample_n_bytes")
    if declared is None or channels is None or sample_bytes is None:
        return Layout()

    end = start + header_bytes + declared * channels * sample_bytes
    if end > size:
        return too_short(end - size)
    if not is_no_audio(raw, end, size):
        return too_long(size - end)

    order = fields.get("sample_byte_format", "")
    known_order = _BYTE_ORDERS.get(order)
    if known_order is None:
        is_unknown = sample_bytes > 2 and order not in _BYTE_ORDERS.values()
        if is_unknown:
            return unsupported(f"a SPHERE file whose bytes have the order {order!r}")
        return Layout(spans=spans_of(start, end, size))

    order_at = header.index(order.encode(), header.index(b"sample_byte_format"))
    patch = known_order.ljust(len(order)).encode()
    return Layout(spans=spans_of(start, end, size), patches={start + order_at: patch})


def _fields(header: bytes) -> dict[str, str]:
    """Read the lines of a header, without their types."""
    fields: dict[str, str] = {}
    for line in header.decode("latin-1").split("\n"):
        if line.strip() == "end_head":
            break
        name, _, typed = line.partition(" ")
        _, _, value = typed.partition(" ")
        fields[name] = value.strip()
    return fields


def _number(fields: dict[str, str], name: str) -> int | None:
    """Read a field that holds a number; None where it is missing or holds something else."""
    value = fields.get(name, "")
    is_number = value.isascii() and value.isdigit()
    return int(value) if is_number else None
