"""JSON as it is written and read everywhere: settings, records, lines of a table."""

import json
import logging
from pathlib import Path
from typing import Any


def as_json(table: Any) -> str:
    """JSON with sorted keys: the same settings give the same bytes, always valid UTF-8."""
    text = json.dumps(table, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    # A path that is not UTF-8 holds lone surrogates; ``\udcff`` is how JSON writes one, and it reads back equal.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def json_line(row: dict[str, Any]) -> str:
    """One line of JSON that is valid UTF-8: readable where it can be, escaped where a path is not UTF-8."""
    line = json.dumps(row, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        line = json.dumps(row)
    return line + "\n"


Row = dict[str, Any]
_LOG = logging.getLogger(__name__)


def read_metrics(path: Path) -> list[Row]:
    """Rows of a JSONL file, in order; a missing file has none.

    A last line that is not whole is ignored: a run is writing it, or was killed while it did. Any other line that is
    not a JSON object is skipped with a warning that names it.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        elif number < len(lines):
            _LOG.warning("%s line %d is not a JSON object: skipped", path, number)
    return rows
