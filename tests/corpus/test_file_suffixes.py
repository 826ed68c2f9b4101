"""Tables that name recordings without their suffix, or with another one than they have."""

import json
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import call

from speechssl.corpus.layouts import scan
from speechssl.corpus.manifest import Manifest
from speechssl.errors import ManifestError

SUFFIXES = [".wav", ".mp3", ".flac", ".ogg", ".WAV", ".m4a"]
STEMS = ["rec{n:02}", "{n}", "common_voice_en_{n}", "a.b.{n}", "é{n}", "with space {n}"]

# How a table is written: the folder, the name and the text of each recording -> what is scanned.
Rows = dict[str, str]
Write = Callable[[Path, Rows], Manifest]


def csv_table(root: Path, rows: Rows) -> Manifest:
    lines = [f'"{name}",{text}\n' for name, text in rows.items()]
    (root / "metadata.csv").write_text("file_name,text\n" + "".join(lines))
    return scan(root)


def json_table(root: Path, rows: Rows) -> Manifest:
    lines = [json.dumps({"file_name": name, "text": text}) for name, text in rows.items()]
    (root / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return scan(root)


def manifest(root: Path, rows: Rows) -> Manifest:
    lines = [json.dumps({"audio_filepath": name, "text": text}) for name, text in rows.items()]
    path = root.parent / "all.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return scan(path, root)


def kaldi(root: Path, rows: Rows) -> Manifest:
    for file in ("wav.scp", "text"):
        column = rows.keys() if file == "wav.scp" else rows.values()
        lines = [f"u{number:02} {cell}\n" for number, cell in enumerate(column)]
        (root / file).write_text("".join(lines))
    return scan(root)


def kaldi_segments(root: Path, rows: Rows) -> Manifest:
    kaldi(root, rows)
    (root / "segments").write_text("".join(f"u{n:02} u{n:02} 0 1\n" for n in range(len(rows))))
    return scan(root)


def fairseq(root: Path, rows: Rows) -> Manifest:
    lines = [f"{name}\t16000\n" for name in rows]
    (root / "train.tsv").write_text(f"{root}\n" + "".join(lines))
    (root / "train.wrd").write_text("".join(f"{text}\n" for text in rows.values()))
    return scan(root / "train.tsv")


TABLES: list[Write] = [csv_table, json_table, manifest, kaldi, kaldi_segments, fairseq]


def recordings(root: Path, rng: random.Random) -> list[str]:
    """Empty files of one kind of name; their paths."""
    stem, suffix = rng.choice(STEMS), rng.choice(SUFFIXES)
    folder = rng.choice(["", "clips/", "wavs/é/"])
    stored_folder = unicodedata.normalize(rng.choice(["NFC", "NFD"]), folder)
    names = [stem.format(n=n) + suffix for n in range(6)]
    for name in names:
        form = rng.choice(["NFC", "NFD"])
        file = root / stored_folder / unicodedata.normalize(form, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        # What lies beside a recording is none.
        file.with_suffix(".md").touch()
    return [folder + name for name in names]


@pytest.mark.parametrize("write", TABLES)
@pytest.mark.parametrize("seed", range(4))
def test_names_without_a_suffix_are_those_of_the_only_file(
    tmp_path: Path, write: Write, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each was a missing file, and the recordings counted as left out of the table."""
    rng = random.Random(f"{seed} {write.__name__}")
    root = tmp_path / "in"
    paths = recordings(root, rng)
    texts = [f"sentence {n}" for n in range(6)]
    names = [path.rpartition(".")[0] for path in paths]
    bare = set(rng.sample(range(6), rng.choice([6, 3])))
    written = [names[n] if n in bare else paths[n] for n in range(6)]

    found = write(root, dict(zip(written, texts, strict=True)))
    by_path = {unicodedata.normalize("NFC", r.audio): r.text for r in found.records}
    assert by_path == dict(zip(paths, texts, strict=True))
    assert all((root / record.audio).is_file() for record in found.records)
    told = capsys.readouterr().err
    assert f"{len(bare)} of 6 recordings in " in told
    assert "named without their suffix; the only file of that name is read: " in told
    assert "left out" not in told


@pytest.mark.parametrize("write", TABLES)
def test_of_several_files_none_is_guessed(
    tmp_path: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "in"
    root.mkdir()
    for name in ("a.wav", "a.mp3", "b.flac", "c.wav"):
        (root / name).touch()
    found = write(root, {"a": "one", "b.mp3": "two", "c.wav": "three", "d": "four"})
    assert {record.audio for record in found.records} == {"a", "b.mp3", "c.wav", "d"}
    told = capsys.readouterr().err
    assert "2 of 4 recordings in " in told
    assert "there is no a, but a.mp3 and a.wav; correct the table" in told


def test_another_suffix_is_said_and_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Clips that were converted, beside the table that they came with."""
    for number in range(3):
        (tmp_path / f"{number}.wav").touch()
    found = csv_table(tmp_path, {f"{number}.mp3": "x" for number in range(3)})
    assert [record.audio for record in found.records] == ["0.mp3", "1.mp3", "2.mp3"]
    assert "3 of 3 recordings in " in (told := capsys.readouterr().err)
    assert "there is no 0.mp3, but 0.wav; correct the table" in told


def test_a_file_that_is_named_so_is_meant(tmp_path: Path) -> None:
    """Also without a suffix, and beside one with it; and a folder is no recording."""
    for name in ("a", "a.wav", "b.wav"):
        (tmp_path / name).touch()
    (tmp_path / "b").mkdir()
    found = csv_table(tmp_path, {"a": "one", "b": "two"})
    assert {record.audio for record in found.records} == {"a", "b.wav"}


def test_one_recording_under_two_names_is_listed_twice(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    with pytest.raises(ManifestError, match=r"'a.wav' is listed twice"):
        csv_table(tmp_path, {"a": "one", "a.wav": "two"})


def test_no_link_leads_outside(tmp_path: Path) -> None:
    (tmp_path / "out.wav").touch()
    root = tmp_path / "in"
    root.mkdir()
    (root / "a.wav").symlink_to(tmp_path / "out.wav")
    with pytest.raises(ManifestError, match="leads outside"):
        csv_table(root, {"a": "one"})


def test_a_quotation_mark_swallows_no_row_without_a_suffix(tmp_path: Path) -> None:
    """Rows were known by the suffix of their recording alone."""
    for name in ("a.wav", "b.wav", "c.wav"):
        (tmp_path / name).touch()
    table = tmp_path / "metadata.csv"
    table.write_text('file_name,text\na,"good evening\nb,and welcome\nc,"he said"\n')
    with pytest.raises(ManifestError, match=r"metadata\.csv:2"):
        scan(tmp_path)
    table.write_text('file_name,text\na,"good evening\nb,and welcome\nc,he said"\n')
    with pytest.raises(ManifestError, match=r"metadata\.csv:2: a quotation mark opens here"):
        scan(tmp_path)


def test_a_manifest_for_others_has_whole_names(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    (root / "a.wav").touch()
    csv_table(root, {"a": "one"})
    done = call("manifest", root, tmp_path / "kaldi", "--to", "kaldi")
    assert done.exit_code == 0
    assert (tmp_path / "kaldi/wav.scp").read_text() == f"a {root / 'a.wav'}\n"
