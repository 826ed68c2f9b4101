"""The command for scripts, in processes that start fast.

Nearly all of the three seconds of processor time that a start takes goes into importing torch, and
a recipe starts dozens of commands. So a server imports everything once, and forks a process for
each command. What stands in for the command is a few lines that hand over their arguments, folder,
environment and standard streams, and wait for the exit code.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path

from support.places import ROOT

# What a training's optimizer, pictures, loudness and error rates import when they are first used.
LATE = ("torch._dynamo", "matplotlib.figure", "librosa.feature.spectral", "rapidfuzz.distance")

# Isolated from the environment and without site-packages: it needs neither, and starts in 20 ms.
CLIENT = """#!{python} -IS
import json, os, socket, sys

about = {{"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"f"], [0, 1, 2])
    server.sendall(json.dumps(about).encode())
    server.shutdown(socket.SHUT_WR)
    code = server.recv(8)

# A process that was killed sends nothing.
sys.exit(int(code or 70))
"""


@contextmanager
def warm_command(
    folder: Path, script: Path = Path(__file__), environment: Mapping[str, str] | None = None
) -> Iterator[Path]:
    """A program that acts as ``speechssl``, made in ``folder``, while its server runs.

    Args:
        script: what the server runs: it imports, and calls ``serve`` with its one argument.
        environment: of the server, for what libraries read when they are imported.
    """
    address = str(folder / "socket")
    command = folder / "speechssl"
    command.write_text(CLIENT.format(python=sys.executable, address=address), encoding="utf-8")
    command.chmod(0o755)

    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    server = subprocess.Popen(
        [sys.executable, str(script), address],
        env=os.environ | paths | dict(environment or {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )

    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield command
    finally:
        server.kill()
        server.communicate()


def import_all_verbs() -> None:
    """Import what any verb needs, and what libraries load only when they are used."""
    from speechssl.runtime.threads import wait_passively

    wait_passively()
    for name in needed_modules():
        import_module(name)


def needed_modules() -> list[str]:
    """Name the verbs' modules, and what torch and others import when it is first used."""
    from speechssl.cli.verbs import VERBS

    files = dict.fromkeys(file for file, _ in VERBS.values())
    return ["speechssl.cli.main", *(f"speechssl.cli.{file}" for file in files), *LATE]


def start_workers_by(context: BaseContext) -> None:
    """Have the package's workers start faster: their imports take five seconds each.

    Tests that start the command by itself try the package's own.
    """
    from speechssl.runtime import processes

    processes.get_context = lambda _: context  # type: ignore[assignment]


def serve(address: str, run: Callable[[], object]) -> None:
    """Run ``run`` in a process of its own for each client, with the client's command line."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        os.write(1, b"ready\n")

        # Nobody asks after its children, so the system removes them.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            client, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _run_for(client, run)
            client.close()


def _run_for(client: socket.socket, run: Callable[[], object]) -> None:
    _, streams, _, _ = socket.recv_fds(client, 1, 3)
    given = b"".join(iter(lambda: client.recv(1 << 16), b""))
    about = json.loads(given)

    for own, stream in enumerate(streams):
        os.dup2(stream, own)
        os.close(stream)
    os.chdir(about["folder"])
    os.environ.clear()
    os.environ.update(about["environment"])
    sys.argv = ["speechssl", *about["arguments"]]

    code: object = 0
    try:
        run()
    except SystemExit as leaving:
        code = leaving.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()

    client.sendall(str(0 if code is None else code).encode())
    os._exit(0)


def main() -> None:
    """Run commands as they are started from a shell."""
    from speechssl.cli.start import main as run_command

    import_all_verbs()
    # Nothing has started a thread in these processes when they start workers.
    start_workers_by(get_context("fork"))
    serve(sys.argv[1], run_command)


if __name__ == "__main__":
    main()
