"""Two processes that share every update beside one process: the same losses, and how much faster?

    python tools/bench_ranks.py [--updates 12] [--repeats 3] [--minutes 6] [--preset tiny] [--json FILE]

Runs the real `speechssl pretrain` on synthetic speech, on the processor: torchrun with two processes of one thread
each, one process with two threads, and one with one thread, in turn. All have the same settings, so the same audio in
every update, and no dropout, so that their losses must agree. The efficiency is the speed of the two processes over
that of one process with two threads, and over twice that of one with one thread. The first two updates do not count.
Exit code 1 if losses differ by more than 1e-3 (relative): sums in another order, carried on from update to update.
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

WARM_UP = 2  # updates
ALLOWED = 1e-3
RECORDING_S = 60.0
SIDES = {
    "2 processes, 1 thread each": (2, 1),
    "1 process, 2 threads": (1, 2),
    "1 process, 1 thread": (1, 1),
}
SHARED, WHOLE, HALF = SIDES


def make_store(folder: Path, preset: str, minutes: float) -> Path:
    """Synthetic recordings of a minute each, cut at their pauses."""
    recordings, store = folder / "recordings", folder / "store"
    recordings.mkdir()
    for number in range(max(1, round(60 * minutes / RECORDING_S))):
        write_speech(recordings / f"{number}.flac", RECORDING_S, number)
    features = resolve_settings(PretrainSettings, preset, {}).encoder.features
    prepare(recordings, store, PrepareConfig(features=features))
    return store


def run_once(side: str, store: Path, run: Path, options: argparse.Namespace) -> list[Table]:
    """A whole run in processes of its own; returns the rows of its ``metrics.jsonl``."""
    processes, threads = SIDES[side]
    still = ("dropout", "attention_dropout", "activation_dropout", "layer_drop")
    changes = {f"encoder.{name}": 0.0 for name in still} | {
        "train.steps": options.updates,
        "train.device": "cpu",
    }
    changes |= {"train.seed": options.seed}
    torchrun = [
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
        "-m",
        "--",
    ]
    command = [
        sys.executable,
        "-m",
        *(torchrun if processes > 1 else []),
        "speechssl.cli",
        "pretrain",
        str(store),
    ]
    command += ["--run", str(run), "--preset", options.preset]
    command += [part for name, value in changes.items() for part in ("--set", f"{name}={value}")]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side}: exit code {done.returncode}\n{done.stderr}")
    return read_json_lines(run / "metrics.jsonl")


def rate(rows: Sequence[Table]) -> float:
    """Seconds of audio per second after the warm-up."""
    audio_s, time_s = (
        sum(float(row[name]) for row in rows[WARM_UP:]) for name in ("audio_s", "time_s")
    )
    return audio_s / time_s


def apart(rows: Sequence[Table], expected: Sequence[Table]) -> float:
    """Largest relative difference of the losses of an update; infinite if one did not see the same audio."""
    pairs = list(zip(rows, expected, strict=True))
    if any(abs(row["audio_s"] - other["audio_s"]) > 1e-6 for row, other in pairs):
        return math.inf
    return max(abs(float(row["loss"]) / float(other["loss"]) - 1) for row, other in pairs)


def bench(options: argparse.Namespace) -> Table:
    """All sides in turn; each round another begins."""
    runs: dict[str, list[list[Table]]] = {side: [] for side in SIDES}
    with TemporaryDirectory() as folder:
        store = make_store(Path(folder), options.preset, options.minutes)
        for number in range(options.repeats):
            order = list(SIDES)[number % len(SIDES) :] + list(SIDES)[: number % len(SIDES)]
            for place, side in enumerate(order):
                runs[side].append(
                    run_once(side, store, Path(folder, f"run-{number}-{place}"), options)
                )
    speeds = {side: [rate(rows) for rows in found] for side, found in runs.items()}
    ratios = {WHOLE: 1.0, HALF: 2.0}
    return {
        "bench": "ranks",
        "about": {
            "preset": options.preset,
            "updates": options.updates,
            "repeats": options.repeats,
            "seconds in an update": sum(row["audio_s"] for row in runs[WHOLE][0]) / options.updates,
        },
        "machine": machine(seed=options.seed),
        "audio_s_per_s": {side: asdict(spread(found)) for side, found in speeds.items()},
        "efficiency": {
            side: asdict(
                spread([a / (b * times) for a, b in zip(speeds[SHARED], speeds[side], strict=True)])
            )
            for side, times in ratios.items()
        },
        "loss_difference": {
            side: max(apart(rows, runs[WHOLE][0]) for rows in found) for side, found in runs.items()
        },
    }


def as_text(table: Table) -> str:
    """For people: what ran and where, and a Markdown table."""
    lines = [
        ", ".join(f"{name} {value}" for name, value in table[part].items())
        for part in ("about", "machine")
    ]
    efficiency: Mapping[str, Table] = table["efficiency"]
    rows = [
        (
            side,
            Spread(**table["audio_s_per_s"][side]),
            Spread(**efficiency[side]) if side in efficiency else "",
            f"{table['loss_difference'][side]:.1e}",
        )
        for side in SIDES
    ]
    header = (
        "",
        "seconds of audio per second",
        "efficiency of 2 processes over it",
        "largest difference of a loss",
    )
    return "\n".join([*lines, "", text_table(header, rows)])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--updates", type=int, default=12, help="of a run, with the two that do not count"
    )
    parser.add_argument("--repeats", type=int, default=3, help="runs of each")
    parser.add_argument("--minutes", type=float, default=6.0, help="of synthetic speech")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write everything here")
    options = parser.parse_args(arguments)
    if options.updates <= WARM_UP or options.repeats < 1:
        parser.error(f"--updates is more than {WARM_UP}, and --repeats at least 1")
    try:
        table = bench(options)
    except SpeechsslError as error:
        raise SystemExit(str(error)) from error
    print(as_text(table))
    if options.json:
        options.json.write_text(as_json(table), encoding="utf-8")
    return 0 if all(found <= ALLOWED for found in table["loss_difference"].values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
