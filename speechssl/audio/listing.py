"""Which files of a folder are recordings."""

import os
from pathlib import Path

from speechssl.audio.formats import AUDIO_SUFFIXES, UNREADABLE_SUFFIXES, AnyPath
from speechssl.storage.file_kinds import MAC_NOTES

RECORDING_SUFFIXES = UNREADABLE_SUFFIXES.union(AUDIO_SUFFIXES)

# On disks of others, a Mac keeps what it knows about "x.wav" in a file "._x.wav" (AppleDouble).
_MAC_PREFIX = "._"


def is_recording(path: AnyPath) -> bool:
    """Whether a file is a recording by its suffix, also one that cannot be read.

    A file that says nothing by itself is a recording all the same, and is rejected by name later.
    Only a Mac's notes about another file are none.
    """
    name = Path(path).name
    # Not os.path.splitext, to which a name that begins with dots has no suffix.
    suffix = Path(path).suffix.lower()
    return suffix in RECORDING_SUFFIXES and not _is_mac_note(path, name)


def _is_mac_note(path: AnyPath, name: str) -> bool:
    # Only a file of this name is opened, and only a regular one: to open a pipe is to wait for it.
    if not name.startswith(_MAC_PREFIX) or not os.path.isfile(path):
        return False

    try:
        with open(path, "rb") as file:
            return file.read(len(MAC_NOTES)) == MAC_NOTES
    except OSError:
        return False
