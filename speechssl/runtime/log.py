"""What is said on standard error while a command works."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from speechssl.runtime.streams import connect_to_nothing


def log(message: str) -> None:
    """Print one line with the time of day on stderr: stdout is for data."""
    # A file name may hold line breaks.
    message = message.replace("\n", "\\n")
    try:
        print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)
    except OSError:
        # The terminal was closed, or who read the pipe has ended: that is no reason to stop.
        connect_to_nothing(2)


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Drop what C++ libraries print on the process's standard error; Python's errors go on."""
    sys.stderr.flush()
    kept = os.dup(2)

    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch has no memory left on a device."""
    # Not imported here: commands that compute without torch start without it.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def one_line(error: Exception) -> str:
    """Say in one line what went wrong, for an error that a user can cause or cure."""
    if is_out_of_memory(error):
        text = (
            "out of memory: lower batch.micro_seconds or --batch-seconds, "
            f"and give the command again ({error})"
        )
    elif isinstance(error, OSError) and error.filename and error.strerror:
        # A disk that is full, a folder that is a file, a permission.
        text = f"{error.filename}: {error.strerror}"
    else:
        text = str(error)

    return " ".join(text.split())


class HoursProgress(AbstractContextManager["HoursProgress"]):
    """Shows how much audio is done on stderr: a bar on a terminal, elsewhere some lines."""

    # Seconds between two lines.
    EVERY_S = 10.0

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.last = self.started
        self.bar = _make_bar() if sys.stderr.isatty() else None
        self.task = self.bar.add_task(_amount(0, None), total=None) if self.bar else None

    def __enter__(self) -> "HoursProgress":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        if self.bar:
            # The terminal may have been closed meanwhile.
            with suppress(OSError):
                self.bar.stop()

    def __call__(self, done_h: float, total_h: float | None = None) -> None:
        """Show that ``done_h`` of ``total_h`` hours are done; None = the total is not known."""
        now = time.monotonic()

        if self.bar and self.task is not None:
            amount = _amount(done_h, total_h)
            self.bar.update(self.task, completed=done_h, total=total_h, description=amount)
        elif now - self.last >= self.EVERY_S:
            self.last = now
            log(_hours_line(done_h, total_h, seconds=now - self.started))


def _make_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        # stdout stays as it is: it may be a file, and rich would send its lines to the terminal.
        redirect_stdout=False,
    )


def _amount(done_h: float, total_h: float | None) -> str:
    """Write how much audio is done, such as "1.50 of 3.00 h"; in minutes or seconds if it is less.

    Args:
        total_h: hours in all; None where that is not known.
    """
    largest_h = done_h if total_h is None else total_h
    if largest_h >= 1:
        unit, per_hour, digits = "h", 1, 2
    elif largest_h >= 1 / 60:
        unit, per_hour, digits = "min", 60, 1
    else:
        unit, per_hour, digits = "s", 3600, 0

    of_total = ""
    if total_h is not None:
        of_total = f" of {total_h * per_hour:.{digits}f}"
    return f"{done_h * per_hour:.{digits}f}{of_total} {unit} of audio"


def _hours_line(done_h: float, total_h: float | None, seconds: float) -> str:
    """A line such as "1.50 of 3.00 h of audio, 90 s per second, 1 min left", after ``seconds``."""
    hours_per_second = done_h / seconds
    time_left = ""
    if total_h is not None and 0 < done_h <= total_h:
        left_s = (total_h - done_h) / hours_per_second
        time_left = f", {left_s:.0f} s left" if left_s < 60 else f", {left_s / 60:.0f} min left"

    speed = f"{3600 * hours_per_second:.0f} s per second"
    return f"{_amount(done_h, total_h)}, {speed}{time_left}"
