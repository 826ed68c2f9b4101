"""Device, seeds and log lines."""

import ctypes
import io
import platform
import re
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from speechssl.errors import ConfigError
from speechssl.runtime.device import autocast, pick_device, trim_memory
from speechssl.runtime.log import HoursProgress, log
from speechssl.runtime.seeds import derive_seed, generator


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert pick_device("auto") == torch.device(expected)
        assert pick_device("cpu") == torch.device("cpu")


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="cuda is not available here: give auto or cpu"):
        pick_device("cuda")


def test_seeds_are_stable_and_depend_on_every_part() -> None:
    assert derive_seed(0, "weights") == 863023461364182508  # from sha256sum, by hand
    seeds = {
        derive_seed(*parts)
        for parts in [(0,), (1,), (0, 0), (0, 1), (1, 0), (10,), ("a", "b"), ("ab",)]
    }
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generators_repeat_and_never_share_a_stream() -> None:
    """Also for trailing zeros, which numpy's own seed sequence does not see."""
    streams = [
        (0,),
        (0, 0),
        (0, 0, 0),
        (1,),
        (1, 0),
        (2**62, 5),
        (5, 2**62),
        ("masks", 0, 0),
        ("crop", 0, 0),
    ]
    drawn = {generator(*parts).random() for parts in streams}
    assert len(drawn) == len(streams)
    assert (generator("masks", 3, 4).random(5) == generator("masks", 3, 4).random(5)).all()


def test_neighbouring_generators_are_uncorrelated() -> None:
    draws = np.array([generator("masks", 0, step).random(2000) for step in range(20)])
    correlation = np.corrcoef(draws) - np.eye(20)
    assert np.abs(correlation).max() < 0.1


def test_autocast_only_when_asked_for() -> None:
    left = right = torch.ones(4, 4)
    with autocast(torch.device("cpu"), "float32"):
        assert (left @ right).dtype == torch.float32
    with autocast(torch.device("cpu"), "bfloat16"):
        assert (left @ right).dtype == torch.bfloat16


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
    assert "1.25 hours of audio" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())


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
        "2.00 of 4.00 h of audio, 600 s per second, 0 min left",
        "3.00 h of audio, 338 s per second",
    ]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what is free")
def test_trimmed_memory_goes_back_to_the_system() -> None:
    """Holes between what is kept: 64 MB, in pieces too small to have pages of their own."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    pieces = [torch.ones(16_000) for _ in range(2000)]  # 64 kB each
    kept = pieces[::2]
    pieces.clear()
    before = resident()
    trim_memory()
    assert before - resident() > 40e6
    assert len(kept) == 1000
    trim_memory()  # nothing left: no harm


def test_nothing_is_trimmed_where_the_library_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(ctypes, "CDLL", asked.append)  # None is a library without any function
    trim_memory()
    assert asked == [None]
