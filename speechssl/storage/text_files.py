"""Opens text files that people give: UTF-8, with a byte order mark or without, maybe compressed."""

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from speechssl.errors import ConfigError, SpeechsslError
from speechssl.storage.compression import DAMAGED, first_bytes, opener_of
from speechssl.storage.file_kinds import HEAD_BYTES
from speechssl.storage.wrong_paths import kind_of_path, what_instead

# Editors and spreadsheet programs put it at the beginning of a file, and it is no character of the
# text. Where files were joined, it stands at the beginning of lines too.
BYTE_ORDER_MARK = "\ufeff"

# UTF-8, from whose beginning a byte order mark is taken off.
TEXT_ENCODING = "utf-8-sig"

_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@contextmanager
def open_text(
    path: Path,
    kind: str = "text",
    newline: str = "\n",
    error_class: type[SpeechsslError] = ConfigError,
) -> Iterator[TextIO]:
    """Open a UTF-8 text for reading; one in gzip, bzip2 or xz is decompressed.

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
        opener = opener_of(path)
        if is_binary_data(path):
            known = kind_of_path(path)
            what = f"{known.name}; {known.remedy}" if known else "binary data"
            raise error_class(f"{problem}: it is no text but {what}")
        with opener(path, "rt", encoding=TEXT_ENCODING, newline=newline) as file:
            yield file
    except OSError as error:
        # Errors of decompression have no number.
        why = error.strerror or error
        raise error_class(f"{problem}: {why}{what_instead(path)}") from error
    except UnicodeDecodeError as error:
        why = what_instead(path) or f": {_why_not_utf8(error)}"
        raise error_class(f"{problem}{why}") from error
    except DAMAGED as error:
        raise error_class(f"{problem}: {error}") from error


def is_binary_data(path: Path) -> bool:
    """Whether a file holds something else than text; a recording of silence is valid UTF-8 too."""
    # What is no regular file, such as a pipe, can be read once only.
    if not path.is_file():
        return False

    beginning = first_bytes(path, HEAD_BYTES)
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
