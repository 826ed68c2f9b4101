"""The command, which gets a signal at a chosen moment of its work.

    python signalled.py SIGNAL MODULE.FUNCTION ARGUMENTS...

The signal comes just before the first call of FUNCTION, as MODULE knows it.
"""

import importlib
import os
import signal
import sys

from speechssl.cli.main import main


def plant(number: signal.Signals, place: str) -> None:
    """Let the first call of a function find that the signal has just come."""
    module_name, _, name = place.rpartition(".")
    module = importlib.import_module(module_name)
    inner = getattr(module, name)

    def signalled(*args: object, **kwargs: object) -> object:
        setattr(module, name, inner)
        os.kill(os.getpid(), number)
        return inner(*args, **kwargs)

    setattr(module, name, signalled)


if __name__ == "__main__":
    number = signal.Signals[sys.argv.pop(1)]
    plant(number, sys.argv.pop(1))
    main()
