"""How cost grows with the number of chunks: prepare, open, sampling, loading, and the memory of each.

    python tools/growth.py [--chunks 1000 10000 100000 1000000] [--json FILE] [--png FILE]

For each size a manifest of so many transcribed utterances of 50 ms, parts of recordings of 1 s, goes through the real
`prepare` (log-mel, one process) and is then read, in batches of ten chunks. So a million chunks have the bookkeeping
of 2,800 hours in chunks of 10 s, and little audio. Each size has a process of its own for preparing and one for
reading. Memory is what that process held at most, less what it held after its imports. A million chunks take about ten
minutes and 3 GB in the temporary folder.

The table has in brackets the growth exponent from the size before: 1 is linear, 0 is flat. Exit code 1 when the last
one is above ALLOWED, for what should grow linearly at most, or above ALLOWED_FLAT, for the cost of one step.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from speechssl import pictures as report
from speechssl.audio.reader import write_wav
from speechssl.config import Table
from speechssl.data.batches import BatchConfig, Batches
from speechssl.data.dataset import Dataset
from speechssl.data.prepare import prepare
from speechssl.data.store import Store
from speechssl.runtime.device import peak_memory_gb
from speechssl.storage.json_text import as_json
from speechssl.tables import text_table

RATE_HZ = 16_000
PART_S = 0.05
PARTS = 20  # in a recording
PER_FOLDER = 1000  # recordings
BATCH = BatchConfig(seconds=10 * PART_S)
LOADED = 200  # random updates that are loaded
REPEATS = 5
ALLOWED, ALLOWED_FLAT = 1.15, 0.2

# Measures by name, as the table shows them: (key, unit, factor from seconds or bytes).
WHOLE = {
    "prepare": ("prepare_s", "s", 1),
    "open a store": ("open_s", "ms", 1e3),
    "dataset and batches": ("batches_s", "ms", 1e3),
    "first step of an epoch": ("first_step_s", "ms", 1e3),
}
STEP = {
    "a step's positions": ("step_s", "µs", 1e6),
    "a step's batch, loaded": ("load_s", "µs", 1e6),
}
MEMORY = {
    "memory: prepare": ("prepare_bytes", "MB", 1e-6),
    "memory: open store": ("open_bytes", "MB", 1e-6),
    "memory: and an epoch's order": ("order_bytes", "MB", 1e-6),
    "memory: and its batches, loaded": ("load_bytes", "MB", 1e-6),
}
MEASURES = WHOLE | STEP | MEMORY


# ---- in a process of its own ---------------------------------------------------------------------


def peak_bytes() -> float:
    """What this process has held at most."""
    return 1e9 * peak_memory_gb()


def make_corpus(folder: Path, num_chunks: int) -> Table:
    """Recordings of noise and a manifest of their parts."""
    samples = 0.1 * np.random.default_rng(0).standard_normal(round(PARTS * PART_S * RATE_HZ))
    write_wav(folder / "noise.wav", samples.astype(np.float32), RATE_HZ)
    recording = (folder / "noise.wav").read_bytes()
    with (folder / "parts.jsonl").open("w", encoding="utf-8") as manifest:
        for number in range(math.ceil(num_chunks / PARTS)):
            name = f"audio/{number // PER_FOLDER:04d}/{number:07d}.wav"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(recording)
            for part in range(min(PARTS, num_chunks - number * PARTS)):
                row = {
                    "audio_filepath": name,
                    "offset": round(part * PART_S, 3),
                    "duration": PART_S,
                }
                manifest.write(
                    json.dumps(row | {"id": f"{number}-{part}", "text": "one two three"}) + "\n"
                )
    return {}


def measure_prepare(folder: Path, num_chunks: int) -> Table:
    """The real ``prepare`` from manifest to store."""
    imported, started = peak_bytes(), time.perf_counter()
    prepared = prepare(folder / "parts.jsonl", folder / "store")
    seconds = time.perf_counter() - started
    assert prepared.kept.chunks == num_chunks
    return {"prepare_s": seconds, "prepare_bytes": peak_bytes() - imported}


def measure_reading(folder: Path, num_chunks: int) -> Table:
    """Open, sample and load; times are medians, memory is that of the first time."""
    imported = peak_bytes()
    store = Store(folder / "store")
    row: Table = {"open_bytes": peak_bytes() - imported}
    batches = Batches(Dataset([store]), BATCH, seed=0)
    batches.positions(0)
    row |= {"order_bytes": peak_bytes() - imported, "steps": batches.steps_per_epoch}
    rng = np.random.default_rng(0)
    row["load_s"] = statistics.median(
        timed(batches.micro_batches, step)
        for step in rng.integers(batches.steps_per_epoch, size=LOADED).tolist()
    )
    row["load_bytes"] = peak_bytes() - imported
    row["open_s"] = statistics.median(timed(Store, folder / "store") for _ in range(REPEATS))
    row["batches_s"] = statistics.median(
        timed(lambda: Batches(Dataset([store]), BATCH, seed=0)) for _ in range(REPEATS)
    )
    first, rest = [], []
    for epoch in range(REPEATS):
        steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
        first.append(timed(batches.positions, steps[0]))
        rest.append(
            timed(lambda all_steps: [batches.positions(step) for step in all_steps], steps)
            / len(steps)
        )
    assert len(store) == num_chunks
    return row | {"first_step_s": statistics.median(first), "step_s": statistics.median(rest)}


def timed(work: Callable[..., object], *arguments: object) -> float:
    """Seconds."""
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


STAGES: dict[str, Callable[[Path, int], Table]] = {
    "corpus": make_corpus,
    "prepare": measure_prepare,
    "read": measure_reading,
}


# ---- all sizes -----------------------------------------------------------------------------------


def measure(num_chunks: int) -> Table:
    """All stages of one size, each in its own process."""
    row: Table = {"chunks": num_chunks}
    with TemporaryDirectory() as folder:
        for stage in STAGES:
            command = [
                sys.executable,
                __file__,
                "--stage",
                stage,
                folder,
                "--chunks",
                str(num_chunks),
            ]
            row |= json.loads(
                subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            )
    return row


def exponents(rows: Sequence[Mapping[str, float]], key: str) -> list[float]:
    """Of growth between successive sizes; not a number where there is nothing to grow."""
    found = []
    for small, large in pairwise(rows):
        grown = large[key] / small[key] if small[key] > 0 else 0
        found.append(
            math.log(grown) / math.log(large["chunks"] / small["chunks"]) if grown > 0 else math.nan
        )
    return found


def table(rows: Sequence[Mapping[str, float]]) -> str:
    """One line a measure, one column a size."""
    lines = []
    for name, (key, unit, factor) in MEASURES.items():
        cells = [f"{factor * row[key]:.3g}" for row in rows]
        cells[1:] = [
            f"{cell} ({power:.2f})"
            for cell, power in zip(cells[1:], exponents(rows, key), strict=True)
        ]
        lines.append([f"{name}, {unit}", *cells])
    return text_table(["chunks", *(f"{row['chunks']:,}" for row in rows)], lines)


def too_steep(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """Names of measures that grow faster than is allowed between the two largest sizes, where noise is least."""
    return [
        name
        for name, (key, _, _) in MEASURES.items()
        if (exponents(rows, key) or [0.0])[-1] > (ALLOWED_FLAT if name in STEP else ALLOWED)
    ]


def plot(rows: Sequence[Mapping[str, float]], out_png: Path) -> None:
    """Seconds in all, seconds a step and memory against the number of chunks; dotted: linear from the first size."""
    figure, panels = report.new_figure(3)
    labels = ("in all (s)", "per step (s)", "memory beyond the imports (MB)")
    for axes, measures, label in zip(panels, (WHOLE, STEP, MEMORY), labels, strict=True):
        factor = 1e-6 if measures is MEMORY else 1.0
        for name, (key, _, _) in measures.items():
            points = [(row["chunks"], factor * row[key]) for row in rows if row[key] > 0]
            report.draw_line(axes, points, name.removeprefix("memory: "), marker="o")
            if points and measures is not STEP:
                (x, y), last = points[0], points[-1][0]
                axes.plot([x, last], [y, y * last / x], ":", color="grey", linewidth=0.7)
        axes.set(xscale="log", yscale="log")
        report.finish_panel(axes, label, "chunks")
    report.save_figure(figure, out_png)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--chunks", type=int, nargs="+", default=[10**3, 10**4, 10**5, 10**6], metavar="N"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write what was measured, in seconds and bytes"
    )
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw it")
    parser.add_argument(
        "--stage", nargs=2, help=argparse.SUPPRESS
    )  # one of STAGES and its folder, in a child
    options = parser.parse_args(argv)
    if options.stage:
        stage, folder = options.stage
        print(json.dumps(STAGES[stage](Path(folder), options.chunks[0])))
        return 0
    rows = [measure(num_chunks) for num_chunks in sorted(options.chunks)]
    print(table(rows), end="")
    if options.json:
        options.json.write_text(as_json({"rows": rows}), encoding="utf-8")
    if options.png:
        plot(rows, options.png)
    for name in (steep := too_steep(rows)):
        print(f"grows too fast: {name}")
    return int(bool(steep))


if __name__ == "__main__":
    sys.exit(main())
