"""Write files and folders that are either whole or not there.

Everything is written beside its place under a hidden name, flushed to the disk, and then renamed.
"""

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from speechssl.errors import ConfigError


def check_is_file(path: Path, option: str) -> None:
    """See that ``write_atomic`` would replace nothing but a file: better before the work for it.

    Args:
        option: the one that names the path.

    Raises:
        ConfigError: it is a folder, a link, or a device or pipe such as ``/dev/null``.
    """
    if path.is_symlink():
        raise ConfigError(f"{path} is a link: give the file that it leads to as {option}")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder: give a file as {option}")
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is no file but a device or a pipe: give a file as {option}")


def write_atomic(path: Path, text: str | Iterable[str]) -> None:
    """Write text, whole or in parts, as UTF-8.

    ``path`` holds what it held before or all of the text, even after a power cut. Missing folders
    are made. A process that is killed inside leaves a hidden file, see ``remove_leftovers``.
    """
    parts = [text] if isinstance(text, str) else text
    path.parent.mkdir(parents=True, exist_ok=True)

    # A name of our own, not one made from the target's, which may be as long as names can be.
    temporary = path.parent / f".speechssl-{os.getpid()}-{secrets.token_hex(8)}.tmp"
    try:
        with temporary.open("xb") as file:
            for part in parts:
                file.write(part.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())

        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

    sync_folder(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Delete what killed processes left of ``write_atomic`` in a folder, at any depth.

    A process that is still alive on this machine keeps its files.
    """
    for path in folder.rglob(".speechssl-*-*.tmp"):
        process = path.name.split("-")[1]
        if process.isdecimal() and not _is_alive(int(process)):
            path.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a hidden folder to fill, which takes the name ``path`` when the block ends without an
    error.

    So ``path`` is not there or it is complete, even after a power cut. After an error the hidden
    folder is removed. What a killed process left of it is removed by the next call with the same
    ``path``.

    Args:
        path: does not exist. Missing folders above it are made.
    """
    partial = path.parent / f".{path.name}.partial"
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)

    try:
        yield partial

        for written in partial.rglob("*"):
            if written.is_file():
                with written.open("rb+") as file:
                    os.fsync(file.fileno())
        sync_folder(partial)

        partial.rename(path)
    finally:
        # After the rename there is nothing of this name, so only what failed is removed.
        shutil.rmtree(partial, ignore_errors=True)

    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Flush the names in a folder to the disk.

    A file that was renamed into the folder is there after a power cut.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True

    return True
