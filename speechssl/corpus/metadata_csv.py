"""Reads Hugging Face's ``metadata.csv``, a table of the recordings in its folder."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from speechssl.audio.listing import RECORDING_SUFFIXES, is_recording
from speechssl.corpus.columns import Columns, find_columns
from speechssl.corpus.manifest import Record, printable
from speechssl.corpus.paths import path_below
from speechssl.corpus.splits import split_name, split_of_folder
from speechssl.corpus.unused_transcripts import UnusedTranscripts
from speechssl.errors import ManifestError
from speechssl.runtime.log import log
from speechssl.storage.text_files import open_text


def read_metadata_csv(path: Path, root: Path, unused: UnusedTranscripts) -> list[Record]:
    """Read the records of a table, and log how many recordings lie below it but are not in it.

    Args:
        unused: takes note of columns that look like transcripts and are not read.

    Raises:
        ManifestError: a malformed table, named by file and line number.
    """
    records = list(_records(path, root, unused))

    listed = {record.audio for record in records}
    unlisted = _unlisted_audio(path, root, listed)
    if unlisted:
        num_unlisted = len(unlisted)
        first = str(min(unlisted))
        example = printable(first)
        log(f"{num_unlisted} recordings are not in {path} and are left out, {example} for one")

    return records


def _records(path: Path, root: Path, unused: UnusedTranscripts) -> Iterator[Record]:
    """Yield a record for each row: its file_name, and text, speaker and split where known."""
    folder = os.path.relpath(path.parent, root)
    default_split = None
    if path.parent != root:
        default_split = split_of_folder(path.parent.name)

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
            split = split_name(_cell(row, columns.split))
            yield Record(
                id="",
                audio=path_below(root, relative, where),
                text=_cell(row, columns.text),
                speaker=_cell(row, columns.speaker),
                split=split or default_split,
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


def _unlisted_audio(table: Path, root: Path, listed: set[str]) -> list[Path]:
    """Find the recordings below a table that are not in it."""
    unlisted: list[Path] = []
    for folder, _, names in os.walk(table.parent):
        for name in names:
            file = Path(folder, name)
            if not is_recording(file):
                continue

            relative = Path(os.path.relpath(file, root))
            if relative.as_posix() not in listed:
                unlisted.append(file)

    # A table may name a file by way of a linked folder, so names alone do not tell. Links are
    # followed only where something seems to be left out: it takes a system call for each file.
    if unlisted:
        used = {os.path.realpath(root / name) for name in listed}
        return [file for file in unlisted if os.path.realpath(file) not in used]
    return []
