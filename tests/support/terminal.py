"""The command with other standard streams.

    python terminal.py MODE STDOUT ARGUMENTS...

MODE is a key of ``MODES``. Where STDOUT is a path, standard output goes there in every mode.
"""

import os
import sys
import threading

from speechssl.cli.start import main


def as_they_are() -> None:
    """Leave the streams as this process has them."""


def terminal() -> None:
    """Connect all three to a terminal, of which stderr as it was gets what is shown."""
    os.environ["TERM"] = "xterm"
    ours, theirs = os.openpty()
    threading.Thread(target=drain, args=(ours, os.dup(2)), daemon=True).start()
    for number in (0, 1, 2):
        os.dup2(theirs, number)
    _read_from_0()
    assert sys.stdin.isatty()
    assert sys.stderr.isatty()


def _read_from_0() -> None:
    """Have Python read from standard input, which a child of a process reads elsewhere."""
    sys.stdin = os.fdopen(0, closefd=False)


def drain(handle: int, into: int) -> None:
    """Pass on what comes, until nobody can write any more."""
    try:
        while part := os.read(handle, 1 << 16):
            os.write(into, part)
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


def no_input() -> None:
    """Give standard input that ends at once."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    _read_from_0()


def input_closed() -> None:
    """Close standard input: the next file that is opened takes its number."""
    os.close(0)
    sys.stdin = None  # type: ignore[assignment]


MODES = {
    "as they are": as_they_are,
    "terminal": terminal,
    "closed": closed,
    "reader gone": reader_gone,
    "no input": no_input,
    "input closed": input_closed,
}

if __name__ == "__main__":
    mode, stdout = sys.argv[1:3]
    del sys.argv[1:3]

    handle = os.open(stdout, os.O_WRONLY | os.O_NOCTTY) if stdout else None
    MODES[mode]()
    if handle is not None:
        os.dup2(handle, 1)
        os.close(handle)
    main()
