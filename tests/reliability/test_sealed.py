"""Odd values under a right checksum: each is taken, or an error of ours."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import fuzzing

ODD = (
    None,
    True,
    -1,
    0,
    10**30,
    1.5,
    float("inf"),
    float("nan"),
    "",
    "x",
    "\ud800",
    [],
    [1],
    [[]],
    {},
    {"a": 1},
)


def places(table: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Keys of all values in nested tables and lists."""
    names = (
        table if isinstance(table, dict) else range(len(table)) if isinstance(table, list) else ()
    )
    for name in names:
        yield (*path, name)
        yield from places(table[name], (*path, name))


@pytest.mark.parametrize("name", ["store", "record"])
def test_every_value_replaced(name: str, tmp_path: Path, campaign: Any) -> None:
    target, tries, refused = fuzzing.TARGETS[name], 0, 0
    (seed,) = target.seeds(tmp_path)
    table = json.loads(seed)

    for path in places(table):
        for odd in ODD:
            changed = copy.deepcopy(table)
            inner = changed
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = odd

            tries += 1
            try:
                refused += not fuzzing.try_one(target, tmp_path, json.dumps(changed).encode())
            except Exception as error:
                pytest.fail(f"{type(error).__name__}: {error}, {path} = {odd!r}")

    assert refused > tries / 2
    campaign.figures |= {"tries": tries, "refused": refused, "failures": 0}
