"""Show the results of probes as a table and as a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from speechssl.analysis.probe_targets import PROBE_JSON, PROBE_PNG
from speechssl.analysis.probing import LOG_MEL, MIX, Probed
from speechssl.pictures import draw_line, finish_panel, new_figure, save_figure
from speechssl.storage.atomic import write_atomic
from speechssl.storage.json_text import as_json
from speechssl.tables import text_table

# matplotlib's colours of the systems.
_COLOURS = {"model": "C0", "random": "C1", LOG_MEL: "C2"}


def as_text(results: Sequence[Probed]) -> str:
    """Print a line for each target and system: the error of each layer in per cent."""
    # Results by target and system, then by layer, all in the order in which they come.
    lines: dict[tuple[str, str], dict[str, Probed]] = {}
    columns = [LOG_MEL]
    for result in results:
        line = lines.setdefault((result.target, result.system), {})
        line[result.layer] = result
        if result.layer not in columns:
            columns.append(result.layer)

    rows = []
    for (target, system), line in lines.items():
        errors: list[str] = []
        for layer in columns:
            own = line.get(layer)
            errors.append(_percent(own.error) if own else "")

        # Chance and the number of recordings are the same for every layer.
        any_layer, *_ = line.values()
        chance = _percent(any_layer.chance)
        rows.append((target, system, *errors, chance, any_layer.examples))

    titles = [_title(layer) for layer in columns]
    header = ("error, %", "", *titles, "chance", "n")
    return text_table(header, rows)


def plot(results: Sequence[Probed], out_png: Path) -> None:
    """Draw the error by layer, a panel for each target.

    Log-mel and the mix of the layers are dashed lines.
    """
    by_target: dict[str, list[Probed]] = {}
    for result in results:
        same_target = by_target.setdefault(result.target, [])
        same_target.append(result)

    figure, panels = new_figure(len(by_target))
    for (target, same_target), axes in zip(by_target.items(), panels, strict=True):
        for system, colour in _COLOURS.items():
            points: list[tuple[float, float]] = []
            heights: list[float] = []
            for result in same_target:
                if result.system != system:
                    continue

                # A layer with a number is a point of the curve; the mix and log-mel have no place
                # on its axis.
                percent = 100 * result.error
                if result.layer.isdigit():
                    number = int(result.layer)
                    points.append((number, percent))
                else:
                    heights.append(percent)

            draw_line(axes, points, system, marker="o", color=colour)

            label = system if system == LOG_MEL else f"{system}, {MIX}"
            for height in heights:
                axes.axhline(height, linestyle="--", linewidth=0.8, color=colour, label=label)

        finish_panel(axes, f"{target}: error (%)", "layer")

    save_figure(figure, out_png)


def write_probes(results: Sequence[Probed], out: Path, about: Mapping[str, str]) -> None:
    """Write ``probe.json`` and ``probe.png`` into the folder ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    rows = [asdict(result) for result in results]
    table = {**about, "results": rows}
    write_atomic(out / PROBE_JSON, as_json(table))

    plot(results, out / PROBE_PNG)


def _percent(fraction: float) -> str:
    percent = 100 * fraction
    return f"{percent:.1f}"


def _title(layer: str) -> str:
    """Name a column of the table."""
    if layer.isdigit():
        return f"layer {layer}"
    return layer
