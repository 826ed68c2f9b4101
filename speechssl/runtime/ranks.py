"""Which of several processes this one is, as torchrun's environment tells it.

A process alone is rank 0 of 1.
"""

import os

from speechssl.errors import ConfigError
from speechssl.runtime.log import log


def rank() -> int:
    """Tell which of the processes this one is; rank 0 alone writes."""
    if count() == 1:
        return 0
    return number_of("RANK")


def count() -> int:
    """Count the processes that share an update."""
    # One of the variables without the other belongs to another program.
    if {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        return number_of("WORLD_SIZE")
    return 1


def attempt() -> int:
    """Count how often torchrun has started these processes again."""
    if "TORCHELASTIC_RESTART_COUNT" not in os.environ:
        return 0
    return number_of("TORCHELASTIC_RESTART_COUNT")


def number_of(name: str) -> int:
    """Read an environment variable that torchrun sets."""
    try:
        return int(os.environ[name])
    except ValueError as error:
        raise ConfigError(
            f"{name} is {os.environ[name]!r}, not a number: start with torchrun, or unset it"
        ) from error


def log_once(message: str) -> None:
    """Print a line of the log, once however many processes run."""
    if rank() == 0:
        log(message)
