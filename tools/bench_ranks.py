"""Two processes that share every update beside one process: the same losses, and how much faster?

    python tools/bench_ranks.py [--updates 12] [--repeats 3] [--minutes 6] [--preset tiny]
        [--json FILE]

Runs the real `speechssl pretrain` on synthetic speech, on the processor, in turn: torchrun with two
processes of one thread each, one process with two threads, and one with one thread. All have the
same settings, so the same audio in every update, and no dropout, so that their losses must agree.

The efficiency is the speed of the two processes over that of one process with two threads, and over
twice that of one with one thread. The first two updates do not count. Exit code 1 if losses differ
by more than 1e-3 (relative): sums are taken in another order, and the differences are carried on
from update to update.
"""

import argparse
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from turns import machine

from speechssl.analysis.profiler import Spread, spread
from speechssl.analysis.synthetic_speech import write_speech
from speechssl.config import Table
from speechssl.data.prepare import PrepareConfig, prepare
from speechssl.errors import SpeechsslError
from speechssl.pretraining.settings import PretrainSettings
from speechssl.storage.json_text import as_json, read_json_lines
from speechssl.tables import text_table
from speechssl.training.presets import resolve_settings

# Updates that do not count.
WARM_UP = 2
# Relative difference of a loss.
ALLOWED = 1e-3
RECORDING_S = 60.0
# Processes, and threads of each.
SIDES = {
    "2 processes, 1 thread each": (2, 1),
    "1 process, 2 threads": (1, 2),
    "1 process, 1 thread": (1, 1),
}
SHARED, WHOLE, HALF = SIDES


def make_store(folder: Path, preset: str, minutes: float) -> Path:
    """Prepare synthetic recordings of a minute each, cut at their pauses."""
    recordings = folder / "recordings"
    recordings.mkdir()
    num_recordings = max(1, round(60 * minutes / RECORDING_S))
    for number in range(num_recordings):
        write_speech(recordings / f"{number}.flac", RECORDING_S, number)

    store = folder / "store"
    features = resolve_settings(PretrainSettings, preset, {}).encoder.features
    prepare(recordings, store, PrepareConfig(features=features))
    return store


def run_once(side: str, store: Path, run: Path, options: argparse.Namespace) -> list[Table]:
    """Pretrain in processes of their own; return the rows of ``metrics.jsonl``."""
    processes, threads = SIDES[side]

    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(processes), "-m", "--"]
    command += ["speechssl.cli", "pretrain", str(store)]
    command += ["--run", str(run), "--preset", options.preset]

    # Without dropout, which would be drawn otherwise in two processes than in one.
    still = ("dropout", "attention_dropout", "activation_dropout", "layer_drop")
    changes: Table = {f"encoder.{name}": 0.0 for name in still}
    changes |= {"train.steps": options.updates, "train.device": "cpu", "train.seed": options.seed}
    for name, value in changes.items():
        command += ["--set", f"{name}={value}"]

    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side}: exit code {done.returncode}\n{done.stderr}")
    return read_json_lines(run / "metrics.jsonl")


def rate(rows: Sequence[Table]) -> float:
    """Divide audio by time after the warm-up: seconds of audio per second."""
    timed = rows[WARM_UP:]
    audio_s = sum(float(row["audio_s"]) for row in timed)
    time_s = sum(float(row["time_s"]) for row in timed)
    return audio_s / time_s


def apart(rows: Sequence[Table], expected: Sequence[Table]) -> float:
    """Find the largest relative difference of an update's loss.

    It is infinite if the two did not see the same audio in an update.
    """
    differences = []
    for row, other in zip(rows, expected, strict=True):
        if abs(row["audio_s"] - other["audio_s"]) > 1e-6:
            return math.inf
        differences.append(abs(float(row["loss"]) / float(other["loss"]) - 1))
    return max(differences)


def bench(options: argparse.Namespace) -> Table:
    """Run all sides in turn; each round another one begins."""
    runs: dict[str, list[list[Table]]] = {side: [] for side in SIDES}
    sides = list(SIDES)
    with TemporaryDirectory() as folder:
        store = make_store(Path(folder), options.preset, options.minutes)
        for number in range(options.repeats):
            first = number % len(sides)
            order = sides[first:] + sides[:first]
            for place, side in enumerate(order):
                run = Path(folder, f"run-{number}-{place}")
                runs[side].append(run_once(side, store, run, options))

    expected = runs[WHOLE][0]
    speeds: dict[str, list[float]] = {}
    differences: dict[str, float] = {}
    for side, found in runs.items():
        speeds[side] = [rate(rows) for rows in found]
        differences[side] = max(apart(rows, expected) for rows in found)

    return {
        "bench": "ranks",
        "about": {
            "preset": options.preset,
            "updates": options.updates,
            "repeats": options.repeats,
            "seconds in an update": sum(row["audio_s"] for row in expected) / options.updates,
        },
        "machine": machine(seed=options.seed),
        "audio_s_per_s": {side: asdict(spread(found)) for side, found in speeds.items()},
        "efficiency": {
            WHOLE: asdict(efficiency(speeds[SHARED], speeds[WHOLE], times=1.0)),
            HALF: asdict(efficiency(speeds[SHARED], speeds[HALF], times=2.0)),
        },
        "loss_difference": differences,
    }


def efficiency(shared: Sequence[float], alone: Sequence[float], times: float) -> Spread:
    """Divide the speed of two processes, round by round, by ``times`` that of one."""
    ratios = [both / (one * times) for both, one in zip(shared, alone, strict=True)]
    return spread(ratios)


def as_text(table: Table) -> str:
    """Write for people what ran and where, and a Markdown table."""
    lines = []
    for part in ("about", "machine"):
        lines.append(", ".join(f"{name} {value}" for name, value in table[part].items()))

    found: Mapping[str, Table] = table["efficiency"]
    rows = []
    for side in SIDES:
        speed = Spread(**table["audio_s_per_s"][side])
        own_efficiency = Spread(**found[side]) if side in found else ""
        rows.append((side, speed, own_efficiency, f"{table['loss_difference'][side]:.1e}"))

    header = (
        "",
        "seconds of audio per second",
        "efficiency of 2 processes over it",
        "largest difference of a loss",
    )
    return "\n".join([*lines, "", text_table(header, rows)])


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        table = bench(options)
    except SpeechsslError as error:
        raise SystemExit(str(error)) from error

    print(as_text(table))
    if options.json:
        options.json.write_text(as_json(table), encoding="utf-8")
    differences = table["loss_difference"].values()
    return 0 if all(difference <= ALLOWED for difference in differences) else 1


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    updates_help = "of a run, with the two that do not count"
    parser.add_argument("--updates", type=int, default=12, help=updates_help)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each")
    parser.add_argument("--minutes", type=float, default=6.0, help="of synthetic speech")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write everything here")
    options = parser.parse_args(arguments)

    if options.updates <= WARM_UP or options.repeats < 1:
        parser.error(f"--updates is more than {WARM_UP}, and --repeats at least 1")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
