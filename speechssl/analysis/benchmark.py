"""What all benchmarks share: the measures of a result, how it is printed, what is refused.

A benchmark makes seeded synthetic speech in a temporary folder and runs what the verb of its name
runs. It returns a table of JSON values:

- ``bench``: the verb.
- ``about`` and ``machine``: what ran, and where.
- The measures of ``LABELS``; repeated ones as median, low and high.
- ``parts``, for training: seconds and share of an update.
"""

from collections.abc import Mapping
from typing import Any

import torch

from speechssl.analysis.profiler import Spread
from speechssl.config import Table
from speechssl.errors import ConfigError
from speechssl.runtime.device import Precision
from speechssl.runtime.machine import describe_machine
from speechssl.tables import text_table

LABELS = {
    "audio_s_per_s": "seconds of audio per second",
    "long_audio_s_per_s": "seconds of audio per second, one long file",
    "short_audio_s_per_s": "seconds of audio per second, short files",
    "bare_audio_s_per_s": "the same of a loop that only decodes",
    "time_over_bare": "time over that of this loop",
    "update_s": "seconds per update",
    "peak_memory_gb": "peak memory of this process, GB",
    "matmul_peak": "best matrix product here, FLOP/s",
    "needed_flops": "matrix products of the plain architecture, without padding, FLOP/s",
    "needed_share": "of the best",
    "run_flops": "matrix products that were run, FLOP/s",
    "run_share": "of the best",
}
"""Measures, in the order of the printed table."""

# Least and most audio to work on, seconds.
_LEAST_S = 5
_MOST_S = 86_400


def as_text(table: Table) -> str:
    """Print what a benchmark returned for people: two lines and Markdown tables."""
    about = _joined(table["about"])
    machine = _joined(table["machine"])
    measures = [
        (label, _cell(name, table[name])) for name, label in LABELS.items() if name in table
    ]
    text = f"{table['bench']}: {about}\n{machine}\n\n"
    text += text_table(("measure", "value"), measures)

    if "parts" in table:
        parts = [
            (name, f"{part['seconds']:.4f}", f"{part['share']:.1%}")
            for name, part in table["parts"].items()
        ]
        text += "\n" + text_table(("part of an update", "seconds", "share"), parts)

    return text


def check_size(seconds: float, repeats: int) -> None:
    """Refuse too little or too much work.

    Raises:
        ConfigError: names the option.
    """
    if not _LEAST_S <= seconds <= _MOST_S:  # refuses NaN too
        raise ConfigError(
            f"--seconds is {seconds:g}: give {_LEAST_S} to {_MOST_S} seconds of audio"
        )
    if repeats < 1:
        raise ConfigError(f"--repeats is {repeats}: give at least 1")


def machine_and_precision(device: torch.device, precision: Precision = "float32") -> Table:
    """Describe the machine and the precision that a benchmark computes in."""
    return describe_machine(device) | {"precision": precision}


def flop_rates(name: str, rate: float, best: float) -> Table:
    """Make the two measures of operations: their rate (FLOP/s) and its share of the best rate.

    Args:
        name: needed or run.
    """
    return {f"{name}_flops": rate, f"{name}_share": rate / best}


def _joined(table: Mapping[str, Any]) -> str:
    """Print names and values on one line."""
    return ", ".join(f"{name} {value}" for name, value in table.items())


def _cell(name: str, value: Any) -> str:
    """Print a measure."""
    if isinstance(value, Mapping):
        return str(Spread(**value))
    if name.endswith("_share"):
        return f"{value:.1%}"
    return f"{value:.3g}"
