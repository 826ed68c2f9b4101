"""Every layout read back: nothing outside the root, no order of files, bad lines named."""

import csv
import json
import os
import random
import shutil
from pathlib import Path

import pytest

from speechssl.corpus.layouts import scan
from speechssl.corpus.manifest import Manifest, Record, write_jsonl
from speechssl.errors import ManifestError


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def lines(path: Path, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


# ---- audio folders -------------------------------------------------------------------------------


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


# ---- tables --------------------------------------------------------------------------------------


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
    table = where / "metadata.csv"
    unlisted = where / "unlisted.wav"
    said = f"1 recordings are not in {table} and are left out, {unlisted} for one"
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
    with pytest.raises(ManifestError, match=r"2 lines of .*text, whose ids are none of the 2"):
        scan(folder)
    assert [r.id for r in scan(folder, ignore_transcripts=True).records] == ["rec1", "rec2"]
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


# ---- what people's files have --------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_parts_by_start_and_end_are_those_by_offset_and_duration(tmp_path: Path, seed: int) -> None:
    """Start and end were passed over: each text became that of the whole recording."""
    rng = random.Random(seed)
    start_name = rng.choice(["start", "Start", "begin", "start_time", "startTime", "offset"])
    end_name = rng.choice(["end", "End", "end_time", "endTime", "end_s"])
    times = sorted(rng.uniform(0, 100) for _ in range(8))
    expected = []
    rows = []
    for k, (start, end) in enumerate(zip(times[::2], times[1::2], strict=True)):
        expected.append((start, pytest.approx(end - start, abs=1e-6), f"text {k}"))
        row = {"audio_filepath": "a.wav", "text": f"text {k}", start_name: start, end_name: end}
        if rng.random() < 0.5:
            row["duration"] = end - start
        rows.append(json.dumps(row))
    records = scan(lines(tmp_path / "m.jsonl", *rows)).records
    found = sorted((r.offset_s, r.duration_s, r.text) for r in records)
    assert found == expected


@pytest.mark.parametrize(
    "row",
    [
        {"start": 2, "end": 1},
        {"start": 1, "end": 1},
        {"start": 0, "end": 2, "duration": 60},
        {"start_ms": 1000, "end_ms": 2000},
        {"begin_sample": 16000},
        {"onset": 1.5, "offset": 2.5},
    ],
)
def test_parts_that_are_not_understood_are_refused(tmp_path: Path, row: dict[str, float]) -> None:
    given = {"audio_filepath": "a.wav", "text": "one", **row}
    with pytest.raises(ManifestError, match=r"m\.jsonl:1: "):
        scan(lines(tmp_path / "m.jsonl", json.dumps(given)))


@pytest.mark.parametrize("seed", range(3))
def test_every_reader_has_the_same_names_of_splits(tmp_path: Path, seed: int) -> None:
    """JSONL knew dev alone, so that validation was another split."""
    rng = random.Random(seed)
    names = {
        "dev": ["dev", "valid", "Validation", "val", "development", "dev-other"],
        "test": ["test", "eval", "Evaluation", "test_clean"],
        "train": ["train", "Training", "train-clean-100"],
    }
    for split, others in names.items():
        name = rng.choice(others)
        row = {"audio_filepath": "a.wav", "split": name}
        touch(tmp_path, f"{name}/a.wav")
        sources = [
            lines(tmp_path / "m.jsonl", json.dumps(row)),
            lines(tmp_path / "t.csv", "file_name,split", f"a.wav,{name}"),
            lines(tmp_path / f"{name}.tsv", str(tmp_path), "a.wav\t1"),
            lines(tmp_path / name / "wav.scp", "a a.wav").parent,
        ]
        assert [scan(source).records[0].split for source in sources] == [split] * 4


def test_an_empty_speaker_is_none(tmp_path: Path) -> None:
    """All that had one were one speaker, and so in one split."""
    row = {"audio_filepath": "a.wav", "speaker": "", "split": "", "id": ""}
    assert scan(lines(tmp_path / "m.jsonl", json.dumps(row))).records == (Record("a", "a.wav"),)


@pytest.mark.parametrize("seed", range(8))
def test_a_quotation_mark_that_is_not_closed_is_refused(tmp_path: Path, seed: int) -> None:
    """The rows after it went into one transcript, up to the next quotation mark."""
    rng = random.Random(seed)
    header = rng.choice([["file_name", "text"], ["text", "file_name"], ["a", "text", "file_name"]])
    rows = [{"file_name": f"{k}.wav", "text": f"it is {k}", "a": "x"} for k in range(9)]
    opened, closed = sorted(rng.sample(range(9), 2))
    rows[opened]["text"] = '"' + rows[opened]["text"]
    if rng.random() < 0.5:
        rows[closed]["text"] += '"'
    written = [",".join(row[name] for name in header) for row in rows]
    table = lines(tmp_path / "t.csv", ",".join(header), *written)
    with pytest.raises(ManifestError, match=rf"t\.csv:{opened + 2}: .*quotation mark"):
        scan(table)


def test_links_out_of_a_folder_have_a_remedy_that_works(tmp_path: Path) -> None:
    """The advice was --root, which a folder of audio refuses."""
    touch(tmp_path, "blobs/x.wav")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot/x.wav").symlink_to("../blobs/x.wav")
    row = json.dumps({"audio_filepath": "x.wav"})
    table = lines(tmp_path / "snapshot/t.csv", "file_name", "x.wav")
    for source in (tmp_path / "snapshot", table, lines(tmp_path / "snapshot/m.jsonl", row)):
        with pytest.raises(ManifestError, match="cp -rL FOLDER COPY"):
            scan(source)
    shutil.copytree(tmp_path / "snapshot", tmp_path / "copy", symlinks=False)
    assert len(scan(tmp_path / "copy").records) == 1

    # Only some layouts take a root.
    with pytest.raises(ManifestError, match="give the audio's folder as --root"):
        scan(lines(tmp_path / "k/wav.scp", f"a {tmp_path}/blobs/x.wav").parent)
    with pytest.raises(ManifestError, match=r"leads outside.*a JSONL manifest may"):
        scan(lines(tmp_path / "k/t.csv", "file_name", "../blobs/x.wav"))


def test_files_of_another_kind_are_named(tmp_path: Path) -> None:
    array = lines(tmp_path / "m.json", '[{"audio_filepath": "a.wav"},', '{"audio_filepath": "b"}]')
    with pytest.raises(ManifestError, match=r"m\.json:1: a JSON array, .*one object a line"):
        scan(array)
    beginnings = {
        ".gz": b"\x1f\x8b",
        ".bz2": b"BZh",
        ".zip": b"PK\3\4",
        ".zst": b"\x28\xb5\x2f\xfd",
    }
    for suffix, beginning in beginnings.items():
        compressed = tmp_path / f"m.jsonl{suffix}"
        compressed.write_bytes(beginning + b"....")
        with pytest.raises(ManifestError, match=r"it is .*; unpack it, and give what was in it"):
            scan(compressed)
