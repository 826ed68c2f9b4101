"""Measure programs side by side: processes that take turns at their work, and their comparison."""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from speechssl.analysis.profiler import spread
from speechssl.config import Table
from speechssl.runtime.device import peak_memory_gb
from speechssl.runtime.machine import describe_machine

ROOT = Path(__file__).parents[1]
# Seconds before each turn, in which the threads of the side that just worked go to sleep.
PAUSE_S = 0.3
OURS = "speechssl"


class Side:
    """A process that does its work when it is told to, and says how long it took.

    It is started as ``python SCRIPT work TASK``, TASK being JSON with the name of the work in
    ``work``.
    """

    def __init__(self, script: str, work: str, **task: Any) -> None:
        command = [sys.executable, script, "work", json.dumps(task | {"work": work})]
        self.work = work
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def turn(self) -> Table:
        """Let the side do one piece of work, while this process waits.

        Returns:
            ``seconds``; ``cpu_s``, processor time, and ``kernel_s``, the part of it that the
            system's kernel took, as for handing out memory; ``before_gb`` and ``peak_gb``, resident
            before the first turn and at most; and what the work itself reports.
        """
        assert self.process.stdin
        assert self.process.stdout
        time.sleep(PAUSE_S)

        # A side that failed has closed its end: then there is no reply either.
        with suppress(BrokenPipeError):
            self.process.stdin.write("\n")
            self.process.stdin.flush()

        reply: Table = json.loads(self.process.stdout.readline() or "{}")
        if not reply:
            raise SystemExit(f"nothing measured: {self.work} failed, its own message is above")
        return reply

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        # The end of its input is the end of its work.
        self.process.communicate()


class Turns:
    """The other end of ``Side``: an iterator that times each step.

    A step lasts from where the iterator yields to where it is asked for the next one.
    """

    def __init__(self) -> None:
        # Replies go to the original standard output. What libraries print goes to standard error,
        # so that it does not get in between.
        self.replies = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.report: Table = {}

    def __iter__(self) -> Iterator[int]:
        before_gb = resident_gb()
        for number, _ in enumerate(sys.stdin):
            times_before = os.times()
            started = time.perf_counter()
            yield number
            seconds = time.perf_counter() - started
            times_after = os.times()

            kernel_s = times_after.system - times_before.system
            user_s = times_after.user - times_before.user
            reply = {
                "seconds": seconds,
                "cpu_s": user_s + kernel_s,
                "kernel_s": kernel_s,
                "before_gb": before_gb,
                "peak_gb": peak_memory_gb(),
            }
            print(json.dumps(reply | self.report), file=self.replies, flush=True)


def resident_gb() -> float:
    """Measure what this process holds now, in 1e9 bytes.

    Where the system does not say, it is the most that the process has held.
    """
    with suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e9
    return peak_memory_gb()


def alternate(sides: Mapping[str, Side], warm_up: int, repeats: int) -> dict[str, list[Table]]:
    """Collect the replies of each side's ``repeats`` turns; each round the other goes first."""
    for side in sides.values():
        for _ in range(warm_up):
            side.turn()

    replies: dict[str, list[Table]] = {name: [] for name in sides}
    for number in range(repeats):
        order = list(sides)
        if number % 2:
            order.reverse()
        for name in order:
            replies[name].append(sides[name].turn())
    return replies


def machine(**more: Any) -> Table:
    """Describe what ran: processor, versions and commit, and ``more``."""
    return {
        **describe_machine(torch.device("cpu")),
        "transformers": version("transformers"),
        "commit": commit() or "none",
        **more,
    }


def commit() -> str:
    """Name the commit of this checkout; empty where there is no git or no repository."""
    git = shutil.which("git")
    if git is None:
        return ""

    options = ["--always", "--dirty", "--exclude=*"]
    command = [git, "--no-optional-locks", "-C", str(ROOT), "describe", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def rates(replies: Sequence[Table]) -> list[float]:
    """Divide the audio of each turn by its time: seconds of audio per second."""
    return [reply["audio_s"] / reply["seconds"] for reply in replies]


def measures(replies: Sequence[Table]) -> Table:
    """Sum up one side: its speed, its memory and the cores in use.

    ``increase_gb`` is the peak above what the side held before its first turn. Fewer cores than
    threads mean that something else ran on them, or that the side waited for itself.
    """
    last = replies[-1]
    seconds = sum(reply["seconds"] for reply in replies)
    cpu_s = sum(reply["cpu_s"] for reply in replies)
    kernel_s = sum(reply["kernel_s"] for reply in replies)
    return {
        "audio_s_per_s": asdict(spread(rates(replies))),
        "peak_gb": last["peak_gb"],
        "increase_gb": last["peak_gb"] - last["before_gb"],
        "cores": cpu_s / seconds,
        "cores_in_kernel": kernel_s / seconds,
    }


def best_peer(sides: Mapping[str, Table]) -> str:
    """Name the fastest of the others."""
    peers = [name for name in sides if name != OURS]
    return max(peers, key=lambda name: sides[name]["audio_s_per_s"]["median"])


def compared(replies: Mapping[str, Sequence[Table]], peer: str) -> Table:
    """Divide ours by those of ``peer``: speed round by round, and memory."""
    our_rates = rates(replies[OURS])
    peer_rates = rates(replies[peer])
    speed_ratios = [own / other for own, other in zip(our_rates, peer_rates, strict=True)]

    ours = measures(replies[OURS])
    theirs = measures(replies[peer])
    return {
        "peer": peer,
        "speed_ratio": asdict(spread(speed_ratios)),
        "peak_gb_ratio": ours["peak_gb"] / theirs["peak_gb"],
        "increase_gb_ratio": ours["increase_gb"] / theirs["increase_gb"],
    }
