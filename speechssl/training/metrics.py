"""What a run says while it trains: ``metrics.jsonl``, one line per update, and progress lines on stderr."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from speechssl.runtime.log import log
from speechssl.storage.atomic import write_atomic
from speechssl.storage.json_text import ascii_json_line, read_json_lines

MEASURED, PROBE = (
    ("dev_wer", "dev_cer"),
    "probe_",
)  # error rates among the metrics: of a recogniser, of linear probes


def cut_back(path: Path, step: int) -> list[dict[str, Any]]:
    """Keep the rows of the first ``step`` updates, and return them: later ones are of work that a kill threw away."""
    rows = [row for row in read_json_lines(path) if row.get("step", 0) <= step]
    write_atomic(path, "".join(map(ascii_json_line, rows)))
    return rows


class MetricsFile:
    """``metrics.jsonl``: one JSON object per update; values stay on the device until they are flushed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pending: list[Mapping[str, Any]] = []

    def add(self, row: Mapping[str, Any]) -> None:
        self.pending.append(row)

    def flush(self) -> list[dict[str, float]]:
        """Write what is pending; returns it as plain numbers."""
        rows = [
            {k: v.item() if isinstance(v, Tensor) else v for k, v in row.items()}
            for row in self.pending
        ]
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(map(ascii_json_line, rows)))
            file.flush()
            os.fsync(file.fileno())
        self.pending = []
        return rows


class Console:
    """RunState lines on stderr: means since the last line, of updates that were finite."""

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
        self.log_every, self.total_steps = log_every, total_steps
        self.rows: list[Mapping[str, float]] = []

    def line(self, row: Mapping[str, float]) -> None:
        """Take one update's metrics; print when a line is due."""
        self.rows.append(row)
        done = int(row["step"])
        measured = [name for name in row if name in MEASURED or name.startswith(PROBE)]
        if done % self.log_every and done != self.total_steps and not measured:
            return
        seconds, audio_s, data_s = (
            sum(r[name] for r in self.rows) for name in ("time_s", "audio_s", "data_s")
        )
        parts = [f"update {done}/{self.total_steps}"]
        for name in self.SHOWN:
            if name in row:
                finite = [r[name] for r in self.rows if math.isfinite(r[name])] or [math.nan]
                parts.append(f"{name} {sum(finite) / len(finite):.3g}")
        parts += [f"{name} {row[name]:.1%}" for name in measured]
        parts += [
            f"lr {row['lr']:.2e}",
            f"{audio_s / seconds:.0f} s/s",
            f"data {data_s / seconds:.1%}",
        ]
        left = seconds / len(self.rows) * (self.total_steps - done)
        log("  ".join([*parts, f"left {left / 60:.1f} min"]))
        self.rows = []
