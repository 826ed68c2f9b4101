"""A rank is killed: torchrun starts all again, and the weights are those of no kill."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.programs import running
from support.short_runs import STEPS, learned, num_logged, write_preset

from speechssl.storage.json_text import read_json_lines


@contextmanager
def launched(
    count: int, store: Path, preset: Path, run: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """``count`` ranks, which torchrun starts again when one is lost."""
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--max-restarts",
        "100",
    ]
    ours = [
        sys.executable,
        "-m",
        "speechssl.cli",
        "pretrain",
        store,
        "--preset",
        preset,
        "--run",
        run,
    ]

    command = [*launcher, "--nproc-per-node", count, "--no-python", "--", *ours]
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}

    with Path(f"{run}.log").open("ab") as log:
        environment = os.environ | threads
        with running(command, stdout=log, stderr=log, env=environment) as launcher:
            yield launcher


def children_of(process: int) -> list[int]:
    """Living processes that a process started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent, state = (lambda text: (int(text[1]), text[0]))(
                stat.read_text().rpartition(")")[2].split()
            )
        except OSError:  # it has just ended
            continue
        if parent == process and state != "Z":
            found.append(int(stat.parent.name))
    return sorted(found)


TRIES = 20


@pytest.mark.parametrize("count", [2, 4])
def test_a_killed_rank(count: int, labelled_store: Path, tmp_path: Path, campaign: Any) -> None:
    if not campaign.full:
        pytest.skip("minutes of restarts: in the full campaign")

    preset = write_preset(tmp_path)
    with launched(count, labelled_store, preset, tmp_path / "whole") as launcher:
        assert launcher.wait() == 0, (tmp_path / "whole.log").read_text()

    draws, kills, runs = random.Random(count), 0, 0
    while kills < TRIES:
        run = tmp_path / f"run{runs}"
        before = 0
        with launched(count, labelled_store, preset, run) as launcher:
            while launcher.poll() is None:
                time.sleep(0.01)
                # A start that continues cuts the metrics back first: only rows beyond them count.
                if num_logged(run) > before and kills < TRIES:
                    time.sleep(draws.uniform(0, 0.5))
                    ranks = children_of(launcher.pid)
                    if len(ranks) == count and launcher.poll() is None:
                        os.kill(draws.choice(ranks), signal.SIGKILL)
                        kills += 1
                        while set(children_of(launcher.pid)) & set(ranks):
                            time.sleep(0.01)
                        before = num_logged(run)

        assert launcher.returncode == 0, Path(f"{run}.log").read_text()
        assert learned(run) == learned(tmp_path / "whole")
        assert [row["step"] for row in read_json_lines(run / "metrics.jsonl")] == list(
            range(1, STEPS + 1)
        )
        runs += 1

    campaign.figures |= {"tries": kills, "runs": runs, "failures": 0}
