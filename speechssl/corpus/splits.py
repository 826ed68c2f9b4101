"""Splits train, dev and test: read from names, or drawn so that no speaker is in two."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from speechssl.corpus.manifest import UNUSED, Manifest, Record
from speechssl.errors import ConfigError

STANDARD_SPLITS = ("train", "dev", "test")

# What corpora call our splits.
_OTHER_NAMES = {
    "valid": "dev",
    "validation": "dev",
    "val": "dev",
    "development": "dev",
    "eval": "test",
}


def split_name(name: str | None) -> str | None:
    """Map a corpus's name of a split to ours.

    ``train-clean-100`` becomes train, ``dev-other`` and ``validation`` become dev. Another name
    stays as it is.
    """
    if not name:
        return None

    first_word = re.split(r"[-_.]", name.lower())[0]
    split = _OTHER_NAMES.get(first_word, first_word)
    return split if split in STANDARD_SPLITS else name


def split_of_folder(name: str) -> str | None:
    """Return train, dev or test where the name of a folder says so, and None for any other name."""
    split = split_name(name)
    return split if split in STANDARD_SPLITS else None


def split_manifest(manifest: Manifest, dev: float = 0.1, test: float = 0.1) -> Manifest:
    """Assign train, dev or test to every record without a split; given splits stay.

    All records of a speaker fall into one split, and follow the split that another record of
    theirs has. Without a speaker, or with fewer speakers than splits, all parts of a file fall into
    one split. With fewer files than splits, each part is on its own.

    The choice is a hash of the name. It does not depend on the order of the records, and hardly on
    which others there are: only a split that would stay empty takes one group more.

    A record without a transcript, where others have one, cannot be used to measure. It goes to
    train. It becomes ``UNUSED`` where its speaker or file is in dev or test alone, or where it is a
    whole file of which a part is in dev or test.

    Args:
        dev, test: expected share of groups (speakers, files or parts), 0..1, together below 1.

    Raises:
        ConfigError: shares out of range.
    """
    if min(dev, test) < 0 or dev + test >= 1:
        raise ConfigError(f"shares of dev {dev} and test {test}: each at least 0, together below 1")

    speaker_splits = _splits_of_speakers(manifest.records)

    cannot_measure: set[str] = set()
    for record in manifest.records:
        if manifest.labelled and record.split is None and record.text is None:
            cannot_measure.add(record.id)

    undecided = []
    for record in manifest.records:
        follows_speaker = record.speaker in speaker_splits
        if record.split is None and not follows_speaker and record.id not in cannot_measure:
            undecided.append(record)

    num_splits = 1 + (dev > 0) + (test > 0)
    group_of = _grouping(undecided, len(speaker_splits), num_splits)
    groups = {group_of(record) for record in undecided}
    taken = {record.split for record in manifest.records}
    chosen = _choose_splits(groups, dev, test, taken)

    decided: dict[str, Record] = {}
    for record in manifest.records:
        if record.id in cannot_measure:
            continue
        split = record.split or speaker_splits.get(record.speaker or "")
        decided[record.id] = replace(record, split=split or chosen[group_of(record)])

    may_train = _training_filter(decided.values())
    records = []
    for record in manifest.records:
        if record.id in decided:
            records.append(decided[record.id])
        elif may_train(record):
            records.append(replace(record, split="train"))
        else:
            records.append(replace(record, split=UNUSED))

    return replace(manifest, records=tuple(records))


def _splits_of_speakers(records: Iterable[Record]) -> dict[str, str]:
    """Return the split of each speaker whose records with a split all have the same one."""
    given: dict[str, set[str]] = defaultdict(set)
    for record in records:
        if record.speaker is not None and record.split is not None:
            given[record.speaker].add(record.split)

    return {speaker: splits.pop() for speaker, splits in given.items() if len(splits) == 1}


def _grouping(
    undecided: Sequence[Record], num_decided_speakers: int, num_splits: int
) -> Callable[[Record], str]:
    """Return the function that names the group of a record; a group stays in one split."""
    speakers = {record.speaker for record in undecided if record.speaker is not None}
    enough_speakers = len(speakers) + num_decided_speakers >= num_splits

    parts = Counter(record.audio for record in undecided)
    enough_files = len(parts) >= num_splits

    def group_of(record: Record) -> str:
        if record.speaker is not None and enough_speakers:
            return f"speaker {record.speaker}"

        # One programme has one room and one text. If a part of it is in test while others are in
        # train, test measures what was learned by heart.
        if parts[record.audio] > 1 and enough_files:
            return f"audio {record.audio}"

        return f"id {record.id}"

    return group_of


def _choose_splits(
    groups: set[str], dev: float, test: float, taken: set[str | None]
) -> dict[str, str]:
    """Choose the split of every group by its hash; splits in ``taken`` hold records already."""
    chosen = {name: _split_by_hash(name, dev, test) for name in groups}

    wanted = ["train"]
    if test > 0:
        wanted.append("test")
    if dev > 0:
        wanted.append("dev")

    for split in wanted:
        sizes = Counter(chosen.values())
        if sizes[split] > 0 or split in taken:
            continue

        # The split is empty: it takes a group from a split that keeps another one.
        movable = [name for name in groups if sizes[chosen[name]] > 1]
        movable.sort(key=lambda name: (_hash_of(name), name))
        if movable:
            # Train holds the high end of the hash, dev and test the low one.
            nearest = movable[-1] if split == "train" else movable[0]
            chosen[nearest] = split

    return chosen


def _split_by_hash(name: str, dev: float, test: float) -> str:
    position = _hash_of(name)
    if position < test:
        return "test"
    if position < test + dev:
        return "dev"
    return "train"


def _hash_of(name: str) -> float:
    """Return a number in 0..1 that depends on ``name`` alone, spread evenly over names."""
    # 15 hexadecimal digits are 60 bits, more than the 53 that a float keeps.
    digits = hashlib.sha256(name.encode()).hexdigest()[:15]
    return int(digits, 16) / 16**15


def _training_filter(decided: Iterable[Record]) -> Callable[[Record], bool]:
    """Return the function that tells whether a record without a transcript may be trained on.

    It may not where that would let a model hear a speaker or a recording that dev or test measure.
    """
    splits_of_audio: dict[str, set[str | None]] = defaultdict(set)
    splits_of_speaker: dict[str, set[str | None]] = defaultdict(set)
    for record in decided:
        splits_of_audio[record.audio].add(record.split)
        if record.speaker is not None:
            splits_of_speaker[record.speaker].add(record.split)

    def may_train(record: Record) -> bool:
        # A file or speaker that no decided record has counts as one of train.
        audio_splits = splits_of_audio.get(record.audio, {"train"})
        speaker_splits: set[str | None] = {"train"}
        if record.speaker is not None:
            speaker_splits = splits_of_speaker.get(record.speaker, speaker_splits)

        if "train" not in audio_splits or "train" not in speaker_splits:
            return False

        # A whole file contains all its parts, also those that dev or test measure.
        is_whole_file = record.offset_s == 0 and record.duration_s is None
        return not is_whole_file or audio_splits == {"train"}

    return may_train
