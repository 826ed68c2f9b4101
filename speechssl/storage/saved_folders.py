"""Where models and checkpoints lie, found by name alone: no tensor is read here."""

import re
from pathlib import Path

from speechssl.errors import CheckpointError
from speechssl.storage.wrong_paths import what_instead

RECORD = "record.json"


def stored_folder(path: Path) -> Path:
    """Return where the contents of a saved folder lie: ``path``, or its hidden sibling.

    A kill between the two renames of ``save_folder`` leaves the good old folder under its hidden
    name. Reading never renames it back: the writer may be alive and just about to.
    """
    old = hidden_folder(path, "old")
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
    folder = run / "checkpoints"
    step_of = {}
    for path in folder.glob("step-*"):
        name = re.fullmatch(r"step-(\d{8,})", path.name)
        if name:
            step_of[path] = int(name[1])

    return sorted(step_of, key=step_of.__getitem__, reverse=True)


def model_folder(path: Path) -> Path:
    """Find the folder of weights that MODEL means: a model folder, or the one inside a finished
    run.

    Raises:
        CheckpointError: neither; says so when the run is there but not finished.
    """
    for candidate in (path, path / "model"):
        folder = stored_folder(candidate)
        record = folder / RECORD
        if record.is_file():
            return folder

    if checkpoints(path):
        raise CheckpointError(f"run {path} is not finished: give its command again to continue it")

    advice = what_instead(path, "model")
    raise CheckpointError(
        f"{path} is neither a model folder (with {RECORD}) "
        f"nor a run folder (with model/{RECORD}){advice}"
    )


def hidden_folder(path: Path, kind: str) -> Path:
    """Return the hidden name beside a folder of what is partial, old or removed."""
    return path.parent / f".{path.name}.{kind}"
