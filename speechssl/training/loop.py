"""The one training loop, for pretraining and fine-tuning.

It knows no task. It asks a model for the loss of a batch (``training.loss``) and a source of data
for the batches of an update. One turn of the loop is: update, validate, log, save. Calling ``fit``
again continues a run that was stopped.
"""

import operator
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor, nn

from speechssl.config import Table, as_table
from speechssl.data.collate import Batch
from speechssl.errors import ConfigError, TrainingError
from speechssl.runtime import distributed, ranks
from speechssl.runtime.device import autocast, pick_device
from speechssl.runtime.processes import stop_flag
from speechssl.runtime.ranks import log_once
from speechssl.runtime.seeds import derive_seed
from speechssl.storage.atomic import write_atomic
from speechssl.storage.saved_folders import step_folder
from speechssl.training.journal import BAD_STEPS, Journal, report_bad_step
from speechssl.training.loss import StatisticsModel, UpdateMetrics
from speechssl.training.optim import OptimConfig, learning_rate, make_optimizer
from speechssl.training.run_folder import (
    RunState,
    claim,
    note_machine,
    remedies,
    resume,
    save_checkpoint,
)
from speechssl.training.settings import TrainConfig


class StepBatches(Protocol):
    """Where the data of an update comes from."""

    def micro_batches(self, step: int, rank: int = 0, ranks: int = 1) -> list[Batch]:
        """Read the share of process ``rank`` of ``ranks``, which may be empty."""


@dataclass(frozen=True)
class Validation:
    """How a run measures itself while it trains, and keeps its best model, or its last one."""

    measure: Callable[[], Mapping[str, float]]

    best_by: str | None
    """Key of ``measure``'s result, lower is better; None keeps the last model"""

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
    free_settings: Collection[str] = (),
) -> None:
    """Train ``model`` in the run folder ``run`` until ``train.steps`` updates are done.

    The same call continues a run that was stopped in any way. It then gives the same weights as a
    run that never stopped: update ``step`` depends on nothing but the seed, the step and the
    weights.

    The gradients of all micro-batches of an update are added, and divided once by the weight of the
    whole update. So an update does not depend on how its utterances were grouped into
    micro-batches.

    Under torchrun all processes call it alike and share every update (``runtime.distributed``).
    Rank 0 alone validates and writes.

    Writes ``settings.json``, ``machine.jsonl`` (one line per start), ``metrics.jsonl`` (one line
    per update), pictures, and ``checkpoints/``.

    Args:
        model: returns a ``LossOutput``, see ``training.loss``. It is moved to ``train.device``;
            parameters that do not require a gradient stay as they are.
        batches: where the data of an update comes from; only asked for the step that is due.
        run: a run folder of these very settings, or one that is empty or not there.
        settings: all resolved settings, JSON values (default: ``optim`` and ``train``). A run
            folder made with others is refused.
        validation: measured every ``train.validate_every`` updates and after the last.
        notes: texts by file name to keep in the run folder, once it is known to be this run's.
        finish: called by rank 0 after the last update, while the run folder is still locked.
        free_settings: names (such as "init.path") that may differ when this kind of run continues,
            besides those that may differ for every run.

    Raises:
        ConfigError: the folder holds another run, or something else, or another process trains in
            it.
        TrainingError: the run is lost (chance, collapse, not finite); its last checkpoint stays.
        SystemExit: 143 after SIGTERM, 129 after SIGHUP, 130 after SIGINT (Ctrl-C), once a
            checkpoint is written; after the last update, once ``finish`` is done.
    """
    run = Path(run)
    device = pick_device(train.device)
    distributed.start(device)

    # Whatever decides the weights must be in the folder, so that another run is known as such.
    if not settings:
        settings = {"optim": as_table(optim), "train": as_table(train)}

    # The folder stays locked until the model is saved: another process with the same command would
    # delete what is half written of it. Until then signals are listened to as well.
    with stop_flag() as received, ExitStack() as held:
        with distributed.fail_on_all_ranks():
            if ranks.rank() == 0:
                claim(run, settings, free_settings, held)
                _write_notes(run, notes or {})

        _train(model, batches, optim, train, run, device, validation, received)

        with distributed.fail_on_all_ranks():
            if ranks.rank() == 0:
                finish()

    if distributed.any_rank(bool(received)):
        _leave(received, f"all {train.steps} updates of {run} are done and its model is saved")


def _write_notes(run: Path, notes: Mapping[str, str]) -> None:
    for name, text in notes.items():
        write_atomic(run / name, text)


def _train(
    model: nn.Module,
    batches: StepBatches,
    optim: OptimConfig,
    train: TrainConfig,
    run: Path,
    device: torch.device,
    validation: Validation | None,
    received: Sequence[int],
) -> None:
    """Do the updates that are left, in a run folder that belongs to this run alone.

    Args:
        received: numbers of the signals that came. One before the last update ends the process
            here, once a checkpoint is written; a later one leaves its model to be saved first.
    """
    model.to(device)
    optimizer = make_optimizer([p for p in model.parameters() if p.requires_grad], optim)

    state = resume(model, optimizer, run)
    if state.step >= train.steps:
        log_once(f"all {train.steps} updates of {run} are done already: for more {remedies(run)}")
    _start_alike(model, state, run)

    journal = None
    with distributed.fail_on_all_ranks():
        if ranks.rank() == 0:
            errors_picture = validation.picture if validation else None
            journal = Journal(run, train, state.step, errors_picture)
            if state.step < train.steps:
                note_machine(run, state.step, device)

    while state.step < train.steps:
        row = _update(model, batches, optimizer, optim, train, state, run)
        state.step += 1
        is_last = state.step == train.steps

        is_due = is_last or state.step % train.validate_every == 0
        if validation is not None and is_due:
            with distributed.fail_on_all_ranks():
                if ranks.rank() == 0:
                    row |= _validate(model, validation, state)

        # Asked once an update: a signal must not arrive between saving and leaving.
        must_stop = distributed.any_rank(bool(received))
        saves = is_last or must_stop or state.step % train.save_every == 0

        with distributed.fail_on_all_ranks():
            if journal is not None:
                journal.add(row)

                # Before saving: a checkpoint must never be ahead of the metrics file that a
                # resumed run continues.
                if saves or state.step % train.log_every == 0:
                    journal.write()

                if saves:
                    save_checkpoint(model, optimizer, state, run, train.keep)
                    journal.draw(at_once=is_last or must_stop)

                if is_last:
                    journal.end()

        if must_stop and not is_last:
            saved = step_folder(run, state.step)
            _leave(received, f"saved {saved}; the same command, without --force, goes on from here")


def _start_alike(model: nn.Module, state: RunState, run: Path) -> None:
    """Copy the weights of rank 0 to all ranks, which must have found the same checkpoint."""
    step = torch.tensor(state.step)
    distributed.copy_from_first([step, *model.state_dict().values()])

    found_another = int(step) != state.step
    if distributed.any_rank(found_another):
        raise ConfigError(
            f"{run} is not one folder for all processes: give a --run on a disk that they share"
        )


def _leave(received: Sequence[int], done: str) -> NoReturn:
    """End the process as a signal asks.

    Args:
        received: numbers of the signals of this process; another rank may be the one that got it.
        done: what the signal finds in the run folder.
    """
    number = received[0] if received else signal.SIGTERM
    log_once(f"{signal.Signals(number).name}: {done}")
    raise SystemExit(128 + number)


def _update(
    model: nn.Module,
    batches: StepBatches,
    optimizer: torch.optim.Optimizer,
    optim: OptimConfig,
    train: TrainConfig,
    state: RunState,
    run: Path,
) -> dict[str, Any]:
    """Do one update, or none where its gradient is not finite.

    Returns:
        The row of ``metrics.jsonl``. Values stay on the device: to read them here would make the
        CPU wait.
    """
    step = state.step
    device = next(model.parameters()).device
    started = time.perf_counter()

    with distributed.fail_on_all_ranks():
        share = batches.micro_batches(step, ranks.rank(), ranks.count())
        micro_batches = [batch.to(device) for batch in share]
    loaded = time.perf_counter()

    model.train()
    optimizer.zero_grad(set_to_none=True)
    with autocast(device, train.precision):
        statistics = _whole_statistics(model, micro_batches, step)
    counts, metrics = _add_gradients(model, micro_batches, statistics, step, train)

    distributed.sum_gradients(p for p in model.parameters() if p.requires_grad)
    counts = distributed.sum_over_ranks(counts, torch.device("cpu"))
    metrics.sum_over_ranks(device)

    # Sums become means here, once. An update without any masked frame or token has weight 0.
    weight = max(1, counts["weight"])
    norm = _divide_and_clip(model, weight, optim.clip_norm)

    rate = learning_rate(step, train.steps, optim)
    for group in optimizer.param_groups:
        group["lr"] = rate

    # One value that is not finite would spoil every weight, for good.
    if bool(torch.isfinite(norm)):
        optimizer.step()
        state.bad_in_a_row = 0
    else:
        state.bad_in_a_row += 1
        _report_bad(batches, step, state.bad_in_a_row, train, run)

    now = time.perf_counter()
    row: dict[str, Any] = {"step": step + 1}
    row |= metrics.row(weight)
    row |= {"grad_norm": norm, "lr": rate}
    row |= counts
    row |= {"data_s": loaded - started, "time_s": now - started}
    return row


def _whole_statistics(model: nn.Module, micro_batches: list[Batch], step: int) -> Any:
    """Measure the whole update, for a loss that needs it before the gradient of any part is right.

    Returns:
        None where the loss needs no statistics, where one batch is the whole update (the model then
        measures that batch itself), or where this rank has no batch.
    """
    if not isinstance(model, StatisticsModel):
        return None

    is_whole_update = len(micro_batches) == 1 and ranks.count() == 1
    if is_whole_update:
        return None

    device = next(model.parameters()).device
    parts = [model.statistics(batch, step) for batch in micro_batches]

    # A rank without data must still take part in the sum.
    if not parts:
        distributed.sum_over_ranks({}, device)
        return None

    own = reduce(operator.add, parts)
    whole = distributed.sum_over_ranks(vars(own), device)
    return replace(own, **whole)


def _add_gradients(
    model: nn.Module, micro_batches: list[Batch], statistics: Any, step: int, train: TrainConfig
) -> tuple[dict[str, Any], UpdateMetrics]:
    """Leave the summed gradients of this process's ``micro_batches`` in the parameters.

    Returns:
        counts: "weight" (items that the loss sums over) and "audio_s" (seconds of audio).
        metrics: what the model measured.
    """
    device = next(model.parameters()).device
    rank = ranks.rank()
    weight = 0
    metrics = UpdateMetrics()

    for index, batch in enumerate(micro_batches):
        # Dropout and layer drop draw from the global generator: seeded here, a resumed run repeats
        # them. Rank 0 adds nothing to the seed, so that it draws as a process alone does.
        own_part = [rank] if rank else []
        torch.manual_seed(derive_seed(train.seed, step, index, *own_part))

        with autocast(device, train.precision):
            if isinstance(model, StatisticsModel):
                output = model(batch, step, statistics)
            else:
                output = model(batch, step)
        output.total.backward()

        weight += output.weight
        metrics.add(output)

    audio_s = sum(batch.audio_s for batch in micro_batches)
    return {"weight": weight, "audio_s": audio_s}, metrics


def _divide_and_clip(model: nn.Module, weight: int, clip_norm: float) -> Tensor:
    """Divide the summed gradients by the weight of the update, and clip their norm.

    Returns:
        () float32, the norm of the mean gradient before it was scaled down.
    """
    parameters = [p for p in model.parameters() if p.grad is not None]

    for parameter in parameters:
        assert parameter.grad is not None
        parameter.grad.div_(weight)

    return torch.nn.utils.clip_grad_norm_(parameters, clip_norm)


def _report_bad(
    batches: StepBatches, step: int, bad_in_a_row: int, train: TrainConfig, run: Path
) -> None:
    """Tell which utterances gave a gradient that is not finite, and stop a run where it goes on.

    Raises:
        TrainingError: ``train.max_bad_steps`` updates in a row.
    """
    with distributed.fail_on_all_ranks():
        if ranks.rank() == 0:
            # Asked for again as one process would: this gives the utterances of all ranks without a
            # message between them.
            ids = [utterance for batch in batches.micro_batches(step) for utterance in batch.ids]
            report_bad_step(run, step, ids)

    if bad_in_a_row >= train.max_bad_steps:
        raise TrainingError(
            f"{bad_in_a_row} updates in a row were not finite (last: {step + 1}); "
            f"their utterances are in {run / BAD_STEPS}. Lower optim.lr, or remove those utterances"
        )


def _validate(model: nn.Module, validation: Validation, state: RunState) -> Mapping[str, float]:
    """Measure the model, and keep it where it is the best so far, or where the last is kept."""
    model.eval()
    measured = validation.measure()

    if validation.best_by is None:
        validation.keep_best(measured)
    elif measured[validation.best_by] < state.best:
        state.best = measured[validation.best_by]
        validation.keep_best(measured)
    return measured
