"""The watch over a run's health: it finds runs that learn nothing, from their metrics."""

import math
from collections import deque
from collections.abc import Mapping

from pydantic import Field

from speechssl.config import Settings
from speechssl.errors import TrainingError

# Metrics whose means decide; a task may lack the last two.
WATCHED = ("loss", "chance", "accuracy", "code_perplexity")

# A verdict on chance needs at least so many windows of updates.
MIN_WINDOWS = 5


class HealthConfig(Settings):
    """When a pretraining run counts as lost."""

    window: int = Field(50, ge=1, description="updates that the averages cover")
    chance_after: float = Field(
        0.3,
        ge=0,
        le=1,
        description="share of the steps after which chance is a fault, if five windows have passed",
    )
    chance_margin: float = Field(0.02, ge=0, description="nats below chance that count as learning")
    collapse_chance: float = Field(
        0.5, ge=0, description="nats; chance at or below it: no negatives left"
    )
    collapse_perplexity: float = Field(
        2.0, ge=1, description="code perplexity per codebook at or below it"
    )


class Health:
    """Recognises from its metrics a run that is stuck at chance, and one that has collapsed.

    At chance, the loss has not fallen below its value when all logits are equal. For the
    contrastive loss that is ln(1 + K), or less where negatives were left out because they equal the
    positive.

    In a collapse nearly every target has the same code: in the whole batch (the perplexity is near
    1), or within each utterance (no negative differs from its positive, so chance is near 0). A
    high accuracy alone is no sign of a collapse: a small or simple corpus can be solved.
    """

    def __init__(self, config: HealthConfig, total_steps: int) -> None:
        self.config = config
        self.recent: deque[Mapping[str, float]] = deque(maxlen=config.window)

        # A young run is rightly at chance: tiny leaves it after about 150 updates. So a short trial
        # gets no verdict.
        self.patience = max(MIN_WINDOWS * config.window, int(config.chance_after * total_steps))

    def remember(self, metrics: Mapping[str, float]) -> bool:
        """Take an update's metrics into the averages.

        A resumed run calls this for its earlier updates, so that its verdicts are those of a run
        that never stopped.

        Returns:
            False where the metrics tell nothing: the update was not finite and changed nothing, or
            the task has no chance.
        """
        tells = "chance" in metrics and math.isfinite(metrics["loss"])
        if tells:
            self.recent.append(metrics)
        return tells

    def check(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of update ``step`` (from 0), and judge the run.

        Raises:
            TrainingError: names the cause and the settings to change.
        """
        tells = self.remember(metrics)
        if not tells or len(self.recent) < self.config.window:
            return

        watched = [name for name in WATCHED if name in metrics]
        mean = {name: self._mean(name) for name in watched}

        if self._has_collapsed(mean):
            raise TrainingError(
                f"collapsed after {step + 1} updates: accuracy {mean['accuracy']:.3f}, "
                f"loss {mean['loss']:.3f} nats, chance {mean['chance']:.3f}, "
                f"code perplexity {mean['code_perplexity']:.1f}; "
                "almost every target of an utterance has the same code. Raise "
                "contrastive.diversity_weight, lower optim.lr, or slow quantizer.temperature_decay"
            )

        if step + 1 >= self.patience and self.at_chance():
            raise TrainingError(
                f"stuck at chance after {step + 1} updates: loss {mean['loss']:.3f} nats, "
                f"chance {mean['chance']:.3f}; the model predicts nothing. Try a lower optim.lr, "
                "a longer optim.warmup, more batch.seconds, or check that the audio is speech"
            )

    def at_chance(self) -> bool:
        """Tell whether the mean loss of the last updates is no better than chance.

        False for a task without chance.
        """
        if not self.recent:
            return False

        gain = sum(row["chance"] - row["loss"] for row in self.recent)
        return gain < self.config.chance_margin * len(self.recent)

    def _mean(self, name: str) -> float:
        return sum(row[name] for row in self.recent) / len(self.recent)

    def _has_collapsed(self, mean: Mapping[str, float]) -> bool:
        # A task without codes cannot collapse in this way.
        if "code_perplexity" not in mean:
            return False

        one_code_in_all = mean["code_perplexity"] <= self.config.collapse_perplexity
        one_code_in_each = mean["chance"] <= self.config.collapse_chance
        return one_code_in_all or one_code_in_each
