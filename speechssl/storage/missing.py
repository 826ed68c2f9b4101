"""Says of a path that is not there what it may be: an address, or a name on a hub of models."""

import re
from pathlib import Path
from typing import Literal

# A path has lost one of the two slashes of an address.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def what_is_missing(path: Path, kind: Literal["model", "dataset"] = "dataset") -> str:
    """Return "PATH: no such file or folder", and a remedy where the path may be something else.

    Args:
        kind: what is looked for, as the Hub calls it.
    """
    name = str(path)
    if _ADDRESS.match(name):
        return f"{name} is an address, and only files on this machine are read: download it first"

    missing = f"{name}: no such file or folder"
    if _HUB_NAME.fullmatch(name) and not path.parent.exists():
        option = " --repo-type dataset" if kind == "dataset" else ""
        return (
            f"{missing}; if it is a name on the Hugging Face Hub, download it first: "
            f"hf download {name}{option} --local-dir FOLDER"
        )
    return missing
