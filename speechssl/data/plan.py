"""Which recordings go into which shard, and the digest that names a store's recordings and settings."""

import hashlib
import json
from collections import defaultdict
from dataclasses import fields
from itertools import groupby
from pathlib import Path
from typing import Any

from speechssl.config import as_table
from speechssl.corpus.manifest import UNUSED, Manifest, Record
from speechssl.corpus.splits import split_manifest
from speechssl.data.cutter import PrepareConfig
from speechssl.data.shards import ShardJob
from speechssl.errors import ConfigError
from speechssl.runtime.log import log
from speechssl.text.normalise import normalise

RECIPE = 1  # raise it when the same plan would give other bytes
_FIELDS = tuple(field.name for field in fields(Record))


def with_splits(manifest: Manifest, config: PrepareConfig) -> Manifest:
    share = 0.1 if manifest.labelled else 0.0
    dev, test = (share if given is None else given for given in (config.dev, config.test))
    return split_manifest(manifest, dev, test)


def tell_splits(given: Manifest, split: Manifest) -> None:
    """Say who was put where, and which sentences are on both sides: rates of those say too little."""
    texts: dict[str | None, list[str]] = defaultdict(list)
    for record in split.records:
        texts[record.split].append(normalise(record.text or "", "basic-1"))
    counts = ", ".join(f"{name} {len(own)}" for name, own in sorted(texts.items(), key=str))
    if any(record.split is None for record in given.records):
        by = "by speaker where known, else by file, or by part of fewer files than splits"
        log(f"split {by} ({counts} recordings); a column `split` decides instead")
    else:
        log(f"split as given ({counts} recordings)")
    if UNUSED in texts:
        log(
            f"{len(texts[UNUSED])} without a transcript are of those whom dev or test measure: nobody learns from them"
        )
    known = set(texts["train"])
    for name in ("dev", "test"):
        both = sum(text in known for text in texts[name])
        if both:
            log(
                f"{both} of {len(texts[name])} transcripts of {name} are in train too: a language model knows them"
            )


def make_plan(manifest: Manifest, folder: Path, config: PrepareConfig) -> list[ShardJob]:
    splits = tuple(sorted({str(record.split) for record in manifest.records}))
    if len(splits) > 255:
        raise ConfigError(f"{len(splits)} different splits, at most 255 fit into a store")
    settings = as_table(config)
    settings.pop("max_bad_fraction")  # decides the exit code, not the bytes
    tasks: list[ShardJob] = []
    records: list[Record] = []
    sizes: list[int] = []

    def deal() -> None:
        rows = [{name: getattr(record, name) for name in _FIELDS} for record in records]
        content = [settings, splits, len(tasks), rows, sizes]
        tasks.append(
            ShardJob(
                len(tasks),
                folder,
                manifest.root,
                tuple(records),
                splits,
                config,
                digest([RECIPE, *content]),
            )
        )
        records.clear()
        sizes.clear()

    by_file = sorted(
        manifest.records, key=lambda record: (record.audio, record.offset_s, record.id)
    )
    for audio, group in groupby(by_file, key=lambda record: record.audio):
        if sizes and (len(sizes) >= config.shard_files or sum(sizes) >= config.shard_bytes):
            deal()
        records += group
        sizes.append(_file_size(manifest.root / audio))
    deal()
    return tasks


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return -1


def digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("ascii")).hexdigest()
