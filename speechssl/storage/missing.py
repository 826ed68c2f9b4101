"""Says of a path that is not there what it may be: an address, or a name on a hub of models."""

import re
from pathlib import Path
from typing import Literal

from speechssl.errors import ConfigError

# A path has lost one of the two slashes of an address.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


Kind = Literal["model", "dataset"]


def check_exists(path: Path, kind: Kind = "dataset") -> None:
    """See that a path is there.

    Args:
        kind: what is looked for, as the Hub calls it.

    Raises:
        ConfigError: it is not.
    """
    if not path.exists():
        raise ConfigError(f"no such file or folder: {path}{where_instead(path, kind)}")


def where_instead(path: Path, kind: Kind = "dataset") -> str:
    """Return what to do about a path that is not there, where it may lie on another machine.

    Args:
        kind: what is looked for, as the Hub calls it.

    Returns:
        the end of a message, which begins with a colon; empty where nothing is known.
    """
    name = str(path)
    if path.exists():
        return ""

    if _ADDRESS.match(name):
        return ": it is an address, and only files on this machine are read: download it first"

    if _HUB_NAME.fullmatch(name) and not path.parent.exists():
        option = " --repo-type dataset" if kind == "dataset" else ""
        return (
            ": if it is a name on the Hugging Face Hub, download it first: "
            f"hf download {name}{option} --local-dir FOLDER"
        )
    return ""
