"""Splits: their shares, whole speakers and recordings, transcripts where errors are counted."""

import itertools
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechssl.corpus.manifest import UNUSED, Manifest, Record
from speechssl.corpus.splits import split_manifest
from speechssl.errors import ConfigError


def unsplit(count: int, speaker: Callable[[int], str | None]) -> Manifest:
    return Manifest(
        Path("r"), tuple(Record(f"{k:05d}", f"{k}.wav", speaker=speaker(k)) for k in range(count))
    )


def test_shares_come_out_about_right_and_no_split_is_empty() -> None:
    splits = [r.split for r in split_manifest(unsplit(2000, lambda k: None)).records]
    assert 150 < splits.count("dev") < 250
    assert 150 < splits.count("test") < 250
    for count in (3, 4, 5, 8):
        for speakers in (1, 2, 3, 8):
            small = split_manifest(unsplit(count, lambda k, n=speakers: f"s{k % n}"))  # type: ignore[misc]
            assert {r.split for r in small.records} == {"train", "dev", "test"}
    assert {r.split for r in split_manifest(unsplit(9, lambda k: None), 0, 0).records} == {"train"}
    assert {r.split for r in split_manifest(unsplit(9, lambda k: None), 0.1, 0).records} == {
        "train",
        "dev",
    }


@given(st.integers(3, 30), st.integers(1, 60), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_speakers_stay_whole_and_order_does_not_matter(
    speakers: int, count: int, dice: random.Random
) -> None:
    manifest = unsplit(count, lambda k: f"speaker {k % speakers}")
    listed = [replace(r, split="test") if dice.random() < 0.1 else r for r in manifest.records]
    divided = {r.id: r for r in split_manifest(replace(manifest, records=tuple(listed))).records}
    for record in listed:
        assert record.split in (None, divided[record.id].split)
    if len({r.speaker for r in listed}) >= 3:
        by_speaker: dict[str | None, set[str | None]] = {}
        for record in divided.values():
            by_speaker.setdefault(record.speaker, set()).add(record.split)
        assert all(len(splits) == 1 for splits in by_speaker.values())
    dice.shuffle(listed)
    again = split_manifest(replace(manifest, records=tuple(listed)))
    assert {r.id: r for r in again.records} == divided


@given(st.integers(1, 12), st.integers(2, 5))
@settings(max_examples=30, deadline=None)
def test_parts_of_a_file_stay_together(files: int, parts: int) -> None:
    """A part of a programme in test knows the voice, the room and the text of those in train."""
    records = tuple(
        Record(f"{n}@{k}", f"{n}.wav", float(k), 1.0, text=f"{n} {k}")
        for n in range(files)
        for k in range(parts)
    )
    divided = split_manifest(Manifest(Path("r"), records)).records
    found: dict[str, set[str | None]] = {}
    for record in divided:
        found.setdefault(record.audio, set()).add(record.split)
    if files >= 3:
        assert all(len(splits) == 1 for splits in found.values())
    if files * parts >= 3:
        assert {record.split for record in divided} == {"train", "dev", "test"}


def test_shares_out_of_range() -> None:
    for dev, test in ((-0.1, 0.1), (0.5, 0.5), (0.1, 2.0)):
        with pytest.raises(ConfigError, match="shares"):
            split_manifest(unsplit(3, lambda k: None), dev, test)


def test_a_recording_without_a_transcript_measures_nothing() -> None:
    """Of a table that was filled in for a third, test was a recording without a text."""
    records = tuple(
        Record(f"r{n:03}", f"r{n:03}.wav", text="a" if n % 3 == 0 else None) for n in range(90)
    )
    split = split_manifest(Manifest(Path(), records)).records
    assert {record.split for record in split if record.text is None} == {"train"}
    assert {record.split for record in split if record.text} == {"train", "dev", "test"}
    silent = tuple(Record(f"r{n:03}", f"r{n:03}.wav") for n in range(90))
    assert {record.split for record in split_manifest(Manifest(Path(), silent)).records} == {
        "train",
        "dev",
        "test",
    }


def test_no_silent_recording_of_who_is_measured_is_learned_from() -> None:
    """Of a table that was filled in for half, recordings of the test speakers went to train."""
    speakers = "abcdefghijklmnopqrst"
    half = [
        Record(f"{s}{k}", f"{s}{k}.wav", speaker=s, text="a" if k else None)
        for s in speakers
        for k in range(2)
    ]
    # A table's own split counts as much, and so does a whole file of which parts are in test.
    given = [
        Record("x0", "x0.wav", speaker="x", text="a", split="test"),
        Record("x1", "x1.wav", speaker="x"),
        Record("y0", "y0.wav", speaker="y", text="a", split="test"),
        Record("y1", "y1.wav", speaker="y", text="a", split="train"),
        Record("y2", "y2.wav", speaker="y"),
        Record("long", "long.wav"),
        Record("long@0", "long.wav", 0.0, 5.0, text="a", split="test"),
        Record("long@5", "long.wav", 5.0, 5.0, text="a", split="train"),
        Record("long@10", "long.wav", 10.0, 5.0),
        Record("prog@0", "prog.wav", 0.0, 5.0, text="a", split="dev"),
        Record("prog@5", "prog.wav", 5.0, 5.0),
    ]
    split = {r.id: r for r in split_manifest(Manifest(Path(), tuple(half + given))).records}
    measured = {r.speaker for r in split.values() if r.split in ("dev", "test")} - {"y", None}
    assert len(measured) >= 3
    for s in speakers:
        assert split[f"{s}0"].split == (UNUSED if s in measured else "train")
        assert split[f"{s}1"].split in (("dev", "test") if s in measured else ("train",))
    assert {name: split[name].split for name in ("x1", "y2", "long", "long@10", "prog@5")} == {
        "x1": UNUSED, "y2": "train", "long": UNUSED, "long@10": "train", "prog@5": UNUSED
    }  # fmt: skip


def sized(root: Path, seconds: dict[str, list[int]]) -> Manifest:
    """Files of some sizes, several of each speaker."""
    records: list[Record] = []
    for speaker, sizes in seconds.items():
        for k, size in enumerate(sizes):
            name = f"{speaker}-{k}"
            (root / f"{name}.wav").write_bytes(bytes(1000 * size))
            records.append(Record(name, f"{name}.wav", speaker=speaker, text="a"))
    return Manifest(root, tuple(records))


def reached(manifest: Manifest) -> dict[str | None, float]:
    """Share of each split in the bytes of all files."""
    bytes_of: Counter[str | None] = Counter()
    for record in manifest.records:
        bytes_of[record.split] += (manifest.root / record.audio).stat().st_size
    return {split: bytes_of[split] / bytes_of.total() for split in ("train", "dev", "test")}


@pytest.mark.parametrize("seed", range(8))
def test_shares_are_met_as_closely_as_whole_speakers_allow(tmp_path: Path, seed: int) -> None:
    """For 10 of 25 names of the speaker with nine tenths of the audio, they became test."""
    rng = random.Random(seed)
    main = rng.choices("abcdefghij", k=6)
    seconds = {"".join(main): [rng.randint(20, 40) for _ in range(9)]}
    for n in range(rng.randint(2, 4)):
        seconds[f"other {n}"] = [rng.randint(1, 9) for _ in range(rng.randint(1, 4))]
    dev, test = rng.choice([0.05, 0.1, 0.2]), rng.choice([0.1, 0.15])
    manifest = sized(tmp_path, seconds)
    shares = {"train": 1 - dev - test, "dev": dev, "test": test}

    def distance(found: Mapping[str | None, float]) -> float:
        return sum(abs(found[split] - share) for split, share in shares.items())

    # All ways to give each speaker a split, so that no split is empty.
    total = sum(sum(sizes) for sizes in seconds.values())
    best = 9.0
    for splits in itertools.product(shares, repeat=len(seconds)):
        if set(splits) == set(shares):
            found: Counter[str | None] = Counter()
            for sizes, split in zip(seconds.values(), splits, strict=True):
                found[split] += sum(sizes)
            best = min(best, distance({split: found[split] / total for split in shares}))

    divided = split_manifest(manifest, dev, test)
    assert distance(reached(divided)) == pytest.approx(best, abs=1e-4)
    assert {r.split for r in divided.records if r.speaker == "".join(main)} == {"train"}


@pytest.mark.parametrize("count", [30, 400])
def test_shares_of_many_speakers_are_met_and_few_move(tmp_path: Path, count: int) -> None:
    rng = random.Random(count)
    seconds = {f"s{n}": [max(1, round(rng.lognormvariate(2, 1)))] for n in range(count)}
    divided = split_manifest(sized(tmp_path, seconds))
    found = reached(divided)
    assert found["dev"] == pytest.approx(0.1, abs=0.01)
    assert found["test"] == pytest.approx(0.1, abs=0.01)

    # A speaker more changes the split of few others.
    grown = split_manifest(sized(tmp_path, {**seconds, "new": [7]}))
    before = {r.id: r.split for r in divided.records}
    moved = [r for r in grown.records if before.get(r.id, r.split) != r.split]
    assert len(moved) < 0.1 * count + 5


def test_durations_count_where_all_are_known(tmp_path: Path) -> None:
    """A long file may hold parts of many lengths."""
    lengths = [40.0, 1.0, 1.0, 5.0, 5.0]
    records = tuple(
        Record(f"{k}", "long.wav", 50.0 * k, length, text="a", speaker=f"s{k}")
        for k, length in enumerate(lengths)
    )
    divided = split_manifest(Manifest(tmp_path, records), 0.1, 0.1).records
    held: Counter[str | None] = Counter()
    for record in divided:
        held[record.split] += round(record.duration_s or 0)
    assert held == {"train": 42, "dev": 5, "test": 5}
