"""The watch over a run finds a run at chance and a collapsed one, and lets healthy ones go on."""

import math

import numpy as np
import pytest

from speechssl.errors import TrainingError
from speechssl.training.health import Health, HealthConfig

CHANCE = math.log(101)
Row = dict[str, float]


def row(loss: float, accuracy: float, perplexity: float, chance: float = CHANCE) -> Row:
    return {"loss": loss, "chance": chance, "accuracy": accuracy, "code_perplexity": perplexity}


def watch(rows: list[Row], **settings: float) -> None:
    health = Health(HealthConfig(**settings), len(rows))
    for step, metrics in enumerate(rows):
        health.check(step, metrics)


def is_stopped(rows: list[Row]) -> bool:
    try:
        watch(rows)
    except TrainingError:
        return True
    return False


def noisy(rows: list[Row], size: float = 0.01) -> list[Row]:
    random = np.random.default_rng(0)
    return [r | {"loss": r["loss"] + size * float(random.standard_normal())} for r in rows]


def learning(steps: int) -> list[Row]:
    """A while at chance, then down, as healthy runs are."""
    return noisy(
        [row(max(2.0, min(CHANCE, CHANCE + 0.6 - 4 * s / steps)), 0.3, 80) for s in range(steps)]
    )


def test_a_healthy_run_passes() -> None:
    assert not is_stopped(learning(1000))


def test_a_run_at_chance_is_stopped_once_it_had_its_time() -> None:
    with pytest.raises(
        TrainingError, match=r"stuck at chance after 300 updates: loss 4\.6.*chance 4\.615"
    ) as caught:
        watch(noisy([row(CHANCE, 0.01, 300)] * 1000, size=0.001))
    assert "optim.lr" in str(caught.value)


def test_chance_counts_the_negatives_that_are_left() -> None:
    """With few codes, two thirds of the negatives equal the positive: chance is below ln(1 + K)."""
    left = math.log(1 + 33)
    with pytest.raises(TrainingError, match="stuck at chance"):
        watch([row(left, 0.03, 3.5, left)] * 1000)


def test_chance_early_on_is_no_fault() -> None:
    early = [row(CHANCE, 0.01, 300)] * 250
    assert not is_stopped(early + [row(3.0, 0.3, 300)] * 750)
    assert is_stopped(early + [row(CHANCE, 0.01, 300)] * 750)


def test_a_run_that_falls_back_to_chance_is_stopped() -> None:
    with pytest.raises(TrainingError, match="stuck at chance"):
        watch([*learning(1000)[:600], *[row(CHANCE, 0.01, 80)] * 400])


def test_a_collapsed_codebook_is_found_within_a_window() -> None:
    rows = [row(3.0, 0.3, 80)] * 100 + [row(0.0, 1.0, 1.0, 0.0)] * 100
    with pytest.raises(
        TrainingError, match=r"collapsed after 1\d\d updates.*code perplexity"
    ) as caught:
        watch(rows, window=50)
    assert "contrastive.diversity_weight" in str(caught.value)


def test_a_code_for_each_utterance_is_collapse_however_many_codes_there_are() -> None:
    with pytest.raises(TrainingError, match="collapsed"):
        watch([row(0.01, 1.0, 60, chance=0.05)] * 100)


def test_solving_the_task_is_no_collapse() -> None:
    assert not is_stopped([row(0.02, 0.995, 60)] * 100)


def test_one_odd_update_is_not_a_verdict() -> None:
    rows = learning(1000)
    rows[500] = row(0.0, 1.0, 1.0, 0.0)
    assert not is_stopped(rows)


def test_metrics_of_fine_tuning_are_left_alone() -> None:
    assert not is_stopped([{"loss": 3.0, "blank_share": 1.0}] * 500)
