"""Every layout read back, nothing outside the root, splits and files that do not depend on order."""

import csv
import json
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechssl.audio.reader import write_wav
from speechssl.corpus.export import write_fairseq, write_kaldi
from speechssl.corpus.layouts import scan
from speechssl.corpus.manifest import UNUSED, Manifest, Record, write_jsonl
from speechssl.corpus.splits import split_manifest
from speechssl.errors import ConfigError, ManifestError


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def lines(path: Path, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


# ---- audio folders ------------------------------------------------------------------------------------------------


def test_folder_of_any_nesting(tmp_path: Path) -> None:
    touch(tmp_path, "b.wav", "a/x.FLAC", "a/b/c/y.opus", "a/notes.txt", "z.m4a", ".hidden.mp3")
    manifest = scan(tmp_path)
    assert manifest.root == tmp_path
    assert [(r.id, r.audio) for r in manifest.records] == [
        (".hidden", ".hidden.mp3"),
        ("a/b/c/y", "a/b/c/y.opus"),
        ("a/x", "a/x.FLAC"),
        ("b", "b.wav"),
        ("z", "z.m4a"),  # cannot be read, so it must show up among the rejects
    ]
    assert not manifest.labelled


def test_order_of_the_directory_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, *(f"{k % 3}/{k}.wav" for k in range(30)))
    expected = scan(tmp_path)
    walk = os.walk

    def shuffled(*args: object, **kwargs: object) -> object:
        for folder, below, files in walk(*args, **kwargs):  # type: ignore[arg-type]
            random.Random(1).shuffle(below)
            random.Random(2).shuffle(files)
            yield folder, below, files

    monkeypatch.setattr(os, "walk", shuffled)
    assert scan(tmp_path) == expected


def test_equal_stems_keep_their_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "x.wav", "x.flac", "y.wav", "y.wav.wav", "z.mp3")
    assert [r.id for r in scan(tmp_path).records] == ["x.flac", "x.wav", "y", "y.wav.wav", "z"]


def test_hostile_names_survive_and_round_trip(tmp_path: Path) -> None:
    names = [
        b"new\nline.wav",
        b"'\"$(touch x);`.wav",
        b"-rf.wav",
        b"\xff\xfe.wav",
        "é\u2028.wav".encode(),
    ]
    names += [b"n" * 251 + b".wav", b"| cat.wav", b" spaces \t.wav"]
    for name in names:
        path = os.path.join(os.fsencode(tmp_path / "audio"), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb"):
            pass
    manifest = scan(tmp_path / "audio")
    assert {os.fsencode(r.audio) for r in manifest.records} == set(names)
    for record in manifest.records:
        record.id.encode()
    write_jsonl(manifest, tmp_path / "audio" / "m.jsonl")
    assert scan(tmp_path / "audio" / "m.jsonl") == manifest


def test_links_may_not_leave(tmp_path: Path) -> None:
    touch(tmp_path, "in/x.wav", "out/secret.wav")
    (tmp_path / "in" / "again.wav").symlink_to(tmp_path / "in" / "x.wav")
    assert len(scan(tmp_path / "in").records) == 2
    link = tmp_path / "in" / "link.wav"
    link.symlink_to(tmp_path / "out" / "secret.wav")
    with pytest.raises(ManifestError, match=r"link\.wav.*outside"):
        scan(tmp_path / "in")
    link.unlink()
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "out")
    with pytest.raises(ManifestError, match="outside"):
        scan(tmp_path / "in")


def test_nothing_found_is_an_error(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "nothing", lines(tmp_path / "x.txt", "hello")):
        with pytest.raises(ManifestError):
            scan(source)


def test_one_file(tmp_path: Path) -> None:
    touch(tmp_path, "x.wav", "y.wav")
    assert [r.audio for r in scan(tmp_path / "x.wav").records] == ["x.wav"]


# ---- tables -------------------------------------------------------------------------------------------------------


def test_metadata_csv(tmp_path: Path) -> None:
    with (tmp_path / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [
                ["file_name", "transcription", "speaker", "split"],
                ["b/2.wav", 'says "hi",\nand more', "s2", "validation"],
                ["1.wav", "", "", ""],
            ]
        )
    expected = (
        Record("1", "1.wav"),
        Record("b/2", "b/2.wav", text='says "hi",\nand more', speaker="s2", split="dev"),
    )
    assert scan(tmp_path).records == expected
    assert scan(tmp_path / "metadata.csv").records == expected
    lines(tmp_path / "metadata.csv", "file_name,text", "x.wav,one", "x.wav,two")
    with pytest.raises(ManifestError, match=r"id 'x\.wav' is listed twice"):
        scan(tmp_path / "metadata.csv")


@pytest.mark.parametrize("column", ["text", "sentence", "transcription"])
def test_metadata_csv_below_gives_its_folder_as_split(
    tmp_path: Path, column: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines(tmp_path / "train" / "metadata.csv", f"file_name,{column}", "x.wav,one")
    lines(tmp_path / "validation" / "metadata.csv", f"file_name,{column}", "x.wav,two")
    touch(tmp_path, "more/y.wav", "train/unlisted.wav")
    assert scan(tmp_path).records == (
        Record("more/y", "more/y.wav"),
        Record("train/x", "train/x.wav", text="one", split="train"),
        Record("validation/x", "validation/x.wav", text="two", split="dev"),
    )
    where = tmp_path / "train"
    said = f"1 recordings are not in {where / 'metadata.csv'} and are left out, {where / 'unlisted.wav'} for one"
    assert said in capsys.readouterr().err

    # What a table names by way of a link is not left out.
    (tmp_path / "train/link").symlink_to("real")
    touch(tmp_path, "train/real/z.wav")
    lines(
        tmp_path / "train" / "metadata.csv",
        f"file_name,{column}",
        "link/z.wav,one",
        "unlisted.wav,two",
    )
    assert len(scan(tmp_path).records) == 4
    assert "left out" not in capsys.readouterr().err


def test_librispeech_tree(tmp_path: Path) -> None:
    lines(
        tmp_path / "train-clean-100/19/198/19-198.trans.txt",
        "19-198-0000 NORTHANGER ABBEY",
        "19-198-0001 GONE",
    )
    lines(tmp_path / "dev-clean/84/1/84-1.trans.txt", "84-1-0000 GO")
    touch(tmp_path, "train-clean-100/19/198/19-198-0000.flac", "dev-clean/84/1/84-1-0000.flac")
    assert scan(tmp_path).records == (
        Record(
            "dev-clean/84/1/84-1-0000",
            "dev-clean/84/1/84-1-0000.flac",
            text="GO",
            speaker="84",
            split="dev",
        ),
        Record(
            "train-clean-100/19/198/19-198-0000",
            "train-clean-100/19/198/19-198-0000.flac",
            text="NORTHANGER ABBEY",
            speaker="19",
            split="train",
        ),
        Record(
            "train-clean-100/19/198/19-198-0001",  # no such file: prepare will list it
            "train-clean-100/19/198/19-198-0001.flac",
            text="GONE",
            speaker="19",
            split="train",
        ),
    )
    assert {r.split for r in scan(tmp_path / "train-clean-100").records} == {"train"}


def test_jsonl(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "m.jsonl",
        json.dumps(
            {"audio_filepath": "a.wav", "duration": 2, "text": "x y", "offset": 1.5, "lang": "en"}
        ),
        "",
        json.dumps({"audio_filepath": "a.wav", "duration": 1.25, "offset": 0, "speaker": 7}),
        json.dumps(
            {
                "audio_filepath": str(tmp_path / "b.wav"),
                "id": "mine",
                "text": "",
                "split": "holdout",
            }
        ),
    )
    assert scan(path).records == (
        Record("a@0", "a.wav", duration_s=1.25, speaker="7"),
        Record("a@1.5", "a.wav", 1.5, 2.0, "x y"),
        Record("mine", "b.wav", text="", split="holdout"),
    )


@pytest.mark.parametrize(
    "bad",
    [
        "nonsense",
        "[1]",
        "{}",
        '{"audio_filepath": 3}',
        '{"audio_filepath": ""}',
        '{"audio_filepath": "a\\u0000.wav"}',
        '{"audio_filepath": "\\ud800.wav"}',
        '{"audio_filepath": "a.wav", "duration": NaN}',
        '{"audio_filepath": "a.wav", "duration": 1e999}',
        '{"audio_filepath": "a.wav", "duration": -1}',
        '{"audio_filepath": "a.wav", "duration": true}',
        '{"audio_filepath": "a.wav", "duration": 0}',
        '{"audio_filepath": "a.wav", "offset": "1"}',
        '{"audio_filepath": "a.wav", "text": ["x"]}',
        '{"audio_filepath": "../a.wav"}',
        '{"audio_filepath": "x/../../a.wav"}',
        '{"audio_filepath": "/etc/passwd"}',
        '{"audio_filepath": "."}',
        '{"audio_filepath": "b.wav", "id": "first"}',
        "[" * 100_000,
        '{"audio_filepath": "a.wav", "duration": ' + "9" * 5000 + "}",
    ],
)
def test_bad_lines_are_named(tmp_path: Path, bad: str) -> None:
    path = lines(tmp_path / "m.jsonl", '{"audio_filepath": "a.wav", "id": "first"}', bad)
    with pytest.raises(ManifestError, match=r"m\.jsonl:2"):
        scan(path)


def test_parts_of_a_recording_share_its_path(tmp_path: Path) -> None:
    """A million parts hold one path a recording in memory, and look into its folder once."""
    rows = [{"id": f"{k}", "audio_filepath": f"./{k // 3}.wav", "offset": k} for k in range(6)]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    records = scan(tmp_path / "m.jsonl").records
    assert [record.audio for record in records] == ["0.wav"] * 3 + ["1.wav"] * 3
    assert len({id(record.audio) for record in records}) == 2


def test_not_text_is_an_error(tmp_path: Path) -> None:
    for name in ("m.jsonl", "metadata.csv", "t.tsv"):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00garbage")
        with pytest.raises(ManifestError, match="UTF-8"):
            scan(tmp_path / name)


def test_bad_tables_are_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"csv:1.*file_name"):
        scan(lines(tmp_path / "a.csv", "path,text", "x.wav,hello"))
    with pytest.raises(ManifestError, match=r"csv:3"):
        scan(lines(tmp_path / "b.csv", "file_name,text", "x.wav,hello", "y.wav"))
    with pytest.raises(ManifestError, match=r"csv:2.*outside"):
        scan(lines(tmp_path / "c.csv", "file_name,text", "../x.wav,hello"))


def test_kaldi(tmp_path: Path) -> None:
    folder = tmp_path / "dev"
    lines(folder / "wav.scp", "rec1 a/1.wav", f"rec2\t{tmp_path}/dev/two words.wav")
    lines(folder / "text", "utt1 hello  there", "utt2")
    lines(folder / "utt2spk", "utt1 bob", "utt2 eve")
    lines(folder / "segments", "utt1 rec1 0.5 2.25", "utt2 rec2 1 2")
    assert scan(folder).records == (
        Record("utt1", "a/1.wav", 0.5, 1.75, "hello  there", "bob", "dev"),
        Record("utt2", "two words.wav", 1.0, 1.0, "", "eve", "dev"),
    )
    (folder / "segments").unlink()
    assert [r.id for r in scan(folder).records] == ["rec1", "rec2"]
    with pytest.raises(ManifestError, match="leave it out"):
        scan(folder / "two words.wav", root=tmp_path)


def test_a_table_of_parts_of_files_is_refused(tmp_path: Path) -> None:
    """The times were passed over: the text of a part stood for the whole file."""
    table = lines(
        tmp_path / "metadata.csv", "file_name,text,start,end", "a.wav,one,0,2", "b.wav,two,2,4"
    )
    with pytest.raises(
        ManifestError, match=r"csv:1: a column 'start'.*JSONL manifest with offset and duration"
    ):
        scan(table)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("wav.scp", "x sox a.wav -t wav - |", "command"),
        ("wav.scp", "x | cat a.wav", "command"),
        ("wav.scp", "x /etc/passwd", "outside"),
        ("wav.scp", "rec a.wav", "twice"),
        ("segments", "u rec 2 1", "segment"),
        ("segments", "u rec nan 1", "segment"),
        ("segments", "u rec 1", "start and end"),
        ("segments", "u other 1 2", "not in wav.scp"),
        ("text", "", "empty"),
    ],
)
def test_kaldi_lines_that_are_refused(tmp_path: Path, name: str, line: str, message: str) -> None:
    lines(tmp_path / "wav.scp", "rec a.wav")
    with (tmp_path / name).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ManifestError, match=rf"{name}:\d.*{message}"):
        scan(tmp_path)


def test_fairseq(tmp_path: Path) -> None:
    audio = tmp_path / "audio"
    audio.mkdir()
    table = lines(tmp_path / "valid.tsv", str(audio), "a/1.wav\t16000", "2.wav\t32000")
    assert scan(table) == Manifest(
        audio, (Record("2", "2.wav", split="dev"), Record("a/1", "a/1.wav", split="dev"))
    )
    lines(tmp_path / "valid.ltr", "h i | y o u |", "g o |")
    assert [r.text for r in scan(table).records] == ["go", "hi you"]
    lines(tmp_path / "valid.wrd", "one word", "two")
    assert [r.text for r in scan(table).records] == ["two", "one word"]
    lines(tmp_path / "valid.wrd", "one")
    with pytest.raises(ManifestError, match="1 lines for the 2"):
        scan(table)
    with pytest.raises(ManifestError, match=r"t\.tsv:2.*outside"):
        scan(lines(tmp_path / "t.tsv", str(audio), "../x.wav\t1"))


# ---- out and in again ---------------------------------------------------------------------------------------------

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
records = st.builds(
    Record,
    id=words.filter(bool),
    audio=st.lists(
        st.text("ab c'\"|\n\udcffé", min_size=1, max_size=6), min_size=1, max_size=3
    ).map("/".join),
    offset_s=st.floats(0, 1e6),
    duration_s=st.none() | st.floats(1e-3, 1e6),
    text=st.none() | words,
    speaker=st.none() | words,
    split=st.none() | words,
)


@given(st.lists(records, min_size=1, unique_by=lambda r: r.id))
@settings(max_examples=100, deadline=None)
def test_jsonl_round_trip(tmp_path_factory: pytest.TempPathFactory, listed: list[Record]) -> None:
    root = tmp_path_factory.getbasetemp() / "round"
    manifest = Manifest(root, tuple(sorted(listed, key=lambda r: r.id)))
    write_jsonl(manifest, root / "m.jsonl")
    data = (root / "m.jsonl").read_bytes()
    assert scan(root / "m.jsonl") == manifest
    write_jsonl(scan(root / "m.jsonl"), root / "m.jsonl")
    assert (root / "m.jsonl").read_bytes() == data


def test_jsonl_elsewhere(tmp_path: Path) -> None:
    touch(tmp_path, "corpus/a/x.wav")
    manifest = scan(tmp_path / "corpus")
    write_jsonl(manifest, tmp_path / "above.jsonl")
    assert [r.audio for r in scan(tmp_path / "above.jsonl").records] == ["corpus/a/x.wav"]
    write_jsonl(manifest, tmp_path / "beside" / "m.jsonl")
    assert str(tmp_path) not in (tmp_path / "beside" / "m.jsonl").read_text()
    assert scan(tmp_path / "beside" / "m.jsonl", root=tmp_path / "corpus") == manifest


@pytest.fixture
def small(tmp_path: Path) -> Manifest:
    for k in range(4):
        (tmp_path / "audio").mkdir(exist_ok=True)
        write_wav(
            tmp_path / "audio" / f"some file {k}.wav", np.zeros(8000 + 80 * k, np.float32), 8000
        )
    return Manifest(
        tmp_path / "audio",
        tuple(
            Record(
                f"some file {k}",
                f"some file {k}.wav",
                text=f"text {k}",
                speaker="a b",
                split="train",
            )
            for k in range(4)
        ),
    )


def test_kaldi_out(tmp_path: Path, small: Manifest) -> None:
    write_kaldi(small, tmp_path / "train")
    back = scan(tmp_path / "train", root=small.root)
    expected = tuple(
        replace(r, id=r.id.replace(" ", "%20"), speaker="a%20b") for r in small.records
    )
    assert back.records == expected
    parts = replace(
        small,
        records=tuple(
            replace(r, offset_s=0.25 * k, duration_s=0.5) for k, r in enumerate(small.records)
        ),
    )
    write_kaldi(parts, tmp_path / "parts")
    assert [
        (r.offset_s, r.duration_s) for r in scan(tmp_path / "parts", root=small.root).records
    ] == [(0.25 * k, 0.5) for k in range(4)]
    with pytest.raises(ManifestError, match="rename"):
        write_kaldi(replace(small, records=(Record("x", "a|"),)), tmp_path / "bad")


def test_fairseq_out(tmp_path: Path, small: Manifest) -> None:
    write_fairseq(small, tmp_path / "fs")
    assert (tmp_path / "fs/train.tsv").read_text().splitlines()[1:] == [
        f"some file {k}.wav\t{16000 + 160 * k}" for k in range(4)
    ]
    assert (tmp_path / "fs/train.ltr").read_text().splitlines()[0] == "t e x t | 0 |"
    back = scan(tmp_path / "fs" / "train.tsv")
    assert back.records == tuple(replace(r, speaker=None) for r in small.records)
    with pytest.raises(ManifestError, match="parts"):
        write_fairseq(replace(small, records=(Record("x", "x.wav", 1.0),)), tmp_path / "fs")


# ---- splits -------------------------------------------------------------------------------------------------------


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
