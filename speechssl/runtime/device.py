"""The machine under a run: device, number format, threads, seeds, log lines."""

import ctypes
import resource
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Literal

import torch

from speechssl.errors import ConfigError

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bfloat16"]


def pick_device(name: Device) -> torch.device:
    """The device to use; ``auto`` takes a GPU where there is one.

    Raises:
        ConfigError: ``cuda`` asked for and not there.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device cuda is not available here: give auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Mixed precision for the matrix products; losses and similarities stay in float32 by their own casts."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def peak_memory_gb() -> float:
    """The most memory that this process has held so far: of the GPU where one is in use, else resident, 1e9 bytes."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 1e9
    unit = (
        1 if sys.platform == "darwin" else 1024
    )  # getrusage counts bytes there, kibibytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def trim_memory() -> None:
    """Hand the free memory of this process back to the system, where the C library (glibc) keeps it.

    It keeps holes that tensors of ever other sizes leave and do not fit into again: resident memory then creeps up.
    """
    with suppress(OSError, TypeError, AttributeError):  # no such library, no such function
        ctypes.CDLL(None).malloc_trim(0)
