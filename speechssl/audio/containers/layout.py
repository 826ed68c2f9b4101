"""What was found in a container, and how the decoder should see the file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO


@dataclass(frozen=True, slots=True)
class Layout:
    """What was found in a container, and how the decoder should see the file.

    Attributes:
        reason: short code of what is wrong, empty when nothing is.
        detail: one sentence about it.
        declared: samples per channel in the header, where the decoder is not to stop there; None
            when unknown.
        start: first byte that the decoder should see.
        prefix: bytes to present before it.
        patches: file offset -> bytes to present in place.
    """

    reason: str = ""
    detail: str = ""
    declared: int | None = None
    start: int = 0
    prefix: bytes = b""
    patches: Mapping[int, bytes] = field(default_factory=dict)


def read_at(raw: BinaryIO, offset: int, count: int) -> bytes:
    """Read up to ``count`` bytes from ``offset`` on."""
    raw.seek(offset)
    return raw.read(count)


def too_short(missing: int) -> Layout:
    return Layout("truncated", f"the header declares {missing} more bytes than the file holds")


def too_long(left: int) -> Layout:
    return Layout("header mismatch", f"{left} bytes follow the samples that the header declares")
