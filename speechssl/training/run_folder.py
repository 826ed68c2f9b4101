"""A run folder: locked by one process, of one set of settings, with checkpoints to go on from."""

import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from speechssl.config import Table
from speechssl.data.store import Store
from speechssl.errors import CheckpointError, ConfigError
from speechssl.runtime import distributed
from speechssl.runtime.distributed import log_once
from speechssl.runtime.log import log
from speechssl.storage.atomic import remove_leftovers, write_atomic
from speechssl.storage.checkpoint import (
    checkpoints,
    load_folder,
    load_into,
    remove_folder,
    remove_partial,
    save_folder,
    set_aside,
    step_folder,
)
from speechssl.storage.json_text import as_json
from speechssl.training.setting_names import with_current_names

# They change no update (micro_seconds: but for what dropout draws), so a run may continue with others. Of other models
# their checksums count, not where they lie.
_FREE = {
    "preset",  # where settings started from, which are all here themselves
    "train.log_every",
    "train.keep",
    "train.device",
    "hidden_units.teacher",
    "init.path",
    "batch.micro_seconds",
}
LOCK = ".lock"  # of the process that trains in a run folder, and gone with it however it ends: the file says nothing


@dataclass
class RunState:
    """Everything a resumed run needs beside weights and optimiser: the step, and what has been seen."""

    step: int = 0
    best: float = math.inf
    bad_in_a_row: int = 0


def claim(run: Path, settings: Table, held: ExitStack) -> None:
    """Make the run folder, or check that it belongs to the same run; what a kill left in it half written goes.

    Nobody else can claim it until ``held`` is closed.
    """
    path = run / "settings.json"
    if path.exists():
        _check_settings(path, settings)
    else:
        if run.exists() and not run.is_dir():
            raise ConfigError(f"{run} is a file: give another --run")
        run.mkdir(parents=True, exist_ok=True)
        foreign = sorted(p.name for p in run.iterdir() if not p.name.startswith("."))
        if foreign:
            raise ConfigError(
                f"{run} is no run folder and not empty (it holds {foreign[0]!r}): give another --run"
            )
    held.enter_context(only_process(run))
    if path.exists():  # perhaps another process's, which has ended since
        _check_settings(path, settings)
    else:
        write_atomic(path, as_json(settings))
    remove_leftovers(run)
    remove_partial(run)
    remove_partial(run / "checkpoints")


@contextmanager
def only_process(run: Path) -> Iterator[None]:
    """Keep the run folder ``run`` to this process: two that train in it would write over each other's checkpoints.

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
        except OSError:  # a file system without locks: nothing can be known
            log(
                f"{run} lies where files cannot be locked: see to it that one process alone trains there"
            )
        if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            raise ConfigError(f"{run} was deleted just now: give the command again")
        yield


def _check_settings(path: Path, settings: Table) -> None:
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path} is damaged ({error}): give another --run, or use --force"
        ) from error
    old, new = _flat(with_current_names(before)), _flat(settings)
    changed = [name for name in old | new if name not in _FREE and old.get(name) != new.get(name)]
    if changed:
        shown = "; ".join(f"{name}: {old.get(name)!r} -> {new.get(name)!r}" for name in changed[:3])
        raise ConfigError(
            f"{path.parent} was started with other settings ({shown}): give another --run, or use --force"
        )


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in table.items():
        flat |= (
            _flat(value, f"{prefix}{name}.")
            if isinstance(value, Mapping)
            else {prefix + name: value}
        )
    return flat


def save_checkpoint(
    model: nn.Module, optimizer: torch.optim.Optimizer, progress: RunState, run: Path, keep: int
) -> None:
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = value
    best = None if math.isinf(progress.best) else progress.best
    record = {
        "kind": "checkpoint",
        "step": progress.step,
        "best": best,
        "bad_in_a_row": progress.bad_in_a_row,
    }
    save_folder(step_folder(run, progress.step), tensors, record)
    # Those of later updates were passed over as damaged: they must not crowd out what can be read.
    mine = step_folder(run, progress.step).name
    for old in [path for path in checkpoints(run) if path.name <= mine][keep:]:
        remove_folder(old)


def resume(model: nn.Module, optimizer: torch.optim.Optimizer, run: Path) -> RunState:
    """State of the newest checkpoint that can be read; a damaged one is reported and passed over."""
    for path in checkpoints(run):
        try:
            tensors, record = load_folder(path)
        except CheckpointError as error:
            log_once(f"passing over a checkpoint: {error}")
            continue
        weights = {
            n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")
        }
        load_into(model, weights, str(path))
        for name, parameter in model.named_parameters():
            state = {}
            for key in ("step", "exp_avg", "exp_avg_sq"):
                value = tensors.get(f"optimizer.{key}.{name}")
                if value is not None:
                    state[key] = value.to(
                        parameter.device
                    )  # the step too: fused AdamW counts on the device
            if state:
                optimizer.state[parameter] = state
        best = record["best"]
        log_once(f"continuing after update {record['step']} from {path}")
        return RunState(
            int(record["step"]),
            math.inf if best is None else float(best),
            int(record["bad_in_a_row"]),
        )
    if checkpoints(run):
        log_once("no checkpoint can be read: starting from the first update")
    return RunState()


def start_anew(run: Path, force: bool, stores: Sequence[Path] = (), *models: Path | None) -> None:
    """With ``force``, delete the run, once what the new one reads is known to be there and not inside it.

    Of several processes the first does it, and not again when torchrun starts them anew.
    """
    if not force or distributed.rank() or distributed.attempt():
        return
    if run.is_symlink() or (run.exists() and not run.is_dir()):
        raise ConfigError(f"--force deletes run folders only, and {run} is none: remove it by hand")
    if (
        run.exists()
        and {p.name for p in run.iterdir()} - {LOCK}
        and not (run / "settings.json").exists()
    ):
        raise ConfigError(
            f"--force deletes run folders only, and {run} has no settings.json: remove it by hand"
        )
    for path in (*stores, *filter(None, models)):
        if path.resolve().is_relative_to(run.resolve()):
            raise ConfigError(
                f"--force would delete {path}, which this command reads: give another --run"
            )
    for path in stores:
        Store(path)
    if run.exists():
        with only_process(run):
            set_aside(run)
    remove_folder(run)  # once the lock's file is closed: NFS keeps an open one in its folder
