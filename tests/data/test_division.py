"""Which splits the recordings of a store get, and what is said of them."""

import json
import random
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from support.folders import files_of
from support.recordings import SMALL, replace_config, talk
from support.speech import RATE, make_labelled

from speechssl.audio.reader import write_wav
from speechssl.corpus.layouts import scan
from speechssl.corpus.manifest import Manifest, Record
from speechssl.corpus.splits import split_manifest
from speechssl.data.dataset import Dataset
from speechssl.data.division import Division, divide, divide_again, log_splits, with_splits
from speechssl.data.prepare import PrepareConfig, prepare
from speechssl.data.rejects import read_rejects
from speechssl.data.store import Store, meta_checksum
from speechssl.errors import ConfigError


def sized(root: Path, lengths: Mapping[str, int]) -> Manifest:
    """A file of each length, in kilobytes."""
    records: list[Record] = []
    for name, length in lengths.items():
        (root / f"{name}.wav").write_bytes(bytes(1000 * length))
        records.append(Record(name, f"{name}.wav", text="a"))
    return Manifest(root, tuple(records))


def test_an_invented_split_and_sentences_on_both_sides_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_labelled(tmp_path / "in", {"": 8})
    table = (folder / "metadata.csv").read_text().splitlines()
    rows = [line.split(",") for line in table[1:]]
    same = "\n".join([table[0], *(f"{name},Abc def,," for name, *_ in rows)])
    (folder / "metadata.csv").write_text(same + "\n")
    prepare(folder, tmp_path / "s", SMALL)
    told = capsys.readouterr().err
    assert (
        "else by file, or by part of fewer files than splits (dev 1, test 1, train 6 recordings)"
        in told
    )
    assert "1 of 1 transcripts of dev are in train too" in told
    assert "1 of 1 transcripts of test are in train too" in told


@pytest.mark.parametrize("seed", range(8))
def test_the_shares_that_are_reached_are_told(
    tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """By bytes or durations, of what has a transcript; with splits that are drawn in part."""
    rng = random.Random(seed)
    lengths = {f"s{n}": rng.randint(1, 300) for n in range(rng.randint(5, 40))}
    manifest = sized(tmp_path, lengths)
    knows_durations = rng.random() < 0.5
    records: list[Record] = []
    size_of: dict[str, float] = {}
    for record in manifest.records:
        duration_s = rng.uniform(0.5, 20) if knows_durations else None
        size_of[record.id] = duration_s or lengths[record.id]
        given = rng.choice([None, None, "train"])
        speaker = rng.choice([None, f"speaker {rng.randrange(6)}"])
        text = rng.choice(["a", "b", None])
        records.append(
            replace(record, duration_s=duration_s, split=given, speaker=speaker, text=text)
        )
    # None of the splits is drawn without a recording to draw.
    records[0] = replace(records[0], text="a", split=None, speaker=None)
    config = PrepareConfig(dev=rng.choice([None, 0.3]), test=rng.choice([None, 0.0, 0.2]))

    divided = divide(replace(manifest, records=tuple(records)), config)
    log_splits(divided)
    sums: dict[str, float] = defaultdict(float)
    for record in divided.manifest.records:
        if record.text is not None:
            sums[str(record.split)] += size_of[record.id]
    total = sum(sums.values())
    told = capsys.readouterr().err
    shares = ", ".join(f"{100 * sums[name] / total:.1f} % is {name}" for name in sorted(sums))
    assert f"of the audio with a transcript, {shares}, by durations where known" in told


@pytest.mark.parametrize("seed", range(4))
def test_dev_is_taken_from_a_train_split_that_is_given(tmp_path: Path, seed: int) -> None:
    """The option did nothing where all recordings had a split, and fine-tuning found no dev."""
    rng = random.Random(seed)
    lengths = {f"s{n}": rng.randint(50, 150) for n in range(30)}
    manifest = sized(tmp_path, lengths)
    tested = set(rng.sample(sorted(lengths), 6))
    given = replace(
        manifest,
        records=tuple(
            replace(r, split="test" if r.id in tested else "train") for r in manifest.records
        ),
    )

    split = with_splits(given, PrepareConfig(dev=0.2))
    assert {r.id for r in split.records if r.split == "test"} == tested
    in_dev = sum(lengths[r.id] for r in split.records if r.split == "dev")
    in_train = sum(lengths[r.id] for r in split.records if r.split == "train")
    assert in_dev / (in_dev + in_train) == pytest.approx(0.2, abs=0.02)

    # Nobody asked, so nothing is taken.
    assert with_splits(given, PrepareConfig()) == given
    assert {r.split for r in with_splits(given, PrepareConfig(dev=0.0)).records} == {
        "test",
        "train",
    }


def test_who_is_tested_stays_out_of_dev(tmp_path: Path) -> None:
    """A speaker who is in train and test as given is not moved."""
    records = [
        Record(f"t{n}", f"t{n}.wav", text="a", speaker="both", split="train") for n in range(9)
    ]
    records.append(Record("x", "x.wav", text="a", speaker="both", split="test"))
    records += [Record(f"s{n}", f"s{n}.wav", text="a", split="train") for n in range(9)]
    split = with_splits(Manifest(tmp_path, tuple(records)), PrepareConfig(dev=0.3))
    assert {r.split for r in split.records if r.speaker == "both" and r.id != "x"} == {"train"}
    assert [r.split for r in split.records if r.speaker is None].count("dev") == 3


def test_a_store_of_the_old_rules_stays(tmp_path: Path) -> None:
    """Its splits do not change unasked, and it opens as before."""
    folder = make_labelled(tmp_path / "in", {"": 4})
    prepare(folder, tmp_path / "s", SMALL)
    assert Store(tmp_path / "s").recipe == 3

    meta = json.loads((tmp_path / "s/store.json").read_text())
    del meta["checksum"], meta["recipe"]
    meta["plan"] = "made by other rules"
    sealed = meta | {"checksum": meta_checksum(meta)}
    (tmp_path / "s/store.json").write_text(json.dumps(sealed))
    before = files_of(tmp_path / "s")
    with pytest.raises(ConfigError, match="use it as it is; --force makes it anew"):
        prepare(folder, tmp_path / "s", SMALL)
    assert files_of(tmp_path / "s") == before
    assert Store(tmp_path / "s").recipe == 1


# What stands in place of a recording; None is nothing.
UNUSABLE = {
    "missing": None,
    "empty": b"",
    "m4a": b"\0\0\0\x20ftypM4A " + bytes(300),
    "pointer": b"version https://git-lfs.github.com/spec/v1\n",
    "web page behind a tag": b"ID3\4\0\0\0\0\0\4abcd<!DOCTYPE html>",
}


def spoil(path: Path, rng: random.Random) -> None:
    """Put what cannot be used in the place of a recording."""
    content = UNUSABLE[rng.choice(sorted(UNUSABLE))]
    path.unlink()
    if content is not None:
        path.write_bytes(content)


@pytest.mark.parametrize("seed", range(6))
def test_splits_are_drawn_among_recordings_that_can_be_used(tmp_path: Path, seed: int) -> None:
    """What was missing took part: it was all of dev for some names."""
    rng = random.Random(seed)
    lengths = {f"s{n}": rng.randint(50, 150) for n in range(rng.randint(6, 30))}
    manifest = sized(tmp_path, lengths)
    records = [replace(r, speaker=rng.choice([None, r.id, "main"])) for r in manifest.records]
    manifest = replace(manifest, records=tuple(records))
    before = divide(manifest, PrepareConfig())
    assert before.manifest == before.drawn == with_splits(manifest, PrepareConfig())
    assert before.recipe == 3

    # All of dev, and some of the others.
    spoiled = {r.id for r in before.drawn.records if r.split == "dev"}
    spoiled |= set(rng.sample(sorted(lengths), 2))
    for name in spoiled:
        spoil(tmp_path / f"{name}.wav", rng)

    left = [record for record in records if record.id not in spoiled]
    alone = with_splits(replace(manifest, records=tuple(left)), PrepareConfig())
    after = divide(manifest, PrepareConfig())
    assert after.drawn == alone
    assert {r.split for r in after.drawn.records} == {"train", "dev", "test"}
    divided = split_manifest(manifest)
    assert {r for r in divided.records if r.id not in spoiled} == set(alone.records)
    assert {r.split for r in divided.records if r.id in spoiled} == {"train"}

    by_older_rules = with_splits(manifest, PrepareConfig())
    is_as_before = set(alone.records) <= set(by_older_rules.records)
    assert after.recipe == (3 if is_as_before else 4)
    assert after.manifest == (by_older_rules if is_as_before else divided)


def test_a_store_keeps_its_recipe_where_nothing_is_drawn_otherwise(tmp_path: Path) -> None:
    """Splits that are given, no transcripts, and a missing file that changes no other's split."""
    manifest = sized(tmp_path, {f"s{n}": 100 for n in range(9)})
    given = [replace(r, split=("train", "dev")[n % 2]) for n, r in enumerate(manifest.records)]
    silent = [replace(r, text=None) for r in manifest.records]
    gone = Record("gone", "gone.wav", text="a", speaker="x", split="train")
    for records in (given, silent, [*given, gone]):
        (tmp_path / "s3.wav").unlink(missing_ok=True)
        whole = replace(manifest, records=tuple(records))
        divided = divide(whole, PrepareConfig())
        assert divided.recipe == 3
        assert divided.manifest == with_splits(whole, PrepareConfig())


def test_a_share_of_train_is_taken_where_no_dev_can_be_used(tmp_path: Path) -> None:
    manifest = sized(tmp_path, {f"s{n}": 100 for n in range(10)})
    given = [replace(r, split="dev" if r.id == "s4" else "train") for r in manifest.records]
    (tmp_path / "s4.wav").unlink()
    divided = divide(replace(manifest, records=tuple(given)), PrepareConfig(dev=0.2))
    assert [r.split for r in divided.drawn.records].count("dev") == 2


def test_where_no_file_is_there_all_are_divided(tmp_path: Path) -> None:
    records = tuple(Record(f"s{n}", f"s{n}.wav", text="a") for n in range(10))
    divided = divide(Manifest(tmp_path, records), PrepareConfig())
    assert {r.split for r in divided.manifest.records} == {"train", "dev", "test"}
    assert divided.recipe == 3


def spoken(root: Path, splits: list[str]) -> Path:
    """A table of a sound for each split."""
    root.mkdir()
    rows = ["file_name,text,split"]
    for number, split in enumerate(splits):
        write_wav(root / f"{number}.wav", talk([(0.1, 0.5)], seed=number), RATE)
        rows.append(f"{number}.wav,sentence {number},{split}")
    (root / "metadata.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.mark.parametrize("seed", range(3))
def test_a_store_has_a_dev_although_the_first_choice_is_gone(
    tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(seed)
    folder = spoken(tmp_path / "in", [""] * 8)
    prepare(folder, tmp_path / "first", SMALL)
    first = Store(tmp_path / "first")
    for split in ("dev", "test"):
        for index in first.indices([split]).tolist():
            spoil(folder / first.record(index).audio, rng)
    capsys.readouterr()

    prepare(folder, tmp_path / "second", SMALL)
    second = Store(tmp_path / "second")
    assert second.recipe == 4
    assert all(list(second.texts(split)) for split in ("train", "dev", "test"))
    told = capsys.readouterr().err
    assert "2 files are missing or cannot be used, and take no part in the splits: " in told
    assert "(dev 1, test 1, train 4 recordings)" in told
    assert "no split" not in told


def cut_off(path: Path) -> None:
    """Damage a recording where only decoding shows it: it tells twice the samples that it has."""
    whole = bytearray(path.read_bytes())
    place = whole.index(b"data") + 4
    size = int.from_bytes(whole[place : place + 4], "little")
    whole[place : place + 4] = (2 * size).to_bytes(4, "little")
    path.write_bytes(whole)


@pytest.mark.parametrize("seed", range(3))
def test_splits_are_drawn_again_where_decoding_leaves_one_empty(
    tmp_path: Path,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also after a stop, whose shards have the splits of the second drawing."""

    def stopped(*given: object) -> None:
        raise OSError("stopped")

    rng = random.Random(seed)
    folder = spoken(tmp_path / "in", [""] * rng.randint(8, 12))
    prepare(folder, tmp_path / "first", SMALL)
    first = Store(tmp_path / "first")
    records = [first.record(index) for index in range(len(first))]
    lost = rng.choice(["dev", "test"])
    broken = {record.audio for record in records if record.split == lost}
    broken.add(rng.choice([record.audio for record in records if record.split == "train"]))
    for name in broken:
        cut_off(folder / name)
    capsys.readouterr()

    out = tmp_path / "second"
    with monkeypatch.context() as patch:
        patch.setattr("speechssl.data.prepare._assemble", stopped)
        with pytest.raises(OSError, match="stopped"):
            prepare(folder, out, SMALL)
    prepare(folder, out, SMALL)
    second = Store(out)
    second.verify()
    told = capsys.readouterr().err
    assert "the splits are drawn again, without the rejects" in told
    assert "no split" not in told
    assert second.recipe == 5
    assert {row["audio"] for row in read_rejects(out)} == broken
    split_of = {chunk.audio: chunk.split for chunk in map(second.record, range(len(second)))}

    # As if they had not been there.
    left = [record for record in scan(folder).records if record.audio not in broken]
    alone = with_splits(Manifest(folder, tuple(left)), SMALL)
    assert split_of == {record.audio: record.split for record in alone.records}
    assert {"train", "dev", "test"} <= set(split_of.values())

    # The finished store is known again, and its splits are told.
    before = files_of(out)
    prepare(folder, out, SMALL)
    again = capsys.readouterr().err
    counts = re.findall(r"\((dev .*) recordings\)", told)
    assert re.findall(r"\((dev .*) recordings\)", again) == counts[-1:]
    assert files_of(out) == before


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_drawn_again_without_need(tmp_path: Path, seed: int) -> None:
    """Where something is left of each split, where a table gives it, and where too few are left."""
    rng = random.Random(seed)
    numbers = range(rng.randint(8, 12))
    records = [Record(f"s{n}", f"s{n}.wav", text=rng.choice("ab")) for n in numbers]
    drawn = divide(Manifest(tmp_path, tuple(records)), PrepareConfig(dev=0.3))
    ids = {
        split: [record.id for record in drawn.drawn.records if record.split == split]
        for split in ("train", "dev", "test")
    }
    assert divide_again(drawn, PrepareConfig(dev=0.3), set(ids["dev"][1:])) is None
    assert divide_again(drawn, PrepareConfig(dev=0.3), set(ids["dev"])) is not None

    too_few = {*ids["dev"], *ids["train"][1:], *ids["test"][1:]}
    assert divide_again(drawn, PrepareConfig(dev=0.3), too_few) is None

    given = divide(drawn.manifest, PrepareConfig())
    assert divide_again(given, PrepareConfig(), set(ids["dev"])) is None


@pytest.mark.parametrize("seed", range(3))
def test_a_split_that_nothing_is_left_of_is_said(
    tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """It showed only in fine-tuning, as "no chunk of split dev"."""
    rng = random.Random(seed)
    lost = rng.choice(["train", "dev", "test"])
    splits = rng.sample(["train", "dev", "test"] * 2, 6)
    folder = spoken(tmp_path / "in", splits)
    names = [f"{number}.wav" for number, split in enumerate(splits) if split == lost]
    # This shows only when they are decoded.
    for name in names:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])

    prepare(folder, tmp_path / "s", SMALL)
    told = capsys.readouterr().err
    reasons = ", ".join(f"{name} (truncated)" for name in names)
    assert f"the store has no split {lost}: its recordings were rejected, {reasons}" in told
    assert told.count("no split") == 1
    assert (f"--{lost}-share" in told) == (lost != "train")
    # The finished store says it again.
    prepare(folder, tmp_path / "s", SMALL)
    assert f"the store has no split {lost}" in capsys.readouterr().err

    with pytest.raises(
        ConfigError, match=f"no chunk of split {lost} in .* splits there: "
    ) as raised:
        Dataset([Store(tmp_path / "s")], [lost])
    others = sorted({"train", "dev", "test"} - {lost})
    assert ", ".join(f"{name} (2 transcripts)" for name in others) in str(raised.value)
    assert (f"prepare again with --{lost}-share 0.1" in str(raised.value)) == (lost != "train")


def test_too_few_recordings_for_all_splits_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = spoken(tmp_path / "in", ["", ""])
    prepare(folder, tmp_path / "s", SMALL)
    told = capsys.readouterr().err
    assert told.count("no split") == 1
    assert "there are too few recordings or speakers to divide" in told

    prepare(folder, tmp_path / "t", replace_config(SMALL, test=0.0))
    assert "no split" not in capsys.readouterr().err


@pytest.mark.parametrize("num_shared", [0, 1, 3])
def test_sentences_in_train_are_counted_also_where_there_are_none(
    tmp_path: Path, num_shared: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows without a transcript are no sentence that two splits share."""
    texts = {"train": ["a", "b", "c", None], "test": ["x", "y", "z", None]}
    texts["test"][:num_shared] = texts["train"][:num_shared]
    records = tuple(
        Record(f"{split}{n}", f"{split}{n}.wav", text=text, split=split)
        for split, own in texts.items()
        for n, text in enumerate(own)
    )
    manifest = Manifest(tmp_path, records)
    log_splits(Division(manifest, manifest, manifest, recipe=3))
    told = capsys.readouterr().err
    assert f"{num_shared} of 3 transcripts of test are in train too" in told
    assert ("a language model knows them" in told) == (num_shared > 0)
    assert "of dev" not in told
