"""Reads JSONL manifests: NeMo's, with the names that other tools give to the same things."""

import json
import os
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from speechssl.corpus.columns import Columns, find_columns
from speechssl.corpus.file_suffixes import complete_names
from speechssl.corpus.manifest import MAX_SECONDS, Record, printable
from speechssl.corpus.paths import numbered_lines, path_below
from speechssl.corpus.split_names import split_name
from speechssl.corpus.unused_transcripts import UnusedTranscripts
from speechssl.errors import ManifestError

# An object of a JSONL manifest, whose values may be of any kind.
_Row = dict[str, Any]

# A duration that differs from end less start by more than this is of something else, seconds.
_SAME_SECONDS = 0.02


def read_jsonl(path: Path, root: Path, unused: UnusedTranscripts) -> list[Record]:
    """Read a JSONL manifest: a superset of NeMo's, one record a line.

    Args:
        unused: takes note of keys that look like transcripts and are not read.

    Raises:
        ManifestError: a malformed line, an id that stands twice, or a path outside ``root``.
    """
    records = _read(path, root, unused, folder="", takes_root=True)
    return complete_names(records, root, path)


def read_metadata_jsonl(path: Path, root: Path, unused: UnusedTranscripts) -> list[Record]:
    """Read Hugging Face's ``metadata.jsonl``, whose paths start at its folder.

    Everything else is as in other JSONL manifests.
    """
    folder = os.path.relpath(path.parent, root)
    records = _read(path, root, unused, folder, takes_root=False)
    return complete_names(records, root, path)


def _read(
    path: Path, root: Path, unused: UnusedTranscripts, folder: str, takes_root: bool
) -> list[Record]:
    """Read a manifest whose paths start at a folder below the root."""
    records: list[Record] = []
    place_of_id: dict[str, str] = {}
    given_path = ""
    audio = ""

    for where, line in numbered_lines(path):
        if not line.strip():
            continue
        row = _parse_row(line, where)
        columns = find_columns(tuple(row), first_text="text")
        own_path = _path_of(row, columns, where)
        unused.add(path, row, columns)

        # Parts of a recording stand together and share its path: it is resolved once for them.
        is_new_path = own_path != given_path or not audio
        if is_new_path:
            given_path = own_path
            joined = os.path.join(folder, given_path) if given_path else ""
            audio = path_below(root, joined, where, takes_root)

        offset_s, duration_s = _part_of(row, columns, where)
        string = partial(_string, row, where=where)
        record = Record(
            id=string(columns.id, may_be_number=True) or "",
            audio=audio,
            offset_s=offset_s,
            duration_s=duration_s,
            text=string(columns.text),
            # As in a table, an empty name is none: all that have it would be one speaker.
            speaker=string(columns.speaker, may_be_number=True) or None,
            split=split_name(string(columns.split)),
        )

        # Records without an id are given one later.
        first = place_of_id.setdefault(record.id, where)
        if record.id and first != where:
            raise ManifestError(f"{where}: id {record.id!r} stands at {first} already")
        records.append(record)

    return records


def _parse_row(line: str, where: str) -> _Row:
    """Parse a line, which is an object."""
    try:
        row = json.loads(line, parse_constant=_refuse_constant, object_pairs_hook=_one_of_each)
    except (ValueError, RecursionError) as error:
        if line.lstrip().startswith("["):
            raise _array(where) from error
        # Deeply nested brackets are too many calls for the parser.
        raise ManifestError(f"{where}: not JSON: {error}") from error

    if isinstance(row, list):
        raise _array(where)
    if not isinstance(row, dict):
        raise ManifestError(f"{where}: an object with audio_filepath is expected")
    return row


def _array(where: str) -> ManifestError:
    return ManifestError(
        f"{where}: a JSON array, but a manifest has one object a line: "
        "jq -c '.[]' FILE writes an array so"
    )


def _refuse_constant(name: str) -> float:
    """Refuse NaN and Infinity, which Python's json reads although JSON has none."""
    raise ValueError(f"{name} is not allowed")


def _one_of_each(pairs: list[tuple[str, Any]]) -> _Row:
    """Refuse a key that stands twice, of which Python's json takes the last one."""
    row = dict(pairs)
    if len(row) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        key, _ = counts.most_common(1)[0]
        raise ValueError(f"the key {key!r} stands twice: remove or rename one of them")
    return row


def _path_of(row: _Row, columns: Columns, where: str) -> str:
    path = None if columns.audio is None else row[columns.audio]
    if not isinstance(path, str):
        keys = ", ".join(row) or "none"
        raise ManifestError(
            f"{where}: the path of a recording is expected as audio_filepath or file_name; "
            f"the keys are {keys}"
        )
    return path


def _part_of(row: _Row, columns: Columns, where: str) -> tuple[float, float | None]:
    """Read which part of its file a record is.

    Returns:
        where it starts, and how long it is, seconds; None for the length goes to the end.
    """
    unknown = columns.unknown_place
    if unknown is not None and row[unknown] is not None:
        raise ManifestError(
            f"{where}: {unknown!r} is not known; a part of a file is given by offset and duration, "
            "or by start and end, in seconds"
        )

    offset_s = _seconds(row, columns.start, where) or 0.0
    duration_s = _seconds(row, columns.duration, where)
    end_s = _seconds(row, columns.end, where)

    if end_s is not None:
        # Rounded to microseconds, so that 1.3 - 1.2 is 0.1.
        length_s = round(end_s - offset_s, 6)
        if length_s <= 0:
            raise ManifestError(
                f"{where}: a part from {offset_s:g} to {end_s:g} s: it must end behind its start"
            )
        if duration_s is not None and abs(duration_s - length_s) > _SAME_SECONDS:
            raise ManifestError(
                f"{where}: from {offset_s:g} to {end_s:g} s, but the duration is {duration_s:g}: "
                "leave one of them out"
            )
        return offset_s, length_s

    if duration_s == 0:
        raise ManifestError(f"{where}: duration is 0, it must be positive")
    return offset_s, duration_s


def _string(row: _Row, name: str | None, where: str, may_be_number: bool = False) -> str | None:
    """Read a text of an object; None where it has none.

    Args:
        may_be_number: for corpora that number their utterances and speakers. A text or a split is
            never a number.
    """
    value = None if name is None else row[name]
    if value is None:
        return None
    if isinstance(value, str):
        return printable(value)
    if may_be_number and isinstance(value, int):
        return str(value)
    raise ManifestError(f"{where}: {name} is {value!r}, a string is expected")


def _seconds(row: _Row, name: str | None, where: str) -> float | None:
    """Read a time of an object, seconds; None where it has none."""
    value = None if name is None else row[name]
    if value is None:
        return None

    # True and False are integers to Python.
    is_truth_value = isinstance(value, bool)
    is_number = isinstance(value, int | float) and not is_truth_value
    if not is_number or not 0 <= value < MAX_SECONDS:
        raise ManifestError(f"{where}: {name} is {value!r}, seconds are expected")
    return float(value)
