"""The one loop, for pretraining and fine-tuning: update, log, validate, save; resumed by calling it again."""

import math
import operator
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from speechssl.config import Settings, Table, as_table
from speechssl.data.dataset import Batch
from speechssl.errors import ConfigError, TrainingError
from speechssl.pictures import plot_errors, plot_training
from speechssl.runtime import distributed
from speechssl.runtime.device import Device, Precision, autocast, pick_device
from speechssl.runtime.distributed import log_once
from speechssl.runtime.log import log
from speechssl.runtime.processes import stop_flag
from speechssl.runtime.seeds import derive_seed
from speechssl.storage.atomic import write_atomic
from speechssl.storage.checkpoint import (
    step_folder,
)
from speechssl.storage.json_text import ascii_json_line
from speechssl.training.health import Health, HealthConfig
from speechssl.training.loss import StatisticsModel
from speechssl.training.metrics import Console, MetricsFile, cut_back
from speechssl.training.optim import OptimConfig, learning_rate, make_optimizer
from speechssl.training.run_folder import RunState, claim, resume, save_checkpoint

PLOT_EVERY_S = 60.0  # a picture reads the whole metrics file
BAD_STEPS = "bad_steps.jsonl"  # updates whose gradient was not finite, and their utterances


class TrainConfig(Settings):
    """Length, cadence and safety of a run."""

    steps: int = Field(1000, ge=1, description="updates in all")
    seed: int = Field(0, ge=0)
    log_every: int = Field(25, ge=1, description="updates between progress lines")
    save_every: int = Field(200, ge=1, description="updates between checkpoints")
    validate_every: int = Field(
        200, ge=1, description="updates between measurements on the development set"
    )
    keep: int = Field(2, ge=1, description="checkpoints kept")
    max_bad_steps: int = Field(5, ge=1, description="non-finite updates in a row that stop the run")
    device: Device = Field("auto")
    precision: Precision = Field("float32", description="bfloat16: autocast of the matrix products")
    health: HealthConfig = Field(HealthConfig())


class StepBatches(Protocol):
    """Where the data of an update comes from; process ``rank`` of ``ranks`` gets its share, which may be empty."""

    def micro_batches(self, step: int, rank: int = 0, ranks: int = 1) -> list[Batch]: ...


@dataclass(frozen=True)
class Validation:
    """How a run measures itself while it trains, and keeps its best model."""

    measure: Callable[[], Mapping[str, float]]
    best_by: str
    """Key of ``measure``'s result; lower is better."""
    keep_best: Callable[[Mapping[str, float]], None]
    picture: str = "wer.png"


def fit(
    model: nn.Module,
    batches: StepBatches,
    optim: OptimConfig,
    train: TrainConfig,
    run: str | Path,
    settings: Table | None = None,
    validation: Validation | None = None,
    notes: Mapping[str, str] | None = None,
    finish: Callable[[], None] = lambda: None,
) -> None:
    """Train ``model`` in the run folder ``run`` until ``train.steps`` updates are done.

    The same call continues a run that was stopped in any way, and gives the same weights as one that never was: update
    ``step`` depends on nothing but the seed, the step and the weights. ``model(batch, step)`` returns a ``LossOutput``
    of sums (see ``training.loss`` for a loss that needs statistics of the whole update); gradients of all micro-batches are added and divided once by the update's whole weight.
    Under torchrun all processes call it alike and share every update (``ranks``); rank 0 alone validates and writes.

    Writes ``settings.json``, ``metrics.jsonl`` (one line per update), pictures, and ``checkpoints/``.

    Args:
        model: moved to ``train.device``; parameters that do not require a gradient stay as they are.
        batches: where the data of an update comes from; only asked for the step that is due.
        run: a run folder of these very settings, or one that is empty or not there.
        settings: all resolved settings, JSON values (default: ``optim`` and ``train``); a run folder made with
            others is refused.
        validation: measured every ``train.validate_every`` updates and after the last.
        notes: texts by file name to keep in the run folder, once it is known to be this run's.
        finish: called by rank 0 after the last update, while the run folder is still this process's alone.

    Raises:
        ConfigError: the folder holds another run, or something else, or another process trains in it.
        TrainingError: the run is lost (chance, collapse, not finite); its last checkpoint stays.
        SystemExit: 143 after SIGTERM, 130 after SIGINT (Ctrl-C), once a checkpoint is written.
    """
    run, device = Path(run), pick_device(train.device)
    distributed.start(device)
    with ExitStack() as held:
        with distributed.fail_on_all_ranks():
            if distributed.rank() == 0:
                claim(run, settings or {"optim": as_table(optim), "train": as_table(train)}, held)
                for name, text in (notes or {}).items():
                    write_atomic(run / name, text)
        _fit(model, batches, optim, train, run, device, validation)
        with distributed.fail_on_all_ranks():
            if distributed.rank() == 0:
                finish()


def _fit(
    model: nn.Module,
    batches: StepBatches,
    optim: OptimConfig,
    train: TrainConfig,
    run: Path,
    device: torch.device,
    validation: Validation | None,
) -> None:
    """``fit`` in a folder that is this run's, and nobody else's meanwhile."""
    first = distributed.rank() == 0
    model.to(device)
    optimizer = make_optimizer([p for p in model.parameters() if p.requires_grad], optim)
    progress = resume(model, optimizer, run)
    if progress.step >= train.steps:
        log_once(
            f"all {train.steps} updates of {run} are done already: give another run folder for more (or --force)"
        )
    _start_alike(model, progress, run)
    with distributed.fail_on_all_ranks():
        journal = _Journal(run, train, progress.step) if first else None
    with stop_flag() as stopping:
        while progress.step < train.steps:
            row = _update(model, batches, optimizer, optim, train, progress, run)
            progress.step = done = progress.step + 1
            last = done == train.steps
            if validation and (last or done % train.validate_every == 0):
                with distributed.fail_on_all_ranks():
                    if first:
                        row |= _validate(model, validation, progress)
            # Asked once: a signal must not arrive between saving and leaving.
            stop = distributed.any_rank(bool(stopping))
            saves = last or done % train.save_every == 0 or stop
            with distributed.fail_on_all_ranks():
                if journal:
                    journal.metrics.add(row)
                    if saves or done % train.log_every == 0:
                        # Before saving: a checkpoint must never be ahead of the file that a resumed run continues.
                        journal.write()
                    if saves:
                        save_checkpoint(model, optimizer, progress, run, train.keep)
                        journal.draw(last or stop, validation.picture if validation else None)
                    if last and journal.health.at_chance():
                        log_once(
                            "the run ends at chance: its model predicts nothing yet. Give more train.steps"
                        )
            if stop:
                number = stopping[0] if stopping else signal.SIGTERM
                log_once(
                    f"{signal.Signals(number).name}: saved {step_folder(run, done)}; the same command, without "
                    "--force, goes on from here"
                )
                raise SystemExit(128 + number)


def _update(
    model: nn.Module,
    batches: StepBatches,
    optimizer: torch.optim.Optimizer,
    optim: OptimConfig,
    train: TrainConfig,
    progress: RunState,
    run: Path,
) -> dict[str, Any]:
    """One update; returns its metrics, still on the device."""
    step, started = progress.step, time.perf_counter()
    device = next(model.parameters()).device
    with distributed.fail_on_all_ranks():
        micro_batches = [
            batch.to(device)
            for batch in batches.micro_batches(step, distributed.rank(), distributed.count())
        ]
    loaded = time.perf_counter()
    model.train()
    optimizer.zero_grad(set_to_none=True)
    with autocast(device, train.precision):
        statistics = _whole_statistics(model, micro_batches, step)
    counts, sums = _add_gradients(model, micro_batches, statistics, step, train)
    distributed.sum_gradients(p for p in model.parameters() if p.requires_grad)
    counts, sums = (
        distributed.sum_over_ranks(counts, torch.device("cpu")),
        distributed.sum_over_ranks(sums, device),
    )
    weight = max(1, counts["weight"])
    parameters = [p for p in model.parameters() if p.grad is not None]
    for parameter in parameters:
        assert parameter.grad is not None
        parameter.grad.div_(weight)
    norm = torch.nn.utils.clip_grad_norm_(parameters, optim.clip_norm)
    rate = learning_rate(step, train.steps, optim)
    for group in optimizer.param_groups:
        group["lr"] = rate
    if bool(torch.isfinite(norm)):
        optimizer.step()
        progress.bad_in_a_row = 0
    else:
        _report_bad(batches, step, progress, train, run)
    row: dict[str, Any] = {"step": step + 1} | {
        name: value / weight for name, value in sums.items()
    }
    now = time.perf_counter()
    return (
        row
        | {"grad_norm": norm, "lr": rate}
        | counts
        | {"data_s": loaded - started, "time_s": now - started}
    )


def _add_gradients(
    model: nn.Module, micro_batches: list[Batch], statistics: Any, step: int, train: TrainConfig
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Leave the summed gradients of this process's ``micro_batches``; returns sums: weight and audio, and metrics."""
    device, rank = next(model.parameters()).device, distributed.rank()
    weight, sums = 0, dict[str, Tensor | float]()
    for index, batch in enumerate(micro_batches):
        # Dropout and layer drop draw from the global generator: seeded here, a resumed run repeats them.
        torch.manual_seed(derive_seed(train.seed, step, index, *([rank] if rank else [])))
        with autocast(device, train.precision):
            if isinstance(model, StatisticsModel):
                output = model(batch, step, statistics)
            else:
                output = model(batch, step)
        output.total.backward()
        weight += output.weight
        for name, value in output.metrics.items():
            sums[name] = sums.get(name, 0.0) + value
    return {"weight": weight, "audio_s": sum(batch.audio_s for batch in micro_batches)}, sums


def _whole_statistics(model: nn.Module, micro_batches: list[Batch], step: int) -> Any:
    """Statistics of the whole update, for a loss that needs them; None where one batch is the whole update."""
    if not isinstance(model, StatisticsModel):
        return None
    if len(micro_batches) == 1 and distributed.count() == 1:
        return None
    parts = [model.statistics(batch, step) for batch in micro_batches]
    own: Any = reduce(operator.add, parts) if parts else None
    whole = distributed.sum_over_ranks(vars(own) if parts else {}, next(model.parameters()).device)
    return replace(own, **whole) if parts else None


def _report_bad(
    batches: StepBatches, step: int, progress: RunState, train: TrainConfig, run: Path
) -> None:
    """A non-finite gradient changed nothing; say which utterances, and stop when it goes on."""
    progress.bad_in_a_row += 1
    with distributed.fail_on_all_ranks():
        if distributed.rank() == 0:
            # Asked for again as one process would: those of all ranks, without a message.
            ids = [i for batch in batches.micro_batches(step) for i in batch.ids]
            with (run / BAD_STEPS).open("a", encoding="utf-8") as file:
                file.write(ascii_json_line({"step": step + 1, "utterances": ids}))
            log(
                f"update {step + 1}: gradient not finite, nothing changed; utterances {', '.join(ids[:5])} ..."
            )
    if progress.bad_in_a_row >= train.max_bad_steps:
        raise TrainingError(
            f"{progress.bad_in_a_row} updates in a row were not finite (last: {step + 1}); their utterances are in "
            f"{run / BAD_STEPS}. Lower optim.lr, or remove those utterances"
        )


class _Journal:
    """What rank 0 writes of a run: metrics, its health, progress lines, pictures."""

    def __init__(self, run: Path, train: TrainConfig, step: int) -> None:
        self.run, self.plotted = run, -math.inf
        self.console = Console(train.log_every, train.steps)
        self.health = Health(train.health, train.steps)
        for row in cut_back(run / "metrics.jsonl", step):
            self.health.remember(row)
        if (run / BAD_STEPS).exists():
            cut_back(run / BAD_STEPS, step)
        self.metrics = MetricsFile(run / "metrics.jsonl")

    def write(self) -> None:
        for new in self.metrics.flush():
            self.health.check(int(new["step"]) - 1, new)
            self.console.line(new)

    def draw(self, at_once: bool, errors: str | None) -> None:
        """Pictures, when ``at_once`` or when the last ones are old."""
        if at_once or time.monotonic() - self.plotted > PLOT_EVERY_S:
            self.plotted = time.monotonic()
            plot_training(self.run / "metrics.jsonl", self.run / "loss.png")
            if errors:
                plot_errors(self.run / "metrics.jsonl", self.run / errors)


def _start_alike(model: nn.Module, progress: RunState, run: Path) -> None:
    """The weights of rank 0 for all, who must have found the same checkpoint."""
    step = torch.tensor(progress.step)
    distributed.copy_from_first([step, *model.state_dict().values()])
    if distributed.any_rank(int(step) != progress.step):
        raise ConfigError(
            f"{run} is not one folder for all processes: give a --run on a disk that they share"
        )


def _validate(model: nn.Module, validation: Validation, progress: RunState) -> Mapping[str, float]:
    model.eval()
    measured = validation.measure()
    if measured[validation.best_by] < progress.best:
        progress.best = measured[validation.best_by]
        validation.keep_best(measured)
    return measured
