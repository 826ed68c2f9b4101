"""Error rates against labelled minutes: a table and a picture of what `speechssl evaluate` wrote.

    python tools/label_curve.py OUT.png SYSTEM@MINUTES=FOLDER...

The same SYSTEM@MINUTES again is another seed: the line goes through the means, bars span the runs, and the dotted lines
are the 95 % intervals' outermost ends.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from speechssl.errors import ConfigError, SpeechsslError
from speechssl.pictures import draw_line, finish_panel, new_figure, save_figure
from speechssl.scoring.compare import System, intervals, read_system
from speechssl.tables import text_table

Runs = dict[str, dict[float, list[System]]]  # by system and minutes


def read_runs(given: Sequence[str]) -> Runs:
    """Evaluations by system and labelled minutes."""
    runs: Runs = {}
    for item in given:
        key, _, folder = item.partition("=")
        name, _, minutes = key.rpartition("@")
        try:
            amount = float(minutes)
        except ValueError:
            raise ConfigError(f"{item!r} is not SYSTEM@MINUTES=FOLDER") from None
        if not (name and folder):
            raise ConfigError(f"{item!r} is not SYSTEM@MINUTES=FOLDER")
        runs.setdefault(name, {}).setdefault(amount, []).append(read_system(name, [Path(folder)]))
    return runs


def as_table(runs: Runs) -> str:
    """Every run's rates, in the order they were given."""
    rows = []
    for name, amounts in runs.items():
        for minutes, systems in sorted(amounts.items()):
            wer, cer = (" ".join(f"{100 * s.rates[k]:.1f}" for s in systems) for k in (0, 1))
            rows.append((f"{minutes:g}", name, wer, cer))
    return text_table(
        ("minutes", "system", "WER by seed, %", "CER by seed, %"),
        sorted(rows, key=lambda r: float(r[0])),
    )


def draw(runs: Runs, out_png: Path) -> None:
    """Character error rate above word error rate."""
    figure, panels = new_figure(2)
    for axes, which, title in zip(
        panels, (1, 0), ("character error rate (%)", "word error rate (%)"), strict=True
    ):
        for name, amounts in runs.items():
            places = sorted(amounts.items())
            rates = {
                minutes: [100 * s.rates[which] for s in systems] for minutes, systems in places
            }
            draw_line(
                axes,
                [(minutes, statistics.mean(values)) for minutes, values in rates.items()],
                name,
                marker="o",
            )
            color = axes.lines[-1].get_color()
            axes.vlines(
                list(rates),
                *zip(*((min(v), max(v)) for v in rates.values()), strict=True),
                color=color,
            )
            ends = [
                [100 * end for s in systems for end in intervals(s)[which]] for _, systems in places
            ]
            for choose in (min, max):
                axes.plot(
                    list(rates), [choose(both) for both in ends], ":", color=color, linewidth=0.7
                )
        axes.set_xscale("log")
        axes.set_xticks(
            minutes := sorted({m for amounts in runs.values() for m in amounts}),
            [f"{m:g}" for m in minutes],
        )
        axes.minorticks_off()
        finish_panel(axes, title, "labelled minutes")
    save_figure(figure, out_png)


def main(argv: Sequence[str] | None = None) -> int:
    """Table on stdout, picture in a file."""
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
