"""Does pretraining pay? Settings tried under one budget of processor time, in error rates on the development split.

    python tools/learn.py try NAME --labelled STORE [--unlabelled STORE...] [--cpu-minutes 20] [--minutes 10]
        [--systems pretrained scratch frozen] [--seeds 0 1 2]
        [--encoder KEY=VALUE...] [--pretrain KEY=VALUE...] [--finetune KEY=VALUE...]
    python tools/learn.py show [--png FILE]

A trial pretrains once for each seed, with as many updates as the budget holds, and fine-tunes on each amount of labels;
`scratch` starts from random weights, `frozen` trains a head on random weights, both with the same fine-tuning. Every
finished fine-tuning adds a line to OUT/results.jsonl (--out, exp/learn); what has a line is not done again, and what
was stopped goes on. Error rates are those after the last update: to keep the best would be to choose on dev twice.

One thread by default: two trials beside each other then get more out of two cores than one trial on both.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import groupby, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from speechssl.config import Table, merge, parse_overrides
from speechssl.errors import ConfigError, SpeechsslError
from speechssl.experiments import PretrainSettings, finetune, finetune_settings, pretrain, pretrain_settings
from speechssl.report import draw_line, finish_panel, new_figure, read_metrics, save_figure, text_table

sys.path.insert(0, str(Path(__file__).parent))
from turns import machine

SYSTEMS = ("pretrained", "scratch", "frozen")
TIMED = 12, 2  # updates of two short runs: the difference has no start in it
LAST = 50  # updates whose mean is the loss of a run
ALL = math.inf  # minutes
ROW = ("name", "system", "minutes")


def cpu_s_per_update(stores: Sequence[Path], settings: PretrainSettings) -> float:
    """Processor time of an update, all threads together."""
    took = []
    for steps in (max(TIMED), *TIMED):  # the first run loads libraries and files
        train = settings.train.model_copy(update={"steps": steps, "log_every": steps})
        with TemporaryDirectory() as folder:
            started = time.process_time()
            pretrain(stores, Path(folder, "run"), settings.model_copy(update={"train": train}))
            took.append(time.process_time() - started)
    return (took[1] - took[2]) / (TIMED[0] - TIMED[1])


def shape(options: argparse.Namespace) -> Table:
    """Changes of the encoder, which all systems share."""
    return {"encoder": parse_overrides(options.encoder)}


def pretrained(options: argparse.Namespace, seed: int) -> tuple[Path, Table]:
    """The run of a trial's pretraining, finished, and what it came to.

    The budget becomes a number of updates before the first one, since the learning rate follows it; a run that goes on
    keeps its number.
    """
    run = options.out / options.name / str(seed) / "pretrained"
    changes = merge(shape(options), merge({"train": {"seed": seed}}, parse_overrides(options.pretrain)))
    settings = pretrain_settings(None, options.preset, changes)
    plan = run.parent / "steps.json"
    if not plan.exists():
        per_update = cpu_s_per_update(options.unlabelled, settings)
        plan.parent.mkdir(parents=True, exist_ok=True)
        plan.write_text(json.dumps({"steps": max(1, round(60 * options.cpu_minutes / per_update))}), encoding="utf-8")
    steps = json.loads(plan.read_text(encoding="utf-8"))["steps"]
    train = settings.train.model_copy(update={"steps": steps, "save_every": max(1, steps // 10)})
    pretrain(options.unlabelled, run, settings.model_copy(update={"train": train}))
    rows = read_metrics(run / "metrics.jsonl")
    shown = [name for name in ("loss", "accuracy") if name in rows[-1]]  # a task of errors has no accuracy
    about = {name: statistics.mean(row[name] for row in rows[-LAST:]) for name in shown}
    hours = sum(row["audio_s"] for row in rows) / 3600
    return run, {"steps": steps, "hours": hours, "wall_s": sum(row["time_s"] for row in rows), **about}


def tuned(options: argparse.Namespace, system: str, minutes: float | None, seed: int) -> Table:
    """Error rates on dev of one recogniser after its last update, in per cent, and its pretraining."""
    init, about = pretrained(options, seed) if system == "pretrained" else (None, {})
    changes: Table = shape(options) | {"train": {"seed": seed}, "minutes": minutes}
    if system == "frozen":
        changes["ctc"] = {"frozen": True}
    settings = finetune_settings(init, options.preset, merge(changes, parse_overrides(options.finetune)))
    run = options.out / options.name / str(seed) / f"{system}-{minutes or 'all'}"
    finetune([options.labelled], run, settings, init)
    last = read_metrics(run / "metrics.jsonl")[-1]
    return {"wer": 100 * last["dev_wer"], "cer": 100 * last["dev_cer"], "pretraining": about}


def run_trial(options: argparse.Namespace) -> Iterator[Table]:
    """The rows that were not there yet, each written as soon as it is known."""
    results = options.out / "results.jsonl"
    if "encoder" in parse_overrides([*options.pretrain, *options.finetune]):
        raise ConfigError("settings of the encoder are for all systems: give them as --encoder KEY=VALUE")
    found = [row for row in read_rows(options.out) if row["name"] == options.name]
    known = [tuple(row[name] for name in (*ROW, "seed")) for row in found]
    about = {
        name: getattr(options, name) for name in ("preset", "encoder", "pretrain", "finetune", "cpu_minutes", "threads")
    }
    about |= {"labelled": str(options.labelled), "unlabelled": [str(path) for path in options.unlabelled]}
    other = sorted({key for row in found for key, value in about.items() if row[key] != value})
    if other:
        raise ConfigError(f"trial {options.name} has results with another {other[0]}: give a new name")
    for seed, system, minutes in product(options.seeds, options.systems, options.minutes or [None]):
        if (options.name, system, minutes, seed) not in known:
            row = {"name": options.name, "system": system, "minutes": minutes, "seed": seed}
            row |= tuned(options, system, minutes, seed) | about | {"machine": machine()}
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            yield row


def read_rows(out: Path) -> list[Table]:
    """All results so far."""
    return read_metrics(out / "results.jsonl")


def grouped(rows: Sequence[Table]) -> list[tuple[tuple[Any, ...], list[Table]]]:
    """Rows that differ in their seed only, the best mean character error rate first."""

    def key(row: Table) -> tuple[str, str, float]:
        return row["name"], row["system"], row["minutes"] or ALL

    groups = [(key(found[0]), found) for found in (list(g) for _, g in groupby(sorted(rows, key=key), key))]
    return sorted(groups, key=lambda group: (group[0][2], statistics.mean(row["cer"] for row in group[1])))


def as_text(rows: Sequence[Table]) -> str:
    """Mean and range over the seeds."""

    def cell(found: Sequence[Table], name: str) -> str:
        values = [row[name] for row in found]
        return f"{statistics.mean(values):.1f} ({min(values):.1f} .. {max(values):.1f})"

    def label(minutes: float) -> str:
        return "all" if minutes == ALL else f"{minutes:g}"

    cells = [
        (label(minutes), name, system, len(found), cell(found, "cer"), cell(found, "wer"))
        for (name, system, minutes), found in grouped(rows)
    ]
    return text_table(("minutes", "trial", "system", "seeds", "CER on dev, %", "WER on dev, %"), cells)


def plot(rows: Sequence[Table], out_png: Path) -> None:
    """Character error rate against labelled minutes, a line for each trial and system; bars: range of the seeds."""
    figure, (axes,) = new_figure(1)
    lines: dict[str, list[tuple[float, list[float]]]] = {}
    for (name, system, minutes), found in grouped(rows):
        lines.setdefault(f"{name}, {system}", []).append((minutes, [row["cer"] for row in found]))
    most = max((minutes for points in lines.values() for minutes, _ in points if minutes < ALL), default=1.0)
    for label, points in lines.items():
        placed = [(min(minutes, 2 * most), values) for minutes, values in points]  # all labels stand at the right
        draw_line(axes, [(x, statistics.mean(values)) for x, values in placed], label, marker="o")
        axes.vlines([x for x, _ in placed], *zip(*((min(v), max(v)) for _, v in placed), strict=True), linewidth=0.7)
    axes.set_xscale("log")
    finish_panel(axes, "character error rate on dev (%)", "labelled minutes")
    save_figure(figure, out_png)


def main(argv: Sequence[str] | None = None) -> int:
    """Try, or show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    trial, show = commands.add_parser("try", help="run one trial"), commands.add_parser("show", help="table, picture")
    for each in (trial, show):
        each.add_argument("--out", type=Path, default=Path("exp/learn"), help="folder of runs and results")
    trial.add_argument("name", help="of the trial, and of its folder")
    trial.add_argument("--labelled", type=Path, required=True, metavar="STORE", help="with splits train and dev")
    trial.add_argument("--unlabelled", type=Path, nargs="+", default=[], metavar="STORE", help="to pretrain on")
    trial.add_argument("--cpu-minutes", type=float, default=20.0, help="processor time of pretraining")
    trial.add_argument("--minutes", type=float, nargs="+", default=[], help="labelled minutes; all")
    trial.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    trial.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    trial.add_argument("--preset", default="tiny")
    for name in ("encoder", "pretrain", "finetune"):
        trial.add_argument(f"--{name}", nargs="+", default=[], metavar="KEY=VALUE", help=f"settings of {name}")
    trial.add_argument("--threads", type=int, default=1)
    show.add_argument("--png", type=Path, metavar="FILE")
    options = parser.parse_args(argv)
    if options.command == "show":
        rows = read_rows(options.out)
        print(as_text(rows), end="")
        if options.png:
            plot(rows, options.png)
        return 0
    if "pretrained" in options.systems and not options.unlabelled:
        parser.error("to pretrain, give stores as --unlabelled; or leave pretrained out of --systems")
    torch.set_num_threads(options.threads)
    try:
        for row in run_trial(options):
            print(as_text([row]), end="", flush=True)
    except SpeechsslError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
