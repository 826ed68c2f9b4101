"""The command under an audit hook: what it unpickles, starts, opens for writing, and whom it talks to.

    python watched.py LOG [ARGUMENT...]

LOG gets a JSON line for each event that matters. Everything is imported before the hook listens.
"""

import json
import os
import sys
from pathlib import Path

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {
    "os.rename": 2,
    "os.remove": 1,
    "os.mkdir": 1,
    "os.rmdir": 1,
    "os.truncate": 1,
    "os.link": 2,
    "os.symlink": 2,
}
NEVER = ("pickle.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.", "socket.")


def is_within(package: str) -> bool:
    """Whether one of the functions that are running is of a package."""
    frame = sys._getframe(1)
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith(package):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def main() -> None:
    """Listen, and run the command."""
    import matplotlib.font_manager  # noqa: F401  # asks fc-list for the machine's fonts, once in its life

    from speechssl import cli

    handle = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sys.argv = ["speechssl", *sys.argv[2:]]

    def note(event: str, *about: object) -> None:
        os.write(handle, (json.dumps([event, *map(str, about)]) + "\n").encode("utf-8", "backslashreplace"))

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if isinstance(flags, int) and flags & WRITING and isinstance(path, (str, bytes)):
                note("write", os.path.realpath(os.fsdecode(path)))
        elif event in CHANGES:
            for path in args[: CHANGES[event]]:
                if isinstance(path, (str, bytes, os.PathLike)):
                    note("write", os.path.realpath(os.fsdecode(path)))
        elif event.startswith(NEVER) and not is_within("numba."):  # which pickles what it compiled for librosa
            note(event, *args)

    sys.addaudithook(hook)
    cli.main()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()
