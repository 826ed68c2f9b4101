"""What a model reports of a batch, and the watch over a run's health."""

import math
from collections import deque
from collections.abc import Mapping

from pydantic import Field

from speechssl.config import Settings
from speechssl.errors import TrainingError


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
    """Recognises a run at chance and a collapsed one from its metrics.

    Chance: the contrastive loss has not left its value when all logits are equal: ln(1 + K), or less where negatives
    were left out because they equal the positive. Collapse: nearly every target has the same code, in the whole batch
    (perplexity near 1) or within each utterance (no negative differs from its positive, so chance is near 0).
    Accuracy alone is no sign of it: a small or simple corpus can be solved.
    """

    def __init__(self, config: HealthConfig, total_steps: int) -> None:
        self.config = config
        # A young run is at chance rightly: tiny leaves it after about 150 updates, so a short trial gets no verdict.
        self.patience = max(5 * config.window, int(config.chance_after * total_steps))
        self.recent: deque[Mapping[str, float]] = deque(maxlen=config.window)

    def remember(self, metrics: Mapping[str, float]) -> bool:
        """Take an update's metrics into the averages; False for one that changed nothing, or of a task without chance.

        For a resumed run, whose verdicts must be those of one that never stopped.
        """
        tells = "chance" in metrics and math.isfinite(metrics["loss"])
        if tells:
            self.recent.append(metrics)
        return tells

    def check(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of update ``step`` (from 0).

        Raises:
            TrainingError: names the cause and the settings to change.
        """
        if not self.remember(metrics) or len(self.recent) < self.config.window:
            return
        watched = [
            name for name in ("loss", "chance", "accuracy", "code_perplexity") if name in metrics
        ]
        mean = {name: sum(row[name] for row in self.recent) / len(self.recent) for name in watched}
        config = self.config
        if "code_perplexity" not in mean:  # a task without codes
            pass
        elif (
            mean["code_perplexity"] <= config.collapse_perplexity
            or mean["chance"] <= config.collapse_chance
        ):
            self._collapsed(step, mean)
        if step + 1 >= self.patience and self.at_chance():
            raise TrainingError(
                f"stuck at chance after {step + 1} updates: loss {mean['loss']:.3f} nats, chance {mean['chance']:.3f}; "
                "the model predicts nothing. Try a lower optim.lr, a longer optim.warmup, more batch.seconds, "
                "or check that the audio is speech"
            )

    def at_chance(self) -> bool:
        """Whether the last updates' mean loss is no better than chance; False of a task without chance."""
        gain = sum(row["chance"] - row["loss"] for row in self.recent)
        return bool(self.recent) and gain < self.config.chance_margin * len(self.recent)

    def _collapsed(self, step: int, mean: Mapping[str, float]) -> None:
        raise TrainingError(
            f"collapsed after {step + 1} updates: accuracy {mean['accuracy']:.3f}, loss {mean['loss']:.3f} nats, "
            f"chance {mean['chance']:.3f}, code perplexity {mean['code_perplexity']:.1f}; "
            "almost every target of an utterance has the same code. "
            "Raise contrastive.diversity_weight, lower optim.lr, or slow quantizer.temperature_decay"
        )
