"""Show the results of probes as a table and as a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from speechssl.analysis.probing import LOG_MEL, MIX, Probed
from speechssl.pictures import draw_line, finish_panel, new_figure, save_figure
from speechssl.storage.atomic import write_atomic
from speechssl.storage.json_text import as_json
from speechssl.tables import text_table

# matplotlib's colours of the systems.
_COLOURS = {"model": "C0", "random": "C1", LOG_MEL: "C2"}


def as_text(results: Sequence[Probed]) -> str:
    """Print a line for each target and system: the error of each layer in per cent."""
    layers = list(dict.fromkeys(r.layer for r in results if r.layer != LOG_MEL))
    columns = [LOG_MEL, *layers]
    rows = []

    for target, system in dict.fromkeys((r.target, r.system) for r in results):
        own = {r.layer: r for r in results if r.target == target and r.system == system}
        errors = [_percent(own[layer].error) if layer in own else "" for layer in columns]
        # Chance and the number of recordings are the same for every layer.
        any_layer = next(iter(own.values()))
        rows.append((target, system, *errors, _percent(any_layer.chance), any_layer.examples))

    titles = [_title(layer) for layer in columns]
    header = ("error, %", "", *titles, "chance", "n")
    return text_table(header, rows)


def plot(results: Sequence[Probed], out_png: Path) -> None:
    """Draw the error by layer, a panel for each target.

    Log-mel and the mix of the layers are dashed lines.
    """
    targets = list(dict.fromkeys(r.target for r in results))
    figure, panels = new_figure(len(targets))

    for target, axes in zip(targets, panels, strict=True):
        for system, colour in _COLOURS.items():
            own = [r for r in results if r.target == target and r.system == system]
            points = [(int(r.layer), 100 * r.error) for r in own if r.layer.isdigit()]
            draw_line(axes, points, system, marker="o", color=colour)

            for result in own:
                if result.layer.isdigit():
                    continue
                label = system if system == LOG_MEL else f"{system}, {MIX}"
                height = 100 * result.error
                axes.axhline(height, linestyle="--", linewidth=0.8, color=colour, label=label)

        finish_panel(axes, f"{target}: error (%)", "layer")

    save_figure(figure, out_png)


def write_probes(results: Sequence[Probed], out: Path, about: Mapping[str, str]) -> None:
    """Write ``probe.json`` and ``probe.png`` into the folder ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    table = {**about, "results": [asdict(result) for result in results]}
    write_atomic(out / "probe.json", as_json(table))
    plot(results, out / "probe.png")


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _title(layer: str) -> str:
    """Name a column of the table."""
    if layer.isdigit():
        return f"layer {layer}"
    return layer
