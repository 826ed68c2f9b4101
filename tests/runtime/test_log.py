"""What is said on standard error: lines, and progress in hours of audio."""

import io
import re
import sys
import time

import pytest

from speechssl.runtime.log import HoursProgress, log


def test_log_lines_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    log("hello")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"\d\d:\d\d:\d\d hello\n", captured.err)
    log("new\nline.wav: no audio")
    assert capsys.readouterr().err[9:] == "new\\nline.wav: no audio\n"


def test_the_bar_shows_hours_and_leaves_stdout_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    before = sys.stdout
    with HoursProgress() as progress:
        assert sys.stdout is before
        progress(1.25, None)
        assert progress.bar is not None
        progress.bar.refresh()
    assert "1.25 h of audio" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())


def test_progress_is_lines_of_hours_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with HoursProgress() as progress:
        for seconds, done, total in ((1, 0.5, 4.0), (8, 1.0, 4.0), (3, 2.0, 4.0), (20, 3.0, None)):
            now[0] += seconds
            progress(done, total)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line[9:] for line in captured.err.splitlines()] == [
        "2.00 of 4.00 h of audio, 600 s per second, 12 s left",
        "3.00 h of audio, 338 s per second",
    ]


@pytest.mark.parametrize(
    ("done_h", "total_h", "expected"),
    [
        (0.5, 2.0, "0.50 of 2.00 h of audio"),
        (0.004, 0.03, "0.2 of 1.8 min of audio"),
        (0.001, 0.004, "4 of 14 s of audio"),
        (0.001, None, "4 s of audio"),
        (0.25, None, "15.0 min of audio"),
        (0.0, 0.0, "0 of 0 s of audio"),
    ],
)
def test_little_audio_is_counted_in_minutes_or_seconds(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    done_h: float,
    total_h: float | None,
    expected: str,
) -> None:
    """A small corpus stood as "0.00 of 0.03 h"."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with HoursProgress() as progress:
        now[0] += 11
        progress(done_h, total_h)
    assert capsys.readouterr().err[9:].startswith(expected + ", ")
