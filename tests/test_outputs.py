"""Where transcripts go, what is printed instead, and what the report says."""

import io
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from speechssl.errors import ConfigError
from speechssl.formats import FORMATS, CueLimits, Transcript
from speechssl.outputs import MADE_BY, STDIN, Outputs, claim, outcome, plan_outputs
from speechssl.transcribing import Failure


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    for name in ("in/a.wav", "in/deep/a.wav", "in/b.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path / "in"


def plan(paths: Sequence[Path], formats: str = "txt", folder: Path | None = None, spool: Path = Path("no")) -> Outputs:
    return plan_outputs(paths, formats.split(","), CueLimits(), folder, spool)


def said(path: Path, text: str = "a b") -> Transcript:
    return Transcript(str(path), text, (), 1.5, "m")


def test_files_mirror_the_inputs(inputs: Path, tmp_path: Path) -> None:
    outputs = plan([inputs, inputs / "a.wav"], "txt,json", tmp_path / "out")
    assert outputs.files == (inputs / "a.wav", inputs / "deep/a.wav")  # each once
    assert [outputs.put(said(path)) for path in outputs.files] == ["", ""]
    written = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*"))
    assert written == [f"{name}.wav.{kind}" for name in ("a", "deep/a") for kind in ("json", "txt")]
    assert outputs.is_done(inputs / "a.wav")
    os.utime(inputs / "deep/a.wav", (2e9, 2e9))
    assert not outputs.is_done(inputs / "deep/a.wav")  # it was recorded again since
    (tmp_path / "out/a.wav.txt").unlink()
    assert not outputs.is_done(inputs / "a.wav")  # one format is missing
    (inputs / "link.wav").symlink_to("nowhere.wav")
    assert not outputs.is_done(inputs / "link.wav")


def test_force_that_was_killed_leaves_nothing_of_the_other_model_done(inputs: Path, tmp_path: Path) -> None:
    outputs, made = plan([inputs], "txt", tmp_path / "out"), [{"model": "a"}, {"model": "b"}]
    claim(tmp_path / "out", made[0], force=False)
    for path in outputs.files:
        outputs.put(said(path))
        for age, file in ((3, path), (1, outputs.targets(path)[0])):
            os.utime(file, (time.time() - age,) * 2)
    os.utime(tmp_path / "out" / MADE_BY, (time.time() - 2,) * 2)
    claim(tmp_path / "out", made[0], force=True)  # the same model: what is there is right
    assert all(map(outputs.is_done, outputs.files))
    claim(tmp_path / "out", made[1], force=True)
    outputs.put(said(outputs.files[0]))
    claim(tmp_path / "out", made[1], force=False)
    assert [outputs.is_done(path) for path in outputs.files] == [True, False]


def test_transcripts_of_two_models_are_not_mixed(tmp_path: Path) -> None:
    made = {"model": "a", "language_model": "b"}
    claim(tmp_path, made, force=False)
    claim(tmp_path, made, force=False)
    for other in ({"model": "a"}, {"model": "c", "language_model": "b"}):
        with pytest.raises(ConfigError, match="holds transcripts of another model or language model: give another"):
            claim(tmp_path, other, force=False)
    claim(tmp_path, {"model": "a"}, force=True)
    claim(tmp_path, {"model": "a"}, force=False)
    assert json.loads((tmp_path / MADE_BY).read_text()) == {"model": "a"}
    (tmp_path / MADE_BY).write_text("{")
    with pytest.raises(ConfigError, match="another model"):
        claim(tmp_path, made, force=False)


def test_lines_on_stdout_say_of_which_file_they_are_where_there_are_several(inputs: Path) -> None:
    path = inputs / "a.wav"
    assert plan([path]).put(said(path)) == FORMATS["txt"](said(path), CueLimits())
    assert plan([inputs]).put(said(Path("x\ty\n.wav"))) == "x\\ty\\n.wav\ta b\n"
    assert not plan([path]).is_done(path)


def test_standard_input_is_read_once_and_shown_as_given(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stdin:
        buffer: Any = io.BytesIO(b"sound")

    monkeypatch.setattr("sys.stdin", Stdin)
    (tmp_path / "spool").mkdir()
    outputs = plan([STDIN, inputs / "a.wav", STDIN], "txt", tmp_path / "out", tmp_path / "spool")
    spooled = outputs.files[0]
    assert (spooled.read_bytes(), len(outputs.files)) == (b"sound", 2)
    assert outputs.put(said(spooled)) == ""
    assert (tmp_path / "out/stdin.txt").read_text() == "a b\n"
    assert not outputs.is_done(spooled)
    assert outcome(outputs, spooled, None)["path"] == "-"


def test_the_report_has_what_became_of_a_file(inputs: Path) -> None:
    path = inputs / "a.wav"
    outputs = plan([path])
    assert outcome(outputs, path, said(path)) == {"path": str(path), "status": "done", "duration_s": 1.5, "words": 2}
    assert outcome(outputs, path, None) == {"path": str(path), "status": "done before"}
    assert outcome(outputs, path, Failure(str(path), "why")) == {"path": str(path), "status": "failed", "error": "why"}


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        ("txt,xml", "'xml' is unknown: allowed are txt"),
        ("txt,json", "stdout takes one format"),
        ("srt", "srt holds one recording, and these are 2"),
    ],
)
def test_what_one_stream_cannot_hold_is_refused(inputs: Path, formats: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan([inputs], formats)


def test_no_audio_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no audio found"):
        plan([tmp_path])
    with pytest.raises(ConfigError, match="no such file"):
        plan([tmp_path / "missing.wav"])
