"""Processes that share every update, as torchrun starts them. One alone is rank 0 of 1 and communicates nothing."""

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
from speechssl.runtime.log import log

MEETING = timedelta(
    minutes=2
)  # until all processes have come; a lost launch is better started again
WAITING = timedelta(hours=2)  # for each other: while rank 0 validates


def rank() -> int:
    """Which of the processes this one is; rank 0 alone writes."""
    return _number("RANK") if count() > 1 else 0


def count() -> int:
    """How many processes share an update."""
    return _number("WORLD_SIZE") if {"RANK", "WORLD_SIZE"} <= os.environ.keys() else 1


def attempt() -> int:
    """How often torchrun has started these processes again."""
    return (
        _number("TORCHELASTIC_RESTART_COUNT") if "TORCHELASTIC_RESTART_COUNT" in os.environ else 0
    )


def _number(name: str) -> int:
    try:
        return int(os.environ[name])
    except ValueError as error:
        raise ConfigError(
            f"{name} is {os.environ[name]!r}, not a number: start with torchrun, or unset it"
        ) from error


def start(device: torch.device) -> None:
    """Meet the other processes, once: gloo for what lies on the CPU, nccl for GPUs, of which each process has its own.

    Raises:
        ConfigError: more processes than GPUs, or nothing says where to meet.
        TrainingError: the others did not come.
    """
    if count() > 1 and device.type == "cuda":
        own, gpus = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if own >= gpus:
            raise ConfigError(
                f"process {own + 1} of this machine finds {gpus} GPUs: start one process for each"
            )
        torch.cuda.set_device(own)
    if count() > 1 and not dist.is_initialized():
        if not {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
            raise ConfigError(
                "RANK and WORLD_SIZE are set, MASTER_ADDR is not: start with torchrun, or unset them"
            )
        backends = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
        with _talking(
            f"the other processes of this run did not come within {MEETING.seconds} s: start it again"
        ):
            shared, rank, size = next(dist.rendezvous("env://", timeout=MEETING))  # type: ignore[attr-defined]
            # torchrun has one store for all its attempts: an address that a lost process left would be taken for new.
            # Each machine counts its own: with several, a lost process ends the run, and the same command goes on.
            alone = dist.PrefixStore(f"attempt {attempt()}", shared)  # type: ignore[attr-defined]
            dist.init_process_group(
                backends, timeout=MEETING, store=alone, rank=rank, world_size=size
            )
        # Public in newer versions of torch; in 2.11 under this name alone.
        set_timeout = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout
        set_timeout(WAITING)
        atexit.register(_leave)


def _leave() -> None:
    """Let gloo's threads drop the last tensors: one that needs the interpreter while it ends aborts the process."""
    dist.destroy_process_group()
    time.sleep(0.1)  # it says neither when they are done nor waits for them


def any_rank(flag: bool) -> bool:
    """Whether ``flag`` is True on any rank."""
    return flag if count() == 1 else bool(_summed(torch.tensor(int(flag))))


@contextmanager
def fail_on_all_ranks() -> Iterator[None]:
    """Leave the block at the same time; what fails there on one rank ends all. Nothing inside may communicate.

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
    """Sums over ranks of ints, floats and tensors, by name, in float64; a rank without data gives and gets none."""
    if count() == 1:
        return dict(values)
    flat = [
        torch.as_tensor(v, dtype=torch.float64, device=device).detach().flatten()
        for v in values.values()
    ]
    length = torch.tensor(sum(map(len, flat)))
    with _talking():
        dist.all_reduce(length, dist.ReduceOp.MAX)  # a rank without data cannot know it
    whole = _summed(
        torch.cat(flat) if flat else torch.zeros(int(length), dtype=torch.float64, device=device)
    )
    parts = torch.split(whole, list(map(len, flat))) if flat else ()
    return {
        name: part.view_as(own).to(own.dtype) if isinstance(own, Tensor) else type(own)(part.item())
        for (name, own), part in zip(values.items(), parts, strict=True)
    }


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up all gradients over ranks, in one message per dtype and device; one that no rank has stays None."""
    if count() == 1:
        return
    parameters = list(parameters)
    having = _summed(torch.tensor([p.grad is not None for p in parameters]).int()).tolist()
    learning = [parameter for parameter, number in zip(parameters, having, strict=True) if number]
    for kind in dict.fromkeys((p.dtype, p.device) for p in learning):
        group = [p for p in learning if (p.dtype, p.device) == kind]
        own = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in group]
        whole = _summed(torch.cat(own))
        for parameter, part in zip(group, torch.split(whole, [len(g) for g in own]), strict=True):
            parameter.grad = part.view_as(parameter)


def copy_from_first(tensors: Iterable[Tensor]) -> None:
    """Overwrite ``tensors`` with those of rank 0."""
    with _talking():
        for tensor in tensors if count() > 1 else ():
            dist.broadcast(tensor, 0)


def _summed(tensor: Tensor) -> Tensor:
    with _talking():
        dist.all_reduce(tensor)
    return tensor


@contextmanager
def _talking(
    trouble: str = "another process of this run is gone; see its own message",
) -> Iterator[None]:
    """What the back end says then, as one line behind ours."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise TrainingError(f"{trouble} ({reason})") from error


def log_once(message: str) -> None:
    """A line of the log, once however many processes run."""
    if rank() == 0:
        log(message)
