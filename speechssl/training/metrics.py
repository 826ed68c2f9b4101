"""The metrics of a run: ``metrics.jsonl``, one line per update, and progress lines on stderr."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from speechssl.runtime.log import log
from speechssl.storage.atomic import write_atomic
from speechssl.storage.json_text import Row, ascii_json_line, read_json_lines

# Error rates among the metrics: of a recogniser, and of linear probes by the start of their names.
ERROR_RATES = ("dev_wer", "dev_cer", "dev_per")
PROBE_PREFIX = "probe_"


def keep_first_steps(path: Path, step: int) -> list[Row]:
    """Remove the rows of updates after the first ``step``, whose work a kill threw away.

    Returns:
        The rows that stay.
    """
    rows = [row for row in read_json_lines(path) if row.get("step", 0) <= step]
    write_atomic(path, [ascii_json_line(row) for row in rows])
    return rows


class MetricsFile:
    """Writes ``metrics.jsonl``, one JSON object per update.

    Values stay on the device until they are flushed: to read each at once would make the CPU wait.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pending: list[Mapping[str, Any]] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """Take a row, of numbers and of tensors () on any device."""
        self.pending.append(row)

    def flush(self) -> list[dict[str, float]]:
        """Write what is pending; returns it as plain numbers."""
        rows = [_as_numbers(row) for row in self.pending]
        lines = [ascii_json_line(row) for row in rows]

        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(lines))
            # Onto the disk: a checkpoint that is written next must not be ahead of it.
            file.flush()
            os.fsync(file.fileno())

        self.pending = []
        return rows


def _as_numbers(row: Mapping[str, Any]) -> dict[str, float]:
    numbers = {}
    for name, value in row.items():
        numbers[name] = value.item() if isinstance(value, Tensor) else value
    return numbers


class ProgressLines:
    """Prints progress lines on stderr.

    A line shows means over the updates since the last line, without values that are not finite.
    """

    # Metrics that a line shows where the task has them, in this order.
    SHOWN = (
        "loss",
        "chance",
        "accuracy",
        "code_perplexity",
        "live_codes",
        "masked_share",
        "blank_share",
        "grad_norm",
    )

    def __init__(self, log_every: int, total_steps: int) -> None:
        self.log_every = log_every
        self.total_steps = total_steps
        self.rows: list[Mapping[str, float]] = []

    def add(self, row: Mapping[str, float]) -> None:
        """Take one update's metrics; print when a line is due."""
        self.rows.append(row)

        done = int(row["step"])
        measured = [name for name in row if _is_error_rate(name)]
        is_due = done % self.log_every == 0 or done == self.total_steps
        if is_due or measured:
            log(self._line(row, done, measured))
            self.rows = []

    def _line(self, row: Mapping[str, float], done: int, measured: Sequence[str]) -> str:
        """Write the line after update ``done``, whose metrics are ``row``.

        Args:
            measured: names of the error rates to show.
        """
        parts = [f"update {done}/{self.total_steps}"]

        for name in self.SHOWN:
            if name in row:
                parts.append(f"{name} {self._mean_of_finite(name):.3g}")
        for name in measured:
            parts.append(f"{name} {row[name]:.1%}")

        seconds = self._sum("time_s")
        audio_s = self._sum("audio_s")
        data_s = self._sum("data_s")
        parts.append(f"lr {row['lr']:.2e}")
        parts.append(f"{audio_s / seconds:.0f} s/s")
        parts.append(f"data {data_s / seconds:.1%}")

        left_s = seconds / len(self.rows) * (self.total_steps - done)
        parts.append(f"left {left_s / 60:.1f} min")
        return "  ".join(parts)

    def _sum(self, name: str) -> float:
        return sum(row[name] for row in self.rows)

    def _mean_of_finite(self, name: str) -> float:
        values = [row[name] for row in self.rows if math.isfinite(row[name])]
        return sum(values) / len(values) if values else math.nan


def _is_error_rate(name: str) -> bool:
    return name in ERROR_RATES or name.startswith(PROBE_PREFIX)
