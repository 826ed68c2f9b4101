"""How much memory this process has taken."""

import re
import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_memory_mb() -> float:
    """The most memory that was resident at one time since the program began, in MB (10^6 bytes).

    Linux hands the peak of getrusage(2) down: a program that a large one starts begins with the
    peak of that one. What /proc says begins with the program.
    """
    if _STATUS.exists():
        peak = re.search(r"^VmHWM:\s*(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
        if peak:
            return int(peak[1]) * 1024 / 1e6

    # getrusage counts bytes on macOS and kibibytes elsewhere.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
