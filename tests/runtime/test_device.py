"""Devices, precision, and memory that goes back to the system."""

import ctypes
import platform
import resource
from pathlib import Path

import pytest
import torch

from speechssl.errors import ConfigError
from speechssl.runtime.device import autocast, pick_device, trim_memory


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert pick_device("auto") == torch.device(expected)
        assert pick_device("cpu") == torch.device("cpu")


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="cuda is not available here: give auto or cpu"):
        pick_device("cuda")


def test_autocast_only_when_asked_for() -> None:
    left = right = torch.ones(4, 4)
    with autocast(torch.device("cpu"), "float32"):
        assert (left @ right).dtype == torch.float32
    with autocast(torch.device("cpu"), "bfloat16"):
        assert (left @ right).dtype == torch.bfloat16


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
