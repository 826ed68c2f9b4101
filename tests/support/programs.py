"""Real programs that a test starts, and that never outlive it."""

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def running(command: Sequence[object], **options: Any) -> Iterator["subprocess.Popen[Any]"]:
    """A program in a session of its own, killed with all that it has started when the block ends.

    A test that fails while its program runs would else leave it behind: it keeps a core busy, and
    its end is noticed as a warning in a test that has nothing to do with it.

    Args:
        command: the program and its arguments.
        options: further ones of ``subprocess.Popen``.
    """
    texts = [str(part) for part in command]
    with subprocess.Popen(texts, start_new_session=True, **options) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
