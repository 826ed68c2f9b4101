"""Pictures and tables of a run: loss and code use while it trains, error rates on the development set."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechssl.storage.json_text import Row, read_json_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_training(metrics_path: Path, out_png: Path) -> None:
    """Picture of the loss against the step, and of the code perplexity below it where there is one.

    Reads the keys "step", "loss", "chance" (loss of a guess, dashed) and "code_perplexity". Without any loss yet, the
    picture says so.
    """
    rows = read_json_lines(metrics_path)
    codes = _series(rows, "code_perplexity")
    figure, axes = new_figure(2 if codes else 1)
    draw_line(axes[0], _series(rows, "loss"), "loss")
    draw_line(axes[0], _series(rows, "chance"), "chance", linestyle="--", color="grey")
    finish_panel(axes[0], "loss")
    if codes:
        draw_line(axes[1], codes, "code perplexity")
        finish_panel(axes[1], "code perplexity (codes)")
    save_figure(figure, out_png)


def plot_errors(metrics_path: Path, out_png: Path) -> None:
    """Picture of what was measured on the way against "step", in percent.

    Reads the keys "dev_wer" and "dev_cer", and any that start with "probe_": fractions.
    """
    rows = read_json_lines(metrics_path)
    labels = {"dev_wer": "word error rate", "dev_cer": "character error rate"}
    labels |= {
        key: key.removeprefix("probe_") for row in rows for key in row if key.startswith("probe_")
    }
    figure, axes = new_figure(1)
    for key, label in labels.items():
        points = [(step, 100 * value) for step, value in _series(rows, key)]
        draw_line(axes[0], points, label, marker="o")
    finish_panel(axes[0], "error on held-out recordings (%)")
    save_figure(figure, out_png)


def plot_reliability(bins: Sequence[tuple[float, float, int]], out_png: Path) -> None:
    """Share of right words against their mean confidence, a point for each of ``bins`` (confidence, share, words).

    On the dashed line a confidence is a probability; the area of a point stands for its words.
    """
    figure, (axes,) = new_figure(1)
    draw_line(axes, [(0.0, 0.0), (1.0, 1.0)], "as confident as right", linestyle="--", color="grey")
    draw_line(axes, [(confidence, share) for confidence, share, _ in bins], "recognised words")
    most = max((count for *_, count in bins), default=1)
    axes.scatter(
        [b[0] for b in bins],
        [b[1] for b in bins],
        s=[10 + 190 * b[2] / most for b in bins],
        alpha=0.5,
    )
    finish_panel(axes, "share of words that are right", "confidence")
    save_figure(figure, out_png)


def text_table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """An aligned table that is also Markdown; columns of numbers are right-aligned. Ends in a newline.

    Args:
        header, rows: cells, turned into text by ``str``; each row as long as the header.
    """
    titles = [_cell(title) for title in header]
    body = [[_cell(value) for value in row] for row in rows]
    assert all(len(row) == len(titles) for row in body), (
        "every row of a table needs one cell per column"
    )
    columns = list(zip(titles, *body, strict=True))
    widths = [
        max(3, *map(len, column)) for column in columns
    ]  # three dashes are the least that Markdown takes
    numeric = [bool(body) and all(map(_is_number, column[1:])) for column in columns]

    def line(cells: Sequence[str]) -> str:
        aligned = (
            c.rjust(w) if n else c.ljust(w) for c, w, n in zip(cells, widths, numeric, strict=True)
        )
        return f"| {' | '.join(aligned)} |\n"

    rule = [
        "-" * (width - 1) + (":" if right else "-")
        for width, right in zip(widths, numeric, strict=True)
    ]
    return line(titles) + line(rule) + "".join(map(line, body))


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", r"\|")


def _is_number(text: str) -> bool:
    try:
        float(text.removesuffix("%").removesuffix(" "))
    except ValueError:
        return False
    return True


def _series(rows: Iterable[Row], key: str) -> list[tuple[float, float]]:
    """(step, value) sorted by step; a run that was resumed logs some steps twice, and the later one counts."""
    numbers = (int, float)
    pairs = ((row.get("step"), row.get(key)) for row in rows)
    return sorted(
        {s: v for s, v in pairs if isinstance(s, numbers) and isinstance(v, numbers)}.items()
    )


def new_figure(num_panels: int) -> "tuple[Figure, list[Axes]]":
    """A figure of panels above each other, with their axes."""
    # The object interface keeps no global state and needs no display; imported here, so that a program that only
    # trains or transcribes does not wait for matplotlib.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2 * num_panels), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(num_panels, 1, sharex=True, squeeze=False)
    return figure, list(panels[:, 0])


def draw_line(
    axes: "Axes", points: Sequence[tuple[float, float]], label: str, **style: Any
) -> None:
    """(x, y) ``points`` as a line; nothing where there are none. ``style``: of matplotlib's ``plot``."""
    if points:
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, label=label, linewidth=1, **style)


def finish_panel(axes: "Axes", y_label: str, x_label: str = "step") -> None:
    """Labels, grid and legend, or a word that nothing is there."""
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if axes.lines:
        axes.grid(alpha=0.3)
        axes.legend()
    else:
        axes.text(
            0.5, 0.5, "nothing measured yet", ha="center", va="center", transform=axes.transAxes
        )


def save_figure(figure: "Figure", out_png: Path) -> None:
    """Write ``figure`` as a PNG file, its folders too."""
    out_png.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out_png, format="png", dpi=120)
