"""Does pretraining pay? Settings tried under one budget of processor time.

    python tools/learn.py try NAME --labelled STORE [--unlabelled STORE... | --init RUN]
        [--cpu-minutes 20] [--minutes 2 10 all] [--systems pretrained scratch frozen]
        [--seeds 0 1 2] [--encoder KEY=VALUE...] [--pretrain KEY=VALUE...]
        [--finetune KEY=VALUE...]
    python tools/learn.py show [--png FILE]

A trial pretrains once for each seed, with as many updates as the budget holds, or takes the encoder
of RUN, and fine-tunes on each amount of labels. `scratch` starts from random weights, `frozen`
trains a head on random weights. All get the same fine-tuning; pretraining comes on top. Results are
error rates on the development split after the last update: to keep the best update would be to
choose on that split twice.

Every finished fine-tuning adds a line to OUT/results.jsonl (--out, exp/learn). What has a line is
not done again, and what was stopped goes on. A run that is lost (diverged, collapsed) gets a line
with its reason.

One thread on the CPU by default: two trials beside each other then get more out of two cores than
one trial on both.
"""

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import product
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
# Updates of two short runs: the difference of their times has no start in it.
TIMED = (12, 2)
# Runs from which on a rank correlation is worked out.
LEAST = 4
# Updates at the end of a run whose mean is its loss.
LAST = 50
# Minutes, where all labels are taken.
ALL = math.inf
# What a row is known by, beside its seed.
ROW = ("name", "system", "minutes")


def cpu_s_per_update(stores: Sequence[Path], settings: PretrainSettings) -> float:
    """Measure the processor time of an update, all threads together.

    Raises:
        ConfigError: the machine is too busy, or the updates too short, to tell.
    """
    long_run, short_run = TIMED

    # The first run loads libraries and files; its time does not count.
    took_s = []
    for steps in (long_run, long_run, short_run):
        train = settings.train.model_copy(update={"steps": steps, "log_every": steps})
        changed = settings.model_copy(update={"train": train})
        with TemporaryDirectory() as folder:
            started = time.process_time()
            pretrain(stores, Path(folder, "run"), changed)
            took_s.append(time.process_time() - started)

    _, long_s, short_s = took_s
    if long_s <= short_s:
        raise ConfigError(
            f"the time of an update could not be measured: {long_run} took no longer than "
            f"{short_run}"
        )
    return (long_s - short_s) / (long_run - short_run)


def pretrain_changes(options: argparse.Namespace, seed: int) -> Table:
    """Gather what a trial's pretraining changes of the preset."""
    fixed = {"train": {"seed": seed, "device": "cpu"}, "encoder": parse_overrides(options.encoder)}
    return merge(parse_overrides(options.pretrain), fixed)


def plan_trial(options: argparse.Namespace) -> Table:
    """Write down what the trial is, and the updates that its budget holds.

    The updates are decided before the first of them, since the learning rate follows their number.

    Raises:
        ConfigError: the name is taken by a trial of other settings, or a setting is not for a trial
            to change.
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

    # A wrong name must not found a trial.
    finetune_settings(None, options.preset, parse_overrides(options.finetune))
    settings = pretrain_settings(None, options.preset, pretrain_changes(options, options.seeds[0]))

    about = about_trial(options)
    path = options.out / options.name / "trial.json"
    plan: Table = {"about": about}
    if path.exists():
        plan = json.loads(path.read_text(encoding="utf-8"))

    other = sorted(key for key, value in about.items() if plan["about"][key] != value)
    if other:
        raise ConfigError(
            f"trial {options.name} was begun with another {other[0]}: give a new name"
        )

    will_pretrain = "pretrained" in options.systems and options.init is None
    if will_pretrain and "steps" not in plan:
        update_s = cpu_s_per_update(options.unlabelled, settings)
        plan["steps"] = max(1, round(60 * options.cpu_minutes / update_s))

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(plan, indent=1) + "\n")
    return plan


def about_trial(options: argparse.Namespace) -> Table:
    """Gather the options that may not change within a trial."""
    names = ("preset", "encoder", "pretrain", "finetune", "cpu_minutes", "threads")
    about: Table = {name: getattr(options, name) for name in names}
    about["labelled"] = str(options.labelled)
    about["unlabelled"] = [str(path) for path in options.unlabelled]
    about["init"] = options.init and str(options.init)
    return about


def refuse(option: str, given: Sequence[str], names: Sequence[str]) -> None:
    """Refuse settings that a trial decides, or that all systems share."""
    for assignment in given:
        name = assignment.partition("=")[0].strip()
        table = name.partition(".")[0]
        if name in names or table in names:
            raise ConfigError(
                f"--{option} {name} is not free: see --encoder, --seeds, --minutes, --cpu-minutes"
            )


def pretrained(options: argparse.Namespace, plan: Table, seed: int) -> tuple[Path, Table]:
    """Run a trial's pretraining to its end; return its run and what it came to."""
    if options.init is not None:
        return options.init, {}

    run = options.out / options.name / str(seed) / "pretrained"
    steps = plan["steps"]
    settings = pretrain_settings(None, options.preset, pretrain_changes(options, seed))
    train = settings.train.model_copy(update={"steps": steps, "save_every": max(1, steps // 10)})

    is_new = not run.exists()
    started = time.process_time()
    pretrain(options.unlabelled, run, settings.model_copy(update={"train": train}))
    took_s = time.process_time() - started

    rows = read_json_lines(run / "metrics.jsonl")
    about = {
        "steps": steps,
        "hours": sum(row["audio_s"] for row in rows) / 3600,
        "wall_s": sum(row["time_s"] for row in rows),
    }

    # Of a run that was resumed nobody knows the processor time.
    if is_new:
        about["cpu_s"] = took_s

    for name in ("loss", "accuracy"):
        # A task that predicts values, such as reconstruction, has no accuracy.
        if name in rows[-1]:
            about[name] = statistics.mean(row[name] for row in rows[-LAST:])

    return run, about


def tuned(
    options: argparse.Namespace, plan: Table, system: str, minutes: float | None, seed: int
) -> Table:
    """Fine-tune one recogniser.

    Returns:
        Error rates on dev after the last update, in per cent, and what its pretraining came to.
    """
    init: Path | None = None
    about: Table = {}
    if system == "pretrained":
        init, about = pretrained(options, plan, seed)

    fixed: Table = {
        "train": {"seed": seed, "device": "cpu"},
        "minutes": minutes,
        "encoder": parse_overrides(options.encoder),
    }
    if system == "frozen":
        fixed["ctc"] = {"frozen": True}
    changes = merge(parse_overrides(options.finetune), fixed)
    settings = finetune_settings(init, options.preset, changes)

    run = options.out / options.name / str(seed) / f"{system}-{minutes or 'all'}"
    finetune([options.labelled], run, settings, init)

    last = read_json_lines(run / "metrics.jsonl")[-1]
    return {"wer": 100 * last["dev_wer"], "cer": 100 * last["dev_cer"], "pretraining": about}


def run_trial(options: argparse.Namespace) -> Iterator[Table]:
    """Yield the rows that were not there yet, each written as soon as it is known."""
    plan = plan_trial(options)
    known = {tuple(row[name] for name in (*ROW, "seed")) for row in read_rows(options.out)}

    amounts = options.minutes or [None]
    for seed, system, minutes in product(options.seeds, options.systems, amounts):
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
    """Append a line to a file, on a line of its own even where a kill cut the last one off."""
    with path.open("ab+") as file:
        is_empty = file.tell() == 0
        if not is_empty:
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                line = "\n" + line
        file.write(line.encode() + b"\n")


def read_rows(out: Path) -> list[Table]:
    """Read all results so far."""
    return read_json_lines(out / "results.jsonl")


def grouped(rows: Sequence[Table]) -> list[tuple[tuple[Any, ...], list[Table]]]:
    """Group rows that differ in their seed only.

    Groups come by minutes, then by mean character error rate, the best first.
    """
    groups: dict[tuple[str, str, float], list[Table]] = {}
    for row in rows:
        if "failed" not in row:
            key = (row["name"], row["system"], row["minutes"] or ALL)
            groups.setdefault(key, []).append(row)

    def rank(group: tuple[tuple[str, str, float], list[Table]]) -> tuple[float, float]:
        (_, _, minutes), found = group
        return minutes, statistics.mean(row["cer"] for row in found)

    # Equal ones stay in the order of their names.
    return sorted(sorted(groups.items(), key=lambda group: group[0]), key=rank)


def as_text(rows: Sequence[Table]) -> str:
    """Write mean and range over the seeds; below, the runs that were lost."""

    def cell(found: Sequence[Table], name: str) -> str:
        values = [row[name] for row in found]
        return f"{statistics.mean(values):.1f} ({min(values):.1f} .. {max(values):.1f})"

    cells = []
    for (name, system, minutes), found in grouped(rows):
        rates = (cell(found, "cer"), cell(found, "wer"))
        cells.append((amount(minutes), name, system, len(found), *rates))
    header = ("minutes", "trial", "system", "seeds", "CER on dev, %", "WER on dev, %")
    text = text_table(header, cells)

    for row in rows:
        if "failed" in row:
            text += f"lost: {row['name']}, {row['system']}, seed {row['seed']}: {row['failed']}\n"
    return text


def correlations(rows: Sequence[Table]) -> str:
    """Correlate a task's own loss with error rates, over the runs of each task.

    The rank correlation (Spearman) tells whether the loss predicts error rates: it is then near 1,
    or near -1 for an accuracy. Losses of two tasks do not compare, nor do fine-tunings of two
    kinds, models of two shapes, or error rates on two corpora, so each of these has a line.
    """
    runs: dict[tuple[str, str, str], list[Table]] = {}
    for row in rows:
        if "failed" in row or not row.get("pretraining"):
            continue

        changes = dict(item.split("=", 1) for item in row["pretrain"])
        task = changes.get("task", "contrastive")
        shared = [row.get(name) for name in ("labelled", "preset", "encoder")]
        alike = json.dumps([row["finetune"], *shared])
        runs.setdefault((amount(row["minutes"]), task, alike), []).append(row)

    pairs = [("loss", "cer"), ("loss", "wer"), ("accuracy", "cer"), ("accuracy", "wer")]
    cells = []
    for (minutes, task, _), found in sorted(runs.items()):
        if len(found) >= LEAST:
            values = [rank_correlation(found, own, rate) for own, rate in pairs]
            cells.append((minutes, task, len(found), *values))
    if not cells:
        return ""

    titles = ("loss, CER", "loss, WER", "accuracy, CER", "accuracy, WER")
    return "\n" + text_table(("minutes", "task", "runs", *titles), cells)


def rank_correlation(found: Sequence[Table], own: str, rate: str) -> str:
    """Work out Spearman's; a dash where a task has no such number or all runs have the same."""
    values = [row["pretraining"].get(own) for row in found]
    if None in values or len(set(values)) == 1:
        return "-"

    rates = [row[rate] for row in found]
    return f"{spearmanr(values, rates).statistic:+.2f}"


def amount(minutes: float | None) -> str:
    """Write an amount of labels."""
    return "all" if minutes in (None, ALL) else f"{minutes:g}"


def plot(rows: Sequence[Table], out_png: Path) -> None:
    """Draw the character error rate by labelled minutes, a line for each trial and system.

    Bars span the seeds.
    """
    lines: dict[str, dict[float, list[float]]] = {}
    for (name, system, minutes), found in grouped(rows):
        lines.setdefault(f"{name}, {system}", {})[minutes] = [row["cer"] for row in found]
    amounts = sorted({minutes for points in lines.values() for minutes in points})

    figure, (axes,) = new_figure(1)
    for number, (label, points) in enumerate(lines.items()):
        # Bars that stood on each other would hide each other.
        beside = 0.6 * ((number + 0.5) / len(lines) - 0.5)
        places = [amounts.index(minutes) + beside for minutes in points]

        means = []
        below = []
        above = []
        for values in points.values():
            mean = statistics.mean(values)
            means.append(mean)
            below.append(mean - min(values))
            above.append(max(values) - mean)
        axes.errorbar(places, means, (below, above), marker="o", linewidth=1, label=label)

    axes.set_xticks(range(len(amounts)), [amount(minutes) for minutes in amounts])
    finish_panel(axes, "character error rate on dev (%)", "labelled minutes")
    save_figure(figure, out_png)


def minutes_or_all(text: str) -> float | None:
    """Parse minutes; ``all`` is None."""
    return None if text == "all" else float(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Try, or show."""
    options = parse(argv)

    if options.command == "show":
        rows = read_rows(options.out)
        print(as_text(rows) + correlations(rows), end="")
        if options.png:
            plot(rows, options.png)
        return 0

    torch.set_num_threads(options.threads)
    try:
        for row in run_trial(options):
            print(as_text([row]), end="", flush=True)
    except SpeechsslError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    trial = commands.add_parser("try", help="run one trial")
    show = commands.add_parser("show", help="table, picture")
    for each in (trial, show):
        out_help = "folder of runs and results"
        each.add_argument("--out", type=Path, default=Path("exp/learn"), help=out_help)
    show.add_argument("--png", type=Path, metavar="FILE")
    add_trial_options(trial)

    options = parser.parse_args(argv)
    if options.command == "try":
        has_stores = bool(options.unlabelled)
        has_init = options.init is not None
        if "pretrained" in options.systems and has_stores == has_init:
            parser.error(
                "give stores as --unlabelled, or a run as --init; or leave pretrained out of "
                "--systems"
            )
        # What is given twice is done once.
        for name in ("seeds", "systems", "minutes"):
            setattr(options, name, list(dict.fromkeys(getattr(options, name))))
    return options


def add_trial_options(trial: argparse.ArgumentParser) -> None:
    """Add the options of ``try``."""
    trial.add_argument("name", help="of the trial, and of its folder")
    trial.add_argument(
        "--labelled", type=Path, required=True, metavar="STORE", help="with splits train and dev"
    )
    trial.add_argument(
        "--unlabelled", type=Path, nargs="+", default=[], metavar="STORE", help="to pretrain on"
    )

    init_help = "a pretrained encoder, instead of pretraining"
    trial.add_argument("--init", type=Path, metavar="RUN", help=init_help)
    budget_help = "processor time of pretraining"
    trial.add_argument("--cpu-minutes", type=float, default=20.0, help=budget_help)

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


if __name__ == "__main__":
    sys.exit(main())
