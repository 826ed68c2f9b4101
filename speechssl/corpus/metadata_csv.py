"""Reads Hugging Face's ``metadata.csv``, a table of the recordings in its folder."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from speechssl.audio.listing import RECORDING_SUFFIXES
from speechssl.corpus.columns import Columns, find_columns
from speechssl.corpus.manifest import Record
from speechssl.corpus.paths import path_below
from speechssl.corpus.splits import split_name
from speechssl.corpus.unused_transcripts import UnusedTranscripts
from speechssl.errors import ManifestError
from speechssl.storage.text_files import open_text


def read_metadata_csv(path: Path, root: Path, unused: UnusedTranscripts) -> Iterator[Record]:
    """Yield a record for each row: its file_name, and text, speaker and split where known.

    Args:
        unused: takes note of columns that look like transcripts and are not read.

    Raises:
        ManifestError: a malformed table, named by file and line number.
    """
    folder = os.path.relpath(path.parent, root)

    with open_text(path, newline="", error_class=ManifestError) as file:
        rows = _numbered_rows(path, file)
        _, first_row = next(rows, ("", []))
        header = tuple(first_row)
        columns = find_columns(header)
        audio_column = _checked(path, header, columns)

        for where, cells in rows:
            _check_row(where, cells, header, columns)
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
    """Yield ("file:number", cells) of each row that is not empty; the line is its first one.

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
        if cells:
            yield where, cells


def _checked(path: Path, header: tuple[str, ...], columns: Columns) -> str:
    """Check the columns of a table, and return the one that names the recordings."""
    if columns.audio is None:
        found = ", ".join(header) or "none"
        raise ManifestError(f"{path}:1: no column file_name among {found}")

    if columns.place is not None:
        raise ManifestError(
            f"{path}:1: a column {columns.place!r}, but a table has whole files: give parts as a "
            "JSONL manifest with offset and duration, or remove the column"
        )
    return columns.audio


def _check_row(where: str, cells: list[str], header: tuple[str, ...], columns: Columns) -> None:
    """See that a row has all columns, and that no cell holds rows that follow it."""
    swallowing = next((cell for cell in cells if _holds_rows(cell, header, columns)), None)
    if swallowing is not None:
        raise ManifestError(
            f"{where}: a quotation mark opens here, and the rows behind it stand before the next "
            "one: close it, or remove it"
        )
    if len(cells) != len(header):
        raise ManifestError(f"{where}: the row does not have {len(header)} columns")


def _holds_rows(cell: str, header: tuple[str, ...], columns: Columns) -> bool:
    """Whether a line within a cell names a recording where a row does."""
    lines = cell.splitlines()[1:]
    if not lines or columns.audio is None:
        return False

    position = header.index(columns.audio)
    for fields in csv.reader(lines):
        if len(fields) > position:
            suffix = Path(fields[position]).suffix.lower()
            if suffix in RECORDING_SUFFIXES:
                return True
    return False


def _cell(row: dict[str, str], column: str | None) -> str | None:
    """Return a cell's text; an empty one is None, for which a table has no other way."""
    if column is None:
        return None
    return row[column].strip() or None
