"""Splits train, dev and test, drawn so that no speaker is in two."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from speechssl.corpus.manifest import UNUSED, Manifest, Record
from speechssl.corpus.shares import come_closer, sizes_of
from speechssl.corpus.usable import usable_part, with_unusable
from speechssl.errors import ConfigError

# Splits of several records; None is that of a record without one.
_Splits = set[str | None]

# Tells a record's group, or whether it may be trained on.
_GroupOf = Callable[[Record], str]
_MayTrain = Callable[[Record], bool]

# Hexadecimal digits of a hash that are used: 60 bits, more than the 53 that a float keeps.
_HASH_DIGITS = 15
_HASH_VALUES = 16**15


def split_manifest(manifest: Manifest, dev: float = 0.1, test: float = 0.1) -> Manifest:
    """Assign train, dev or test to every record without a split, by the rules of ``draw_splits``.

    What cannot be used takes no part: a missing recording in dev would leave dev without it. Such
    records become train. Where no file can be used, all records are divided.

    Args:
        dev, test: share of the audio that is divided, 0..1, together below 1.

    Raises:
        ConfigError: shares out of range.
    """
    usable = usable_part(manifest)
    return with_unusable(draw_splits(usable, dev, test), manifest)


def draw_splits(manifest: Manifest, dev: float, test: float) -> Manifest:
    """Assign train, dev or test to every record without a split; given splits stay.

    All records of a speaker fall into one split, and follow the split that another record of
    theirs has. Without a speaker, or with fewer speakers than splits, all parts of a file fall into
    one split. With fewer files than splits, each part is on its own.

    The choice begins with a hash of the name. Then the fewest groups move that bring the splits as
    close to the shares as whole groups can; a split that would stay empty takes one. The order of
    the records does not matter.

    A record without a transcript, where others have one, cannot be used to measure. It goes to
    train. It becomes ``UNUSED`` where its speaker or file is in dev or test alone, or where it is a
    whole file of which a part is in dev or test.

    Args:
        dev, test: share of the audio that is divided, 0..1, together below 1. It is measured in
            seconds where all parts have a duration, else in bytes of their files.

    Raises:
        ConfigError: shares out of range.
    """
    is_negative = dev < 0 or test < 0
    leaves_no_train = dev + test >= 1
    if is_negative or leaves_no_train:
        raise ConfigError(f"shares of dev {dev} and test {test}: each at least 0, together below 1")

    speaker_splits = _splits_of_speakers(manifest.records)

    # Records that have no split: some cannot measure, some follow their speaker, others are drawn.
    cannot_measure: set[str] = set()
    undecided: list[Record] = []
    is_labelled = manifest.labelled
    for record in manifest.records:
        if record.split is not None:
            continue

        if is_labelled and record.text is None:
            cannot_measure.add(record.id)
        elif record.speaker not in speaker_splits:
            undecided.append(record)

    wanted = _wanted_splits(dev, test)
    group_of = _grouping(undecided, len(speaker_splits), len(wanted))
    sizes: Counter[str] = Counter()
    for record, size in zip(undecided, sizes_of(manifest.root, undecided), strict=True):
        sizes[group_of(record)] += size
    taken = {record.split for record in manifest.records}
    chosen = _choose_splits(sizes, dev, test, taken)

    decided: dict[str, Record] = {}
    for record in manifest.records:
        if record.id in cannot_measure:
            continue

        speaker = record.speaker or ""
        split = record.split or speaker_splits.get(speaker)
        if not split:
            group = group_of(record)
            split = chosen[group]
        decided[record.id] = replace(record, split=split)

    # Only now is it known whom dev and test measure.
    may_train = _training_filter(decided.values())
    records: list[Record] = []
    for record in manifest.records:
        known = decided.get(record.id)
        if known is not None:
            records.append(known)
        elif may_train(record):
            records.append(replace(record, split="train"))
        else:
            records.append(replace(record, split=UNUSED))

    return replace(manifest, records=tuple(records))


def reopen_train(manifest: Manifest) -> Manifest:
    """Take the split from the records of train, so that dev or test can be drawn from them.

    Those stay in train whose speaker or file is in another split already.
    """
    speakers: set[str | None] = {None}
    files: set[str] = set()
    for record in manifest.records:
        if record.split not in ("train", None):
            speakers.add(record.speaker)
            files.add(record.audio)
    speakers.discard(None)

    records: list[Record] = []
    for record in manifest.records:
        is_elsewhere = record.speaker in speakers or record.audio in files
        if record.split == "train" and not is_elsewhere:
            records.append(replace(record, split=None))
        else:
            records.append(record)
    return replace(manifest, records=tuple(records))


def _splits_of_speakers(records: Iterable[Record]) -> dict[str, str]:
    """Return the split of each speaker whose records with a split all have the same one."""
    given: dict[str, set[str]] = defaultdict(set)
    for record in records:
        if record.speaker is None or record.split is None:
            continue

        splits = given[record.speaker]
        splits.add(record.split)

    # A speaker who is in two splits already cannot be followed.
    decided: dict[str, str] = {}
    for speaker, splits in given.items():
        if len(splits) == 1:
            decided[speaker] = splits.pop()
    return decided


def _wanted_splits(dev: float, test: float) -> list[str]:
    """List the splits that must not stay empty, the most needed first."""
    wanted = ["train"]
    if test > 0:
        wanted.append("test")
    if dev > 0:
        wanted.append("dev")
    return wanted


def _grouping(undecided: Sequence[Record], num_decided_speakers: int, num_splits: int) -> _GroupOf:
    """Return the function that names the group of a record; a group stays in one split."""
    speakers: set[str] = set()
    parts: Counter[str] = Counter()
    for record in undecided:
        parts[record.audio] += 1
        if record.speaker is not None:
            speakers.add(record.speaker)

    num_speakers = len(speakers) + num_decided_speakers
    enough_speakers = num_speakers >= num_splits
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
    groups: Mapping[str, int], dev: float, test: float, taken: _Splits
) -> dict[str, str]:
    """Choose the split of every group by its hash, then by its size, so that shares are met.

    Args:
        groups: their sizes.
        taken: splits that hold records already.
    """
    by_hash = sorted(groups, key=_hash_of)
    chosen = {name: _split_by_hash(name, dev, test) for name in by_hash}

    for split in _wanted_splits(dev, test):
        sizes = Counter(chosen.values())
        if sizes[split] > 0 or split in taken:
            continue

        # The split is empty: it takes a group from a split that keeps another one.
        movable: list[tuple[float, str]] = []
        for name in groups:
            own_split = chosen[name]
            if sizes[own_split] > 1:
                movable.append((_hash_of(name), name))

        if movable:
            # Train holds the high end of the hash, dev and test the low one.
            _, nearest = max(movable) if split == "train" else min(movable)
            chosen[nearest] = split

    shares = {"train": 1 - dev - test, "dev": dev, "test": test}
    total = sum(groups.values())
    wanted = {split: total * shares[split] for split in _wanted_splits(dev, test)}
    return come_closer(chosen, groups, wanted, taken)


def _split_by_hash(name: str, dev: float, test: float) -> str:
    """Choose a split: test lies at the low end of the hash, then dev, then train."""
    position = _hash_of(name)
    if position < test:
        return "test"
    if position < test + dev:
        return "dev"
    return "train"


def _hash_of(name: str) -> float:
    """Return a number in 0..1 that depends on ``name`` alone, spread evenly over names."""
    digest = hashlib.sha256(name.encode())
    digits = digest.hexdigest()[:_HASH_DIGITS]
    number = int(digits, 16)
    return number / _HASH_VALUES


def _training_filter(decided: Iterable[Record]) -> _MayTrain:
    """Return the function that tells whether a record without a transcript may be trained on.

    It may not where that would let a model hear a speaker or a recording that dev or test measure.
    """
    splits_of_audio: dict[str, _Splits] = defaultdict(set)
    splits_of_speaker: dict[str, _Splits] = defaultdict(set)
    for record in decided:
        own_audio = splits_of_audio[record.audio]
        own_audio.add(record.split)

        if record.speaker is not None:
            own_speaker = splits_of_speaker[record.speaker]
            own_speaker.add(record.split)

    # A file or speaker that no decided record has counts as one of train.
    only_train: _Splits = {"train"}

    def may_train(record: Record) -> bool:
        if record.speaker is not None:
            speaker_splits = splits_of_speaker.get(record.speaker, only_train)
            if "train" not in speaker_splits:
                return False

        audio_splits = splits_of_audio.get(record.audio, only_train)
        if "train" not in audio_splits:
            return False

        # A whole file contains all its parts, also those that dev or test measure.
        starts_with_file = record.offset_s == 0
        is_whole_file = starts_with_file and record.duration_s is None
        return not is_whole_file or audio_splits == only_train

    return may_train
