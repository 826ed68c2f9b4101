"""A function in a forked process that ends, or fails, at a chosen file operation."""

import errno
import os
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path

WRITING = os.O_WRONLY | os.O_RDWR
EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}


class Fate(Enum):
    """What happens at the operation."""

    killed = "the process is gone"
    power_cut = "so is what was not flushed: half of each such part is left"
    full = "the disk is full"
    broken = "the disk has an error"


def attempt(action: Callable[[], object], fate: Fate, at: int, root: Path) -> tuple[bool, str]:
    """Run ``action`` in a child whose file operation number ``at`` under ``root`` never happens.

    Operations: opening for writing, flushing, renaming, deleting, making and removing folders.

    Returns:
        Whether the operation was reached, and the error that the action ended with.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code = 2
        try:
            counter = _Counter(fate, at, root)
            message = ""
            try:
                action()
            except Exception as error:
                message = f"{type(error).__name__}: {error}"
            os.write(writing, message.encode("utf-8", "replace")[:4000])
            code = 1 if counter.left < 0 else 0
        finally:
            os._exit(code)

    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        message = file.read().decode()

    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 1), f"the child ended with {code}"
    return code == 1, message


class _Counter:
    """Counts operations, and lets the fatal one come to its fate."""

    def __init__(self, fate: Fate, at: int, root: Path) -> None:
        self.fate, self.left, self.root = fate, at, os.path.realpath(root)
        self.unflushed: dict[str, int] = {}  # with the bytes at their front that are safe
        fsync = os.fsync

        def flushed(handle: int) -> None:
            path = os.readlink(f"/proc/self/fd/{handle}")
            self.operation(path)
            fsync(handle)
            self.unflushed.pop(path, None)

        os.fsync = flushed  # type: ignore[assignment]
        sys.addaudithook(self.hook)

    def hook(self, event: str, args: tuple[object, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if isinstance(flags, int) and flags & WRITING and isinstance(path, (str, bytes)):
                self.operation(os.fsdecode(path))
                path = os.path.realpath(os.fsdecode(path))
                there = (
                    os.path.getsize(path) if os.path.isfile(path) and not flags & os.O_TRUNC else 0
                )
                self.unflushed[path] = min(there, self.unflushed.get(path, there))
        elif event in EVENTS and isinstance(args[0], (str, bytes, os.PathLike)):
            path = os.fsdecode(args[0])
            if (
                event in ("os.remove", "os.rmdir") and isinstance(args[1], int) and args[1] >= 0
            ):  # as rmtree does it
                path = os.path.join(os.readlink(f"/proc/self/fd/{args[1]}"), path)
            self.operation(path)
            if (
                event == "os.rename"
            ):  # not flushed under its new name either, nor what a folder holds
                old, new = (os.path.realpath(os.fsdecode(name)) for name in args[:2])  # type: ignore[arg-type]
                for name in [name for name in self.unflushed if f"{name}/".startswith(f"{old}/")]:
                    self.unflushed[new + name.removeprefix(old)] = self.unflushed.pop(name)

    def operation(self, path: str) -> None:
        if self.left < 0 or not os.path.realpath(path).startswith(self.root):
            return
        self.left -= 1
        if self.left >= 0:
            return
        if self.fate in (Fate.full, Fate.broken):
            number = errno.ENOSPC if self.fate is Fate.full else errno.EIO
            raise OSError(number, os.strerror(number), path)
        if self.fate is Fate.power_cut:
            for name in filter(os.path.isfile, self.unflushed):
                os.truncate(name, (self.unflushed[name] + os.path.getsize(name)) // 2)
        os._exit(1)
