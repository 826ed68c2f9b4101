"""Files that are there whole or not at all."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from speechssl.storage.atomic import remove_leftovers, write_atomic


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


def test_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.txt"
    write_atomic(path, "old")

    def full_disk(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.txt"]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    code = (
        "import os, sys, signal\n"
        "from pathlib import Path\n"
        "from speechssl.storage.atomic import write_atomic\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomic(Path(sys.argv[1]), 'half')\n"
    )

    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a/b/x.txt")], check=False)
    assert killed.returncode == -signal.SIGKILL
    (leftover,) = (tmp_path / "a/b").iterdir()

    kept = [
        tmp_path / f".speechssl-{os.getpid()}-0.tmp",
        tmp_path / ".speechssl-mine-0.tmp",
        tmp_path / "a/x.tmp",
    ]
    for path in kept:
        path.write_text("")

    remove_leftovers(tmp_path)
    assert not leftover.exists()
    assert all(path.exists() for path in kept)
