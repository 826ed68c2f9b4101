"""Commands and scripts in processes that start fast: copies of one that has all imported."""

import os
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from support.warm import needed_modules, start_workers_by

# How much more time a start gets than the killed one before: a machine that becomes busy would
# else never let it finish.
PATIENCE = 1.5

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload([*needed_modules(), "support.children"])


def start(arguments: Sequence[object], log: Path, fault: int | None = None) -> BaseProcess:
    """``speechssl ARGUMENTS``, its output in ``log``.

    Args:
        fault: it kills itself before this file operation of its saves, counted from 0.
    """
    child = CONTEXT.Process(target=_run, args=([str(a) for a in arguments], str(log), fault))
    child.start()
    return child


def start_script(
    script: Path, arguments: Sequence[object], log: Path, environment: Mapping[str, object]
) -> BaseProcess:
    """``python SCRIPT ARGUMENTS``, its output in ``log``.

    Args:
        environment: what it finds there beside what this process has.
    """
    variables = {name: str(value) for name, value in environment.items()}
    texts = [str(a) for a in arguments]
    child = CONTEXT.Process(target=_run_script, args=(str(script), texts, str(log), variables))
    child.start()
    return child


def _run_script(script: str, arguments: list[str], log: str, variables: Mapping[str, str]) -> None:
    _begin(log)
    os.environ.update(variables)
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


def _begin(log: str) -> None:
    """Write to the log from here on, and work with one thread."""
    import torch

    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for own in (1, 2):
        os.dup2(handle, own)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    # As Python's own: what is said of a file whose name is no text must not end a command.
    sys.stderr = os.fdopen(2, "w", errors="backslashreplace", closefd=False)
    torch.set_num_threads(1)
    start_workers_by(get_context("fork"))


def _run(arguments: list[str], log: str, fault: int | None) -> None:
    from speechssl.cli.main import main

    _begin(log)
    if fault is not None:
        plant(fault)
    sys.argv = ["speechssl", *arguments]
    main()


def plant(fault: int) -> None:
    """Die before the given operation of a save.

    Operations: making a folder, writing the second half of a file, flushing, renaming, deleting.
    """
    from speechssl.storage import checkpoint
    from speechssl.training import loop

    left = fault
    saving = False

    def died() -> bool:
        nonlocal left
        left -= saving
        return saving and left < 0

    def dying(name: str, owner: object) -> None:
        inner = getattr(owner, name)

        def outer(*args: object, **kwargs: object) -> object:
            if died():
                os.kill(os.getpid(), signal.SIGKILL)
            return inner(*args, **kwargs)

        setattr(owner, name, outer)

    def half_written(path: Path, data: bytes) -> None:
        if died():
            path.write_bytes(data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        written(path, data)

    def save(*args: object) -> None:
        nonlocal saving
        saving = True
        inner_save(*args)
        saving = False

    written, inner_save = checkpoint._write_durably, loop.save_checkpoint
    checkpoint._write_durably, loop.save_checkpoint = half_written, save  # type: ignore[assignment]
    dying("sync_folder", checkpoint)
    for name in ("mkdir", "rename"):
        dying(name, Path)
    dying("rmtree", checkpoint.shutil)
