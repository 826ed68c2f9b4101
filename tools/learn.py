"""Does pretraining pay? Settings tried under one budget of processor time, in error rates on the development split.

    python tools/learn.py try NAME --labelled STORE [--unlabelled STORE... | --init RUN] [--cpu-minutes 20]
        [--minutes 2 10 all] [--systems pretrained scratch frozen] [--seeds 0 1 2]
        [--encoder KEY=VALUE...] [--pretrain KEY=VALUE...] [--finetune KEY=VALUE...]
    python tools/learn.py show [--png FILE]

A trial pretrains once for each seed, with as many updates as the budget holds, or takes the encoder of RUN, and
fine-tunes on each amount of labels; `scratch` starts from random weights, `frozen` trains a head on random weights.
All get the same fine-tuning; what pretraining took comes on top. Every finished fine-tuning adds a line to
OUT/results.jsonl (--out, exp/learn); what has a line is not done again, and what was stopped goes on. A run that is
lost (diverged, collapsed) gets a line with its reason. Error rates are those after the last update: to keep the best
would be to choose on dev twice.

One thread on the CPU by default: two trials beside each other then get more out of two cores than one trial on both.
"""

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import groupby, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from scipy.stats import spearmanr
from turns import machine

from speechssl.config import Table, merge, parse_overrides
from speechssl.errors import ConfigError, SpeechsslError, TrainingError
from speechssl.pictures import finish_panel, new_figure, save_figure
from speechssl.pretraining.pretrain import pretrain
from speechssl.pretraining.settings import PretrainSettings, pretrain_settings
from speechssl.recognition.finetune import finetune
from speechssl.recognition.settings import finetune_settings
from speechssl.storage.atomic import write_atomic
from speechssl.storage.json_text import read_json_lines
from speechssl.tables import text_table

SYSTEMS = ("pretrained", "scratch", "frozen")
TIMED = 12, 2  # updates of two short runs: the difference has no start in it
LEAST = 4  # runs that have a rank correlation
LAST = 50  # updates whose mean is the loss of a run
ALL = math.inf  # minutes
ROW = ("name", "system", "minutes")


def cpu_s_per_update(stores: Sequence[Path], settings: PretrainSettings) -> float:
    """Processor time of an update, all threads together.

    Raises:
        ConfigError: the machine is too busy, or the updates too short, to tell.
    """
    took = []
    for steps in (max(TIMED), *TIMED):  # the first run loads libraries and files
        train = settings.train.model_copy(update={"steps": steps, "log_every": steps})
        with TemporaryDirectory() as folder:
            started = time.process_time()
            pretrain(stores, Path(folder, "run"), settings.model_copy(update={"train": train}))
            took.append(time.process_time() - started)
    if took[1] <= took[2]:
        raise ConfigError(
            f"the time of an update could not be measured: {TIMED[0]} took no longer than {TIMED[1]}"
        )
    return (took[1] - took[2]) / (TIMED[0] - TIMED[1])


def pretrain_changes(options: argparse.Namespace, seed: int) -> Table:
    """What a trial's pretraining changes of the preset."""
    fixed = {"train": {"seed": seed, "device": "cpu"}, "encoder": parse_overrides(options.encoder)}
    return merge(parse_overrides(options.pretrain), fixed)


def plan_trial(options: argparse.Namespace) -> Table:
    """What the trial is, and the updates its budget holds: decided before the first one, since the rate follows it.

    Raises:
        ConfigError: the name is taken by a trial of other settings, or a setting is not for a trial to change.
    """
    refuse(
        "pretrain",
        options.pretrain,
        ("encoder", "train.seed", "train.steps", "train.device", "train.save_every"),
    )
    refuse(
        "finetune",
        options.finetune,
        ("encoder", "train.seed", "train.device", "minutes", "ctc.frozen"),
    )
    names = ("preset", "encoder", "pretrain", "finetune", "cpu_minutes", "threads")
    about = {name: getattr(options, name) for name in names} | {"labelled": str(options.labelled)}
    about |= {
        "unlabelled": [str(path) for path in options.unlabelled],
        "init": options.init and str(options.init),
    }
    # A wrong name must not found a trial.
    finetune_settings(None, options.preset, parse_overrides(options.finetune))
    settings = pretrain_settings(None, options.preset, pretrain_changes(options, options.seeds[0]))
    path = options.out / options.name / "trial.json"
    plan: Table = (
        json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"about": about}
    )
    other = sorted(key for key, value in about.items() if plan["about"][key] != value)
    if other:
        raise ConfigError(
            f"trial {options.name} was begun with another {other[0]}: give a new name"
        )
    if "pretrained" in options.systems and options.init is None and "steps" not in plan:
        plan["steps"] = max(
            1, round(60 * options.cpu_minutes / cpu_s_per_update(options.unlabelled, settings))
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(plan, indent=1) + "\n")
    return plan


def refuse(option: str, given: Sequence[str], names: Sequence[str]) -> None:
    """Settings that a trial decides, or that all systems share."""
    for assignment in given:
        name = assignment.partition("=")[0].strip()
        if name in names or name.partition(".")[0] in names:
            raise ConfigError(
                f"--{option} {name} is not free: see --encoder, --seeds, --minutes, --cpu-minutes"
            )


def pretrained(options: argparse.Namespace, plan: Table, seed: int) -> tuple[Path, Table]:
    """The run of a trial's pretraining, finished, and what it came to."""
    if options.init is not None:
        return options.init, {}
    run = options.out / options.name / str(seed) / "pretrained"
    settings = pretrain_settings(None, options.preset, pretrain_changes(options, seed))
    train = settings.train.model_copy(
        update={"steps": plan["steps"], "save_every": max(1, plan["steps"] // 10)}
    )
    whole, started = not run.exists(), time.process_time()
    pretrain(options.unlabelled, run, settings.model_copy(update={"train": train}))
    took = (
        {"cpu_s": time.process_time() - started} if whole else {}
    )  # of a run that was resumed nobody knows
    rows = read_json_lines(run / "metrics.jsonl")
    shown = [
        name for name in ("loss", "accuracy") if name in rows[-1]
    ]  # a task of errors has no accuracy
    about = {name: statistics.mean(row[name] for row in rows[-LAST:]) for name in shown}
    hours = sum(row["audio_s"] for row in rows) / 3600
    wall_s = sum(row["time_s"] for row in rows)
    return run, {"steps": plan["steps"], "hours": hours, "wall_s": wall_s, **took, **about}


def tuned(
    options: argparse.Namespace, plan: Table, system: str, minutes: float | None, seed: int
) -> Table:
    """Error rates on dev of one recogniser after its last update, in per cent, and its pretraining."""
    init, about = pretrained(options, plan, seed) if system == "pretrained" else (None, {})
    # Random weights must all learn; a preset may say so for pretrained ones too, as tiny and small do.
    fixed: Table = {"train": {"seed": seed, "device": "cpu"}, "minutes": minutes}
    fixed["encoder"] = parse_overrides(options.encoder)
    if system == "frozen":
        fixed["ctc"] = {"frozen": True}
    settings = finetune_settings(
        init, options.preset, merge(parse_overrides(options.finetune), fixed)
    )
    run = options.out / options.name / str(seed) / f"{system}-{minutes or 'all'}"
    finetune([options.labelled], run, settings, init)
    last = read_json_lines(run / "metrics.jsonl")[-1]
    return {"wer": 100 * last["dev_wer"], "cer": 100 * last["dev_cer"], "pretraining": about}


def run_trial(options: argparse.Namespace) -> Iterator[Table]:
    """The rows that were not there yet, each written as soon as it is known."""
    plan = plan_trial(options)
    known = {tuple(row[name] for name in (*ROW, "seed")) for row in read_rows(options.out)}
    for seed, system, minutes in product(options.seeds, options.systems, options.minutes or [None]):
        if (options.name, system, minutes, seed) in known:
            continue
        row = {"name": options.name, "system": system, "minutes": minutes, "seed": seed}
        try:
            row |= tuned(options, plan, system, minutes, seed)
        except TrainingError as error:
            row |= {"failed": str(error)}
        row |= plan["about"] | {"machine": machine()}
        add_line(options.out / "results.jsonl", json.dumps(row))
        yield row


def add_line(path: Path, line: str) -> None:
    """Behind what is there, on a line of its own even where a kill cut the last one off."""
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read() == b"\n" else "\n" + line
        file.write(line.encode() + b"\n")


def read_rows(out: Path) -> list[Table]:
    """All results so far."""
    return read_json_lines(out / "results.jsonl")


def grouped(rows: Sequence[Table]) -> list[tuple[tuple[Any, ...], list[Table]]]:
    """Rows that differ in their seed only, the best mean character error rate first."""

    def key(row: Table) -> tuple[str, str, float]:
        return row["name"], row["system"], row["minutes"] or ALL

    rows = [row for row in rows if "failed" not in row]
    groups = [
        (key(found[0]), found)
        for found in (list(g) for _, g in groupby(sorted(rows, key=key), key))
    ]
    return sorted(
        groups, key=lambda group: (group[0][2], statistics.mean(row["cer"] for row in group[1]))
    )


def as_text(rows: Sequence[Table]) -> str:
    """Mean and range over the seeds; below, the runs that were lost."""

    def cell(found: Sequence[Table], name: str) -> str:
        values = [row[name] for row in found]
        return f"{statistics.mean(values):.1f} ({min(values):.1f} .. {max(values):.1f})"

    cells = [
        (amount(minutes), name, system, len(found), cell(found, "cer"), cell(found, "wer"))
        for (name, system, minutes), found in grouped(rows)
    ]
    lost = [
        f"lost: {row['name']}, {row['system']}, seed {row['seed']}: {row['failed']}\n"
        for row in rows
        if "failed" in row
    ]
    return text_table(
        ("minutes", "trial", "system", "seeds", "CER on dev, %", "WER on dev, %"), cells
    ) + "".join(lost)


def correlations(rows: Sequence[Table]) -> str:
    """Whether a task's own loss foretells error rates: rank correlation (Spearman) over the runs of each task.

    A loss that foretells them has a correlation near 1, an accuracy near -1. Losses of two tasks do not compare, nor do
    fine-tunings of two kinds, models of two shapes, or error rates on two corpora, so each has a line.
    """
    runs: dict[tuple[str, str, str], list[Table]] = {}
    for row in rows:
        if "failed" not in row and row.get("pretraining"):
            task = dict(item.split("=", 1) for item in row["pretrain"]).get("task", "contrastive")
            alike = json.dumps(
                [row["finetune"], *(row.get(name) for name in ("labelled", "preset", "encoder"))]
            )
            runs.setdefault((amount(row["minutes"]), task, alike), []).append(row)
    cells = []
    for (minutes, task, _), found in sorted(runs.items()):
        if len(found) >= LEAST:
            pairs = [(own, rate) for own in ("loss", "accuracy") for rate in ("cer", "wer")]
            cells.append(
                (minutes, task, len(found), *(rank_correlation(found, *pair) for pair in pairs))
            )
    titles = ("loss, CER", "loss, WER", "accuracy, CER", "accuracy, WER")
    return "\n" + text_table(("minutes", "task", "runs", *titles), cells) if cells else ""


def rank_correlation(found: Sequence[Table], own: str, rate: str) -> str:
    """Spearman's, or a dash where a task has no such number or all runs have the same."""
    values = [row["pretraining"].get(own) for row in found]
    if None in values or len(set(values)) == 1:
        return "-"
    return f"{spearmanr(values, [row[rate] for row in found]).statistic:+.2f}"


def amount(minutes: float | None) -> str:
    """Of labels."""
    return "all" if minutes in (None, ALL) else f"{minutes:g}"


def plot(rows: Sequence[Table], out_png: Path) -> None:
    """Character error rate by labelled minutes, a line for each trial and system; bars: range of the seeds."""
    figure, (axes,) = new_figure(1)
    lines: dict[str, dict[float, list[float]]] = {}
    for (name, system, minutes), found in grouped(rows):
        lines.setdefault(f"{name}, {system}", {})[minutes] = [row["cer"] for row in found]
    amounts = sorted({minutes for points in lines.values() for minutes in points})
    for number, (label, points) in enumerate(lines.items()):
        beside = 0.6 * (
            (number + 0.5) / len(lines) - 0.5
        )  # bars that stood on each other would hide each other
        means = [statistics.mean(values) for values in points.values()]
        below = [mean - min(values) for mean, values in zip(means, points.values(), strict=True)]
        above = [max(values) - mean for mean, values in zip(means, points.values(), strict=True)]
        places = [amounts.index(minutes) + beside for minutes in points]
        axes.errorbar(places, means, (below, above), marker="o", linewidth=1, label=label)
    axes.set_xticks(range(len(amounts)), [amount(minutes) for minutes in amounts])
    finish_panel(axes, "character error rate on dev (%)", "labelled minutes")
    save_figure(figure, out_png)


def minutes_or_all(text: str) -> float | None:
    """``all`` is None."""
    return None if text == "all" else float(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Try, or show."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    trial, show = (
        commands.add_parser("try", help="run one trial"),
        commands.add_parser("show", help="table, picture"),
    )
    for each in (trial, show):
        each.add_argument(
            "--out", type=Path, default=Path("exp/learn"), help="folder of runs and results"
        )
    trial.add_argument("name", help="of the trial, and of its folder")
    trial.add_argument(
        "--labelled", type=Path, required=True, metavar="STORE", help="with splits train and dev"
    )
    trial.add_argument(
        "--unlabelled", type=Path, nargs="+", default=[], metavar="STORE", help="to pretrain on"
    )
    trial.add_argument(
        "--init", type=Path, metavar="RUN", help="a pretrained encoder, instead of pretraining"
    )
    trial.add_argument(
        "--cpu-minutes", type=float, default=20.0, help="processor time of pretraining"
    )
    trial.add_argument(
        "--minutes", type=minutes_or_all, nargs="+", default=[], help="labelled minutes, or all"
    )
    trial.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    trial.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    trial.add_argument("--preset", default="tiny")
    for name in ("encoder", "pretrain", "finetune"):
        trial.add_argument(
            f"--{name}", nargs="+", default=[], metavar="KEY=VALUE", help=f"settings of {name}"
        )
    trial.add_argument("--threads", type=int, default=1)
    show.add_argument("--png", type=Path, metavar="FILE")
    options = parser.parse_args(argv)
    if options.command == "show":
        rows = read_rows(options.out)
        print(as_text(rows) + correlations(rows), end="")
        if options.png:
            plot(rows, options.png)
        return 0
    if "pretrained" in options.systems and bool(options.unlabelled) == (options.init is not None):
        parser.error(
            "give stores as --unlabelled, or a run as --init; or leave pretrained out of --systems"
        )
    for name in ("seeds", "systems", "minutes"):
        setattr(options, name, list(dict.fromkeys(getattr(options, name))))
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
