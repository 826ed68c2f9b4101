"""Opens files that are compressed with gzip, bzip2 or xz as if they were not."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

# How files are opened that have such a suffix, or begin so: a download may have lost its suffix.
_OPENERS: tuple[tuple[str, bytes, Callable[..., Any]], ...] = (
    (".gz", b"\x1f\x8b", gzip.open),
    (".bz2", b"BZh", bz2.open),
    (".xz", b"\xfd7zXZ\0", lzma.open),
)
_MAGIC_BYTES = 6
COMPRESSED_SUFFIXES = tuple(suffix for suffix, _, _ in _OPENERS)

# What these libraries raise on damaged data.
DAMAGED = (EOFError, lzma.LZMAError, zlib.error)


def opener_of(path: Path) -> Callable[..., Any]:
    """Return the function that opens a file: ``open`` where it is not compressed.

    Raises:
        OSError: it cannot be read.
    """
    # What is no regular file, such as a pipe, can be read once only.
    if not path.is_file():
        return open

    with path.open("rb") as file:
        beginning = file.read(_MAGIC_BYTES)
    for suffix, magic, opener in _OPENERS:
        if path.suffix.lower() == suffix or beginning.startswith(magic):
            return opener
    return open


def first_bytes(path: Path, count: int) -> bytes:
    """Read the first bytes of a regular file, decompressed; as they are where it is damaged.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with opener_of(path)(path, "rb") as file:
            head: bytes = file.read(count)
            return head
    # Of damaged data some of these libraries raise an OSError too.
    except (OSError, *DAMAGED):
        with path.open("rb") as file:
            return file.read(count)
