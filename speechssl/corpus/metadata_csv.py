"""Reads Hugging Face's ``metadata.csv``, a table of the recordings in its folder."""

import csv
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from speechssl.audio.listing import RECORDING_SUFFIXES
from speechssl.corpus.columns import Columns, find_columns
from speechssl.corpus.file_suffixes import Recordings, complete_names
from speechssl.corpus.manifest import Record
from speechssl.corpus.paths import path_below
from speechssl.corpus.split_names import split_name
from speechssl.corpus.unused_transcripts import UnusedTranscripts
from speechssl.errors import ManifestError
from speechssl.storage.text_files import open_text

# What tables have between columns in place of commas.
_OTHER_SIGNS = ";\t|"


def read_metadata_csv(path: Path, root: Path, unused: UnusedTranscripts) -> list[Record]:
    """Return a record for each row: its file_name, and text, speaker and split where known.

    Args:
        unused: takes note of columns that look like transcripts and are not read.

    Raises:
        ManifestError: a malformed table, named by file and line number.
    """
    records = list(_read_rows(path, root, unused))
    return complete_names(records, root, path)


def _read_rows(path: Path, root: Path, unused: UnusedTranscripts) -> Iterator[Record]:
    folder = os.path.relpath(path.parent, root)

    recordings = Recordings(path.parent)

    with open_text(path, newline="", error_class=ManifestError) as file:
        rows = _numbered_rows(path, file)
        _, first_row = next(rows, ("", []))
        header = tuple(first_row)
        columns = find_columns(header)
        audio_column = _checked(path, header, columns)

        for where, cells in rows:
            _check_row(where, cells, header, audio_column, recordings)
            row = dict(zip(header, cells, strict=True))
            unused.add(path, row, columns)

            # File names start at the folder of the table, paths of records at the root.
            relative = os.path.join(folder, row[audio_column])
            yield Record(
                id="",
                audio=path_below(root, relative, where),
                text=_cell(row, columns.text),
                speaker=_cell(row, columns.speaker),
                split=split_name(_cell(row, columns.split)),
            )


def _numbered_rows(path: Path, file: TextIO) -> Iterator[tuple[str, list[str]]]:
    """Yield ("file:number", cells) of each row that says anything; the line is its first one.

    Raises:
        ManifestError: a malformed row.
    """
    reader = csv.reader(file, strict=True)
    while True:
        where = f"{path}:{reader.line_num + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise ManifestError(
                f"{where}: {error}: is a quotation mark there that is not closed? A quotation mark "
                "within a text in quotation marks is written twice"
            ) from error

        if cells is None:
            return
        # Spreadsheet programs write rows of nothing but commas.
        if any(map(str.strip, cells)):
            yield where, cells


def _checked(path: Path, header: tuple[str, ...], columns: Columns) -> str:
    """Check the columns of a table, and return the one that names the recordings."""
    where = f"{path}:1"
    if columns.audio is None:
        found = ", ".join(header) or "none"
        raise ManifestError(f"{where}: no column file_name among {found}: {_remedy(header)}")

    counts = Counter(header)
    twice = [name for name in header if counts[name] > 1 and name not in columns.others]
    if twice:
        raise ManifestError(f"{where}: two columns {twice[0]!r}: rename or remove one of them")

    if columns.place is not None:
        raise ManifestError(
            f"{where}: a column {columns.place!r}, but a table has whole files: give parts as a "
            "JSONL manifest with offset and duration, or remove the column"
        )
    return columns.audio


def _remedy(header: tuple[str, ...]) -> str:
    """Say what to do with a table whose columns are not known."""
    only = header[0] if len(header) == 1 else ""
    other_sign = next((sign for sign in _OTHER_SIGNS if sign in only), None)
    if other_sign is not None:
        return f"commas must stand between columns, not {other_sign!r}"
    return "the first line names the columns, and that of the recordings is file_name"


def _check_row(
    where: str,
    cells: list[str],
    header: tuple[str, ...],
    audio_column: str,
    recordings: Recordings,
) -> None:
    """See that a row has all columns and a recording, and that no cell holds rows that follow."""
    position = header.index(audio_column)
    swallowing = next((cell for cell in cells if _holds_rows(cell, position, recordings)), None)
    if swallowing is not None:
        raise ManifestError(
            f"{where}: a quotation mark opens here, and the rows behind it stand before the next "
            "one: close it, or remove it"
        )
    if len(cells) != len(header):
        raise ManifestError(f"{where}: the row does not have {len(header)} columns")
    if not cells[position].strip():
        raise ManifestError(f"{where}: the row names no recording: fill in file_name, or remove it")


def _holds_rows(cell: str, position: int, recordings: Recordings) -> bool:
    """Whether a line within a cell names a recording where a row does, by its suffix or its name.

    Args:
        recordings: those below the folder of the table.
    """
    lines = cell.splitlines()[1:]
    for fields in csv.reader(lines):
        if len(fields) > position:
            name = fields[position]
            suffix = Path(name).suffix.lower()
            if suffix in RECORDING_SUFFIXES or recordings.alike(name):
                return True
    return False


def _cell(row: dict[str, str], column: str | None) -> str | None:
    """Return a cell's text; an empty one is None, for which a table has no other way."""
    if column is None:
        return None
    return row[column].strip() or None
