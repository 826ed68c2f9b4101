"""``pretrain``: from stores and settings to a run folder with an encoder in it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from speechssl.audio.features import input_length
from speechssl.config import Table, as_table
from speechssl.data.batches import Batches
from speechssl.data.dataset import Dataset, check_features, open_stores
from speechssl.encoder.encoder import Encoder, load_encoder
from speechssl.errors import ConfigError
from speechssl.pretraining.masked_prediction import PretextTask
from speechssl.pretraining.settings import PretrainSettings
from speechssl.pretraining.tasks import make_task
from speechssl.runtime import distributed, ranks
from speechssl.runtime.device import peak_memory_gb, pick_device
from speechssl.runtime.ranks import log_once
from speechssl.runtime.seeds import derive_seed
from speechssl.storage.checkpoint import load_folder, load_into, save_folder
from speechssl.storage.json_text import read_json_lines
from speechssl.storage.saved_folders import model_folder, stored_folder
from speechssl.training.lineage import millions, origin_of, stage_after, with_stage_seed
from speechssl.training.loop import Validation, fit
from speechssl.training.setting_names import with_current_names
from speechssl.training.settings import TrainConfig, check_whole_updates

# Measurements in a row without a better one before it is said.
STALE = 3

# Updates that --dry-run takes; the first of them is not timed.
TRIAL_UPDATES = 5
# A margin below chance that a loss always keeps, nats.
NEVER_AT_CHANCE = -1e9

# A run may continue when these models lie elsewhere: what counts is their checksums, which are
# settings too.
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
        stores: feature stores, as ``prepare`` makes them.
        run: run folder to make or continue.
        settings: as ``pretrain_settings`` makes them for ``init``: its weights must fit.
        splits: of the stores' chunks, those to train on.
        init: run or model folder whose weights are the start; None = random. If it was pretrained
            with the same task, the run takes all weights of that task. Otherwise it takes the
            encoder alone. It also takes the encoder alone for ``hidden_units``, since the clusters
            that this task predicts are made anew from other features.
        measure: what to log of the encoder every ``train.validate_every`` updates and at the end,
            such as ``probing.watch`` makes it: error rates, and "probe_mean", by which the best
            model is kept. None measures nothing held out, and keeps the last model.

    Returns:
        the model folder, ``run/model``.

    Raises:
        ConfigError, ManifestError, CheckpointError: settings, stores or ``init`` cannot be used.
        TrainingError: the run is lost; see ``training.loop.fit``.
    """
    device = pick_device(settings.train.device)
    # Before work that may take one of the processes longer.
    distributed.start(device)
    check_whole_updates(settings.encoder, settings.batch)

    whole_dataset = Dataset(open_stores(stores), splits)
    check_features(whole_dataset, settings.encoder.features, ", or choose another --preset")

    torch.manual_seed(derive_seed(settings.train.seed, "weights"))
    encoder = Encoder(settings.encoder)
    dataset = _with_frames(whole_dataset, encoder, settings.batch.crop_s)
    if init is None:
        encoder.learn_corpus(dataset)

    stage = stage_after(init)
    train = with_stage_seed(settings.train, stage)
    batches = Batches(dataset, settings.batch, train.seed)
    task = make_task(encoder, settings, train.seed)
    _log_size(task, dataset, batches, train)

    about: Table = {"data": {"stores": whole_dataset.identity, "splits": list(splits)}}
    if stage:
        about["stage"] = stage

    if init is not None:
        about["init"] = origin_of(Path(init))
        _start_from(task, settings, Path(init))

    task.prepare(dataset, device)
    about |= task.made_from()

    model = Path(run, "model")

    def keep(measured: Mapping[str, float]) -> None:
        save_pretrained(task, model, settings, stage, measured)

    validation = None if measure is None else _watch(encoder, measure, keep, settings.train)

    def finish() -> None:
        # A run that an earlier version began with probes may have had its best before now.
        if validation is None or not stored_folder(model).exists():
            keep({})

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
    return model


def pretrain_cost(
    stores: Sequence[str | Path], settings: PretrainSettings, splits: Sequence[str] = ("train",)
) -> str:
    """Estimate what a run will take, from a few real updates of which nothing is kept.

    The first update has the batch with the most audio, so that its memory is what the run needs.

    Returns:
        one line: memory, hours of audio per hour, epochs, time to the end.

    Raises:
        ConfigError: under torchrun, besides what ``pretrain`` raises.
    """
    if ranks.count() > 1:
        raise ConfigError("--dry-run times one process: give the command without torchrun")

    steps = settings.train.steps
    # So few updates are at chance whatever the run will be, which nobody needs to be told.
    health = settings.train.health.model_copy(update={"chance_margin": NEVER_AT_CHANCE})
    few_updates = {"steps": TRIAL_UPDATES, "log_every": TRIAL_UPDATES, "health": health}
    train = settings.train.model_copy(update=few_updates)
    trial = settings.model_copy(update={"train": train})

    with TemporaryDirectory() as folder:
        run = Path(folder, "run")
        pretrain(stores, run, trial, splits)
        rows = read_json_lines(run / "metrics.jsonl")

    # The first update also allocates and compiles.
    timed = rows[1:]
    seconds = sum(row["time_s"] for row in timed) / len(timed)
    audio_s = sum(row["audio_s"] for row in timed) / len(timed)

    dataset = Dataset(open_stores(stores), splits)
    epochs = steps / Batches(dataset, settings.batch, settings.train.seed).steps_per_epoch
    return (
        f"{peak_memory_gb():.1f} GB at most; {audio_s / seconds:.0f} hours of audio per hour; "
        f"{epochs:.1f} epochs of {dataset.seconds / 3600:.2f} h; "
        f"{steps} updates in about {steps * seconds / 3600:.1f} h"
    )


def save_pretrained(
    task: PretextTask,
    path: Path,
    settings: PretrainSettings,
    stage: int = 0,
    measured: Mapping[str, float] | None = None,
) -> None:
    """Save the encoder and all else of the task as a model folder.

    Args:
        task: what was trained.
        path: folder to write.
        settings: of the run.
        stage: how many trainings came before.
        measured: error rates of its probes, to keep with it.
    """
    about = as_table(settings) | {"stage": stage} | dict(measured or {})
    record = {"kind": "pretraining", "encoder": as_table(settings.encoder), "about": about}
    save_folder(path, task.state_dict(), record)


def _with_frames(dataset: Dataset, encoder: Encoder, crop_s: float | None) -> Dataset:
    """Leave out the chunks that are too short for a single frame; how many is logged.

    Raises:
        ConfigError: none is left, or crops would be too short themselves.
    """
    if crop_s is not None:
        config = dataset.features
        crop = input_length(round(crop_s * config.sample_rate_hz), config)
        frames_of_crop = int(encoder.num_frames(torch.tensor([crop])))
        if frames_of_crop < 1:
            raise ConfigError(
                f"batch.crop_s is {crop_s} s, too short for one frame of the encoder: give seconds"
            )

    num_frames = encoder.num_frames(torch.from_numpy(dataset.input_lengths)).numpy()
    keep = np.flatnonzero(num_frames > 0)
    if not len(keep):
        raise ConfigError(
            "every chunk is too short for one frame of the encoder: prepare with a longer "
            "--min-chunk"
        )

    if len(keep) < len(dataset):
        log_once(f"{len(dataset) - len(keep)} chunks left out: too short for one frame")
    return dataset.subset(keep)


def _log_size(task: PretextTask, dataset: Dataset, batches: Batches, train: TrainConfig) -> None:
    """Say how much is trained on how much."""
    log_once(
        f"pretraining {millions(task)} on {len(dataset)} chunks, {dataset.seconds / 3600:.2f} h; "
        f"{batches.summary(train.steps)}"
    )


def _start_from(task: PretextTask, settings: PretrainSettings, init: Path) -> None:
    """Load the weights of a model: all of them where the task can use them, else the encoder's."""
    tensors, record = load_folder(model_folder(init))

    same_task = False
    if record.get("kind") == "pretraining":
        about = with_current_names(record.get("about", {}))
        same_task = about.get("task", "contrastive") == settings.task

    if same_task and task.continues:
        load_into(task, tensors, str(init))
        return

    earlier = load_encoder(init, task.encoder.config)
    task.encoder.load_state_dict(earlier.state_dict())
    log_once(f"only the encoder of {init} is of use here: all else of the task starts anew")


def _watch(
    encoder: Encoder,
    measure: Callable[[Encoder], Mapping[str, float]],
    keep: Callable[[Mapping[str, float]], None],
    train: TrainConfig,
) -> Validation:
    """Give ``measure`` to the loop, with a word when it has not got better for some time.

    Args:
        keep: saves the model with what was measured of it, the best so far.
    """
    since_best = 0

    def measured() -> Mapping[str, float]:
        nonlocal since_best
        since_best += 1
        if since_best > STALE:
            updates = (since_best - 1) * train.validate_every
            log_once(
                f"no better probe for {updates} updates: this run may have learned what it can, "
                "stop here to save time; the best model is kept"
            )
        return measure(encoder)

    def better(found: Mapping[str, float]) -> None:
        nonlocal since_best
        since_best = 0
        keep(found)

    return Validation(measured, "probe_mean", better, "probe.png")
