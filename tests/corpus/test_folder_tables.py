"""The tables of folders, as Hugging Face has them: both kinds say the same."""

import csv
import json
import random
from pathlib import Path

import pytest

from speechssl.corpus.layouts import scan
from speechssl.corpus.manifest import Record
from speechssl.errors import ManifestError

SENTENCES = ["the cat sat", 'he said "no", twice', "guten Abend", "今天天气很好", "and: so on"]


def write_table(path: Path, rows: list[dict[str, str]]) -> None:
    """Write a table of the kind that its suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        if path.suffix == ".jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("seed", range(5))
def test_both_kinds_are_read_in_folders_of_splits(tmp_path: Path, kind: str, seed: int) -> None:
    """A metadata.jsonl was noticed only, and its folder was refused."""
    rng = random.Random(seed)
    text_key = rng.choice(["transcription", "text", "sentence", "transcript", "Text"])
    splits = {"train": "train", rng.choice(["validation", "dev", "valid"]): "dev", "test": "test"}
    has_splits = rng.random() < 0.7

    expected: list[Record] = []
    for folder, split in splits.items():
        rows = []
        for number in range(rng.randint(1, 4)):
            text = rng.choice(SENTENCES)
            name = rng.choice(["", "clips/"]) + f"{folder}{number}.wav"
            rows.append({"file_name": name, text_key: text, "speaker_id": f"s{number}"})
            place = f"{folder}/{name}" if has_splits else f"part-{split}/{name}"
            known = split if has_splits else None
            audio_id = place.removesuffix(".wav")
            expected.append(Record(audio_id, place, text=text, speaker=f"s{number}", split=known))
        write_table(tmp_path / Path(expected[-1].audio).parts[0] / f"metadata.{kind}", rows)

    found = scan(tmp_path).records
    assert list(found) == sorted(expected, key=lambda record: record.id)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("seed", range(5))
def test_a_table_without_splits_takes_them_from_its_paths(
    tmp_path: Path, kind: str, seed: int
) -> None:
    rng = random.Random(seed)
    above = rng.choice(["", "corpus", "corpus/speech"])
    names = {
        "train/a.wav": "train",
        rng.choice(["validation", "dev-clean", "Valid"]) + "/b.wav": "dev",
        f"{rng.choice(['audio', 'clips'])}/test/s1/c.wav": "test",
        "training.wav": None,
        "speaker/dev.wav": None,
    }
    rows = [{"file_name": name, "text": rng.choice(SENTENCES)} for name in names]
    table = tmp_path / above / f"metadata.{kind}"
    write_table(table, rows)
    expected = {str(Path(above, name)): split for name, split in names.items()}
    assert {record.audio: record.split for record in scan(tmp_path).records} == expected
    assert {record.split for record in scan(table.parent).records} == set(names.values())

    # The table's own word counts alone, and its folder's name before the paths.
    with_splits = [{**row, "split": rng.choice(["dev", ""])} for row in rows]
    with_splits[0]["split"] = "test"
    write_table(table, with_splits)
    splits = {record.audio: record.split for record in scan(table.parent).records}
    assert splits == {row["file_name"]: row["split"] or None for row in with_splits}

    write_table(tmp_path / "other" / "test" / table.name, rows)
    table.unlink()
    assert {record.split for record in scan(tmp_path).records} == {"test"}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_recordings_that_a_table_lacks_are_counted(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(tmp_path / f"metadata.{kind}", [{"file_name": "a.wav", "text": "one"}])
    for name in ("a.wav", "b.wav", "c.mp3"):
        (tmp_path / name).touch()
    assert [record.id for record in scan(tmp_path).records] == ["a"]
    assert "2 recordings are not in" in capsys.readouterr().err


def test_of_two_tables_one_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_table(tmp_path / "metadata.csv", [{"file_name": "a.wav", "text": "one"}])
    write_table(tmp_path / "metadata.jsonl", [{"file_name": "a.wav", "text": "two"}])
    (tmp_path / "a.wav").touch()
    assert [record.text for record in scan(tmp_path).records] == ["one"]
    assert (
        "metadata.jsonl is not read, since metadata.csv lies beside it" in capsys.readouterr().err
    )

    # The one that is not read may have the only transcripts.
    write_table(tmp_path / "metadata.csv", [{"file_name": "a.wav", "speaker": "s"}])
    write_table(tmp_path / "metadata.jsonl", [{"file_name": "a.wav", "text": "two words"}])
    with pytest.raises(ManifestError, match=r"metadata\.jsonl.*--ignore-transcripts"):
        scan(tmp_path)


@pytest.mark.parametrize("name", ["../../b.wav", "/etc/b.wav", "", 7])
def test_a_path_that_is_none_is_named_with_its_line(tmp_path: Path, name: str | int) -> None:
    rows = [{"file_name": "a.wav", "text": "x"}, {"file_name": name, "text": "y"}]
    path = tmp_path / "train" / "metadata.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ManifestError, match=r"metadata\.jsonl:2: "):
        scan(tmp_path)
