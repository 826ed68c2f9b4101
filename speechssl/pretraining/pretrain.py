"""``pretrain``: from stores and settings to a run folder with an encoder in it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from speechssl.audio.features import input_length
from speechssl.config import Table, as_table
from speechssl.data.batches import Batches
from speechssl.data.dataset import Dataset, check_features
from speechssl.data.store import Store
from speechssl.encoder.encoder import Encoder, load_encoder
from speechssl.errors import ConfigError
from speechssl.pretraining.hidden_units import HiddenUnits
from speechssl.pretraining.settings import PretrainSettings
from speechssl.pretraining.tasks import PretextTask, make_task
from speechssl.runtime import distributed
from speechssl.runtime.device import peak_memory_gb, pick_device
from speechssl.runtime.distributed import log_once
from speechssl.runtime.seeds import derive_seed
from speechssl.storage.checkpoint import load_folder, load_into, model_folder, save_folder
from speechssl.storage.json_text import read_json_lines
from speechssl.training.lineage import millions, origin_of, stage_after, with_stage_seed
from speechssl.training.loop import Validation, fit
from speechssl.training.setting_names import with_current_names
from speechssl.training.settings import TrainConfig

STALE = 3  # measurements in a row without a better one before it is said

# A run may continue when these models lie elsewhere: what counts is their checksums, which are settings too.
FREE_SETTINGS = ("init.path", "hidden_units.teacher")


def pretrain(
    stores: Sequence[str | Path],
    run: str | Path,
    settings: PretrainSettings,
    splits: Sequence[str] = ("train",),
    init: str | Path | None = None,
    measure: Callable[[Encoder], Mapping[str, float]] | None = None,
) -> Path:
    """Pretrain an encoder on the chunks of ``stores``; continues by itself when called again.

    Args:
        settings: as ``pretrain_settings`` makes them for ``init``: its weights must fit.
        init: run or model folder whose weights are the start; None = random. All of its task where that is the same,
            but of ``hidden_units``, whose answers are clusters of other features then, the encoder alone.
        measure: what to log of the encoder every ``train.validate_every`` updates and at the end, such as
            ``probing.watch`` makes it: error rates, and "probe_mean", which says whether it still gets better.

    Returns:
        the model folder, ``run/model``.

    Raises:
        ConfigError, ManifestError, CheckpointError: settings, stores or ``init`` cannot be used.
        TrainingError: the run is lost; see ``train.fit``.
    """
    distributed.start(
        pick_device(settings.train.device)
    )  # before work that may take one of them longer
    dataset = Dataset([Store(path) for path in stores], splits)
    check_features(dataset, settings.encoder.features, ", or choose another --preset")
    torch.manual_seed(derive_seed(settings.train.seed, "weights"))
    encoder = Encoder(settings.encoder)
    identity, dataset = dataset.identity, _with_frames(dataset, encoder, settings.batch.crop_s)
    stage = stage_after(init)
    train = with_stage_seed(settings.train, stage)
    batches = Batches(dataset, settings.batch, train.seed)
    task = make_task(encoder, settings.model_copy(update={"train": train}))
    log_once(
        f"pretraining {millions(task)} on {len(dataset)} chunks, {dataset.seconds / 3600:.2f} h; "
        f"{batches.steps_per_epoch} updates an epoch, {settings.train.steps / batches.steps_per_epoch:.1f} epochs"
    )
    about: Table = {"data": {"stores": identity, "splits": list(splits)}} | (
        {"stage": stage} if stage else {}
    )
    if init is not None:
        about["init"] = origin_of(Path(init))
        _start_from(task, settings, Path(init))
    if isinstance(task, HiddenUnits):
        task.to(pick_device(settings.train.device)).fit(dataset)
        if settings.hidden_units.teacher is not None:
            about["teacher"] = origin_of(Path(settings.hidden_units.teacher))["files"]
    validation = None if measure is None else _watch(encoder, measure, settings.train)

    def finish() -> None:
        save_pretrained(task, Path(run, "model"), settings, stage)

    fit(
        task,
        batches,
        settings.optim,
        train,
        run,
        as_table(settings) | about,
        validation,
        finish=finish,
        free_settings=FREE_SETTINGS,
    )
    return Path(run, "model")


def _watch(
    encoder: Encoder, measure: Callable[[Encoder], Mapping[str, float]], train: TrainConfig
) -> Validation:
    """``measure`` as the loop takes it, with a word when it has not got better for some time."""
    since_best = 0

    def measured() -> Mapping[str, float]:
        nonlocal since_best
        since_best += 1
        if since_best > STALE:
            updates = (since_best - 1) * train.validate_every
            log_once(
                f"no better probe for {updates} updates: this run may have learned what it can, stop here to save time"
            )
        return measure(encoder)

    def better(_found: Mapping[str, float]) -> None:
        nonlocal since_best
        since_best = 0

    return Validation(measured, "probe_mean", better, "probe.png")


def _start_from(task: PretextTask, settings: PretrainSettings, init: Path) -> None:
    """Weights of a model: all of another pretraining's of the same task (but ``hidden_units``), else the encoder's."""
    tensors, record = load_folder(model_folder(init))
    same = (
        record.get("kind") == "pretraining"
        and with_current_names(record.get("about", {})).get("task", "contrastive") == settings.task
    )
    if same and settings.task != "hidden_units":
        load_into(task, tensors, str(init))
        return
    task.encoder.load_state_dict(load_encoder(init, task.encoder.config).state_dict())
    log_once(f"only the encoder of {init} is of use here: all else of the task starts anew")


def pretrain_cost(
    stores: Sequence[str | Path], settings: PretrainSettings, splits: Sequence[str] = ("train",)
) -> str:
    """What a run will take, from a few real updates, the first of them the one with the most audio; nothing is kept.

    Returns:
        one line: memory, hours of audio per hour, epochs, time to the end.
    """
    if distributed.count() > 1:
        raise ConfigError("--dry-run times one process: give the command without torchrun")
    trial = settings.model_copy(
        update={"train": settings.train.model_copy(update={"steps": 5, "log_every": 5})}
    )
    with TemporaryDirectory() as folder:
        pretrain(stores, Path(folder, "run"), trial, splits)
        rows = read_json_lines(Path(folder, "run", "metrics.jsonl"))[
            1:
        ]  # the first update also allocates and compiles
    dataset = Dataset([Store(path) for path in stores], splits)
    epochs = (
        settings.train.steps / Batches(dataset, settings.batch, settings.train.seed).steps_per_epoch
    )
    seconds = sum(row["time_s"] for row in rows) / len(rows)
    audio_s = sum(row["audio_s"] for row in rows) / len(rows)
    steps = settings.train.steps
    return (
        f"{peak_memory_gb():.1f} GB at most; {audio_s / seconds:.0f} hours of audio per hour; {epochs:.1f} epochs of "
        f"{dataset.seconds / 3600:.2f} h; {steps} updates in about {steps * seconds / 3600:.1f} h"
    )


def _with_frames(dataset: Dataset, encoder: Encoder, crop_s: float | None) -> Dataset:
    """Without the chunks that are too short for a single frame; how many is logged.

    Raises:
        ConfigError: none is left, or crops would be too short themselves.
    """
    config = dataset.features
    crop = None if crop_s is None else input_length(round(crop_s * config.sample_rate_hz), config)
    if crop is not None and int(encoder.num_frames(torch.tensor([crop]))) < 1:
        raise ConfigError(
            f"batch.crop_s is {crop_s} s, too short for one frame of the encoder: give seconds"
        )
    keep = np.flatnonzero(encoder.num_frames(torch.from_numpy(dataset.input_lengths)).numpy() > 0)
    if not len(keep):
        raise ConfigError(
            "every chunk is too short for one frame of the encoder: prepare with a longer --min-chunk"
        )
    if len(keep) < len(dataset):
        log_once(f"{len(dataset) - len(keep)} chunks left out: too short for one frame")
    return dataset.subset(keep)


def save_pretrained(
    task: PretextTask, path: Path, settings: PretrainSettings, stage: int = 0
) -> None:
    """Encoder and all else of the task as a model folder; ``stage``: how many trainings came before."""
    about = as_table(settings) | {"stage": stage}
    record = {"kind": "pretraining", "encoder": as_table(settings.encoder), "about": about}
    save_folder(path, task.state_dict(), record)
