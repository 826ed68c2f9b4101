"""What ``rejects.jsonl`` of a store lists: the records of which nothing is used."""

import json
from collections.abc import Sequence
from pathlib import Path

from speechssl.corpus.manifest import printable

# Files that a line of the log names.
NUM_SHOWN = 3


def read_rejects(folder: Path) -> list[dict[str, str]]:
    """Return the rows: ``id``, ``audio``, ``reason`` and ``detail`` of each record.

    Args:
        folder: of a finished store.
    """
    lines = (folder / "rejects.jsonl").read_bytes().splitlines()
    return [json.loads(line) for line in lines]


def first_few(names: Sequence[str]) -> str:
    """Name the first ones, and how many more there are."""
    shown = ", ".join(printable(name) for name in names[:NUM_SHOWN])
    num_others = len(names) - NUM_SHOWN
    return f"{shown} and {num_others} more" if num_others > 0 else shown
