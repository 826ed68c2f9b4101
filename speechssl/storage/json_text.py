"""JSON as it is written and read everywhere: settings, records, lines of a table.

Paths that are not UTF-8 reach Python as lone surrogates (``\\udcff`` for the byte 0xff). A file in
UTF-8 cannot hold those, so every function here that writes escapes them as JSON does. Read back,
they are equal to what was written.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Row = dict[str, Any]

_LOG = logging.getLogger(__name__)


def as_json(table: Any) -> str:
    """Write a whole file of settings as JSON: indented, and with sorted keys.

    The same settings give the same text, which makes a digest of it stable.
    """
    text = json.dumps(table, indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    # Only lone surrogates fail to encode, and Python's escape of one is also JSON's.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def as_json_lines(table: Mapping[str, Any]) -> str:
    """Write settings as JSON for people to read: a line for each table in them, sorted."""
    lines = []
    for name, value in sorted(table.items()):
        text = json.dumps(value, sort_keys=True, ensure_ascii=False)
        lines.append(f"  {json.dumps(name)}: {text}")

    whole = "{\n" + ",\n".join(lines) + "\n}\n"
    return whole.encode("utf-8", "backslashreplace").decode("utf-8")


def json_line(row: Mapping[str, Any]) -> str:
    """Write one line of JSON that people can read in any script; it is valid UTF-8.

    A row that holds a lone surrogate is escaped as a whole.
    """
    line = json.dumps(row, ensure_ascii=False)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        return ascii_json_line(row)

    return line + "\n"


def ascii_json_line(row: Mapping[str, Any]) -> str:
    """Write one line of JSON in ASCII, for files that programs read: any text and any path fits."""
    return json.dumps(row) + "\n"


def read_json_table(path: Path) -> Row | None:
    """Read a file that holds one JSON object; None where it holds something else, or is damaged."""
    return _parse_object(path.read_bytes())


def read_json_lines(path: Path, *, warn: bool = True) -> list[Row]:
    """Read the rows of a JSON Lines file, of which a kill may have cut lines off.

    Args:
        path: a missing file has no rows.
        warn: whether to warn of every line that is not a JSON object. A last line without its end
            is ignored in any case: a run is just writing it, or was killed while it did.

    Returns:
        The lines that are JSON objects, in order.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []

    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue

        row = _parse_object(line)
        if row is not None:
            rows.append(row)
            continue

        is_unfinished = number == len(lines)
        if warn and not is_unfinished:
            _LOG.warning("%s line %d is not a JSON object: skipped", path, number)

    return rows


def _parse_object(text: bytes) -> Row | None:
    """Parse a line or a file; None when it is not JSON, or JSON of another kind than an object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None

    return value if isinstance(value, dict) else None
