"""What is planned before anything is read: splits, and what is said of them."""

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from support.folders import files_of
from support.recordings import SMALL
from support.speech import make_labelled

from speechssl.corpus.manifest import Manifest, Record
from speechssl.data.plan import RECIPE, log_splits, with_splits
from speechssl.data.prepare import PrepareConfig, prepare
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


def test_the_shares_that_are_reached_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file is three times as long as each of the others."""
    manifest = sized(tmp_path, {"a": 300, **{f"s{n}": 100 for n in range(7)}})
    split = with_splits(manifest, PrepareConfig(dev=0.1, test=0.3))
    log_splits(manifest, split)
    told = capsys.readouterr().err
    assert "10.0 % is dev, 30.0 % is test, 60.0 % is train" in told


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
    assert Store(tmp_path / "s").recipe == RECIPE

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
