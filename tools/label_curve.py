"""Error rates against labelled minutes: a table and a picture of what `speechssl evaluate` wrote.

    python tools/label_curve.py OUT.png SYSTEM@MINUTES=FOLDER...

The same SYSTEM@MINUTES again is another seed. The line goes through the means of the seeds, bars
span them, and the dotted lines are the outermost ends of their 95 % intervals.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechssl.errors import ConfigError, SpeechsslError
from speechssl.pictures import draw_line, finish_panel, new_figure, save_figure
from speechssl.scoring.compare import System, intervals, read_system
from speechssl.tables import text_table

# Evaluations by system and labelled minutes.
Runs = dict[str, dict[float, list[System]]]
# Places of the two error rates in a System.
WER = 0
CER = 1


def read_runs(given: Sequence[str]) -> Runs:
    """Read evaluations by system and labelled minutes.

    Raises:
        ConfigError: an argument is not SYSTEM@MINUTES=FOLDER, or the folder holds no evaluation.
    """
    runs: Runs = {}
    for item in given:
        key, _, folder = item.partition("=")
        name, _, minutes = key.rpartition("@")
        try:
            amount = float(minutes)
        except ValueError:
            raise ConfigError(f"{item!r} is not SYSTEM@MINUTES=FOLDER") from None
        if not name or not folder:
            raise ConfigError(f"{item!r} is not SYSTEM@MINUTES=FOLDER")

        of_system = runs.setdefault(name, {})
        of_system.setdefault(amount, []).append(read_system(name, [Path(folder)]))
    return runs


def as_table(runs: Runs) -> str:
    """Write every run's rates, by minutes, then in the order that they were given."""
    rows = []
    for name, amounts in runs.items():
        for minutes, systems in sorted(amounts.items()):
            wer = " ".join(f"{100 * system.rates[WER]:.1f}" for system in systems)
            cer = " ".join(f"{100 * system.rates[CER]:.1f}" for system in systems)
            rows.append((f"{minutes:g}", name, wer, cer))

    rows.sort(key=lambda row: float(row[0]))
    return text_table(("minutes", "system", "WER by seed, %", "CER by seed, %"), rows)


def draw(runs: Runs, out_png: Path) -> None:
    """Draw the character error rate above the word error rate."""
    all_minutes = sorted({minutes for amounts in runs.values() for minutes in amounts})
    labels = [f"{minutes:g}" for minutes in all_minutes]

    figure, panels = new_figure(2)
    contents = ((CER, "character error rate (%)"), (WER, "word error rate (%)"))
    for axes, (which, title) in zip(panels, contents, strict=True):
        for name, amounts in runs.items():
            draw_system(axes, name, amounts, which)

        axes.set_xscale("log")
        axes.set_xticks(all_minutes, labels)
        axes.minorticks_off()
        finish_panel(axes, title, "labelled minutes")
    save_figure(figure, out_png)


def draw_system(axes: Any, name: str, amounts: dict[float, list[System]], which: int) -> None:
    """Draw the line of one system through the means, with bars and dotted lines around it.

    Args:
        axes: of matplotlib.
        which: WER or CER.
    """
    minutes = []
    means = []
    lowest = []
    highest = []
    lowest_end = []
    highest_end = []
    for amount, systems in sorted(amounts.items()):
        rates = [100 * system.rates[which] for system in systems]
        minutes.append(amount)
        means.append(statistics.mean(rates))
        lowest.append(min(rates))
        highest.append(max(rates))

        ends = [100 * end for system in systems for end in intervals(system)[which]]
        lowest_end.append(min(ends))
        highest_end.append(max(ends))

    draw_line(axes, list(zip(minutes, means, strict=True)), name, marker="o")
    color = axes.lines[-1].get_color()
    axes.vlines(minutes, lowest, highest, color=color)
    for ends in (lowest_end, highest_end):
        axes.plot(minutes, ends, ":", color=color, linewidth=0.7)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, and draw the picture into a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("png", type=Path)
    parser.add_argument("runs", nargs="+", metavar="SYSTEM@MINUTES=FOLDER")
    options = parser.parse_args(argv)

    try:
        runs = read_runs(options.runs)
    except SpeechsslError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1

    print(as_table(runs), end="")
    draw(runs, options.png)
    return 0


if __name__ == "__main__":
    sys.exit(main())
