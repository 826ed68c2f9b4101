"""Processes that share every update, as torchrun starts them.

A process alone is rank 0 of 1 and communicates nothing. All ranks must call the functions that
communicate in the same order: one that does not leaves the others waiting.
"""

import atexit
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from speechssl.errors import ConfigError, TrainingError
from speechssl.runtime.ranks import attempt, count

# How long a process waits until all have come: a launch that lost one is better started again.
MEETING = timedelta(minutes=2)

# How long a process waits for the others during training: rank 0 alone validates meanwhile.
WAITING = timedelta(hours=2)


def start(device: torch.device) -> None:
    """Meet the other processes; later calls do nothing.

    Tensors on the CPU travel through gloo, those on GPUs through nccl. Each process has its own
    GPU.

    Raises:
        ConfigError: more processes than GPUs, or nothing says where to meet.
        TrainingError: the others did not come.
    """
    if count() == 1:
        return

    if device.type == "cuda":
        _take_own_gpu()

    if not dist.is_initialized():
        _meet(device)


def _take_own_gpu() -> None:
    own = int(os.environ.get("LOCAL_RANK", 0))
    gpus = torch.cuda.device_count()

    if own >= gpus:
        raise ConfigError(
            f"process {own + 1} of this machine finds {gpus} GPUs: start one process for each"
        )
    torch.cuda.set_device(own)


def _meet(device: torch.device) -> None:
    """Find the other processes, and set up what tensors travel through."""
    if not {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise ConfigError(
            "RANK and WORLD_SIZE are set, MASTER_ADDR is not: start with torchrun, or unset them"
        )

    backends = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    trouble = (
        f"the other processes of this run did not come within {MEETING.seconds} s: start it again"
    )
    with _as_training_error(trouble):
        shared, rank, size = next(dist.rendezvous("env://", timeout=MEETING))  # type: ignore[attr-defined]

        # torchrun has one store for all its attempts: an address that a lost process left there
        # would be taken for a new one. So each attempt gets its own part. Each machine counts its
        # own attempts: with several machines, a lost process ends the run, and the same command
        # continues it.
        store = dist.PrefixStore(f"attempt {attempt()}", shared)  # type: ignore[attr-defined]
        dist.init_process_group(backends, timeout=MEETING, store=store, rank=rank, world_size=size)

    # Public in newer versions of torch; in 2.11 under this name alone.
    set_timeout = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout
    set_timeout(WAITING)
    atexit.register(_leave)


def _leave() -> None:
    """Let gloo's threads drop their last tensors before the interpreter ends.

    A tensor that needs the interpreter while it ends would abort the process.
    """
    dist.destroy_process_group()

    # gloo neither says when its threads are done nor waits for them.
    time.sleep(0.1)


def any_rank(flag: bool) -> bool:
    """Tell whether ``flag`` is True on any rank. All ranks must call it."""
    if count() == 1:
        return flag
    return bool(_summed(torch.tensor(int(flag))))


@contextmanager
def fail_on_all_ranks() -> Iterator[None]:
    """Let all ranks leave the block together; an error inside on one rank ends all of them.

    Nothing inside may communicate.

    Raises:
        TrainingError: another rank failed, and says why itself.
    """
    failed = True
    try:
        yield
        failed = False
    finally:
        failed = any_rank(failed)

    if failed:
        raise TrainingError("another process of this run failed: its own message says why")


def sum_over_ranks(values: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Add up numbers and tensors over ranks, in float64. All ranks must call it.

    Args:
        values: ints, floats and tensors of any shape, the same names and shapes on all ranks. A
            rank without data gives none.
        device: that the sum is computed on.

    Returns:
        The sums by name, of the types that were given; none for a rank that gave none.
    """
    if count() == 1:
        return dict(values)

    flat = [_as_float64(value, device) for value in values.values()]
    lengths = [len(part) for part in flat]

    # A rank without data cannot know how much the others have.
    length = torch.tensor(sum(lengths))
    with _as_training_error():
        dist.all_reduce(length, dist.ReduceOp.MAX)

    if not flat:
        _summed(torch.zeros(int(length), dtype=torch.float64, device=device))
        return {}

    # One message for all values.
    parts = torch.split(_summed(torch.cat(flat)), lengths)

    sums: dict[str, Any] = {}
    for (name, own), part in zip(values.items(), parts, strict=True):
        if isinstance(own, Tensor):
            sums[name] = part.view_as(own).to(own.dtype)
        else:
            sums[name] = type(own)(part.item())
    return sums


def _as_float64(value: Any, device: torch.device) -> Tensor:
    """(N,) float64 without a gradient."""
    return torch.as_tensor(value, dtype=torch.float64, device=device).detach().flatten()


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up all gradients over ranks. All ranks must call it.

    One message is sent per dtype and device. A gradient that no rank has stays None.
    """
    if count() == 1:
        return

    parameters = list(parameters)
    has_gradient = torch.tensor([p.grad is not None for p in parameters]).int()
    ranks_with_gradient = _summed(has_gradient).tolist()
    learning = [p for p, number in zip(parameters, ranks_with_gradient, strict=True) if number]

    kinds = dict.fromkeys((p.dtype, p.device) for p in learning)
    for kind in kinds:
        group = [p for p in learning if (p.dtype, p.device) == kind]
        own = [_flat_gradient(p) for p in group]
        lengths = [len(gradient) for gradient in own]

        parts = torch.split(_summed(torch.cat(own)), lengths)
        for parameter, part in zip(group, parts, strict=True):
            parameter.grad = part.view_as(parameter)


def _flat_gradient(parameter: nn.Parameter) -> Tensor:
    """(N,), zeros where this rank has none."""
    gradient = parameter.grad
    if gradient is None:
        gradient = torch.zeros_like(parameter)
    return gradient.flatten()


def copy_from_first(tensors: Iterable[Tensor]) -> None:
    """Overwrite ``tensors`` with those of rank 0. All ranks must call it."""
    if count() == 1:
        return

    with _as_training_error():
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def _summed(tensor: Tensor) -> Tensor:
    """Add up ``tensor`` over ranks, in place."""
    with _as_training_error():
        dist.all_reduce(tensor)
    return tensor


@contextmanager
def _as_training_error(
    trouble: str = "another process of this run is gone; see its own message",
) -> Iterator[None]:
    """Turn an error of the back end into one of ours, with the first line of its reason behind."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise TrainingError(f"{trouble} ({lines[0]})") from error
