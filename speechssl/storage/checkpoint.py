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

TENSORS = "tensors.safetensors"
RECORD = "record.json"

_KINDS = {"kind": str, "about": dict, "encoder": dict}  # types of what a record may hold
_MAX_SHOWN = 8  # names that do not agree, in an error


# ---- writing and removing ------------------------------------------------------------------------


def save_folder(
    path: Path,
    tensors: Mapping[str, Tensor],
    record: Mapping[str, Any],
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Write a folder that is either wholly there or not at all.

    Everything goes into a hidden sibling, is flushed to the disk, and takes the final name in one
    rename. An existing folder of that name is moved aside for the rename and removed after it.

    Args:
        tensors: on any devices; stored contiguous.
        record: JSON values; its ``files`` is ours (sha256 of every other file).
        files: further files, such as a tokenizer's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f".{path.name}.partial"
    old = _old(path)

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
    doomed = path.parent / f".{path.name}.removed"
    if doomed.exists():
        shutil.rmtree(doomed)

    if path.exists():
        path.rename(doomed)

    return doomed


def remove_partial(parent: Path) -> None:
    """Delete what killed processes left of ``save_folder`` and ``remove_folder`` in ``parent``."""
    for path in parent.glob(".*"):
        name, _, kind = path.name[1:].rpartition(".")
        if not re.fullmatch(r"model|step-\d+", name):  # somebody else's
            continue

        # Where a folder was moved aside and the new one never came, what lies aside is the good
        # one.
        is_replaced = kind == "old" and (parent / name).exists()
        if kind in ("partial", "removed") or is_replaced:
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
    try:
        text = (path / RECORD).read_bytes()
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
            f"{path / RECORD} is damaged: its checksum does not match; use another checkpoint"
        )

    for name, kind in _KINDS.items():
        if name in record and not isinstance(record[name], kind):
            raise CheckpointError(
                f"{path / RECORD} is of no model or checkpoint: {name!r} is {record[name]!r}"
            )

    return _SavedRecord(record, path / RECORD)


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


def load_into(module: torch.nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
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
        if name in tensors and tensors[name].shape != value.shape:
            given = tuple(tensors[name].shape)
            problems.append(f"{name} is {given}, the model has {tuple(value.shape)}")

    if problems:
        shown = "; ".join(problems[:_MAX_SHOWN])
        if len(problems) > _MAX_SHOWN:
            shown += f"; and {len(problems) - _MAX_SHOWN} more"
        raise CheckpointError(f"weights of {origin} do not fit the model: {shown}")

    module.load_state_dict(dict(tensors))


# ---- where things lie ----------------------------------------------------------------------------


def stored_folder(path: Path) -> Path:
    """Return where the contents of a saved folder lie: ``path``, or its hidden sibling.

    A kill between the two renames of ``save_folder`` leaves the good old folder under its hidden
    name. Reading never renames it back: the writer may be alive and just about to.
    """
    old = _old(path)
    if not path.exists() and old.exists():
        return old
    return path


def step_folder(run: Path, step: int) -> Path:
    """Return where the checkpoint after ``step`` updates lies."""
    return run / "checkpoints" / f"step-{step:08d}"


def checkpoints(run: Path) -> list[Path]:
    """List the checkpoint folders of a run, newest first.

    Half-written ones have hidden names and are not among them.
    """
    by_step = {}
    for path in (run / "checkpoints").glob("step-*"):
        name = re.fullmatch(r"step-(\d{8,})", path.name)
        if name:
            by_step[path] = int(name[1])

    return sorted(by_step, key=by_step.__getitem__, reverse=True)


def model_folder(path: Path) -> Path:
    """Find the folder of weights that MODEL means: a model folder, or the one inside a finished
    run.

    Raises:
        CheckpointError: neither; says so when the run is there but not finished.
    """
    for candidate in (path, path / "model"):
        folder = stored_folder(candidate)
        if (folder / RECORD).is_file():
            return folder

    if checkpoints(path):
        raise CheckpointError(f"run {path} is not finished: give its command again to continue it")

    advice = ""
    if (path / "config.json").exists():
        advice = ": a model of another library needs speechssl import first"
    raise CheckpointError(
        f"{path} is neither a model folder (with {RECORD}) "
        f"nor a run folder (with model/{RECORD}){advice}"
    )


# ---- helpers -------------------------------------------------------------------------------------


class _SavedRecord(dict[str, Any]):
    """A record that raises a ``CheckpointError`` when it lacks what is asked of it.

    Anyone can write a record with a right checksum, so what it holds is not certain.
    """

    def __init__(self, record: Mapping[str, Any], path: Path) -> None:
        super().__init__(record)
        self.path = path

    def __missing__(self, name: str) -> Any:
        raise CheckpointError(
            f"{self.path} has no {name!r}: it is not of a model or checkpoint of this kind"
        )


def _contents(
    tensors: Mapping[str, Tensor], record: Mapping[str, Any], files: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Return names and contents of all files of a saved folder, the record last."""
    # Copies: safetensors refuses tensors that share memory, and tied weights must survive.
    copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}

    contents = dict(files)
    contents[TENSORS] = safetensors.torch.save(copies)

    checksums = {name: _sha256(data) for name, data in sorted(contents.items())}
    contents[RECORD] = _seal({**record, "files": checksums})
    return contents


def _seal(record: Mapping[str, Any]) -> bytes:
    """Write a record with its own checksum.

    Escaped to ASCII: file names may hold bytes that are not UTF-8, which Python keeps as lone
    surrogates.
    """
    body = json.dumps(record, sort_keys=True)
    sealed = {"sha256": _sha256(body.encode()), "record": record}
    return (json.dumps(sealed, indent=1, sort_keys=True) + "\n").encode()


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
    if Path(name).name != name or name in ("", "..") or "\0" in name:
        raise CheckpointError(
            f"{folder / RECORD} names the file {name!r}, which is not inside the folder"
        )

    try:
        data = (folder / name).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise CheckpointError(f"{folder} has no file {name!r} that can be read: {error}") from error

    if _sha256(data) != checksum:
        raise CheckpointError(
            f"{folder / name} is damaged: its checksum does not match; use another checkpoint"
        )

    return data


def _old(path: Path) -> Path:
    """Return the hidden name of the folder that a new one replaces."""
    return path.parent / f".{path.name}.old"
