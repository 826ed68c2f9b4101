"""What readers of manifests passed over without a word: each is read, counted, or refused."""

import json
import random
from pathlib import Path

import pytest

from speechssl.corpus.layouts import scan
from speechssl.errors import ManifestError

WORDS = ["one", "two", "three", "four", "five"]


def sentence(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=4))


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize("seed", range(4))
def test_what_stands_twice_is_refused(tmp_path: Path, seed: int) -> None:
    """The last one counted: of two columns, two keys, two lines of an utterance."""
    rng = random.Random(seed)
    key = rng.choice(["text", "transcription", "speaker", "split"])
    first, second = sentence(rng), sentence(rng)

    table = tmp_path / "t.csv"
    table.write_text(f"file_name,{key},{key}\na.wav,{first},{second}\n")
    with pytest.raises(ManifestError, match=rf"t\.csv:1: two columns '{key}'"):
        scan(table)

    manifest = tmp_path / "m.jsonl"
    pairs = f'"{key}": {json.dumps(first)}, "{key}": {json.dumps(second)}'
    manifest.write_text(f'{{"audio_filepath": "a.wav", {pairs}}}\n')
    with pytest.raises(ManifestError, match=rf"m\.jsonl:1: .*the key '{key}' stands twice"):
        scan(manifest)

    lines = [f"1-2-{k} {sentence(rng)}\n" for k in range(4)]
    place = rng.randrange(4)
    lines.insert(rng.randint(place + 1, 4), f"1-2-{place} {second}\n")
    touch(tmp_path / "libri", *(f"1/2/1-2-{k}.flac" for k in range(4)))
    (tmp_path / "libri/1/2/1-2.trans.txt").write_text("".join(lines))
    with pytest.raises(ManifestError, match=f"'1-2-{place}' has a transcript already"):
        scan(tmp_path / "libri")


def test_columns_that_are_not_read_may_stand_twice(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("file_name,text,note,note\na.wav,one,x,y\n")
    assert [record.text for record in scan(table).records] == ["one"]


def test_recordings_of_one_name_share_their_transcript(tmp_path: Path) -> None:
    """Of a LibriSpeech tree only one of them was kept, whichever came last."""
    touch(tmp_path, "1/2/1-2-0.flac", "1/2/1-2-0.wav")
    (tmp_path / "1/2/1-2.trans.txt").write_text("1-2-0 ONE TWO\n")
    found = {record.audio: record.text for record in scan(tmp_path).records}
    assert found == {"1/2/1-2-0.flac": "ONE TWO", "1/2/1-2-0.wav": "ONE TWO"}


def test_recordings_without_a_segment_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wav.scp").write_text("a a.wav\nb b.wav\nc c.wav\n")
    (tmp_path / "segments").write_text("u b 0 1\n")
    assert [record.audio for record in scan(tmp_path).records] == ["b.wav"]
    said = "2 recordings of " + str(tmp_path / "wav.scp") + " have no segment and are left out"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("seed", range(4))
def test_empty_lines_stop_nothing(tmp_path: Path, seed: int) -> None:
    """They were an error in some layouts, and a row of commas led outside the folder."""
    rng = random.Random(seed)
    texts = {f"u{k}": sentence(rng) for k in range(5)}

    def written(lines: list[str], empty: list[str]) -> str:
        for _ in range(3):
            lines.insert(rng.randint(1, len(lines)), rng.choice(empty))
        return "".join(line + rng.choice(["\n", "\r\n"]) for line in lines)

    (tmp_path / "k").mkdir()
    for name, line in (("wav.scp", "{0} {0}.wav"), ("text", "{0} {1}")):
        lines = [line.format(*pair) for pair in texts.items()]
        (tmp_path / "k" / name).write_text(written(lines, ["", "  "]))

    touch(tmp_path / "l", *(f"1/2/{name}.flac" for name in texts))
    lines = [f"{name}{rng.choice([' ', chr(9)])}{text}" for name, text in texts.items()]
    (tmp_path / "l/1/2/x.trans.txt").write_text(written(lines, ["", "  "]))

    lines = ["file_name,text", *(f"{name}.wav,{text}" for name, text in texts.items())]
    (tmp_path / "t.csv").write_text(written(lines, ["", ",", " , "]))

    for source in ("k", "l", "t.csv"):
        found = {Path(record.audio).stem: record.text for record in scan(tmp_path / source).records}
        assert found == texts


@pytest.mark.parametrize("sign", [";", "\t", "|"])
def test_tables_of_other_signs_are_named(tmp_path: Path, sign: str) -> None:
    table = tmp_path / "metadata.csv"
    table.write_text(f"file_name{sign}text\na.wav{sign}one\n")
    with pytest.raises(ManifestError, match="commas must stand between columns, not "):
        scan(tmp_path)

    table.write_text("path,text\na.wav,one\n")
    with pytest.raises(ManifestError, match=r"path, text: .* of the recordings is file_name"):
        scan(tmp_path)


def test_a_text_without_a_recording_is_named(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("file_name,text\na.wav,one\n,two\n")
    with pytest.raises(ManifestError, match=r"t\.csv:3: the row names no recording"):
        scan(table)
