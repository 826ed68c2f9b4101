import json
import os
import stat
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechssl.errors import ConfigError
from speechssl.formats import FORMATS, Segment, Transcript, common_root, output_path, to_json, to_txt, write_atomic

SEGMENTS = (Segment(0.0, 1.25, "hello wörld"), Segment(1.3004, 2.0, " again\n "))
TRANSCRIPT = Transcript("a/x.wav", "hello wörld again", SEGMENTS, 2.00049, "tiny")
SILENCE = Transcript("s.wav", "", (), 3.0, "tiny")

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=80)
RELATIVE = st.lists(NAMES.filter(lambda name: name not in (".", "..")), min_size=1, max_size=3)


def test_txt_has_one_line_per_segment() -> None:
    assert to_txt(TRANSCRIPT) == "hello wörld\nagain\n"
    assert to_txt(SILENCE) == ""
    assert to_txt(Transcript("x", "only text", (), 1.0, "m")) == "only text\n"


def test_json_has_whispers_keys() -> None:
    table = json.loads(to_json(TRANSCRIPT))
    assert list(table) == ["text", "segments", "path", "duration_s", "model"]
    assert table["segments"][0] == {"id": 0, "start": 0.0, "end": 1.25, "text": "hello wörld"}
    assert table["segments"][1]["start"] == 1.3
    assert table["duration_s"] == 2.0
    assert "wörld" in to_json(TRANSCRIPT)
    assert json.loads(to_json(SILENCE))["segments"] == []


@given(st.binary(max_size=20).filter(lambda raw: b"\0" not in raw), st.text())
def test_json_is_utf8_for_any_file_name_and_text(raw_name: bytes, text: str) -> None:
    name = os.fsdecode(raw_name)
    table = json.loads(to_json(Transcript(name, text, (), 1.0, "m")).encode("utf-8"))
    assert table["path"] == name
    assert table["text"] == text


def test_formats_are_the_ones_promised() -> None:
    assert dict(FORMATS.items()) == {"txt": to_txt, "json": to_json}


def test_output_mirrors_the_input_tree(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert output_path(tmp_path / "in/a/x.wav", tmp_path / "in", out, ".txt") == out / "a/x.wav.txt"
    assert output_path(tmp_path / "in/../in/x.wav", tmp_path / "in", out, ".json") == out / "x.wav.json"


@given(st.lists(RELATIVE, min_size=2, max_size=8, unique_by=tuple))
def test_outputs_never_collide(inputs: list[list[str]]) -> None:
    root = Path("/in")
    outputs = [output_path(root.joinpath(*parts), root, Path("/out"), ".txt") for parts in inputs]
    for left, right in combinations(outputs, 2):
        assert left != right
    for parts, output in zip(inputs, outputs, strict=True):
        assert output.parent == Path("/out").joinpath(*parts[:-1])
        assert len(os.fsencode(output.name)) <= 255


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127 + "x", "語" * 85, os.fsdecode(b"\xff" * 255)])
def test_long_names_stay_writable_and_distinct(name: str, tmp_path: Path) -> None:
    outputs = {output_path(tmp_path / n, tmp_path, tmp_path, ".json") for n in (name, name[:-1] + "y")}
    assert len(outputs) == 2
    for output in outputs:
        write_atomic(output, "x")
        assert output.read_text() == "x"
        assert output.name.endswith(".json")


@pytest.mark.parametrize("name", ["-rf", "$(id)", "a b'\".wav", "new\nline.wav", os.fsdecode(b"\xff\xfe.wav"), "..."])
def test_hostile_names(name: str, tmp_path: Path) -> None:
    output = output_path(tmp_path / name, tmp_path, tmp_path / "out", ".txt")
    write_atomic(output, "x")
    assert os.listdir(tmp_path / "out") == [f"{name}.txt"]


@pytest.mark.parametrize("bad", ["other/x.wav", "in/../x.wav", "in"])
def test_input_outside_the_root_is_refused(bad: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="input"):
        output_path(tmp_path / bad, tmp_path / "in", tmp_path / "out", ".txt")


def test_common_root(tmp_path: Path) -> None:
    for name in ("a/x.wav", "b/x.wav", "b/c/y.wav"):
        write_atomic(tmp_path / name, "")
    assert common_root([tmp_path / "a/x.wav"]) == tmp_path / "a"
    assert common_root([tmp_path / "a/x.wav", tmp_path / "b/x.wav"]) == tmp_path
    assert common_root([tmp_path / "b", tmp_path / "b/c/y.wav"]) == tmp_path / "b"
    with pytest.raises(ConfigError, match="no inputs"):
        common_root([])


def test_write_atomic_writes_exact_bytes_with_usual_permissions(tmp_path: Path) -> None:
    path = tmp_path / "new/folder/x.txt"
    write_atomic(path, "é\r\nb\n")
    assert path.read_bytes() == "é\r\nb\n".encode()
    usual = tmp_path / "usual"
    usual.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)
    write_atomic(path, "second")
    assert path.read_text() == "second"
    assert os.listdir(path.parent) == ["x.txt"]


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.txt"
    write_atomic(path, "old")

    def full_disk(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.txt"]
