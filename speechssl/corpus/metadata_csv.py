"""Reads Hugging Face's ``metadata.csv``, a table of the recordings in its folder."""

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from speechssl.audio.reader import AUDIO_SUFFIXES, UNREADABLE_SUFFIXES
from speechssl.corpus.manifest import Record, printable
from speechssl.corpus.paths import path_below
from speechssl.corpus.splits import split_name, split_of_folder
from speechssl.errors import ManifestError
from speechssl.runtime.log import log

# Names that tables use for a column; the first one that is there counts.
_TEXT_COLUMNS = ("transcription", "text", "sentence")
_SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id")

# A table with one of these has texts of parts of files. To read on would give every part's text to
# the whole file.
_TIME_COLUMNS = ("start", "end", "offset", "begin", "start_time", "end_time")


def read_metadata_csv(path: Path, root: Path) -> list[Record]:
    """Read the records of a table, and log how many recordings lie below it but are not in it.

    Raises:
        ManifestError: a malformed table, named by file and line number.
    """
    records = list(_rows(path, root))

    listed = {record.audio for record in records}
    unlisted = _unlisted_audio(path, root, listed)
    if unlisted:
        num_unlisted = len(unlisted)
        first = str(min(unlisted))
        example = printable(first)
        log(f"{num_unlisted} recordings are not in {path} and are left out, {example} for one")

    return records


def _rows(path: Path, root: Path) -> Iterator[Record]:
    """Yield a record for each row: its file_name, and text, speaker and split where known."""
    folder = os.path.relpath(path.parent, root)
    default_split = None
    if path.parent != root:
        default_split = split_of_folder(path.parent.name)

    try:
        # Spreadsheet programs put a byte order mark at the beginning, which this encoding skips.
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            columns = rows.fieldnames or ()
            _check_columns(path, columns)
            text_column = _first_of(_TEXT_COLUMNS, columns)
            speaker_column = _first_of(_SPEAKER_COLUMNS, columns)

            for row in rows:
                where = f"{path}:{rows.line_num}"
                # The csv module puts cells beyond the last column, and columns without a cell,
                # under None.
                if None in row or None in row.values():
                    raise ManifestError(f"{where}: the row does not have {len(columns)} columns")

                # File names start at the folder of the table, paths of records at the root.
                relative = os.path.join(folder, row["file_name"])
                split = split_name(row.get("split"))
                yield Record(
                    id="",
                    audio=path_below(root, relative, where),
                    text=_cell(row, text_column),
                    speaker=_cell(row, speaker_column),
                    split=split or default_split,
                )
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path} is not UTF-8: {error}") from error
    except csv.Error as error:
        raise ManifestError(f"{path}: {error}") from error


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if "file_name" not in columns:
        found = ", ".join(columns) or "none"
        raise ManifestError(f"{path}:1: no column file_name among {found}")

    time_column = _first_of(_TIME_COLUMNS, columns)
    if time_column is not None:
        raise ManifestError(
            f"{path}:1: a column {time_column!r}, but a table has whole files: give parts as a "
            "JSONL manifest with offset and duration, or remove the column"
        )


def _first_of(names: Sequence[str], columns: Sequence[str]) -> str | None:
    """Find the first of some names that a table has as a column."""
    for name in names:
        if name in columns:
            return name
    return None


def _cell(row: Mapping[str, str], column: str | None) -> str | None:
    """Return a cell's text; an empty one is None, for which a table has no other way."""
    if column is None:
        return None
    return row[column] or None


def _unlisted_audio(table: Path, root: Path, listed: set[str]) -> list[Path]:
    """Find the recordings below a table that are not in it."""
    suffixes = UNREADABLE_SUFFIXES.union(AUDIO_SUFFIXES)

    unlisted: list[Path] = []
    for folder, _, names in os.walk(table.parent):
        for name in names:
            file = Path(folder, name)
            suffix = file.suffix.lower()
            if suffix not in suffixes:
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
