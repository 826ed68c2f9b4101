"""What rank 0 writes of a run: metrics, progress lines, pictures, updates that were not finite."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechssl.pictures import plot_errors, plot_training
from speechssl.runtime.log import log
from speechssl.storage.json_text import ascii_json_line
from speechssl.training.health import Health
from speechssl.training.metrics import MetricsFile, ProgressLines, keep_first_steps
from speechssl.training.settings import TrainConfig

# A picture reads the whole metrics file, so there is at most one in so many seconds.
PLOT_EVERY_S = 60.0

METRICS = "metrics.jsonl"

# Updates whose gradient was not finite, and their utterances.
BAD_STEPS = "bad_steps.jsonl"


class Journal:
    """Writes the metrics of a run as file, progress lines and pictures, and watches its health."""

    def __init__(
        self, run: Path, train: TrainConfig, step: int, errors_picture: str | None = None
    ) -> None:
        """Continue the files of a run after its first ``step`` updates.

        Lines of later updates are of work that a kill threw away: they are removed.

        Args:
            errors_picture: file name of the picture of measurements; None = nothing is measured.
        """
        self.run = run
        self.errors_picture = errors_picture
        self.plotted_at = -math.inf
        self.lines = ProgressLines(train.log_every, train.steps)

        # The verdicts of a resumed run must be those of one that never stopped.
        self.health = Health(train.health, train.steps)
        for row in keep_first_steps(run / METRICS, step):
            self.health.remember(row)

        if (run / BAD_STEPS).exists():
            keep_first_steps(run / BAD_STEPS, step)

        self.metrics = MetricsFile(run / METRICS)

    def add(self, row: Mapping[str, Any]) -> None:
        """Take the metrics of an update, which may still be computed on the device."""
        self.metrics.add(row)

    def write(self) -> None:
        """Write what was added, and judge it.

        Raises:
            TrainingError: the run is at chance or has collapsed.
        """
        for row in self.metrics.flush():
            self.health.check(int(row["step"]) - 1, row)
            self.lines.add(row)

    def draw(self, at_once: bool) -> None:
        """Draw pictures, when ``at_once`` or when the last ones are old."""
        is_old = time.monotonic() - self.plotted_at > PLOT_EVERY_S
        if not (at_once or is_old):
            return

        self.plotted_at = time.monotonic()
        plot_training(self.run / METRICS, self.run / "loss.png")
        if self.errors_picture:
            plot_errors(self.run / METRICS, self.run / self.errors_picture)

    def end(self) -> None:
        """Say after the last update whether the run learned anything.

        A short run is too young for an error: its model is kept.
        """
        if self.health.at_chance():
            log("the run ends at chance: its model predicts nothing yet. Give more train.steps")


def report_bad_step(run: Path, step: int, utterances: Sequence[str]) -> None:
    """List the utterances of update ``step`` (from 0), whose gradient was not finite."""
    with (run / BAD_STEPS).open("a", encoding="utf-8") as file:
        file.write(ascii_json_line({"step": step + 1, "utterances": utterances}))

    log(
        f"update {step + 1}: gradient not finite, nothing changed; "
        f"utterances {', '.join(utterances[:5])} ..."
    )
