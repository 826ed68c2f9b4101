"""Where the result of an input goes: a folder that mirrors the tree of the inputs."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from speechssl.errors import ConfigError

# Bytes of one file name, on every common file system.
MAX_NAME_BYTES = 255


def common_root(inputs: Iterable[Path]) -> Path:
    """Give the deepest folder that holds every input; of a single file, its own folder.

    Raises:
        ConfigError: there are no inputs.
    """
    folders: list[str] = []
    for path in inputs:
        folder = path if path.is_dir() else path.parent
        folders.append(os.path.abspath(folder))

    if not folders:
        raise ConfigError("no inputs: give at least one file or folder")
    return Path(os.path.commonpath(folders))


def output_path(input_path: Path, input_root: Path, output_dir: Path, suffix: str) -> Path:
    """Give the place of ``input_path`` below ``input_root``, mirrored below ``output_dir``.

    The suffix is appended and the old one kept: ``a/x.wav`` becomes ``a/x.wav.txt``. So no two
    inputs below one root share an output, neither ``a/x.wav`` and ``b/x.wav`` nor ``x.wav`` and
    ``x.flac``, and the place of a file does not depend on which others exist. A name that would
    grow too long is cut, and ends in a hash of the whole name.

    Args:
        suffix: with its dot, for example ".txt".

    Raises:
        ConfigError: the input is not below the root.
    """
    root = os.path.abspath(input_root)
    path = Path(os.path.abspath(input_path))
    try:
        relative = path.relative_to(root)
    except ValueError as error:
        raise ConfigError(
            f"{input_path} is not under {input_root}: give a folder that holds every input"
        ) from error

    if not relative.name:
        raise ConfigError(f"{input_path} is the input folder itself, not a file in it")
    name = _short_name(relative.name, suffix)
    return output_dir / relative.parent / name


def recording_names(paths: Iterable[Path], root: Path) -> dict[Path, str]:
    """Name each recording in tables of many: by its file's name without the suffix.

    Recordings that would have one name are named by their place below ``root``, and those that
    differ in nothing but the suffix keep it.
    """
    rules: tuple[Callable[[Path], str], ...] = (
        lambda path: path.stem,
        lambda path: os.path.relpath(path.with_suffix(""), root),
        lambda path: os.path.relpath(path, root),
    )

    names: dict[Path, str] = {}
    unnamed = list(paths)
    for rule in rules:
        candidates = {path: rule(path) for path in unnamed}
        counts = Counter([*candidates.values(), *names.values()])
        for path, name in candidates.items():
            if counts[name] == 1:
                names[path] = name
        unnamed = [path for path in unnamed if path not in names]

    # The same file given twice.
    return names | {path: os.path.relpath(path, root) for path in unnamed}


def _short_name(name: str, suffix: str) -> str:
    whole = os.fsencode(name)
    num_bytes = len(whole) + len(os.fsencode(suffix))
    if num_bytes <= MAX_NAME_BYTES:
        return name + suffix

    digest = hashlib.sha256(whole).hexdigest()
    ending = f"-{digest[:16]}{suffix}"
    # Characters are dropped from the end, not bytes, so that none is cut in half.
    while len(os.fsencode(name + ending)) > MAX_NAME_BYTES:
        name = name[:-1]
    return name + ending
