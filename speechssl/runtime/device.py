"""The machine under a run: device, number format, threads, seeds, log lines."""

import ctypes
import hashlib
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from multiprocessing import parent_process, resource_tracker
from typing import Literal

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from speechssl.errors import ConfigError

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bfloat16"]


def pick_device(name: Device) -> torch.device:
    """The device to use; ``auto`` takes a GPU where there is one.

    Raises:
        ConfigError: ``cuda`` asked for and not there.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device cuda is not available here: give auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Mixed precision for the matrix products; losses and similarities stay in float32 by their own casts."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part: stable across processes, unlike ``hash``."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(*parts: int | str) -> np.random.Generator:
    """Random numbers that depend only on ``parts``, such as ("masks", seed, step, utterance key).

    A purpose among the parts keeps streams apart: a crop and a mask of one utterance and step must not be correlated.
    """
    # Hashed first: SeedSequence takes (1, 0) and (1,) for the same seed.
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(derive_seed(*parts))))


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


def peak_memory_gb() -> float:
    """The most memory that this process has held so far: of the GPU where one is in use, else resident, 1e9 bytes."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there, kibibytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def trim_memory() -> None:
    """Hand the free memory of this process back to the system, where the C library (glibc) keeps it.

    It keeps holes that tensors of ever other sizes leave and do not fit into again: resident memory then creeps up.
    """
    with suppress(OSError, TypeError, AttributeError):  # no such library, no such function
        ctypes.CDLL(None).malloc_trim(0)


def one_line(error: Exception) -> str:
    """What a user is told of an error that they can cause or cure."""
    if isinstance(error, OSError):  # a disk that is full, a folder that is a file, a permission
        text = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
    elif isinstance(error, torch.OutOfMemoryError):
        text = f"out of memory: lower batch.micro_seconds or --batch-seconds, and give the command again ({error})"
    else:
        text = str(error)
    return " ".join(text.split())


def limit_memory(most_bytes: int) -> None:
    """Let no allocation of this process succeed that takes its data beyond ``most_bytes``; Linux alone keeps that."""
    _lower(resource.RLIMIT_DATA, most_bytes)


def limit_cpu(seconds: int) -> None:
    """Kill this process (SIGXCPU) when it has used so much more processor time, seconds, unless asked again before."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource.RLIMIT_CPU, math.ceil(usage.ru_utime + usage.ru_stime) + seconds)


def memory_limit() -> float:
    """The most bytes of data that this process may have."""
    limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
    return math.inf if limit == resource.RLIM_INFINITY else limit


def _lower(what: int, limit: int) -> None:
    """Set a limit that can be changed again; never above the one that this process was started with."""
    given, hard = _given(what), resource.getrlimit(what)[1]
    resource.setrlimit(what, (limit if given == resource.RLIM_INFINITY else min(limit, given), hard))


@cache
def _given(what: int) -> int:
    """Asked before it is first lowered."""
    return resource.getrlimit(what)[0]


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Start processes that SIGINT (Ctrl-C, which a terminal sends to all) does not reach; here it comes afterwards."""
    resource_tracker.ensure_running()  # multiprocessing's own helper: to start it would let the signal through again
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def end_with_parent() -> None:
    """End this process when the one that started it does; for a thread of its own.

    A killed parent must not leave workers that write into a folder which the next run works on.
    """
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


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
        bar = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)
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
                left = f", {(total_h - done_h) / speed / 60:.0f} min left" if 0 < done_h <= total_h else ""
            log(f"{done_h:.2f}{of} h of audio, {3600 * speed:.0f} s per second{left}")
