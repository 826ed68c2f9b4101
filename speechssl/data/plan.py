"""Which recordings go into which shard, and the digest of a store's recordings and settings."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import groupby
from pathlib import Path
from typing import Any

from speechssl.config import as_table
from speechssl.corpus.manifest import UNUSED, Manifest, Record
from speechssl.corpus.shares import sizes_of
from speechssl.corpus.splits import reopen_train, split_manifest
from speechssl.data.settings import PrepareConfig
from speechssl.data.shards import ShardJob
from speechssl.errors import ConfigError
from speechssl.runtime.log import log
from speechssl.text.normalise import DEFAULT_NORMALISER, normalise

# Version of what prepare does. Raise it when the same recordings and settings give other bytes, so
# that a store of the old version is not taken for finished. 2: splits look at sizes, texts that say
# nothing are no transcripts, silence and levels are judged from the surroundings. 3: bangs are
# lowered, and tables without splits take them from their paths.
RECIPE = 3

# Share of dev and of test where some recordings have transcripts and the settings say nothing.
_DEFAULT_SHARE = 0.1

# The index of a store has one byte for the split.
_MOST_SPLITS = 255

_RECORD_FIELDS = tuple(field.name for field in fields(Record))


def with_splits(manifest: Manifest, config: PrepareConfig) -> Manifest:
    """Assign a split to every record, with the shares that the settings give.

    A share that the settings give of a split that no record has is also taken from a train split
    that the manifest gives.
    """
    # Without transcripts there is nothing to measure: all is train.
    default = _DEFAULT_SHARE if manifest.labelled else 0.0
    dev = default if config.dev is None else config.dev
    test = default if config.test is None else config.test

    given = {record.split for record in manifest.records}
    wants_dev = bool(config.dev) and "dev" not in given
    wants_test = bool(config.test) and "test" not in given
    if "train" in given and (wants_dev or wants_test):
        # What is there is enough, and what is not asked for is not taken from train.
        dev = dev if wants_dev else 0.0
        test = test if wants_test else 0.0
        manifest = reopen_train(manifest)

    return split_manifest(manifest, dev, test)


def log_splits(given: Manifest, split: Manifest) -> None:
    """Log how many recordings and how much audio each split has, and the transcripts in two.

    A model knows the sentences that it was trained on, so error rates of those say too little.

    Args:
        given: the manifest as it was read.
        split: the same with a split for every record.
    """
    texts: dict[str | None, list[str]] = defaultdict(list)
    for record in split.records:
        text = normalise(record.text or "", DEFAULT_NORMALISER)
        texts[record.split].append(text)

    by_name = sorted(texts.items(), key=str)
    counts = ", ".join(f"{name} {len(own)}" for name, own in by_name)
    pairs = zip(given.records, split.records, strict=True)
    is_drawn = any(before.split != after.split for before, after in pairs)
    if is_drawn:
        rule = "by speaker where known, else by file, or by part of fewer files than splits"
        log(f"split {rule} ({counts} recordings); a column `split` decides instead")
        log(f"of the audio with a transcript, {_reached_shares(split)}")
    else:
        log(f"split as given ({counts} recordings)")

    if UNUSED in texts:
        num_unused = len(texts[UNUSED])
        log(
            f"{num_unused} without a transcript are of speakers or files that dev or test "
            "measure: they are not trained on"
        )

    in_train = set(texts["train"])
    for name in ("dev", "test"):
        own_texts = texts[name]
        num_known = sum(text in in_train for text in own_texts)
        if num_known:
            log(
                f"{num_known} of {len(own_texts)} transcripts of {name} are in train too: "
                "a language model knows them"
            )


def _reached_shares(manifest: Manifest) -> str:
    """Say which share of the audio with a transcript each split has."""
    labelled = [record for record in manifest.records if record.text is not None]
    size_of: Counter[str] = Counter()
    for record, size in zip(labelled, sizes_of(manifest.root, labelled), strict=True):
        size_of[str(record.split)] += size

    total = size_of.total()
    shares = [f"{100 * size_of[name] / total:.1f} % is {name}" for name in sorted(size_of)]
    return ", ".join(shares) + ", by durations where known, else by the sizes of files"


def make_plan(manifest: Manifest, folder: Path, config: PrepareConfig) -> list[ShardJob]:
    """Deal the files of a manifest out to shards, in the order of their names.

    Args:
        folder: of the store.

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
        plan = digest([RECIPE, settings, splits, number, rows, sizes])
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
