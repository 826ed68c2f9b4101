"""Names whose accents are stored in another form of Unicode than a manifest writes them in."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from speechssl.corpus.layouts import scan

# Letters of which NFC and NFD differ, also with two accents and in syllables of Hangul.
LETTERS = "éüñçåčőệồṩ한국말が"
FORMS = ("NFC", "NFD")


def metadata_csv(root: Path, names: list[str]) -> Path:
    rows = "".join(f"{name},text\n" for name in names)
    (root / "metadata.csv").write_text("file_name,text\n" + rows, encoding="utf-8")
    return root


def jsonl(root: Path, names: list[str]) -> Path:
    path = root / "all.jsonl"
    rows = [json.dumps({"audio_filepath": name}) for name in names]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def kaldi(root: Path, names: list[str]) -> Path:
    rows = "".join(f"u{number} {name}\n" for number, name in enumerate(names))
    (root / "wav.scp").write_text(rows, encoding="utf-8")
    return root


def fairseq(root: Path, names: list[str]) -> Path:
    path = root / "train.tsv"
    rows = "".join(f"{name}\t16000\n" for name in names)
    path.write_text(f"{root}\n{rows}", encoding="utf-8")
    return path


@pytest.mark.parametrize("write", [metadata_csv, jsonl, kaldi, fairseq])
@pytest.mark.parametrize("seed", range(4))
def test_a_file_is_found_however_its_accents_are_stored(
    tmp_path: Path, write: Callable[[Path, list[str]], Path], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    stored: list[str] = []
    written: list[str] = []
    for number in range(8):
        letters = "".join(rng.choice(list(LETTERS), size=3))
        name = f"{letters[0]} folder/{letters}{number}.wav"
        on_disk = unicodedata.normalize(str(rng.choice(FORMS)), name)
        file = tmp_path / on_disk
        file.parent.mkdir(exist_ok=True)
        file.touch()
        stored.append(on_disk)
        written.append(unicodedata.normalize(str(rng.choice(FORMS)), name))

    manifest = scan(write(tmp_path, written))
    found = {record.audio for record in manifest.records}
    assert found == set(stored)
    assert all((tmp_path / name).is_file() for name in found)


def test_names_that_are_alike_are_not_mixed_up(tmp_path: Path) -> None:
    composed, parted = (unicodedata.normalize(form, "é.wav") for form in FORMS)
    for name in (composed, parted):
        (tmp_path / name).touch()
    listed = scan(jsonl(tmp_path, [composed, parted]))
    assert {record.audio for record in listed.records} == {composed, parted}


def test_what_is_not_there_stays_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "è.wav").touch()
    (record,) = scan(jsonl(tmp_path, ["é.wav"])).records
    assert record.audio == "é.wav"
