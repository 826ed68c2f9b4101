"""How cost grows with the number of chunks: prepare, open, sampling, loading, and their memory.

    python tools/growth.py [--chunks 1000 10000 100000 1000000] [--json FILE] [--png FILE]

For each size a manifest of so many transcribed utterances of 50 ms, parts of recordings of 1 s,
goes through the real `prepare` (log-mel, one process) and is then read, in batches of ten chunks.
So a million chunks have the bookkeeping of 2,800 hours in chunks of 10 s, and little audio. Each
size has a process of its own for preparing and one for reading. Memory is what that process held at
most, less what it held after its imports. A million chunks take about ten minutes and 3 GB in the
temporary folder.

The table has in brackets the growth exponent from the size before: 1 is linear, 0 is flat. Exit
code 1 when the last one is above ALLOWED, for what should grow linearly at most, or above
ALLOWED_FLAT, for the cost of one step.
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
# Seconds of an utterance, utterances in a recording, and recordings in a folder.
PART_S = 0.05
PARTS = 20
PER_FOLDER = 1000
BATCH = BatchConfig(seconds=10 * PART_S)
# Random updates that are loaded.
LOADED = 200
REPEATS = 5
# Exponents of growth: of what should grow linearly at most, and of the cost of one step.
ALLOWED = 1.15
ALLOWED_FLAT = 0.2

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


# --- in a process of its own ---


def peak_bytes() -> float:
    """Measure what this process has held at most."""
    return 1e9 * peak_memory_gb()


def make_corpus(folder: Path, num_chunks: int) -> Table:
    """Write recordings of noise and a manifest of their parts."""
    num_samples = round(PARTS * PART_S * RATE_HZ)
    samples = 0.1 * np.random.default_rng(0).standard_normal(num_samples)
    write_wav(folder / "noise.wav", samples.astype(np.float32), RATE_HZ)
    recording = (folder / "noise.wav").read_bytes()

    with (folder / "parts.jsonl").open("w", encoding="utf-8") as manifest:
        for number in range(math.ceil(num_chunks / PARTS)):
            name = f"audio/{number // PER_FOLDER:04d}/{number:07d}.wav"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(recording)

            parts_left = num_chunks - number * PARTS
            for part in range(min(PARTS, parts_left)):
                row = {
                    "audio_filepath": name,
                    "offset": round(part * PART_S, 3),
                    "duration": PART_S,
                    "id": f"{number}-{part}",
                    "text": "one two three",
                }
                manifest.write(json.dumps(row) + "\n")
    return {}


def measure_prepare(folder: Path, num_chunks: int) -> Table:
    """Run the real ``prepare`` from manifest to store."""
    imported = peak_bytes()
    started = time.perf_counter()
    prepared = prepare(folder / "parts.jsonl", folder / "store")
    seconds = time.perf_counter() - started

    assert prepared.kept.chunks == num_chunks
    return {"prepare_s": seconds, "prepare_bytes": peak_bytes() - imported}


def measure_reading(folder: Path, num_chunks: int) -> Table:
    """Open, sample and load; times are medians, memory is that of the first time."""
    row: Table = {}

    # A peak never falls, so memory is measured first, one stage after the other.
    imported = peak_bytes()
    store = Store(folder / "store")
    row["open_bytes"] = peak_bytes() - imported
    assert len(store) == num_chunks

    batches = Batches(Dataset([store]), BATCH, seed=0)
    batches.positions(0)
    row["order_bytes"] = peak_bytes() - imported
    row["steps"] = batches.steps_per_epoch

    steps = np.random.default_rng(0).integers(batches.steps_per_epoch, size=LOADED)
    load_s = [timed(batches.micro_batches, step) for step in steps.tolist()]
    row["load_s"] = statistics.median(load_s)
    row["load_bytes"] = peak_bytes() - imported

    open_s = [timed(Store, folder / "store") for _ in range(REPEATS)]
    row["open_s"] = statistics.median(open_s)

    def make_batches() -> Batches:
        return Batches(Dataset([store]), BATCH, seed=0)

    batches_s = [timed(make_batches) for _ in range(REPEATS)]
    row["batches_s"] = statistics.median(batches_s)
    return row | measure_sampling(batches)


def measure_sampling(batches: Batches) -> Table:
    """Time the positions of each step over some epochs: the first step of each, and the rest."""

    def all_positions(steps: range) -> None:
        for step in steps:
            batches.positions(step)

    first_s = []
    step_s = []
    for epoch in range(REPEATS):
        start = epoch * batches.steps_per_epoch
        steps = range(start, start + batches.steps_per_epoch)
        # The first step of an epoch draws its order.
        first_s.append(timed(batches.positions, steps[0]))
        step_s.append(timed(all_positions, steps) / len(steps))
    return {"first_step_s": statistics.median(first_s), "step_s": statistics.median(step_s)}


def timed(work: Callable[..., object], *arguments: object) -> float:
    """Measure the seconds that a call takes."""
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


STAGES: dict[str, Callable[[Path, int], Table]] = {
    "corpus": make_corpus,
    "prepare": measure_prepare,
    "read": measure_reading,
}


# --- all sizes ---


def measure(num_chunks: int) -> Table:
    """Run all stages of one size, each in its own process."""
    row: Table = {"chunks": num_chunks}
    with TemporaryDirectory() as folder:
        for stage in STAGES:
            command = [sys.executable, __file__, "--stage", stage, folder]
            command += ["--chunks", str(num_chunks)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            row |= json.loads(done.stdout)
    return row


def exponents(rows: Sequence[Mapping[str, float]], key: str) -> list[float]:
    """Work out the exponent of growth between successive sizes.

    It is not a number where there is nothing to grow.
    """
    found = []
    for small, large in pairwise(rows):
        if small[key] > 0 and large[key] > 0:
            times_more = math.log(large[key] / small[key])
            times_larger = math.log(large["chunks"] / small["chunks"])
            found.append(times_more / times_larger)
        else:
            found.append(math.nan)
    return found


def table(rows: Sequence[Mapping[str, float]]) -> str:
    """Write one line for each measure, one column for each size."""
    lines = []
    for name, (key, unit, factor) in MEASURES.items():
        cells = [f"{factor * row[key]:.3g}" for row in rows]
        # The first size has no size before it.
        for place, power in enumerate(exponents(rows, key), 1):
            cells[place] += f" ({power:.2f})"
        lines.append([f"{name}, {unit}", *cells])

    sizes = [f"{row['chunks']:,}" for row in rows]
    return text_table(["chunks", *sizes], lines)


def too_steep(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """Name the measures that grow faster than is allowed.

    The two largest sizes decide, where noise is least.
    """
    names = []
    for name, (key, _, _) in MEASURES.items():
        found = exponents(rows, key)
        allowed = ALLOWED_FLAT if name in STEP else ALLOWED
        if found and found[-1] > allowed:
            names.append(name)
    return names


def plot(rows: Sequence[Mapping[str, float]], out_png: Path) -> None:
    """Draw seconds in all, seconds a step and memory against the number of chunks.

    The dotted line is linear from the first size.
    """
    figure, panels = report.new_figure(3)
    contents = (
        (WHOLE, "in all (s)", 1.0),
        (STEP, "per step (s)", 1.0),
        (MEMORY, "memory beyond the imports (MB)", 1e-6),
    )

    for axes, (measures, label, factor) in zip(panels, contents, strict=True):
        for name, (key, _, _) in measures.items():
            # A logarithmic axis has no zero.
            points = [(row["chunks"], factor * row[key]) for row in rows if row[key] > 0]
            report.draw_line(axes, points, name.removeprefix("memory: "), marker="o")

            if points and measures is not STEP:
                x, y = points[0]
                last = points[-1][0]
                axes.plot([x, last], [y, y * last / x], ":", color="grey", linewidth=0.7)

        axes.set(xscale="log", yscale="log")
        report.finish_panel(axes, label, "chunks")
    report.save_figure(figure, out_png)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, draw."""
    options = parse(argv)
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

    steep = too_steep(rows)
    for name in steep:
        print(f"grows too fast: {name}")
    return 1 if steep else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = [10**3, 10**4, 10**5, 10**6]
    parser.add_argument("--chunks", type=int, nargs="+", default=sizes, metavar="N")
    json_help = "write what was measured, in seconds and bytes"
    parser.add_argument("--json", type=Path, metavar="FILE", help=json_help)
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw it")
    # One of STAGES and its folder, in a child.
    parser.add_argument("--stage", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
