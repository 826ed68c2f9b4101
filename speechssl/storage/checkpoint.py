"""Save tensors (safetensors) and one JSON record as a folder, and check them when they are read.

A folder is written atomically. Nothing here knows a model.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from speechssl.errors import CheckpointError
from speechssl.storage.atomic import sync_folder
from speechssl.storage.saved_folders import RECORD, hidden_folder, stored_folder

# Tensors by name, as a module's state holds them.
Tensors = Mapping[str, Tensor]
# Contents of files by name.
Files = Mapping[str, bytes]
# JSON values by name.
Record = Mapping[str, Any]

TENSORS = "tensors.safetensors"

_KINDS = {"kind": str, "about": dict, "encoder": dict}  # types of what a record may hold
_MAX_SHOWN = 8  # names that do not agree, in an error


# ---- writing and removing ------------------------------------------------------------------------


def save_folder(path: Path, tensors: Tensors, record: Record, files: Files | None = None) -> None:
    """Write a folder that is either wholly there or not at all.

    Everything goes into a hidden sibling, is flushed to the disk, and takes the final name in one
    rename. An existing folder of that name is moved aside for the rename and removed after it.

    Args:
        tensors: on any devices; stored contiguous.
        record: JSON values; its ``files`` is ours (sha256 of every other file).
        files: further files, such as a tokenizer's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = hidden_folder(path, "partial")
    old = hidden_folder(path, "old")

    # What an earlier process left when it was killed. Between the two renames, ``old`` is the good
    # one.
    if old.exists() and not path.exists():
        old.rename(path)
    for leftover in (partial, old):
        if leftover.exists():
            shutil.rmtree(leftover)

    contents = _contents(tensors, record, files or {})
    partial.mkdir()
    try:
        for name, data in contents.items():
            _write_durably(partial / name, data)
        sync_folder(partial)
    except OSError:
        # On a full disk, say, what is half written only takes more of it.
        shutil.rmtree(partial, ignore_errors=True)
        raise

    if path.exists():
        path.rename(old)
    partial.rename(path)
    sync_folder(path.parent)

    if old.exists():
        shutil.rmtree(old)


def remove_folder(path: Path) -> None:
    """Delete a folder, if it is there.

    After a kill on the way nothing has that name, and the same call goes on.
    """
    doomed = set_aside(path)
    if doomed.exists():
        shutil.rmtree(doomed)


def set_aside(path: Path) -> Path:
    """Take its name from a folder, if it is there, for ``remove_folder`` to delete.

    Returns:
        What the folder is called now.
    """
    doomed = hidden_folder(path, "removed")
    if doomed.exists():
        shutil.rmtree(doomed)

    if path.exists():
        path.rename(doomed)

    return doomed


def remove_partial(parent: Path) -> None:
    """Delete what killed processes left of ``save_folder`` and ``remove_folder`` in ``parent``."""
    for path in parent.glob(".*"):
        name, _, kind = path.name[1:].rpartition(".")
        is_ours = re.fullmatch(r"model|step-\d+", name)
        if not is_ours:
            continue

        is_of_no_use = kind in ("partial", "removed")
        if kind == "old":
            # Where a folder was moved aside and the new one never came, what lies aside is the
            # good one.
            replacement = parent / name
            is_of_no_use = replacement.exists()

        if is_of_no_use:
            shutil.rmtree(path)


# ---- reading -------------------------------------------------------------------------------------


def load_record(path: Path) -> dict[str, Any]:
    """Load the JSON record of a saved folder, and verify its own checksum.

    Returns:
        The record. Asked for a name that it does not have, it raises a ``CheckpointError``.

    Raises:
        CheckpointError: missing, not JSON, or changed since it was written.
    """
    path = stored_folder(path)
    record_path = path / RECORD
    try:
        text = record_path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path} is no saved model or checkpoint: cannot read {RECORD} ({error})"
        ) from error

    try:
        sealed = json.loads(text)
        record = sealed["record"]
        is_intact = isinstance(record, dict) and _seal(record) == text
    except (ValueError, KeyError, TypeError, RecursionError):
        is_intact = False
    if not is_intact:
        raise CheckpointError(
            f"{record_path} is damaged: its checksum does not match; use another checkpoint"
        )

    for name, kind in _KINDS.items():
        if name not in record:
            continue

        value = record[name]
        if not isinstance(value, kind):
            raise CheckpointError(
                f"{record_path} is of no model or checkpoint: {name!r} is {value!r}"
            )

    return _SavedRecord(record, record_path)


def load_folder(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Load tensors and record of a saved folder; every file is checked before anything of it is
    used.

    Raises:
        CheckpointError: a file is missing or differs from what was written.
    """
    path = stored_folder(path)
    record = load_record(path)
    checksums = record.get("files")
    if not isinstance(checksums, dict) or TENSORS not in checksums:
        raise CheckpointError(
            f"{path / RECORD} has no checksum of {TENSORS}: it was not written by save_folder"
        )

    contents = {}
    for name, checksum in checksums.items():
        contents[name] = _read_checked(path, name, checksum)

    try:
        # From the bytes that were checked; opening the file again would also need a UTF-8 name.
        tensors = safetensors.torch.load(contents[TENSORS])
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path / TENSORS} is not a safetensors file: {error}") from error

    return tensors, record


def load_into(module: torch.nn.Module, tensors: Tensors, origin: str) -> None:
    """Fill every parameter and buffer of ``module``.

    Nothing may be missing, left over or of another shape.

    Args:
        origin: where the tensors come from, for the error.

    Raises:
        CheckpointError: lists the names that do not agree.
    """
    own = module.state_dict()
    problems = [f"missing {name}" for name in own if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in own]

    for name, value in own.items():
        if name not in tensors:
            continue

        given = tuple(tensors[name].shape)
        wanted = tuple(value.shape)
        if given != wanted:
            problems.append(f"{name} is {given}, the model has {wanted}")

    if problems:
        shown = "; ".join(problems[:_MAX_SHOWN])
        num_hidden = len(problems) - _MAX_SHOWN
        if num_hidden > 0:
            shown += f"; and {num_hidden} more"
        raise CheckpointError(f"weights of {origin} do not fit the model: {shown}")

    module.load_state_dict(dict(tensors))


# ---- helpers -------------------------------------------------------------------------------------


class _SavedRecord(dict[str, Any]):
    """A record that raises a ``CheckpointError`` when it lacks what is asked of it.

    Anyone can write a record with a right checksum, so what it holds is not certain.
    """

    def __init__(self, record: Record, path: Path) -> None:
        super().__init__(record)
        self.path = path

    def __missing__(self, name: str) -> Any:
        raise CheckpointError(
            f"{self.path} has no {name!r}: it is not of a model or checkpoint of this kind"
        )


def _contents(tensors: Tensors, record: Record, files: Files) -> dict[str, bytes]:
    """Return names and contents of all files of a saved folder, the record last."""
    # Copies: safetensors refuses tensors that share memory, and tied weights must survive.
    copies = {}
    for name, tensor in tensors.items():
        copy = tensor.detach().cpu().clone()
        copies[name] = copy.contiguous()

    contents = dict(files)
    contents[TENSORS] = safetensors.torch.save(copies)

    checksums = {}
    for name in sorted(contents):
        checksums[name] = _sha256(contents[name])

    full_record = {**record, "files": checksums}
    contents[RECORD] = _seal(full_record)
    return contents


def _seal(record: Record) -> bytes:
    """Write a record with its own checksum.

    Escaped to ASCII: file names may hold bytes that are not UTF-8, which Python keeps as lone
    surrogates.
    """
    body = json.dumps(record, sort_keys=True)
    checksum = _sha256(body.encode())
    sealed = {"sha256": checksum, "record": record}
    text = json.dumps(sealed, indent=1, sort_keys=True) + "\n"
    return text.encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _read_checked(folder: Path, name: str, checksum: object) -> bytes:
    """Read one file of a saved folder, and compare it with the checksum of the record."""
    # Names come from a file, so they must not lead out of the folder.
    is_file_name = Path(name).name == name and name not in ("", "..")
    if not is_file_name or "\0" in name:
        raise CheckpointError(
            f"{folder / RECORD} names the file {name!r}, which is not inside the folder"
        )

    path = folder / name
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise CheckpointError(f"{folder} has no file {name!r} that can be read: {error}") from error

    if _sha256(data) != checksum:
        raise CheckpointError(
            f"{path} is damaged: its checksum does not match; use another checkpoint"
        )

    return data
