"""Processes: limits of memory and time, signals, and children that end with their parent."""

import math
import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing import parent_process, resource_tracker


def limit_memory(most_bytes: int) -> None:
    """Let no allocation of this process succeed that takes its data beyond ``most_bytes``; Linux alone keeps that."""
    _lower(resource.RLIMIT_DATA, most_bytes)


def limit_cpu(seconds: int) -> None:
    """Kill this process (SIGXCPU) when it has used so much more processor time, seconds, unless asked again before."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource.RLIMIT_CPU, math.ceil(usage.ru_utime + usage.ru_stime) + seconds)


def memory_limit() -> float:
    """The most bytes of data that this process may have."""
    limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
    return math.inf if limit == resource.RLIM_INFINITY else limit


def _lower(what: int, limit: int) -> None:
    """Set a limit that can be changed again; never above the one that this process was started with."""
    given, hard = _given(what), resource.getrlimit(what)[1]
    resource.setrlimit(
        what, (limit if given == resource.RLIM_INFINITY else min(limit, given), hard)
    )


@cache
def _given(what: int) -> int:
    """Asked before it is first lowered."""
    return resource.getrlimit(what)[0]


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Start processes that SIGINT (Ctrl-C, which a terminal sends to all) does not reach; here it comes afterwards."""
    resource_tracker.ensure_running()  # multiprocessing's own helper: to start it would let the signal through again
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def end_with_parent() -> None:
    """End this process when the one that started it does; for a thread of its own.

    A killed parent must not leave workers that write into a folder which the next run works on.
    """
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def stop_flag() -> Iterator[list[int]]:
    """An empty list that SIGTERM or SIGINT fills: the loop finishes its update, saves and leaves.

    A second SIGINT ends it at once.
    """
    received: list[int] = []

    def receive(number: int, _frame: object) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    if (
        threading.current_thread() is not threading.main_thread()
    ):  # Python lets only the main one listen
        yield received
        return
    # Ignored since the start, it stays so: a terminal's Ctrl-C is not meant for a script's job in the background.
    numbers = [
        n for n in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(n) is not signal.SIG_IGN
    ]
    previous = {number: signal.signal(number, receive) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
