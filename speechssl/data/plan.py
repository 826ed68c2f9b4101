"""Which recordings go into which shard, and the digest of a store's recordings and settings."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import groupby
from pathlib import Path
from typing import Any

from speechssl.config import as_table
from speechssl.corpus.manifest import Manifest, Record
from speechssl.data.settings import PrepareConfig
from speechssl.data.shards import ShardJob
from speechssl.errors import ConfigError

# The index of a store has one byte for the split.
_MOST_SPLITS = 255

_RECORD_FIELDS = tuple(field.name for field in fields(Record))


def make_plan(
    manifest: Manifest, folder: Path, config: PrepareConfig, recipe: int
) -> list[ShardJob]:
    """Deal the files of a manifest out to shards, in the order of their names.

    Args:
        folder: of the store.
        recipe: version of what prepare does.

    Raises:
        ConfigError: more splits than a store can hold.
    """
    names = {str(record.split) for record in manifest.records}
    splits = tuple(sorted(names))
    if len(splits) > _MOST_SPLITS:
        raise ConfigError(
            f"{len(splits)} different splits, at most {_MOST_SPLITS} fit into a store"
        )

    settings = as_table(config)
    # It decides the exit code, not the bytes.
    settings.pop("max_bad_fraction")

    tasks = []
    for number, (records, sizes) in enumerate(_deal(manifest, config)):
        rows = [{name: getattr(record, name) for name in _RECORD_FIELDS} for record in records]
        plan = digest([recipe, settings, splits, number, rows, sizes])
        task = ShardJob(number, folder, manifest.root, tuple(records), splits, config, plan)
        tasks.append(task)
    return tasks


def digest(content: Any) -> str:
    """Return the SHA-256 of JSON-ready content."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _deal(manifest: Manifest, config: PrepareConfig) -> Iterator[tuple[list[Record], list[int]]]:
    """Yield the records of each shard, and the sizes of its files in bytes."""
    records: list[Record] = []
    sizes: list[int] = []

    by_file = _by_file(manifest.records)
    for audio, group in groupby(by_file, key=lambda record: record.audio):
        is_full = len(sizes) >= config.shard_files or sum(sizes) >= config.shard_bytes
        if sizes and is_full:
            yield records, sizes
            records = []
            sizes = []

        records += group
        size = _file_size(manifest.root / audio)
        sizes.append(size)

    yield records, sizes


def _by_file(records: Sequence[Record]) -> list[Record]:
    """Sort records so that those of a file stand together, in the order in which they start."""
    return sorted(records, key=lambda record: (record.audio, record.offset_s, record.id))


def _file_size(path: Path) -> int:
    """Return a file's size in bytes; -1 where it is missing, which its shard will find too."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return -1
