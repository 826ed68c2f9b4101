"""Opens text files that people give: UTF-8, with a byte order mark or without, maybe compressed."""

import bz2
import codecs
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from speechssl.errors import ConfigError, SpeechsslError
from speechssl.storage.missing import where_instead

# Editors and spreadsheet programs put it at the beginning of a file, and it is no character of the
# text. Where files were joined, it stands at the beginning of lines too.
BYTE_ORDER_MARK = "\ufeff"

# UTF-8, from whose beginning a byte order mark is taken off.
TEXT_ENCODING = "utf-8-sig"

# How files with these endings are opened as text; others are text themselves.
_COMPRESSED: dict[str, Callable[..., TextIO]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}

# Bytes of a file by which binary data is known: a recording has zeros among its first ones.
_LOOKED_AT = 4096

_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@contextmanager
def open_text(
    path: Path,
    kind: str = "text",
    newline: str = "\n",
    error_class: type[SpeechsslError] = ConfigError,
) -> Iterator[TextIO]:
    """Open a UTF-8 text for reading; one that ends in .gz, .bz2 or .xz is decompressed.

    A byte order mark at the beginning is not part of the text.

    Args:
        kind: what the file should be, for messages.
        newline: as for ``open``. By default only a newline ends a line: other marks of line ends
            could stand within a word.
        error_class: of the error.

    Raises:
        SpeechsslError: of ``error_class``; the file cannot be read, now or within the ``with``
            block.
    """
    problem = f"{path} cannot be read as {kind}"

    try:
        opener = _COMPRESSED.get(path.suffix.lower(), open)
        if is_binary_data(path):
            raise error_class(f"{problem}: it is no text but binary data, as recordings are")
        with opener(path, "rt", encoding=TEXT_ENCODING, newline=newline) as file:
            yield file
    except OSError as error:
        # Errors of decompression have no number.
        why = error.strerror or error
        raise error_class(f"{problem}: {why}{where_instead(path)}") from error
    except UnicodeDecodeError as error:
        raise error_class(f"{problem}: {_why_not_utf8(error)}") from error
    except (EOFError, lzma.LZMAError, zlib.error) as error:
        raise error_class(f"{problem}: {error}") from error


def is_binary_data(path: Path) -> bool:
    """Whether a file holds something else than text; a recording of silence is valid UTF-8 too."""
    # What is no regular file, such as a pipe, can be read once only.
    if not path.is_file() or path.suffix.lower() in _COMPRESSED:
        return False

    with path.open("rb") as file:
        beginning = file.read(_LOOKED_AT)
    return b"\0" in beginning and not beginning.startswith(_UTF16_MARKS)


def read_text(
    path: Path, kind: str = "text", error_class: type[SpeechsslError] = ConfigError
) -> str:
    """Read a whole text as ``open_text`` opens it.

    Raises:
        SpeechsslError: of ``error_class``; the file cannot be read.
    """
    with open_text(path, kind, error_class=error_class) as file:
        return file.read()


def _why_not_utf8(error: UnicodeDecodeError) -> str:
    is_utf16 = error.start == 0 and error.object.startswith(_UTF16_MARKS)
    encoding = "UTF-16" if is_utf16 else "another encoding"
    return f"it is not UTF-8 but {encoding}: save it as UTF-8 ({error})"
