"""Lost runs are stopped, healthy ones never are, and a bad batch costs only itself."""

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.settings import SETTINGS
from support.speech import RATE

from speechssl.audio.reader import write_wav
from speechssl.config import build, merge
from speechssl.data.batches import Batches
from speechssl.data.collate import Batch
from speechssl.data.prepare import prepare
from speechssl.errors import TrainingError
from speechssl.pretraining.pretrain import pretrain
from speechssl.pretraining.settings import PretrainSettings
from speechssl.storage.json_text import read_json_lines
from speechssl.training import loop

STEPS = 300  # the watch gives its verdict from update 250 on


def settings(seed: int = 0, **over: Any) -> PretrainSettings:
    more = {
        "encoder": {"dropout": 0.0, "attention_dropout": 0.0, "layer_drop": 0.0},
        "optim": {"lr": 8e-3},
        "batch": {"seconds": 24},
        "train": {"steps": STEPS, "seed": seed, "save_every": 100, "log_every": 10},
    }  # it learns within 100 updates
    return build(PretrainSettings, merge(merge(SETTINGS, more), over))


@pytest.mark.parametrize("task", ["contrastive", "random_projection"])
def test_healthy_seeds_go_on(
    task: str, labelled_store: Path, tmp_path: Path, campaign: Any
) -> None:
    seeds, margins = campaign.size(1, 20), list[float]()
    for seed in range(seeds):
        run = tmp_path / str(seed)
        pretrain([labelled_store], run, settings(seed, task=task))
        last = read_json_lines(run / "metrics.jsonl")[-50:]
        margins.append(float(np.mean([row["chance"] - row["loss"] for row in last])))
    assert min(margins) > 0.1  # far from the verdict, which would have come at 0.02
    campaign.figures |= {
        "tries": seeds,
        "failures": 0,
        "nats below chance, least": round(min(margins), 2),
    }


def constant(_rng: np.random.Generator) -> np.ndarray:
    """A hum: all frames look alike."""
    return 0.3 * np.sin(2 * np.pi * 200 * np.arange(3 * RATE) / RATE)


def noise(rng: np.random.Generator) -> np.ndarray:
    """Nothing to predict from what is around."""
    return 0.1 * rng.standard_normal(3 * RATE)


PLANTED = {
    "it does not learn": ({"optim": {"lr": 1e-9}}, None, "stuck at chance"),
    "it learns too fast": (
        {"optim": {"lr": 3.0, "warmup": 0.0}},
        None,
        "stuck at chance|collapsed|not finite",
    ),
    "the audio is a hum": ({}, constant, "stuck at chance|collapsed"),
    "the audio is noise": ({"optim": {"lr": 1e-4}}, noise, "stuck at chance|collapsed"),
}


@pytest.mark.parametrize("cause", PLANTED)
def test_lost_runs_are_stopped(
    cause: str, labelled_store: Path, tmp_path: Path, campaign: Any
) -> None:
    over, audio, verdict = PLANTED[cause]
    store, seeds = labelled_store, campaign.size(1, 5)
    if audio:
        (tmp_path / "in").mkdir()
        rng = np.random.default_rng(0)
        for number in range(12):
            write_wav(tmp_path / f"in/{number}.wav", audio(rng).astype(np.float32), RATE)
        prepare(tmp_path / "in", tmp_path / "store")
        store = tmp_path / "store"
    for seed in range(seeds):
        with pytest.raises(TrainingError, match=verdict):
            pretrain([store], tmp_path / f"run{seed}", settings(seed, **over))
    campaign.figures |= {"tries": seeds, "failures": 0}


def poisoned(steps: Iterable[int], heard: dict[int, list[str]]) -> Any:
    """Batches with a value that is not finite in some updates, whose utterances go to ``heard``."""
    inner, chosen = Batches.micro_batches, set(steps)

    def micro_batches(self: Batches, step: int, rank: int = 0, ranks: int = 1) -> list[Batch]:
        found = inner(self, step, rank, ranks)
        if step in chosen:
            found[0].inputs[0, 5, 3] = float("nan")
            heard[step] = [i for batch in found for i in batch.ids]
        return found

    return micro_batches


def test_a_batch_that_is_not_finite_changes_nothing(
    labelled_store: Path, tmp_path: Path, campaign: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves weights and optimiser alone, is listed, and ends the run when others follow."""
    plans, draws = campaign.size(2, 20), random.Random(0)
    changed: list[bool] = []
    inner = loop._update

    def update(
        model: torch.nn.Module, batches: Any, optimizer: torch.optim.Optimizer, *rest: Any
    ) -> Any:
        def state() -> list[torch.Tensor]:
            kept = [value for own in optimizer.state.values() for value in own.values()]
            return [value.detach().clone() for value in (*model.parameters(), *kept)]

        before = state()
        try:
            return inner(model, batches, optimizer, *rest)
        finally:
            after = state()
            changed.append(len(before) != len(after) or not all(map(torch.equal, before, after)))

    monkeypatch.setattr(loop, "_update", update)
    for plan in range(plans):
        run, bad = tmp_path / str(plan), sorted(draws.sample(range(0, 19, 2), 5))
        changed.clear()
        heard: dict[int, list[str]] = {}

        with monkeypatch.context() as patch:
            patch.setattr(Batches, "micro_batches", poisoned([*bad, 21, 22, 23], heard))
            over = {"steps": 40, "save_every": 4, "max_bad_steps": 3, "seed": plan}
            with pytest.raises(
                TrainingError, match=r"3 updates in a row were not finite \(last: 24\)"
            ):
                pretrain([labelled_store], run, settings(train=over))

        listed = [json.loads(line) for line in (run / "bad_steps.jsonl").read_text().splitlines()]
        steps = [*bad, 21, 22, 23]
        assert [(row["step"] - 1, row["utterances"]) for row in listed] == [
            (step, heard[step]) for step in steps
        ]
        assert changed == [step not in steps for step in range(24)]

    campaign.figures |= {"tries": plans, "failures": 0}
