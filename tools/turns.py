"""Programs measured side by side: processes that take turns at their work, and what is told of them."""

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
PAUSE_S = 0.3  # before each turn: the threads of the side that just worked go to sleep
OURS = "speechssl"


class Side:
    """A process that does its work when it is told to, and says how long it took.

    It is started as ``python SCRIPT work TASK``, TASK being JSON with the name of the work in ``work``.
    """

    def __init__(self, script: str, work: str, **task: Any) -> None:
        command = [sys.executable, script, "work", json.dumps(task | {"work": work})]
        self.work = work
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def turn(self) -> Table:
        """One piece of work, while this process waits.

        Returns:
            ``seconds``; ``cpu_s``, processor time, and ``kernel_s``, what of it went to the system's kernel, as for
            handing out memory; ``before_gb`` and ``peak_gb``, resident before the first turn and at most; and what
            the work itself reports.
        """
        assert self.process.stdin
        assert self.process.stdout
        time.sleep(PAUSE_S)
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
        self.process.communicate()  # the end of its input is the end of its work


class Turns:
    """The other end of ``Side``: an iterator whose every step is timed from where it begins to where the next would."""

    def __init__(self) -> None:
        self.replies = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print must not get in between
        self.report: Table = {}

    def __iter__(self) -> Iterator[int]:
        before_gb = resident_gb()
        for number, _ in enumerate(sys.stdin):
            started, before = time.perf_counter(), os.times()
            yield number
            seconds, after = time.perf_counter() - started, os.times()
            kernel_s = after.system - before.system
            reply = {
                "seconds": seconds,
                "cpu_s": after.user - before.user + kernel_s,
                "kernel_s": kernel_s,
            }
            reply |= {"before_gb": before_gb, "peak_gb": peak_memory_gb()}
            print(json.dumps(reply | self.report), file=self.replies, flush=True)


def resident_gb() -> float:
    """What this process holds now, 1e9 bytes; the most it has held where the system does not say."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e9
    return peak_memory_gb()


def alternate(sides: Mapping[str, Side], warm_up: int, repeats: int) -> dict[str, list[Table]]:
    """Replies of each side's ``repeats`` turns; each round the other goes first."""
    for side in sides.values():
        for _ in range(warm_up):
            side.turn()
    replies: dict[str, list[Table]] = {name: [] for name in sides}
    for number in range(repeats):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            replies[name].append(sides[name].turn())
    return replies


def machine(**more: Any) -> Table:
    """Processor, versions and commit of what ran, and ``more``."""
    git = shutil.which("git")
    command = [
        git or "git",
        "--no-optional-locks",
        "-C",
        str(ROOT),
        "describe",
        "--always",
        "--dirty",
        "--exclude=*",
    ]
    commit = (
        subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        if git
        else ""
    )
    return {
        **describe_machine(torch.device("cpu")),
        "transformers": version("transformers"),
        "commit": commit or "none",
        **more,
    }


def rates(replies: Sequence[Table]) -> list[float]:
    """Seconds of audio per second of each turn."""
    return [reply["audio_s"] / reply["seconds"] for reply in replies]


def measures(replies: Sequence[Table]) -> Table:
    """Of one side: speed; memory at most, in all and above what it held before its first turn; cores in use.

    Fewer cores than threads mean that something else ran on them, or that the side waited for itself.
    """
    last, seconds = replies[-1], sum(reply["seconds"] for reply in replies)
    return {
        "audio_s_per_s": asdict(spread(rates(replies))),
        "peak_gb": last["peak_gb"],
        "increase_gb": last["peak_gb"] - last["before_gb"],
        "cores": sum(reply["cpu_s"] for reply in replies) / seconds,
        "cores_in_kernel": sum(reply["kernel_s"] for reply in replies) / seconds,
    }


def best_peer(sides: Mapping[str, Table]) -> str:
    """The fastest of the others."""
    return max(
        (name for name in sides if name != OURS),
        key=lambda name: sides[name]["audio_s_per_s"]["median"],
    )


def compared(replies: Mapping[str, Sequence[Table]], peer: str) -> Table:
    """Ours over those of ``peer``: speed round by round, and memory."""
    ratios = [a / b for a, b in zip(rates(replies[OURS]), rates(replies[peer]), strict=True)]
    ours, theirs = measures(replies[OURS]), measures(replies[peer])
    memory = {f"{name}_ratio": ours[name] / theirs[name] for name in ("peak_gb", "increase_gb")}
    return {"peer": peer, "speed_ratio": asdict(spread(ratios)), **memory}
