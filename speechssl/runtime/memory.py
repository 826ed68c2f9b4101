"""How much memory this process has taken."""

import resource


def peak_memory_mb() -> float:
    """The most memory that was resident at one time since the process began, in MB (10^6 bytes)."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    # Linux counts in units of 1,024 bytes.
    return usage.ru_maxrss * 1024 / 1e6
