"""Pictures of a run: loss and code use while it trains, error rates on the development set.

Other rooms draw theirs with ``new_figure``, ``draw_line``, ``finish_panel`` and ``save_figure``.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechssl.storage.json_text import Row, read_json_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What a line goes through: (x, y) each.
Points = Sequence[tuple[float, float]]

# Inches, of one panel.
PANEL_WIDTH = 7
PANEL_HEIGHT = 3.2

DOTS_PER_INCH = 120

# Areas of points, in units of (1/72 inch) squared: of a point without words, and what is added for
# the point with the most words.
SMALLEST_AREA = 10
AREA_RANGE = 190

# Names of measurements in pictures; those of linear probes are their own.
ERROR_RATE_NAMES = {
    "dev_wer": "word error rate",
    "dev_cer": "character error rate",
    "dev_per": "phone error rate",
}
PROBE_PREFIX = "probe_"


def plot_training(metrics_path: Path, out_png: Path) -> None:
    """Draw the loss against the step, and below it the code perplexity where there is one.

    Reads the keys "step", "loss", "chance" (loss of a guess, dashed) and "code_perplexity". Without
    any loss yet, the picture says so.
    """
    rows = read_json_lines(metrics_path)
    losses = _series(rows, "loss")
    chance = _series(rows, "chance")
    codes = _series(rows, "code_perplexity")

    num_panels = 2 if codes else 1
    figure, (loss_panel, *code_panels) = new_figure(num_panels)

    draw_line(loss_panel, losses, "loss")
    draw_line(loss_panel, chance, "chance", linestyle="--", color="grey")
    finish_panel(loss_panel, "loss")

    for panel in code_panels:
        draw_line(panel, codes, "code perplexity")
        finish_panel(panel, "code perplexity (codes)")

    save_figure(figure, out_png)


def plot_errors(metrics_path: Path, out_png: Path) -> None:
    """Draw the error rates that were measured during training against the step, in percent.

    Reads the keys "dev_wer", "dev_cer" and "dev_per", and any that start with "probe_": fractions.
    """
    rows = read_json_lines(metrics_path)

    labels = dict(ERROR_RATE_NAMES)
    for row in rows:
        for key in row:
            if key.startswith(PROBE_PREFIX):
                labels[key] = key.removeprefix(PROBE_PREFIX)

    figure, (panel,) = new_figure(1)
    for key, label in labels.items():
        points = [(step, 100 * value) for step, value in _series(rows, key)]
        draw_line(panel, points, label, marker="o")
    finish_panel(panel, "error on held-out recordings (%)")

    save_figure(figure, out_png)


def plot_reliability(bins: Sequence[tuple[float, float, int]], out_png: Path) -> None:
    """Draw the share of right words against their mean confidence.

    On the dashed line a confidence is a probability. The area of a point stands for its words.

    Args:
        bins: (confidence, share of right words, words) of each point.
    """
    figure, (panel,) = new_figure(1)
    diagonal = [(0.0, 0.0), (1.0, 1.0)]
    draw_line(panel, diagonal, "as confident as right", linestyle="--", color="grey")

    confidences = []
    shares = []
    counts = []
    for confidence, share, count in bins:
        confidences.append(confidence)
        shares.append(share)
        counts.append(count)

    points = list(zip(confidences, shares, strict=True))
    draw_line(panel, points, "recognised words")

    most = max(counts, default=1)
    areas = [SMALLEST_AREA + AREA_RANGE * count / most for count in counts]
    panel.scatter(confidences, shares, s=areas, alpha=0.5)
    finish_panel(panel, "share of words that are right", "confidence")

    save_figure(figure, out_png)


def _series(rows: Iterable[Row], key: str) -> Points:
    """Return (step, value) sorted by step.

    A resumed run can log a step twice: the later value counts.
    """
    values = {}
    for row in rows:
        step = row.get("step")
        value = row.get(key)
        if isinstance(step, int | float) and isinstance(value, int | float):
            values[step] = value

    return sorted(values.items())


def new_figure(num_panels: int) -> "tuple[Figure, list[Axes]]":
    """Make a figure of panels above each other, and return it with their axes."""
    # Imported here, so that a program that only trains or transcribes does not wait for matplotlib.
    # Its object interface keeps no global state and needs no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = PANEL_HEIGHT * num_panels
    figure = Figure(figsize=(PANEL_WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)

    panels = figure.subplots(num_panels, 1, sharex=True, squeeze=False)
    return figure, list(panels[:, 0])


def draw_line(axes: "Axes", points: Points, label: str, **style: Any) -> None:
    """Draw (x, y) ``points`` as a line; nothing where there are none.

    Args:
        style: arguments of matplotlib's ``plot``.
    """
    if not points:
        return

    x, y = zip(*points, strict=True)
    axes.plot(x, y, label=label, linewidth=1, **style)


def finish_panel(axes: "Axes", y_label: str, x_label: str = "step") -> None:
    """Add labels, grid and legend, or the words that nothing is there."""
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)

    if axes.lines:
        axes.grid(alpha=0.3)
        axes.legend()
    else:
        in_panel = axes.transAxes
        axes.text(0.5, 0.5, "nothing measured yet", ha="center", va="center", transform=in_panel)


def save_figure(figure: "Figure", out_png: Path) -> None:
    """Write ``figure`` as a PNG file; missing folders are made."""
    out_png.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out_png, format="png", dpi=DOTS_PER_INCH)
