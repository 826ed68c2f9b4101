"""Reads the table of a folder, as Hugging Face has it: ``metadata.csv`` or ``metadata.jsonl``."""

import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path, PurePath

from speechssl.audio.listing import is_recording
from speechssl.corpus.jsonl import read_metadata_jsonl
from speechssl.corpus.manifest import Record, printable
from speechssl.corpus.metadata_csv import read_metadata_csv
from speechssl.corpus.split_names import split_of_folder
from speechssl.corpus.unused_transcripts import UnusedTranscripts
from speechssl.runtime.log import log

# Of several in a folder the first one is read.
_TABLES = ("metadata.csv", "metadata.jsonl")


def find_folder_table(folder: Path, names: Collection[str]) -> Path | None:
    """Find the table of a folder, and say which other one is not read.

    Args:
        names: of the files in the folder.
    """
    found = [name for name in _TABLES if name in names]
    if not found:
        return None

    table, *others = found
    for other in others:
        log(f"{folder / other} is not read, since {table} lies beside it")
    return folder / table


def read_folder_table(path: Path, root: Path, unused: UnusedTranscripts) -> list[Record]:
    """Read the records of a table, and log how many recordings lie below it but are not in it.

    The name of the table's folder, if it is not the root, may be the split of its records. Where
    the table gives no split either, the folders of a recording's path are looked at.

    Args:
        unused: takes note of columns or keys that look like transcripts and are not read.

    Raises:
        ManifestError: a malformed table, named by file and line number.
    """
    if path.suffix == ".jsonl":
        records = read_metadata_jsonl(path, root, unused)
    else:
        records = read_metadata_csv(path, root, unused)

    split = None
    if path.parent != root:
        split = split_of_folder(path.parent.name)
    records = [replace(record, split=record.split or split) for record in records]

    has_splits = any(record.split for record in records)
    if not has_splits:
        folder = os.path.relpath(path.parent, root)
        records = [replace(record, split=_split_of_path(record, folder)) for record in records]

    listed = {record.audio for record in records}
    unlisted = _unlisted_audio(path, root, listed)
    if unlisted:
        num_unlisted = len(unlisted)
        first = str(min(unlisted))
        example = printable(first)
        log(f"{num_unlisted} recordings are not in {path} and are left out, {example} for one")

    return records


def _split_of_path(record: Record, folder: str) -> str | None:
    """Return the split that a folder of a recording's path is named for; None where none is.

    Args:
        folder: where the table lies. What is above it does not count.
    """
    below = os.path.relpath(record.audio, folder)
    folders = PurePath(below).parts[:-1]
    splits = map(split_of_folder, folders)
    return next((split for split in splits if split is not None), None)


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
