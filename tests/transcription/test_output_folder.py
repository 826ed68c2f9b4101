"""Where transcripts go, what is printed instead, and what the report says."""

import io
import json
import os
import random
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechssl.errors import ConfigError
from speechssl.storage.atomic import write_atomic
from speechssl.transcription import output_folder
from speechssl.transcription.cues import CueLimits
from speechssl.transcription.file_names import common_root, output_path
from speechssl.transcription.formats import FORMATS
from speechssl.transcription.output_folder import (
    DONE,
    GONE,
    MADE_BY,
    STDIN,
    UNFINISHED,
    Outputs,
    claim,
    outcome,
    plan_outputs,
)
from speechssl.transcription.transcript import Failure, Transcript


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    for name in ("in/a.wav", "in/deep/a.wav", "in/b.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path / "in"


def plan(
    paths: Sequence[Path],
    formats: str = "txt",
    folder: Path | None = None,
    spool: Path = Path("no"),
) -> Outputs:
    return plan_outputs(paths, formats.split(","), CueLimits(), folder, spool)


def said(path: Path, text: str = "a b") -> Transcript:
    return Transcript(str(path), text, (), 1.5, "m")


def test_files_mirror_the_inputs(inputs: Path, tmp_path: Path) -> None:
    outputs = plan([inputs, inputs / "a.wav"], "txt,json", tmp_path / "out")
    assert outputs.files == (inputs / "a.wav", inputs / "deep/a.wav")  # each once
    assert [outputs.put(said(path)) for path in outputs.files] == ["", ""]
    written = sorted(
        str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.wav.*")
    )
    assert written == [f"{name}.wav.{kind}" for name in ("a", "deep/a") for kind in ("json", "txt")]

    def waiting() -> list[Path]:
        return plan([inputs], "txt,json", tmp_path / "out").waiting()

    assert waiting() == []
    os.utime(inputs / "deep/a.wav", (1e9, 1e9))
    assert waiting() == [inputs / "deep/a.wav"]  # another recording of this name
    (tmp_path / "out/a.wav.txt").unlink()
    assert inputs / "a.wav" in waiting()  # one format is missing
    (inputs / "link.wav").symlink_to("nowhere.wav")
    assert inputs / "link.wav" in waiting()


def test_a_recording_that_changes_while_it_is_read_is_read_again(
    inputs: Path, tmp_path: Path
) -> None:
    outputs = plan([inputs / "a.wav"], "txt", tmp_path / "out")
    (inputs / "a.wav").write_bytes(b"longer")
    outputs.put(said(inputs / "a.wav"))
    assert plan([inputs / "a.wav"], "txt", tmp_path / "out").waiting() == [inputs / "a.wav"]


def test_two_recordings_of_one_name_do_not_share_a_transcript(inputs: Path, tmp_path: Path) -> None:
    """A second file of the same name was "done already", with the text of the first."""
    first, second, out = inputs / "a.wav", inputs / "deep/a.wav", tmp_path / "out"
    outputs = plan([first], "txt", out)
    assert outputs.waiting() == [first]
    outputs.put(said(first))
    assert plan([first], "txt", out).waiting() == []

    second.write_bytes(b"other")
    with pytest.raises(
        ConfigError, match=r"out/a\.wav\.txt would be of .*deep/a\.wav, and is of .*in/a\.wav: give"
    ):
        plan([second], "txt", out).waiting()
    assert plan([inputs], "txt", out).waiting() == [
        second
    ]  # under their common folder they do not meet

    second.write_bytes(
        first.read_bytes()
    )  # of one size and time, as an archive's may be, and yet another
    os.utime(second, ns=(first.stat().st_mtime_ns,) * 2)
    with pytest.raises(ConfigError, match="would be of"):
        plan([second], "txt", out).waiting()

    (tmp_path / "link").symlink_to(out)
    with pytest.raises(ConfigError, match="would be of"):
        plan([second], "txt", tmp_path / "link").waiting()

    elsewhere = inputs.rename(tmp_path / "moved")
    assert (
        plan([elsewhere / "a.wav"], "txt", out).waiting() == []
    )  # nor does a name that is gone stand in the way


def test_each_format_is_of_a_recording_of_its_own(inputs: Path, tmp_path: Path) -> None:
    """Text of the first state, JSON of the second: the text said to be of the second too."""
    path, out = inputs / "a.wav", tmp_path / "out"
    plan([path], "txt", out).put(said(path))
    path.write_bytes(b"other")
    plan([path], "json", out).put(said(path))
    assert plan([path], "json", out).waiting() == []
    assert plan([path], "txt", out).waiting() == [path]
    with pytest.raises(ConfigError, match=r"a\.wav\.txt would be of"):
        plan([inputs / "deep/a.wav"], "txt,srt", out).waiting()


def test_a_write_that_stops_half_way_leaves_no_false_note(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = inputs / "a.wav", tmp_path / "out"
    plan([path], "txt", out).put(said(path))
    other = plan([inputs / "deep/a.wav"], "txt", out)

    def note(folder: Path, targets: Sequence[Path], about: Any) -> None:
        if about not in (UNFINISHED, GONE):
            raise OSError("no space left")
        real(folder, targets, about)

    real = output_folder._note
    monkeypatch.setattr(output_folder, "_note", note)
    with pytest.raises(OSError, match="no space"):
        other.put(said(inputs / "deep/a.wav", "other words"))  # as with --force
    assert (out / "a.wav.txt").read_text() == "other words\n"
    assert plan([path], "txt", out).waiting() == [path]

    # Nor where the old one was deleted.
    monkeypatch.setattr(output_folder, "_note", real)
    plan([path], "txt", out).put(said(path))
    (out / "a.wav.txt").unlink()
    assert other.waiting() == [inputs / "deep/a.wav"]
    monkeypatch.setattr(output_folder, "_note", note)
    with pytest.raises(OSError, match="no space"):
        other.put(said(inputs / "deep/a.wav", "other words"))
    assert plan([path], "txt", out).waiting() == [path]


def test_what_a_kill_cut_off_is_made_again(inputs: Path, tmp_path: Path) -> None:
    outputs = plan([inputs], "txt", tmp_path / "out")
    for path in outputs.files:
        outputs.put(said(path))
    lines = (tmp_path / "out" / DONE).read_bytes().rstrip()
    (tmp_path / "out" / DONE).write_bytes(lines[:-9])
    assert outputs.waiting() == [outputs.files[1]]
    outputs.put(said(outputs.files[1]))
    assert outputs.waiting() == []
    (tmp_path / "out" / DONE).write_bytes(
        b'[]\n{"file": 1}\n{"file": "a.wav.txt", "input": "x"}\n\xff'
    )
    assert outputs.waiting() == list(outputs.files)


def test_force_that_was_killed_leaves_nothing_of_the_other_model_done(
    inputs: Path, tmp_path: Path
) -> None:
    outputs, made = plan([inputs], "txt", tmp_path / "out"), [{"model": "a"}, {"model": "b"}]
    claim(tmp_path / "out", made[0], force=False)
    for path in outputs.files:
        outputs.put(said(path))
    claim(tmp_path / "out", made[0], force=True)  # the same model: what is there is right
    assert outputs.waiting() == []
    claim(tmp_path / "out", made[1], force=True)
    outputs.put(said(outputs.files[0]))
    claim(tmp_path / "out", made[1], force=False)
    assert outputs.waiting() == [outputs.files[1]]


@pytest.mark.parametrize("seed", range(4))
def test_a_file_that_is_not_noted_stays(inputs: Path, tmp_path: Path, seed: int) -> None:
    """In a new folder, beside transcripts of ours, and where one of ours was deleted."""
    draws = random.Random(seed)
    recordings = [inputs / "a.wav", inputs / "deep/a.wav", inputs / "deep/er/c.wav"]
    recordings[-1].parent.mkdir()
    recordings[-1].touch()
    formats = draws.sample(sorted(FORMATS), 3)
    out = tmp_path / "out"
    outputs = plan([inputs], ",".join(formats), out)
    mine = draws.choice(outputs.targets(draws.choice(recordings)))

    def check_it_stays() -> None:
        with pytest.raises(ConfigError) as refused:
            outputs.check_unclaimed()
        assert f"{mine} is there already, and {DONE} does not name it as" in str(refused.value)
        assert "give another --output-dir, or --force" in str(refused.value)
        assert mine.read_text() == "said so"

    write_atomic(mine, "said so")
    check_it_stays()

    claim(out, {"model": "a"}, force=False)
    others = [path for path in recordings if mine not in outputs.targets(path)]
    for path in others:
        outputs.put(said(path))
    check_it_stays()

    # What was forced is ours.
    for path in recordings:
        outputs.put(said(path))
    outputs.check_unclaimed()
    assert outputs.waiting() == []

    # One that was deleted is no longer.
    mine.unlink()
    (path,) = outputs.waiting()
    write_atomic(mine, "said so")
    check_it_stays()
    mine.unlink()
    outputs.put(said(path))
    outputs.check_unclaimed()


def test_force_for_another_model_that_was_killed_goes_on_without_it(
    inputs: Path, tmp_path: Path
) -> None:
    """What the first model wrote is still known as ours."""
    outputs = plan([inputs], "txt,vtt", tmp_path / "out")
    claim(tmp_path / "out", {"model": "a"}, force=False)
    for path in outputs.files:
        outputs.put(said(path))

    claim(tmp_path / "out", {"model": "b"}, force=True)
    outputs.put(said(outputs.files[0]))
    outputs.check_unclaimed()
    assert outputs.waiting() == [outputs.files[1]]


def test_transcripts_of_two_models_are_not_mixed(tmp_path: Path) -> None:
    made = {"model": "a", "language_model": "b"}
    claim(tmp_path, made, force=False)
    claim(tmp_path, made, force=False)

    for other in ({"model": "a"}, {"model": "c", "language_model": "b"}):
        with pytest.raises(
            ConfigError, match="holds transcripts of another model or language model: give another"
        ):
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
    assert plan([path]).waiting() == [path]


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
    outputs.check_unclaimed()
    assert spooled in outputs.waiting()
    assert outcome(outputs, spooled, None)["path"] == "-"


def test_the_report_has_what_became_of_a_file(inputs: Path) -> None:
    path = inputs / "a.wav"
    outputs = plan([path])
    assert outcome(outputs, path, said(path)) == {
        "path": str(path),
        "status": "done",
        "duration_s": 1.5,
        "silence_s": 0.0,
        "words": 2,
    }

    assert outcome(outputs, path, None) == {"path": str(path), "status": "done before"}

    assert outcome(outputs, path, Failure(str(path), "why")) == {
        "path": str(path),
        "status": "failed",
        "error": "why",
    }


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


NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=80
)


RELATIVE = st.lists(NAMES.filter(lambda name: name not in (".", "..")), min_size=1, max_size=3)


def test_output_mirrors_the_input_tree(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert output_path(tmp_path / "in/a/x.wav", tmp_path / "in", out, ".txt") == out / "a/x.wav.txt"
    assert (
        output_path(tmp_path / "in/../in/x.wav", tmp_path / "in", out, ".json")
        == out / "x.wav.json"
    )


@given(st.lists(RELATIVE, min_size=2, max_size=8, unique_by=tuple))
def test_outputs_never_collide(inputs: list[list[str]]) -> None:
    root = Path("/in")
    outputs = [output_path(root.joinpath(*parts), root, Path("/out"), ".txt") for parts in inputs]
    for left, right in combinations(outputs, 2):
        assert left != right
    for parts, output in zip(inputs, outputs, strict=True):
        assert output.parent == Path("/out").joinpath(*parts[:-1])
        assert len(os.fsencode(output.name)) <= 255


@pytest.mark.parametrize(
    "name", ["x" * 255, "é" * 127 + "x", "語" * 85, os.fsdecode(b"\xff" * 255)]
)
def test_long_names_stay_writable_and_distinct(name: str, tmp_path: Path) -> None:
    outputs = {
        output_path(tmp_path / n, tmp_path, tmp_path, ".json") for n in (name, name[:-1] + "y")
    }
    assert len(outputs) == 2
    for output in outputs:
        write_atomic(output, "x")
        assert output.read_text() == "x"
        assert output.name.endswith(".json")


@pytest.mark.parametrize(
    "name", ["-rf", "$(id)", "a b'\".wav", "new\nline.wav", os.fsdecode(b"\xff\xfe.wav"), "..."]
)
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
