"""What looks like transcripts and is not read: named, counted, and a reason to stop."""

import json
import random
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.commands import call

from speechssl.audio.reader import write_wav
from speechssl.corpus.layouts import scan
from speechssl.data.prepare import prepare
from speechssl.errors import ManifestError

SENTENCES = [
    "the cat sat on the mat",
    "good evening and welcome",
    "rain is expected in the north",
    "nobody knows what he said",
    "it was a long way home",
    "今天天气很好我们去公园",
]


def recordings(root: Path, rng: random.Random, folder: str = "") -> list[str]:
    """Empty files with names of several kinds; their names without the suffix."""
    kind = rng.choice(["{n}", "utt_{n:03d}", "common_voice_en_{n}", "a.b.{n}"])
    stems = [kind.format(n=n) for n in range(1, 7)]
    suffix = rng.choice([".wav", ".mp3", ".flac"])
    for stem in stems:
        path = root / folder / (stem + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return [stem + suffix for stem in stems]


def random_noise(seed: str) -> NDArray[np.float32]:
    rng = np.random.default_rng(list(seed.encode()))
    return (0.1 * rng.standard_normal(48000)).astype(np.float32)


Write = Callable[[Path, list[str]], object]

# Names of columns that are transcripts, and of columns that only look like it.
READ = ["transcript", "Transcription", " text", "Sentence", "TEXT "]
NOT_READ = ["normalized_text", "Transcribed", "Satz", "prompts", "orthographic", "what_was_said"]


def _table(name: str, row: str, header: str = "") -> Write:
    def write(root: Path, names: list[str]) -> None:
        rows = [header] if header else []
        for audio, text in zip(names, SENTENCES, strict=True):
            stem = audio.rpartition(".")[0]
            rows.append(row.format(audio=audio, stem=stem, text=text))
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")

    return write


def _beside(suffix: str, content: str = "{text}", folder: str = "") -> Write:
    def write(root: Path, names: list[str]) -> None:
        for audio, text in zip(names, SENTENCES, strict=True):
            path = root / folder / (audio.rpartition(".")[0] + suffix)
            path.parent.mkdir(exist_ok=True)
            path.write_text(content.format(text=text), encoding="utf-8")

    return write


FILES: dict[str, Write] = {
    "1.txt": _beside(".txt"),
    "txt/1.txt": _beside(".txt", folder="txt"),
    "1.normalized.txt": _beside(".normalized.txt"),
    "1.TXT in Latin-1": lambda root, names: [
        (root / (name.rpartition(".")[0] + ".TXT")).write_bytes("schöne Grüße".encode("latin-1"))
        for name in names
    ],
    "ELAN": _beside(".eaf", "<ANNOTATION_DOCUMENT/>"),
    "Praat": _beside(".TextGrid", 'File type = "ooTextFile"'),
    "subtitles": _beside(".srt", "1\n00:00:00,000 --> 00:00:01,000\n{text}\n"),
    "web subtitles": _beside(".en.vtt", "WEBVTT\n"),
    "json beside": _beside(".json", '{{"duration": 3, "text": "{text}"}}'),
    "other jsonl": _table("texts.jsonl", '{{"file_name": "{audio}", "text": "{text}"}}'),
    "Common Voice": _table("validated.tsv", "cl\t{audio}\t{text}", "client_id\tpath\tsentence"),
    "VoxForge": _table("etc/PROMPTS", "corpus/mfc/{stem} {text}"),
    "festival": _table("txt.done.data", '( {stem} "{text}" )'),
    "sclite": _table("ref.txt", "{text} ({stem})"),
    "pipes": _table("list.txt", "{stem}|{text}|{text}"),
    "other name": _table("transcripts.csv", "{audio},{text}", "file_name,transcription"),
    "other case": _table("Metadata.csv", "{audio},{text}", "file_name,transcription"),
    "a text of no names": lambda root, names: (root / "Transkript.txt").write_text("Guten Abend"),
    "link": lambda root, names: (root / "prompts.list").symlink_to("/proc/self/status"),
    "Parquet": lambda root, names: (root / "metadata.parquet").write_bytes(b"PAR1\0PAR1"),
    "Parquet beside": _beside(".parquet", "PAR1"),
    "Arrow": lambda root, names: (root / "transcripts.arrow").write_bytes(b"ARROW1\0\0"),
    "compressed table": lambda root, names: (root / "metadata.csv.gz").write_bytes(b"\x1f\x8b"),
    "Excel": lambda root, names: (root / "transcriptions.xlsx").write_bytes(b"PK\0\0"),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_that_look_like_transcripts_stop_the_reading(tmp_path: Path, kind: str) -> None:
    """They were passed over: an unlabelled store, and not a word."""
    rng = random.Random(kind)
    names = recordings(tmp_path, rng, folder=rng.choice(["", "clips"]))
    FILES[kind](tmp_path, names)
    written = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    others = sorted(set(written) - set(names))

    with pytest.raises(ManifestError, match="--ignore-transcripts") as caught:
        scan(tmp_path)
    assert f"{len(others)} files" in str(caught.value)
    assert others[0] in str(caught.value)
    assert "6 of 6 recordings" in str(caught.value)
    assert len(scan(tmp_path, ignore_transcripts=True).records) == 6


@pytest.mark.parametrize("seed", range(6))
def test_several_kinds_at_once_are_counted_together(tmp_path: Path, seed: int) -> None:
    """Beside recordings alone, or beside a table in which only some have a transcript."""
    rng = random.Random(seed)
    names = recordings(tmp_path, rng)
    num_silent = 6
    column = None
    if seed % 2:
        # Texts in a column that is not read, in the rows that have none.
        column = rng.choice(NOT_READ)
        num_silent = rng.randint(1, 6)
        silent = set(rng.sample(names, num_silent))
        rows = [f"file_name,text,{column}"]
        for name, text in zip(names, SENTENCES, strict=True):
            rows.append(f"{name},,{text}" if name in silent else f"{name},{text},")
        (tmp_path / "metadata.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    before = set(tmp_path.rglob("*"))

    # These list all recordings, so that it does not matter which of them have a transcript.
    lists = ["other jsonl", "Common Voice", "VoxForge", "festival", "sclite", "pipes", "Excel"]
    kinds = rng.sample(lists, rng.randint(2, 4))
    for kind in kinds:
        FILES[kind](tmp_path, names)
    written = sorted(path for path in set(tmp_path.rglob("*")) - before if path.is_file())
    assert len(written) == len(kinds)

    with pytest.raises(ManifestError, match="--ignore-transcripts") as caught:
        scan(tmp_path)
    said = str(caught.value)
    assert f"{len(kinds)} files ({', '.join(map(str, written))})" in said
    assert f"{num_silent} of 6 recordings or parts have no transcript" in said
    assert column is None or f"{num_silent} cells of {column!r} in" in said
    assert len(scan(tmp_path, ignore_transcripts=True).records) == 6


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("reader", ["table", "manifest"])
def test_files_are_only_named_where_all_have_a_transcript(
    tmp_path: Path, kind: str, reader: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Columns were named then, and files were not."""
    rng = random.Random(kind)
    names = recordings(tmp_path, rng)
    texts = rng.sample(SENTENCES, 6)
    key = "file_name" if reader == "table" else "audio_filepath"
    rows = [{key: name, "text": text} for name, text in zip(names, texts, strict=True)]
    table = tmp_path / ("metadata.jsonl" if reader == "table" else "all.jsonl")
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = set(tmp_path.rglob("*"))

    FILES[kind](tmp_path, names)
    written = sorted(path for path in set(tmp_path.rglob("*")) - before if path.is_file())
    # A manifest may be one of many for its folder, so only files of a recording's name are looked
    # at beside it.
    stems = tuple(name.rpartition(".")[0] for name in names)
    if reader == "manifest":
        written = [p for p in written if p.parent == tmp_path and p.name.startswith(stems)]

    found = scan(tmp_path if reader == "table" else table)
    assert [record.text for record in found.records] == texts
    told = capsys.readouterr().err
    if written:
        assert f"not read, but looking like transcripts: {len(written)} files ({written[0]}" in told
    else:
        assert "not read" not in told


def test_the_command_that_converts_parquet_is_named(tmp_path: Path) -> None:
    """It is run with a stand-in for pandas, which shows what it is asked to do."""
    folder = tmp_path / 'it\'s a "corpus"'
    folder.mkdir()
    recordings(folder, random.Random(1))
    (folder / "metadata.parquet").write_bytes(b"PAR1\0PAR1")
    with pytest.raises(ManifestError) as caught:
        scan(folder)

    (tmp_path / "pandas.py").write_text(
        "class Table:\n"
        "    def to_csv(self, *made, **options): print(made, options)\n"
        "def read_parquet(*given): print(given); return Table()\n"
    )
    command, _, _ = str(caught.value).partition(". Without them")
    _, _, command = command.partition("pyarrow): python ")
    run = subprocess.run(
        [sys.executable, *shlex.split(command)], cwd=tmp_path, capture_output=True, text=True
    )
    given = (str(folder / "metadata.parquet"),)
    made = (str(folder / "metadata.csv"),)
    assert run.stdout.splitlines() == [str(given), f"{made} {{'index': False}}"]


def test_other_files_stop_nothing(tmp_path: Path) -> None:
    names = recordings(tmp_path, random.Random(0))
    listed = "".join(f"{name}\n" for name in names)
    (tmp_path / "README.md").write_text("A corpus of six recordings.\nMade in spring.\n")
    (tmp_path / "files.m3u").write_text(listed)
    (tmp_path / "md5.sums").write_text("".join(f"{k:032x}  {n}\n" for k, n in enumerate(names)))
    (tmp_path / "sizes.tsv").write_text("".join(f"{name}\t{16000}\n" for name in names))
    (tmp_path / "cover.jpg").write_bytes(b"\xff\xd8\0\0")
    (tmp_path / f"{names[0]}.png").write_bytes(b"\x89PNG\0")
    (tmp_path / f"._{names[0]}.txt").write_text("a Mac wrote this")
    rows = "".join(json.dumps({"id": n, "audio_filepath": n}) + "\n" for n in names)
    (tmp_path / "m.jsonl").write_text(rows)
    assert len(scan(tmp_path).records) == 6
    assert len(scan(tmp_path / "m.jsonl").records) == 6


def test_a_store_beside_the_recordings_is_no_transcript(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_wav(tmp_path / f"{name}.wav", random_noise(name), 16000)
    first = prepare(tmp_path, tmp_path / "store")
    assert prepare(tmp_path, tmp_path / "store") == first
    (tmp_path / "other/parts").mkdir(parents=True)
    (tmp_path / "other/parts/plan.json").touch()
    (tmp_path / "other/parts/00000.jsonl").write_text('{"id": "one", "text": "good evening"}')
    assert prepare(tmp_path, tmp_path / "store") == first


def test_texts_beside_files_of_a_manifest_without_texts(tmp_path: Path) -> None:
    """Also of one recording that is given alone."""
    names = recordings(tmp_path, random.Random(1))
    rows = [{"audio_filepath": name} for name in names]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "t.csv").write_text("\n".join(["file_name", *names]) + "\n")
    _beside(".txt")(tmp_path, names)
    for source, count in (("m.jsonl", 6), ("t.csv", 6), (names[0], 1)):
        with pytest.raises(ManifestError, match=f"{count} files .*of {count} recordings"):
            scan(tmp_path / source)


def test_texts_beside_a_table_of_fairseq(tmp_path: Path) -> None:
    """Only .wrd and .ltr are read."""
    names = recordings(tmp_path, random.Random(2))
    rows = "".join(f"{name}\t16000\n" for name in names)
    (tmp_path / "train.tsv").write_text(f"{tmp_path}\n{rows}")
    (tmp_path / "train.km").write_text("1 2 3\n" * 6)
    assert len(scan(tmp_path / "train.tsv").records) == 6
    (tmp_path / "train.txt").write_text("\n".join(SENTENCES))
    with pytest.raises(ManifestError, match=r"1 files \(.*train\.txt\).*6 of 6"):
        scan(tmp_path / "train.tsv")


@pytest.mark.parametrize("suffix", [".wrd", ".ltr"])
def test_an_empty_line_beside_a_table_of_fairseq_is_a_recording_without_a_text(
    tmp_path: Path, suffix: str
) -> None:
    """The file has been read, so it is not named as one that was not."""
    rng = random.Random(suffix)
    names = recordings(tmp_path, rng)
    rows = "".join(f"{name}\t16000\n" for name in names)
    (tmp_path / "train.tsv").write_text(f"{tmp_path}\n{rows}")

    texts = ["a b |" for _ in names]
    texts[rng.randrange(len(texts))] = ""
    (tmp_path / f"train{suffix}").write_text("\n".join(texts) + "\n")

    found = [record.text for record in scan(tmp_path / "train.tsv").records]
    assert sum(bool(text) for text in found) == len(names) - 1


@pytest.mark.parametrize("seed", range(6))
def test_columns_are_read_or_stop_the_reading(tmp_path: Path, seed: int) -> None:
    """Only three names were known, in lower case; with others nothing had a transcript."""
    rng = random.Random(seed)
    names = recordings(tmp_path, rng)
    texts = dict(zip(names, SENTENCES, strict=True))
    for column in (rng.choice(READ), rng.choice(NOT_READ)):
        table = [f"file_name,{column},speaker"]
        table += [f"{name},{text},anna" for name, text in texts.items()]
        (tmp_path / "t.csv").write_text("\n".join(table) + "\n", encoding="utf-8")
        rows = [{"audio_filepath": name, column: text} for name, text in texts.items()]
        lines = [json.dumps(row) for row in rows]
        (tmp_path / "t.jsonl").write_text("\n".join(lines) + "\n")

        for source in ("t.csv", "t.jsonl"):
            if column in READ:
                found = {r.audio: r.text for r in scan(tmp_path / source).records}
                assert found == texts
                continue
            with pytest.raises(ManifestError, match="--ignore-transcripts") as caught:
                scan(tmp_path / source)
            assert f"6 cells of {column!r} in" in str(caught.value)
            assert len(scan(tmp_path / source, ignore_transcripts=True).records) == 6


def test_a_second_column_is_only_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every recording has a transcript, so none is without one."""
    table = ["file_name,text,raw_text,text_id", "a.wav,one two,One two!,x7", "b.wav,three,three,x8"]
    (tmp_path / "t.csv").write_text("\n".join(table) + "\n")
    assert [r.text for r in scan(tmp_path / "t.csv").records] == ["one two", "three"]
    assert "1 cells of 'raw_text' in" in capsys.readouterr().err


def test_the_commands_stop_and_go_on(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("one", "two"):
        write_wav(tmp_path / "in" / f"{name}.wav", random_noise(name), 16000)
        (tmp_path / "in" / f"{name}.txt").write_text("good evening\n")
    given = ("prepare", tmp_path / "in", tmp_path / "store")
    refused = call(*given)
    assert refused.exit_code == 1
    assert "2 files" in str(refused.exception)
    done = call(*given, "--ignore-transcripts")
    assert done.exit_code == 0
    assert "2 files" in done.stderr
    out = tmp_path / "kaldi"
    given = ("manifest", tmp_path / "in", out, "--to", "kaldi")
    assert call(*given).exit_code == 1
    assert call(*given, "--ignore-transcripts").exit_code == 0
