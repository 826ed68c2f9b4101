"""Splits train, dev and test: read from names, or drawn so that no speaker is in two."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

from speechssl.corpus.manifest import UNUSED, Manifest, Record
from speechssl.errors import ConfigError

_SPLITS = {"valid": "dev", "validation": "dev", "val": "dev", "development": "dev", "eval": "test"}


def split_name(name: str | None) -> str | None:
    """``train-clean-100`` -> train, ``dev-other`` and ``validation`` -> dev; another name stays as it is."""
    if not name:
        return None
    first = re.split(r"[-_.]", name.lower())[0]
    first = _SPLITS.get(first, first)
    return first if first in ("train", "dev", "test") else name


def split_manifest(manifest: Manifest, dev: float = 0.1, test: float = 0.1) -> Manifest:
    """Assign train, dev or test to every record without a split; given splits stay.

    All records of a speaker fall into one split, and follow the split that another record of theirs has. Without a
    speaker, or with fewer speakers than splits, all parts of a file do; with fewer files than splits, each part is on
    its own. The choice is a hash of the name: it does not depend on order, and hardly on what else there is. Only a
    split that would stay empty takes one group more. A record without a transcript, where others have one, can measure
    nothing: it is train, or ``UNUSED`` where its speaker or file is in dev or test alone, or a part of it is.

    Args:
        dev, test: expected share of groups (speakers, files or parts), 0..1, together below 1.

    Raises:
        ConfigError: shares out of range.
    """
    if min(dev, test) < 0 or dev + test >= 1:
        raise ConfigError(f"shares of dev {dev} and test {test}: each at least 0, together below 1")
    given: dict[str, set[str]] = {}
    for record in manifest.records:
        if record.speaker is not None and record.split is not None:
            given.setdefault(record.speaker, set()).add(record.split)
    settled = {speaker: splits.pop() for speaker, splits in given.items() if len(splits) == 1}
    silent = (
        {r.id for r in manifest.records if r.split is None and r.text is None}
        if manifest.labelled
        else set()
    )
    open_records = [
        r
        for r in manifest.records
        if r.split is None and r.speaker not in settled and r.id not in silent
    ]
    speakers = {record.speaker for record in open_records} - {None}
    wanted = 1 + (dev > 0) + (test > 0)
    parts = Counter(record.audio for record in open_records)

    def group(record: Record) -> str:
        if record.speaker is not None and len(speakers) + len(settled) >= wanted:
            return f"speaker {record.speaker}"
        # One programme has one room and one text: a part of it in test knows those in train.
        return (
            f"audio {record.audio}"
            if parts[record.audio] > 1 and len(parts) >= wanted
            else f"id {record.id}"
        )

    taken = {record.split for record in manifest.records}
    chosen = _choose({group(record) for record in open_records}, dev, test, taken)

    def split_of(record: Record) -> str:
        return record.split or settled.get(record.speaker or "") or chosen[group(record)]

    divided = {r.id: replace(r, split=split_of(r)) for r in manifest.records if r.id not in silent}
    learned = _learned(divided.values())
    return replace(
        manifest,
        records=tuple(
            divided.get(record.id) or replace(record, split="train" if learned(record) else UNUSED)
            for record in manifest.records
        ),
    )


def _learned(divided: Iterable[Record]) -> Callable[[Record], bool]:
    """Whether a record may be learned from: nobody is heard in it whom dev or test measure, and no recording."""
    splits: dict[tuple[str, str | None], set[str | None]] = {}
    for record in divided:
        for key in (("audio", record.audio), ("speaker", record.speaker)):
            splits.setdefault(key, set()).add(record.split)
    splits.pop(("speaker", None), None)

    def learned(record: Record) -> bool:
        audio, speaker = (
            splits.get(("audio", record.audio)),
            splits.get(("speaker", record.speaker)),
        )
        whole = record.offset_s == 0 and record.duration_s is None
        return all(not found or "train" in found for found in (audio, speaker)) and not (
            whole and audio and audio - {"train"}
        )

    return learned


def _choose(groups: set[str], dev: float, test: float, taken: set[str | None]) -> dict[str, str]:
    """Split of every group by its hash; ``taken`` splits hold records already."""

    def place(name: str) -> float:
        return int(hashlib.sha256(name.encode()).hexdigest()[:15], 16) / 16**15

    def by_place(name: str) -> str:
        here = place(name)
        return "test" if here < test else "dev" if here < test + dev else "train"

    chosen = {name: by_place(name) for name in groups}
    for split, wanted in (("train", True), ("test", test > 0), ("dev", dev > 0)):
        held = Counter(chosen.values())
        if wanted and not held[split] and split not in taken:
            spare = sorted(
                (name for name in groups if held[chosen[name]] > 1),
                key=lambda name: (place(name), name),
            )
            if spare:
                chosen[spare[-1] if split == "train" else spare[0]] = split
    return chosen
