"""What a result was computed on: versions, processor, threads; no host name and no path."""

import os
import platform
import re
from pathlib import Path
from typing import Any

import torch

from speechssl import __version__
from speechssl.runtime.device import pick_device


def describe_machine(device: torch.device | None = None) -> dict[str, Any]:
    """Describe the machine and the software that compute.

    Args:
        device: that computes; None = a GPU where there is one.

    Returns:
        JSON values: the versions of "speechssl", "torch" and "python"; "processor"; the "cores"
        that this process may use; the "threads" that torch uses; the "wait_policy" of OpenMP
        threads; "device", which is "cpu" or the name of the GPU.
    """
    if device is None:
        device = pick_device("auto")

    return {
        "speechssl": __version__,
        # str: torch's own class of versions is no JSON value everywhere.
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "processor": processor(),
        "cores": _usable_cores(),
        "threads": torch.get_num_threads(),
        "wait_policy": os.environ.get("OMP_WAIT_POLICY", "default"),
        "device": device_name(device),
    }


def processor() -> str:
    """Name the CPU, as its maker does where the system tells."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        # Another system than Linux.
        text = ""

    found = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    if found:
        return found[1]
    return platform.processor() or platform.machine()


def device_name(device: torch.device) -> str:
    """Name a device: "cpu", or the name that the maker of the GPU gave it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return device.type


def _usable_cores() -> int:
    """Cores that this process may run on, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
