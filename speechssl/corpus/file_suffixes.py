"""Recordings that a table names without their suffix, or with another one than they have."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from speechssl.audio.listing import RECORDING_SUFFIXES, is_recording
from speechssl.corpus.manifest import Record, printable
from speechssl.corpus.paths import path_below
from speechssl.corpus.unicode_forms import composed
from speechssl.errors import ManifestError
from speechssl.runtime.log import log


class Recordings:
    """The recordings below a root, found by their names without suffix. A folder is read once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        # By folder and name.
        self._found: dict[str, dict[str, list[str]]] = {}

    def alike(self, path: str) -> list[str]:
        """Return the paths of recordings that differ from ``path`` in the suffix alone, sorted."""
        folder, name = os.path.split(path)
        if folder not in self._found:
            self._found[folder] = self._recordings_in(folder)
        return self._found[folder].get(_stem(name), [])

    def _recordings_in(self, folder: str) -> dict[str, list[str]]:
        by_name: dict[str, list[str]] = defaultdict(list)
        try:
            # Its accents may be stored in another form of Unicode.
            stored = path_below(self._root, folder, where="") if folder else ""
            names = sorted(os.listdir(self._root / stored))
        except (ManifestError, OSError):  # no folder below the root, or one that cannot be read
            return by_name

        for name in names:
            path = os.path.join(stored, name)
            file = self._root / path
            if is_recording(file) and file.is_file():
                by_name[_stem(name)].append(path)
        return by_name


def complete_names(records: Sequence[Record], root: Path, table: Path) -> list[Record]:
    """Add the suffix to paths without one, where exactly one recording has the name.

    A line says how many these are. Another one says how many recordings are not there although
    others of their name are: several of them, or one with another suffix than in the table. Those
    stay as they are written.

    Args:
        table: where the paths stand, for messages.

    Raises:
        ManifestError: a recording that is found is a link that leads outside ``root``.
    """
    paths = dict.fromkeys(record.audio for record in records)
    recordings = Recordings(root)
    found: dict[str, str] = {}
    not_there: list[str] = []
    for path in paths:
        if os.path.isfile(root / path):
            continue

        alike = recordings.alike(path)
        if len(alike) == 1 and not _has_suffix(path):
            found[path] = path_below(root, alike[0], str(table))
        elif alike:
            not_there.append(f"{path}, but {' and '.join(alike)}")

    if found:
        name, file = next(iter(found.items()))
        log(
            f"{len(found)} of {len(paths)} recordings in {table} are named without their suffix; "
            f"the only file of that name is read: {printable(name)} is {printable(file)}"
        )
    if not_there:
        log(
            f"{len(not_there)} of {len(paths)} recordings in {table} are not there by the suffix "
            f"that is written: there is no {printable(not_there[0])}; correct the table"
        )
    return [replace(record, audio=found.get(record.audio, record.audio)) for record in records]


def _has_suffix(path: str) -> bool:
    return PurePath(path).suffix.lower() in RECORDING_SUFFIXES


def _stem(name: str) -> str:
    """Return a name without the suffix of a recording, in one form of Unicode."""
    stem = PurePath(name).stem if _has_suffix(name) else name
    return composed(stem)
