"""The command with other standard streams.

    python terminal.py MODE ARGUMENTS...

MODE is a key of ``MODES``.
"""

import os
import sys
import threading

from speechssl.cli.start import main


def as_they_are() -> None:
    """Leave the streams as this process has them."""


def terminal() -> None:
    """Connect all three to a terminal whose other end is read."""
    os.environ["TERM"] = "xterm"
    ours, theirs = os.openpty()
    threading.Thread(target=drain, args=(ours,), daemon=True).start()
    for number in (0, 1, 2):
        os.dup2(theirs, number)
    assert sys.stderr.isatty()


def drain(handle: int) -> None:
    """Read what comes, until nobody can write any more."""
    try:
        while os.read(handle, 1 << 16):
            pass
    except OSError:
        pass


def closed() -> None:
    """Close all three, as Python finds them where the process starts without."""
    for number in (0, 1, 2):
        os.close(number)
    sys.stdin = sys.stdout = sys.stderr = None  # type: ignore[assignment]


def reader_gone() -> None:
    """Connect stderr to a pipe that nobody reads any more."""
    ours, theirs = os.pipe()
    os.close(ours)
    os.dup2(theirs, 2)


MODES = {
    "as they are": as_they_are,
    "terminal": terminal,
    "closed": closed,
    "reader gone": reader_gone,
}

if __name__ == "__main__":
    MODES[sys.argv.pop(1)]()
    main()
