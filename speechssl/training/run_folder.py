"""A run folder: locked by one process, of one set of settings, with checkpoints to go on from."""

import fcntl
import json
import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from speechssl.config import Table
from speechssl.data.store import Store
from speechssl.errors import CheckpointError, ConfigError
from speechssl.runtime import ranks
from speechssl.runtime.log import log
from speechssl.runtime.machine import describe_machine
from speechssl.runtime.ranks import log_once
from speechssl.storage.atomic import remove_leftovers, write_atomic
from speechssl.storage.checkpoint import (
    load_folder,
    load_into,
    remove_folder,
    remove_partial,
    save_folder,
    set_aside,
)
from speechssl.storage.json_text import as_json, ascii_json_line, read_json_lines
from speechssl.storage.saved_folders import checkpoints, step_folder
from speechssl.training.setting_names import ADDED, with_current_names

SETTINGS = "settings.json"

# One line for every start of the run: when, from which step, on which machine.
MACHINE = "machine.jsonl"

# Of the process that trains in a run folder. It is empty: only the lock on it counts, which the
# system removes however the process ends.
LOCK = ".lock"

# Settings that change no update, so that a run may continue with others.
ALWAYS_FREE = {
    # Where the settings started from, which are all in the file themselves.
    "preset",
    "train.log_every",
    "train.keep",
    "train.device",
    # It changes what dropout draws, and nothing else. A run that is out of memory may go on with
    # less.
    "batch.micro_seconds",
}

# Of the names of weights in a checkpoint, which holds the state of the optimiser too.
MODEL_PREFIX = "model."

# What AdamW keeps for each parameter.
OPTIMIZER_STATE = ("step", "exp_avg", "exp_avg_sq")

# Changed settings that an error message names.
MAX_SHOWN = 3


@dataclass
class RunState:
    """What a resumed run needs beside weights and optimiser."""

    step: int = 0
    """Updates that are done."""

    best: float = math.inf
    """The best validation so far; lower is better."""

    bad_in_a_row: int = 0
    """Last updates in a row whose gradient was not finite."""


def claim(run: Path, settings: Table, free_settings: Collection[str], held: ExitStack) -> None:
    """Make the run folder, or check that it belongs to the same run.

    What a kill left there half written is removed. Nobody else can claim the folder until ``held``
    is closed.

    Args:
        settings: all settings of the run, JSON values.
        free_settings: names that may differ from those of the folder, besides ``ALWAYS_FREE``.

    Raises:
        ConfigError: the folder holds another run, or something else, or another process trains in
            it.
    """
    path = run / SETTINGS
    allowed = ALWAYS_FREE.union(free_settings)

    # A folder that is refused stays as it is: it is checked before anything is written, the lock
    # too.
    if path.exists():
        _check_settings(path, settings, allowed)
    else:
        _make_empty_folder(run)

    held.enter_context(only_process(run))

    # While this process waited for the lock, another one may have made a run here.
    if path.exists():
        _check_settings(path, settings, allowed)
    else:
        write_atomic(path, as_json(settings))

    # Only now is it sure that no process works on those files.
    remove_leftovers(run)
    remove_partial(run)
    remove_partial(run / "checkpoints")


def _make_empty_folder(run: Path) -> None:
    """Make a folder for a new run; one that is there must be empty but for hidden files."""
    if run.exists() and not run.is_dir():
        raise ConfigError(f"{run} is a file: give another --run")

    run.mkdir(parents=True, exist_ok=True)

    foreign = sorted(path.name for path in run.iterdir() if not path.name.startswith("."))
    if foreign:
        raise ConfigError(
            f"{run} is no run folder and not empty (it holds {foreign[0]!r}): give another --run"
        )


def _check_settings(path: Path, settings: Table, allowed: Collection[str]) -> None:
    """Compare the settings of a run folder with those of the run that wants to continue in it.

    Raises:
        ConfigError: the file is damaged, or settings differ that are not ``allowed`` to.
    """
    old = _flat(settings_of_run(path.parent))
    new = _flat(settings)

    changes = []
    for name in old | new:
        value_before = old.get(name, ADDED.get(name))
        value_now = new.get(name)
        if name not in allowed and value_before != value_now:
            changes.append(f"{name}: {value_before!r} -> {value_now!r}")

    if changes:
        shown = "; ".join(changes[:MAX_SHOWN])
        raise ConfigError(
            f"{path.parent} was started with other settings ({shown}): {remedies(path.parent)}"
        )


def remedies(run: Path) -> str:
    """Say what to do with a run folder that this run does not fit, or that is done already."""
    return (
        f"give another --run, with --init-from {run} to go on from what it learned; "
        "--force would delete it and start anew"
    )


def settings_of_run(run: Path) -> Table:
    """Read the settings that a run was begun with, under the names that they have now.

    Raises:
        ConfigError: the file is damaged.
    """
    path = run / SETTINGS
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(before, dict):
            raise ValueError("no settings")
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path} is damaged ({error}): give another --run; --force would delete this one and "
            "start anew"
        ) from error

    # A run of an earlier version may have other names for the same settings.
    return with_current_names(before)


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by their whole names, such as "optim.lr"."""
    flat: dict[str, Any] = {}

    for name, value in table.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


@contextmanager
def only_process(run: Path) -> Iterator[None]:
    """Keep the run folder ``run`` to this process.

    Two processes that train in one folder would write over each other's checkpoints.

    Raises:
        ConfigError: another process has it.
    """
    path = run / LOCK

    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another process trains in {run}: wait for its end, or give another --run"
            ) from error
        except OSError:
            # A file system without locks: whether another process trains here cannot be known.
            log(
                f"{run} lies where files cannot be locked: "
                "see to it that one process alone trains there"
            )

        # Another process may have deleted the folder between opening and locking. The lock would
        # then be on a file that nobody else finds.
        is_there = path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())
        if not is_there:
            raise ConfigError(f"{run} was deleted just now: give the command again")
        yield


def note_machine(run: Path, step: int, device: torch.device) -> None:
    """Add a line to ``machine.jsonl``: the run goes on from ``step`` now, on this machine.

    Nothing reads it but people. Speed and the last bits of sums depend on the machine.
    """
    path = run / MACHINE
    now = datetime.now(UTC).isoformat(timespec="seconds")
    row = {"time": now, "step": step} | describe_machine(device)

    # Written whole: a line that a kill cut off would swallow the next one.
    rows = [*read_json_lines(path, warn=False), row]
    write_atomic(path, [ascii_json_line(row) for row in rows])


def save_checkpoint(
    model: nn.Module, optimizer: torch.optim.Optimizer, state: RunState, run: Path, keep: int
) -> None:
    """Save all that a resumed run needs, and remove all but the newest ``keep`` checkpoints."""
    tensors = {MODEL_PREFIX + name: value for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = value

    record = {
        "kind": "checkpoint",
        "step": state.step,
        # JSON has no infinity.
        "best": None if math.isinf(state.best) else state.best,
        "bad_in_a_row": state.bad_in_a_row,
    }
    newest = step_folder(run, state.step)
    save_folder(newest, tensors, record)

    # Checkpoints of later updates were passed over as damaged. They must not take the places of
    # those that can be read.
    mine = [path for path in checkpoints(run) if path.name <= newest.name]
    for old in mine[keep:]:
        remove_folder(old)


def resume(model: nn.Module, optimizer: torch.optim.Optimizer, run: Path) -> RunState:
    """Load the newest checkpoint that can be read; a damaged one is reported and passed over.

    Returns:
        The state of the run; that of its start where there is no checkpoint.

    Raises:
        CheckpointError: a checkpoint is whole, but of another model.
    """
    found = checkpoints(run)

    for path in found:
        try:
            tensors, record = load_folder(path)
        except CheckpointError as error:
            log_once(f"passing over a checkpoint: {error}")
            continue

        weights = {}
        for name, tensor in tensors.items():
            if name.startswith(MODEL_PREFIX):
                weights[name.removeprefix(MODEL_PREFIX)] = tensor

        load_into(model, weights, str(path))
        _load_optimizer(model, optimizer, tensors)

        log_once(f"continuing after update {record['step']} from {path}")
        return _state_of(record)

    if found:
        log_once("no checkpoint can be read: starting from the first update")
    return RunState()


def _load_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    for name, parameter in model.named_parameters():
        state = {}
        for key in OPTIMIZER_STATE:
            value = tensors.get(f"optimizer.{key}.{name}")
            if value is not None:
                # The step too: fused AdamW counts on the device.
                state[key] = value.to(parameter.device)

        # A parameter that does not learn has no state.
        if state:
            optimizer.state[parameter] = state


def _state_of(record: Table) -> RunState:
    best = math.inf if record["best"] is None else float(record["best"])
    return RunState(int(record["step"]), best, int(record["bad_in_a_row"]))


def start_anew(
    run: Path,
    force: bool,
    stores: Sequence[Path] = (),
    *others: Path | None,
    with_runs: Sequence[Path] = (),
) -> None:
    """With ``force``, delete the run, so that the command starts it anew.

    Before, it checks that what the new run reads is there and does not lie inside the folder.

    Of several processes the first one deletes, and not again when torchrun starts them a second
    time.

    Args:
        others: models and files that the new run reads.
        with_runs: run folders to delete after ``run``; all are checked before.

    Raises:
        ConfigError: ``run`` is no run folder, holds what the new run reads, or is in use.
        ManifestError: a store cannot be used.
    """
    if not force or ranks.rank() > 0 or ranks.attempt() > 0:
        return

    given_others = [path for path in others if path is not None]
    runs = [run, *with_runs]
    for folder in runs:
        _check_run_folder(folder)
        for path in (*stores, *given_others):
            if path.resolve().is_relative_to(folder.resolve()):
                raise ConfigError(
                    f"--force would delete {path}, which this command reads: give another --run"
                )
    for path in stores:
        Store(path)

    for folder in runs:
        if folder.exists():
            with only_process(folder):
                set_aside(folder)

        # Once the lock's file is closed: NFS keeps an open file in its folder.
        remove_folder(folder)


def _check_run_folder(run: Path) -> None:
    """See that ``run`` may be deleted: it is a run folder, or empty, or not there."""
    if run.is_symlink() or (run.exists() and not run.is_dir()):
        raise ConfigError(f"--force deletes run folders only, and {run} is none: remove it by hand")
    if not run.exists():
        return

    names = {path.name for path in run.iterdir()} - {LOCK}
    if names and not (run / SETTINGS).exists():
        raise ConfigError(
            f"--force deletes run folders only, and {run} has no settings.json: remove it by hand"
        )
