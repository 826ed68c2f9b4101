"""The device that computes: its choice, its number format, its memory."""

import ctypes
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Literal

import torch

from speechssl.errors import ConfigError
from speechssl.runtime.memory import peak_memory_mb

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bfloat16"]


def pick_device(name: Device) -> torch.device:
    """Choose the device to use; ``auto`` takes a GPU where there is one.

    Raises:
        ConfigError: ``cuda`` asked for and not there.
    """
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise ConfigError("device cuda is not available here: give auto or cpu")

    if name == "cpu" or not has_gpu:
        return torch.device("cpu")
    return torch.device("cuda")


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Compute the matrix products inside in ``precision``.

    Losses and similarities stay in float32 by their own casts.
    """
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def peak_memory_gb() -> float:
    """Measure the most memory that this process has held so far, in units of 1e9 bytes.

    It is the memory of the GPU where one is in use, else resident memory.
    """
    if torch.cuda.is_available():
        most_bytes = torch.cuda.max_memory_allocated()
        if most_bytes:
            return most_bytes / 1e9

    return peak_memory_mb() / 1000


def trim_memory() -> None:
    """Hand the free memory that the C library (glibc) keeps back to the system.

    Tensors whose sizes always differ leave holes that later ones do not fit into. glibc keeps
    those, and resident memory creeps up.
    """
    # Another C library, or none: there is nothing to hand back then.
    with suppress(OSError, TypeError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
