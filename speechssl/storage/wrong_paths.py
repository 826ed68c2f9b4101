"""Says of a path in the place of another what it is: an address, a name on a hub, another file."""

import re
from pathlib import Path
from typing import Literal

from speechssl.errors import ConfigError
from speechssl.storage.compression import first_bytes
from speechssl.storage.file_kinds import HEAD_BYTES, FileKind, kind_of_file, kind_of_folder

# A path has lost one of the two slashes of an address.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


# What is looked for, as the Hub calls it.
Wanted = Literal["model", "dataset"]


def check_exists(path: Path, wanted: Wanted = "dataset") -> None:
    """See that a path is there.

    Raises:
        ConfigError: it is not.
    """
    if not path.exists():
        raise ConfigError(f"no such file or folder: {path}{what_instead(path, wanted)}")


def what_instead(path: Path, wanted: Wanted = "dataset") -> str:
    """Return what a path is that is not what was wanted, and what to do about it.

    Returns:
        the end of a message, which begins with a colon; empty where nothing is known.
    """
    if path.exists():
        kind = kind_of_path(path)
        return f": it is {kind.name}; {kind.remedy}" if kind else ""

    name = str(path)
    if _ADDRESS.match(name):
        return ": it is an address, and only files on this machine are read: download it first"

    if _HUB_NAME.fullmatch(name) and not path.parent.exists():
        option = " --repo-type dataset" if wanted == "dataset" else ""
        return (
            ": if it is a name on the Hugging Face Hub, download it first: "
            f"hf download {name}{option} --local-dir FOLDER"
        )
    return ""


def kind_of_path(path: Path) -> FileKind | None:
    """Name what a file or a folder is; None where nothing is known, or it cannot be read."""
    try:
        if path.is_dir():
            return kind_of_folder(path)
        # Of a pipe nothing can be read twice.
        return kind_of_file(path, first_bytes(path, HEAD_BYTES)) if path.is_file() else None
    except OSError:
        return None
