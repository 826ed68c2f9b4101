"""Processes: limits of memory and time, signals, and children that end with their parent."""

import math
import os
import resource
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.context import SpawnContext
from typing import Any


def limit_memory(most_bytes: int) -> None:
    """Refuse this process allocations that take its data beyond ``most_bytes``.

    Linux alone keeps this limit.
    """
    _set_limit(resource.RLIMIT_DATA, most_bytes)


def limit_cpu(seconds: int) -> None:
    """Kill this process (SIGXCPU) once it has used ``seconds`` more of processor time.

    Another call before that starts the count anew.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used_s = usage.ru_utime + usage.ru_stime
    _set_limit(resource.RLIMIT_CPU, math.ceil(used_s) + seconds)


def memory_limit() -> float:
    """Read the most bytes of data that this process may have; infinite without a limit."""
    limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
    if limit == resource.RLIM_INFINITY:
        return math.inf
    return limit


def _set_limit(kind: int, limit: int) -> None:
    """Set a limit that can be changed again, never above the one of the process's start."""
    first = _first_limit(kind)
    if first != resource.RLIM_INFINITY:
        limit = min(limit, first)

    hard_limit = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (limit, hard_limit))


@cache
def _first_limit(kind: int) -> int:
    """The limit that this process was started with: the cache keeps what the first call read."""
    return resource.getrlimit(kind)[0]


def worker_context() -> SpawnContext:
    """Return how worker processes start: as new programs, which import what they need.

    A copy of this process would be faster, but could hold a lock whose thread was not copied.
    """
    return get_context("spawn")


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Start processes inside that SIGINT does not reach.

    A terminal sends SIGINT (Ctrl-C) to all processes. This one receives it after the block.
    """
    # A helper process of multiprocessing: to start it later would let the signal through again.
    resource_tracker.ensure_running()

    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def end_with_parent() -> None:
    """Have this worker process end when the one that started it ends.

    A killed parent must not leave workers that write into a folder which the next run works on.
    """
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


# The signals that ask a command to end: a scheduler's or a service's, and that of a terminal or a
# connection that was closed.
END_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def exit_on_end_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the command inside with exit code 143 or 129, as an error does.

    Files are closed, temporary ones are removed, and worker processes end. What the signal alone
    would end keeps none of these promises. More signals of these kinds change nothing.

    Once the command is done, or leaves because of the signal, its exit code is decided: the signals
    are ignored from then on. A second passes until Python has left where torch is loaded.
    """
    before = {}
    for number in END_SIGNALS:
        # ``nohup`` and its like have a process ignore the signal from the start.
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.getsignal(number)

    def listen(handlers: Mapping[signal.Signals, Any]) -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    ignored = dict.fromkeys(before, signal.SIG_IGN)

    def leave(number: int, _frame: object) -> None:
        listen(ignored)
        raise SystemExit(128 + number)

    listen(dict.fromkeys(before, leave))
    try:
        yield
    except SystemExit as leaving:
        is_decided = leaving.code in (None, 0, *(128 + number for number in END_SIGNALS))
        listen(ignored if is_decided else before)
        raise
    except BaseException:
        listen(before)
        raise
    else:
        listen(before)


@contextmanager
def stop_flag() -> Iterator[list[int]]:
    """Give an empty list that SIGTERM, SIGHUP or SIGINT fills with its number.

    A training then finishes its update, saves and leaves. A second signal ends the process at once
    if it is SIGINT. A signal of the last moment may come after the last look at the list: look
    again once the block has ended, when the signals are as they were before.
    """
    received: list[int] = []

    # Python lets only the main thread listen to signals.
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def receive(number: int, _frame: object) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    previous = {}
    for number in (*END_SIGNALS, signal.SIGINT):
        # A signal that was ignored from the start stays so: a terminal's Ctrl-C is not meant for a
        # script's job in the background.
        if signal.getsignal(number) is not signal.SIG_IGN:
            previous[number] = signal.signal(number, receive)

    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
