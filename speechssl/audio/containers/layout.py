"""What was found in a container, and how the decoder should see the file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

# Reasons for which a file is refused although its sound is whole: a converter can read it.
UNSUPPORTED = "unsupported format"
CHAINED = "chained stream"


@dataclass(frozen=True, slots=True)
class Layout:
    """What was found in a container, and how the decoder should see the file.

    Attributes:
        reason: short code of what is wrong, empty when nothing is.
        detail: one sentence about it.
        note: what of a good file is left out, for people; empty where all of it is heard.
        declared: samples per channel in the header, where the decoder is not to stop there; None
            when unknown.
        is_filled_up: whether what the decoder makes after ``declared`` samples is the rest of a
            block, which nobody recorded.
        spans: (start, end) in bytes of the parts that the decoder should see, in their order; none
            where it sees the whole file.
        prefix: bytes to present before them.
        patches: file offset -> bytes to present in place.
        parts: layouts of recordings of one rate and as many channels that stand one after another,
            each to be decoded by itself; none where there is one.
    """

    reason: str = ""
    detail: str = ""
    note: str = ""
    declared: int | None = None
    is_filled_up: bool = False
    spans: tuple[tuple[int, int], ...] = ()
    prefix: bytes = b""
    patches: Mapping[int, bytes] = field(default_factory=dict)
    parts: "tuple[Layout, ...]" = ()

    @property
    def is_plain(self) -> bool:
        """Whether the decoder should see the bytes of the file as they are."""
        return not (self.spans or self.prefix or self.patches)


def read_at(raw: BinaryIO, offset: int, count: int) -> bytes:
    """Read up to ``count`` bytes from ``offset`` on."""
    raw.seek(offset)
    return raw.read(count)


def spans_of(start: int, end: int, size: int) -> tuple[tuple[int, int], ...]:
    """Return the spans of a container from ``start`` to ``end`` in a file of ``size`` bytes."""
    is_whole = start == 0 and end == size
    return () if is_whole else ((start, end),)


def too_short(missing: int) -> Layout:
    return Layout("truncated", f"the header declares {missing} more bytes than the file holds")


def too_long(left: int) -> Layout:
    return Layout("header mismatch", f"{left} bytes follow the samples that the header declares")


def unsupported(what: str) -> Layout:
    """Refuse a recording that libsndfile does not read.

    Args:
        what: what the file is, for people.
    """
    return Layout(UNSUPPORTED, f"this is {what}, which speechssl does not read")
