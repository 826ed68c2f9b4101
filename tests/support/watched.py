"""The command under an audit hook: what it unpickles, starts, writes, and whom it talks to.

    WATCHED_LOG=LOG python watched.py SOCKET

It runs the command lines that come through the socket (``support.warm``). LOG gets a JSON line for
each event that matters. The verbs are imported before the hook listens. Processes that the command
spawns run this file again under another name, and it listens there too.
"""

import json
import os
import sys

from support import warm

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
NEVER = (
    "subprocess.",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "pty.",
    "socket.",
    "pickle.",
)


def is_own_pickle() -> bool:
    """Whether numba unpickles code for librosa, or multiprocessing what came through our pipe."""
    frame = sys._getframe(2)  # of what unpickles
    if str(frame.f_globals.get("__name__")).startswith("multiprocessing."):
        return True
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith("numba."):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def main() -> None:
    """Import everything, and for each client listen and run the command."""
    import_all()
    warm.serve(sys.argv[1], run)


def run() -> None:
    from speechssl.cli.main import main as run_command

    listen()
    run_command()


def import_all() -> None:
    import matplotlib.font_manager  # noqa: F401  # asks fc-list for the machine's fonts, once in its life

    warm.import_all_verbs()


def import_reading() -> None:
    """Import what a process does that reads recordings for a verb, and runs no verb itself."""
    import speechssl.data.shards  # noqa: F401
    from speechssl.audio.silence import load_splitter

    load_splitter()


def listen() -> None:
    """From here on."""
    handle = os.open(os.environ["WATCHED_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(event: str, *about: object) -> None:
        os.write(
            handle,
            (json.dumps([event, *map(str, about)]) + "\n").encode("utf-8", "backslashreplace"),
        )

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if isinstance(flags, int) and flags & WRITING and isinstance(path, (str, bytes)):
                note("write", os.path.realpath(os.fsdecode(path)))
        elif event in CHANGES:
            for path in args[: CHANGES[event]]:
                if isinstance(path, (str, bytes, os.PathLike)):
                    folder = (
                        args[1] if event in ("os.remove", "os.rmdir") else -1
                    )  # open, as rmtree does it
                    beside = (
                        os.readlink(f"/proc/self/fd/{folder}")
                        if isinstance(folder, int) and folder >= 0
                        else ""
                    )
                    note("write", os.path.realpath(os.path.join(beside, os.fsdecode(path))))
        elif event.startswith(NEVER) and not (event.startswith("pickle.") and is_own_pickle()):
            note(event, *args)

    sys.addaudithook(hook)


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":
    import_reading()
    listen()
