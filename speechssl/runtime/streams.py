"""Standard streams that are not there: a command does the same without them."""

import os
import sys

# The standard streams by their numbers, and how each is opened.
STREAMS = {0: ("stdin", "r"), 1: ("stdout", "w"), 2: ("stderr", "w")}


def open_closed_streams() -> None:
    """Open the null device in place of each standard stream that this process began without.

    Schedulers and services may start a command so. The next file that is opened would take the
    number of the stream, and what libraries print would be written into that file.
    """
    for number, (name, mode) in STREAMS.items():
        if getattr(sys, name) is None:
            connect_to_nothing(number)
            errors = "backslashreplace" if mode == "w" else "strict"
            stream = open(number, mode, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def connect_to_nothing(number: int) -> None:
    """Let a standard stream read nothing, and drop what is written, for child processes too."""
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing != number:
        os.dup2(nothing, number)
        os.close(nothing)
    os.set_inheritable(number, True)
