"""Folders of tensors (safetensors) and one JSON record, written atomically and checked when read. Knows no model."""

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
_KINDS = {"kind": str, "about": dict, "encoder": dict}  # of what a record may hold


def save_folder(
    path: Path,
    tensors: Mapping[str, Tensor],
    record: Mapping[str, Any],
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Write a folder that is either wholly there or not at all.

    Everything goes into a hidden sibling, is flushed to the disk, and takes the final name in one rename. An
    existing folder of that name is moved aside for the rename and removed after it.

    Args:
        tensors: any devices; stored contiguous.
        record: JSON values; ``files`` of it is ours (sha256 of every other file).
        files: further files, such as a tokenizer's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, old = path.parent / f".{path.name}.partial", _old(path)
    if old.exists() and not path.exists():
        old.rename(path)
    for leftover in (partial, old):
        if leftover.exists():
            shutil.rmtree(leftover)
    contents = dict(files or {})
    # Copies: safetensors refuses tensors that share memory, and tied weights must survive.
    contents[TENSORS] = safetensors.torch.save(
        {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    )
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(contents.items())}
    contents[RECORD] = _seal({**record, "files": sums})
    partial.mkdir()
    try:
        for name, data in contents.items():
            _write_durably(partial / name, data)
        sync_folder(partial)
    except OSError:  # a full disk, say: what is half written only takes more of it
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if path.exists():
        path.rename(old)
    partial.rename(path)
    sync_folder(path.parent)
    if old.exists():
        shutil.rmtree(old)


def remove_folder(path: Path) -> None:
    """Delete a folder, if it is there; killed on the way nothing has that name, and the same call goes on."""
    doomed = set_aside(path)
    if doomed.exists():
        shutil.rmtree(doomed)


def set_aside(path: Path) -> Path:
    """Take its name from a folder, if it is there, for ``remove_folder`` to delete; returns what it is called now."""
    doomed = path.parent / f".{path.name}.removed"
    if doomed.exists():
        shutil.rmtree(doomed)
    if path.exists():
        path.rename(doomed)
    return doomed


def remove_partial(parent: Path) -> None:
    """Delete what ``save_folder`` and ``remove_folder`` left of folders in ``parent`` when they were killed."""
    for path in parent.glob(".*"):
        name, _, kind = path.name[1:].rpartition(".")
        if not re.fullmatch(r"model|step-\d+", name):  # somebody else's
            continue
        # Where a folder was moved aside and the new one never came, what lies aside is the good one.
        if kind in ("partial", "removed") or (kind == "old" and (parent / name).exists()):
            shutil.rmtree(path)


def load_record(path: Path) -> dict[str, Any]:
    """The JSON record of a saved folder, its own checksum verified.

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
        intact = isinstance(record, dict) and _seal(record) == text
    except (ValueError, KeyError, TypeError, RecursionError):
        intact = False
    if not intact:
        raise CheckpointError(
            f"{path / RECORD} is damaged: its checksum does not match; use another checkpoint"
        )
    for name, kind in _KINDS.items():
        if not isinstance(record.get(name, kind()), kind):
            raise CheckpointError(
                f"{path / RECORD} is of no model or checkpoint: {name!r} is {record[name]!r}"
            )
    return _SavedRecord(record, path / RECORD)


class _SavedRecord(dict[str, Any]):
    """A record that says so when it lacks what is asked of it: its checksum proves who wrote it no more than anyone."""

    def __init__(self, record: Mapping[str, Any], path: Path) -> None:
        super().__init__(record)
        self.path = path

    def __missing__(self, name: str) -> Any:
        raise CheckpointError(
            f"{self.path} has no {name!r}: it is not of a model or checkpoint of this kind"
        )


def load_folder(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and record of a saved folder; every file is checked before anything of it is used.

    Raises:
        CheckpointError: a file is missing or differs from what was written.
    """
    path = stored_folder(path)
    record = load_record(path)
    sums = record.get("files")
    if not isinstance(sums, dict) or TENSORS not in sums:
        raise CheckpointError(
            f"{path / RECORD} has no checksum of {TENSORS}: it was not written by save_folder"
        )
    contents = {}
    for name, expected in sums.items():
        # Names come from a file, so they must not lead out of the folder.
        if Path(name).name != name or name in ("", "..") or "\0" in name:
            raise CheckpointError(
                f"{path / RECORD} names the file {name!r}, which is not inside the folder"
            )
        try:
            data = contents[name] = (path / name).read_bytes()
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            raise CheckpointError(
                f"{path} has no file {name!r} that can be read: {error}"
            ) from error
        if hashlib.sha256(data).hexdigest() != expected:
            raise CheckpointError(
                f"{path / name} is damaged: its checksum does not match; use another checkpoint"
            )
    try:
        # From the bytes that were checked; opening the file again would also need a name that is UTF-8.
        tensors = safetensors.torch.load(contents[TENSORS])
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path / TENSORS} is not a safetensors file: {error}") from error
    return tensors, record


def stored_folder(path: Path) -> Path:
    """Where the contents of a saved folder lie: ``path``, or its hidden sibling.

    A kill between the two renames of ``save_folder`` leaves the good old folder under its hidden name. Reading never
    renames it back: the writer may be alive and just about to.
    """
    return _old(path) if not path.exists() and _old(path).exists() else path


def step_folder(run: Path, step: int) -> Path:
    """Where the checkpoint after ``step`` updates lies."""
    return run / "checkpoints" / f"step-{step:08d}"


def checkpoints(run: Path) -> list[Path]:
    """Checkpoint folders of a run, newest first; half-written ones have hidden names and are not among them."""
    found = [
        p for p in (run / "checkpoints").glob("step-*") if re.fullmatch(r"step-\d{8,}", p.name)
    ]
    return sorted(found, key=lambda p: int(p.name.removeprefix("step-")), reverse=True)


def model_folder(path: Path) -> Path:
    """The folder of weights that MODEL means: a model folder itself, or the one inside a finished run.

    Raises:
        CheckpointError: neither; says so when the run is there but not finished.
    """
    for candidate in (path, path / "model"):
        if (stored_folder(candidate) / RECORD).is_file():
            return stored_folder(candidate)
    if checkpoints(path):
        raise CheckpointError(f"run {path} is not finished: give its command again to continue it")
    advice = (
        ": a model of another library needs speechssl import first"
        if (path / "config.json").exists()
        else ""
    )
    raise CheckpointError(
        f"{path} is neither a model folder (with {RECORD}) nor a run folder (with model/{RECORD}){advice}"
    )


def load_into(module: torch.nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Fill every parameter and buffer of ``module``; nothing may be missing, left over or of another shape.

    Raises:
        CheckpointError: lists the names that do not agree.
    """
    own = module.state_dict()
    problems = [f"missing {name}" for name in own if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in own]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, the model has {tuple(value.shape)}"
        for name, value in own.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    if problems:
        shown = "; ".join(problems[:8]) + (
            f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        )
        raise CheckpointError(f"weights of {origin} do not fit the model: {shown}")
    module.load_state_dict(dict(tensors))


def _old(path: Path) -> Path:
    return path.parent / f".{path.name}.old"


def _seal(record: Mapping[str, Any]) -> bytes:
    # Escaped to ASCII: file names may hold bytes that are not UTF-8, which Python keeps as lone surrogates.
    body = json.dumps(record, sort_keys=True)
    sealed = {"sha256": hashlib.sha256(body.encode()).hexdigest(), "record": record}
    return (json.dumps(sealed, indent=1, sort_keys=True) + "\n").encode()


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
