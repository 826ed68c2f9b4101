"""What is said on standard error while a command works."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def log(message: str) -> None:
    """One line with the time of day, on stderr: stdout is for data."""
    message = message.replace("\n", "\\n")  # a file name may hold line breaks
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Drop what libraries in C++ print on the process's standard error; what Python raises goes on."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def one_line(error: Exception) -> str:
    """What a user is told of an error that they can cause or cure."""
    if isinstance(error, OSError):  # a disk that is full, a folder that is a file, a permission
        text = (
            f"{error.filename}: {error.strerror}"
            if error.filename and error.strerror
            else str(error)
        )
    elif isinstance(error, torch.OutOfMemoryError):
        text = f"out of memory: lower batch.micro_seconds or --batch-seconds, and give the command again ({error})"
    else:
        text = str(error)
    return " ".join(text.split())


class HoursProgress(AbstractContextManager["HoursProgress"]):
    """Progress in hours of audio on stderr: a bar on a terminal, elsewhere a line every ten seconds."""

    EVERY_S = 10.0

    def __init__(self) -> None:
        self.started = self.last = time.monotonic()
        columns = (
            TextColumn("{task.completed:.2f} {task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        # stdout stays as it is: it may be a file, and rich would send its lines to the terminal.
        bar = Progress(
            *columns, console=Console(stderr=True), transient=True, redirect_stdout=False
        )
        self.bar = bar if sys.stderr.isatty() else None
        self.task = self.bar.add_task("hours of audio", total=None) if self.bar else None

    def __enter__(self) -> "HoursProgress":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        if self.bar:
            self.bar.stop()

    def __call__(self, done_h: float, total_h: float | None = None) -> None:
        """``done_h`` of ``total_h`` hours are done; None = the total is not known."""
        now = time.monotonic()
        if self.bar and self.task is not None:
            self.bar.update(self.task, completed=done_h, total=total_h)
        elif now - self.last >= self.EVERY_S:
            self.last = now
            speed = done_h / (now - self.started)  # hours per second
            of, left = "", ""
            if total_h is not None:
                of = f" of {total_h:.2f}"
                left = (
                    f", {(total_h - done_h) / speed / 60:.0f} min left"
                    if 0 < done_h <= total_h
                    else ""
                )
            log(f"{done_h:.2f}{of} h of audio, {3600 * speed:.0f} s per second{left}")
