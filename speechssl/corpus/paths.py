"""For all readers of manifests: paths that stay below the root, and lines with their numbers."""

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from speechssl.corpus.unicode_forms import KnownNames
from speechssl.errors import ManifestError
from speechssl.storage.text_files import BYTE_ORDER_MARK, open_text


def path_below(root: Path, audio: str, where: str, takes_root: bool = False) -> str:
    """Return ``audio`` as a ``/`` path below ``root``.

    Links are followed, and none may lead outside. A name whose accents are stored in another
    form of Unicode is found all the same, and returned as it is stored.

    Args:
        where: the place of the path in its manifest, for the message.
        takes_root: whether the root of this kind of manifest can be given, for the message.

    Raises:
        ManifestError: ``audio`` is no path, or leads outside.
    """
    no_path = f"{where}: {audio!r} is no path"
    try:
        os.fsencode(audio)
    except UnicodeEncodeError as error:
        raise ManifestError(no_path) from error

    # The system ends a path at a zero byte.
    if not audio or "\0" in audio:
        raise ManifestError(no_path)

    # What the path says, before any link is followed.
    joined = os.path.join(root, audio)
    full = os.path.normpath(joined)
    relative = os.path.relpath(full, os.path.normpath(root))
    relative_parts = relative.split(os.sep)
    climbs_out = relative_parts[0] == ".."

    # What is written "é" may be stored as "e" and an accent, or the other way round.
    if not relative.isascii() and not climbs_out:
        relative = _as_stored(str(root), relative_parts)
        full = os.path.join(os.path.normpath(root), relative)

    # The folder's links are resolved once for all its files, the file itself only where it is one.
    folder, name = os.path.split(full)
    real_path = os.path.join(real_folder(folder), name)
    if os.path.islink(real_path):
        real_path = os.path.realpath(real_path)

    # With a separator at the end, so that "corpus-2" does not count as below "corpus".
    real_root = real_folder(str(root))
    root_prefix = real_root.rstrip(os.sep) + os.sep
    is_linked_out = not real_path.startswith(root_prefix)

    if climbs_out and takes_root:
        remedy = "give the audio's folder as --root, or move it"
    elif climbs_out:
        remedy = "move it there; a JSONL manifest may describe audio elsewhere, with --root"
    else:
        remedy = "cp -rL FOLDER COPY copies a folder with the files that its links lead to"

    if climbs_out or is_linked_out:
        raise ManifestError(f"{where}: {audio!r} leads outside {root}: {remedy}")
    return Path(relative).as_posix()


def _as_stored(root: str, parts: list[str]) -> str:
    """Return the path below ``root`` under which the parts of a name are stored.

    It stays as it is written where that is there, where nothing is, and where several names are
    alike.
    """
    as_written = os.path.join(*parts)
    if os.path.lexists(os.path.join(root, as_written)):
        return as_written

    found = [""]
    for part in parts:
        alike: list[str] = []
        for path in found:
            names = _stored_names(os.path.join(root, path)).alike(part)
            alike += [os.path.join(path, name) for name in names]
        found = alike

    return found[0] if len(found) == 1 else as_written


@lru_cache(maxsize=4096)
def _stored_names(folder: str) -> KnownNames:
    """Return the names in a folder."""
    try:
        return KnownNames(os.listdir(folder))
    except OSError:  # no folder, or one that may not be read: nothing is found there
        return KnownNames([])


def forget_folders() -> None:
    """Forget what is known of folders, before each scan: links and names may have changed."""
    real_folder.cache_clear()
    _stored_names.cache_clear()


@lru_cache(maxsize=4096)
def real_folder(folder: str) -> str:
    """Follow the links of a folder's path."""
    return os.path.realpath(folder)


def numbered_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield ("file:number", line) of a text file.

    Only a newline ends a line, as in the tools that write these files. A byte order mark at the
    beginning of a line is left out: a joined file has one wherever a file of its own began.

    Raises:
        ManifestError: the file cannot be read, or is not UTF-8.
    """
    with open_text(path, error_class=ManifestError) as file:
        for number, line in enumerate(file, 1):
            # Files that were written on Windows end a line with "\r\n".
            content = line.removeprefix(BYTE_ORDER_MARK).rstrip("\r\n")
            yield f"{path}:{number}", content
