"""Names of utterances, files and speakers that are alike in another form of Unicode."""

import random
import unicodedata
from pathlib import Path

import pytest

from speechssl.corpus.layouts import scan
from speechssl.corpus.splits import split_manifest
from speechssl.corpus.unicode_forms import KnownNames
from speechssl.errors import ManifestError

# Letters of which NFC and NFD differ, also with two accents and in syllables of Hangul.
LETTERS = "éüñçåčőệồṩ한국말が"
WORDS = ["one", "two", "three", "four", "five"]


def in_some_form(rng: random.Random, name: str) -> str:
    """A name as a disk or an editor may write it."""
    return unicodedata.normalize(rng.choice(["NFC", "NFD"]), name)


def utterances(rng: random.Random) -> dict[str, str]:
    """Names, each of other letters, with their transcripts."""
    letters = rng.sample(LETTERS, 6)
    return {f"s{letter}{k}": " ".join(rng.choices(WORDS, k=4)) for k, letter in enumerate(letters)}


@pytest.mark.parametrize("seed", range(4))
def test_librispeech_transcripts_are_found(tmp_path: Path, seed: int) -> None:
    """The transcript was that of a file that is not there, and the recording had none."""
    rng = random.Random(seed)
    texts = utterances(rng)
    folder = tmp_path / in_some_form(rng, "dev/zoé/1")
    folder.mkdir(parents=True)
    for name in texts:
        (folder / in_some_form(rng, f"{name}.flac")).touch()
    lines = [f"{in_some_form(rng, name)} {text}\n" for name, text in texts.items()]
    (folder / "zoé-1.trans.txt").write_text("".join(lines), encoding="utf-8")

    records = scan(tmp_path).records
    assert sorted(str(record.text) for record in records) == sorted(texts.values())
    assert all((tmp_path / record.audio).is_file() for record in records)
    assert {record.speaker for record in records} == {"zoé"}


@pytest.mark.parametrize("seed", range(4))
def test_the_files_of_a_kaldi_folder_belong_together(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    texts = utterances(rng)

    def write(file: str, line: str) -> None:
        lines = []
        for name, text in texts.items():
            id_and_recording = in_some_form(rng, name), in_some_form(rng, f"r{name}")
            lines.append(line.format(*id_and_recording, text=text) + "\n")
        (tmp_path / file).write_text("".join(lines), encoding="utf-8")

    write("wav.scp", "{1} a.wav")
    write("segments", "{0} {1} 1 2")
    write("text", "{0} {text}")
    write("utt2spk", "{0} {0}")

    found = {record.speaker: record.text for record in scan(tmp_path).records}
    assert found == {unicodedata.normalize("NFC", name): text for name, text in texts.items()}


@pytest.mark.parametrize("seed", range(4))
def test_transcripts_beside_recordings_are_noticed(tmp_path: Path, seed: int) -> None:
    """An unlabelled store, and not a word."""
    rng = random.Random(seed)
    texts = utterances(rng)
    is_table = bool(seed % 2)
    lines = []
    for name, text in texts.items():
        (tmp_path / in_some_form(rng, f"{name}.wav")).touch()
        named = in_some_form(rng, name)
        lines.append(f"{named}.wav\t{text}\n")
        if not is_table:
            (tmp_path / f"{named}.txt").write_text(text)
    if is_table:
        (tmp_path / "list.tsv").write_text("".join(lines), encoding="utf-8")

    with pytest.raises(ManifestError, match=f"{1 if is_table else 6} files .*6 of 6 recordings"):
        scan(tmp_path)


@pytest.mark.parametrize("seed", range(4))
def test_nobody_is_two_speakers(tmp_path: Path, seed: int) -> None:
    """A speaker whose name was written in two forms was in train and in test."""
    rng = random.Random(seed)
    rows = ["file_name,text,speaker"]
    for k in range(60):
        speaker = in_some_form(rng, f"zo{LETTERS[k % 6]}")
        rows.append(f"{k}.wav,{rng.choice(WORDS)} {k},{speaker}")
    table = tmp_path / "metadata.csv"
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")

    splits: dict[str, set[str | None]] = {}
    for record in split_manifest(scan(table)).records:
        speaker = unicodedata.normalize("NFC", record.speaker or "")
        splits.setdefault(speaker, set()).add(record.split)
    assert len(splits) == 6
    assert all(len(of_one) == 1 for of_one in splits.values())


def test_names_that_are_alike_are_not_mixed_up() -> None:
    """Two known ones, and two entries for one known name."""
    composed, parted = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    both = {composed: "one", parted: "two"}
    assert KnownNames([composed, parted]).as_keys(both) == both
    for known in (composed, parted):
        assert KnownNames([known, "e"]).as_keys(both) == both
        assert KnownNames([known, "e"]).as_keys({parted: "two"}) == {known: "two"}
    assert KnownNames(["è"]).find(parted) == parted
