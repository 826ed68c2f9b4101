"""``pretrain`` and ``finetune``: from stores and settings to a run folder with a model in it."""

import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from speechssl.audio.features import num_units
from speechssl.config import Table, as_table
from speechssl.data.batches import Batches
from speechssl.data.dataset import Dataset, choose_positions
from speechssl.data.store import Store
from speechssl.decoding.beam import LM_FOLDER
from speechssl.decoding.greedy import min_ctc_frames
from speechssl.encoder.config import EncoderConfig
from speechssl.encoder.encoder import Encoder, load_encoder
from speechssl.errors import ConfigError
from speechssl.pretraining.contrastive import Contrastive
from speechssl.pretraining.hidden_units import Units
from speechssl.pretraining.random_projection import RandomProjection
from speechssl.pretraining.reconstruction import Reconstruction
from speechssl.pretraining.two_views import Views
from speechssl.recognition.evaluate import evaluate
from speechssl.recognition.model import CtcModel, load_ctc, save_ctc
from speechssl.recognition.pseudo_labels import KEEP, read_labels, with_labels
from speechssl.runtime import distributed as ranks
from speechssl.runtime.device import peak_memory_gb, pick_device
from speechssl.runtime.distributed import say
from speechssl.runtime.seeds import derive_seed
from speechssl.scoring.score import Scaling
from speechssl.storage.checkpoint import load_folder, load_into, model_folder, save_folder
from speechssl.storage.json_text import read_metrics
from speechssl.text.normalise import normalise
from speechssl.text.tokenizers import Tokenizer, train_tokenizer
from speechssl.training.lineage import millions, origin_of, stage_after, with_stage_seed
from speechssl.training.loop import TrainConfig, Validation, fit
from speechssl.training.presets import FinetuneSettings, PretrainSettings

STALE = 3  # measurements in a row without a better one before it is said
SKIPPED = "skipped.jsonl"  # in the run folder
TEXTS = "texts.txt"  # there: the transcripts that it learns from, for a language model of no others
MAX_SKIPPED = 0.05  # of the training utterances; more means that frame rate or transcripts are wrong


Task = Contrastive | RandomProjection | Reconstruction | Units | Views


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
            but of ``units``, whose answers are clusters of other features then, the encoder alone.
        measure: what to log of the encoder every ``train.validate_every`` updates and at the end, such as
            ``probing.watch`` makes it: error rates, and "probe_mean", which says whether it still gets better.

    Returns:
        the model folder, ``run/model``.

    Raises:
        ConfigError, ManifestError, CheckpointError: settings, stores or ``init`` cannot be used.
        TrainingError: the run is lost; see ``train.fit``.
    """
    ranks.start(pick_device(settings.train.device))  # before work that may take one of them longer
    dataset = Dataset([Store(path) for path in stores], splits)
    _check_features(dataset, settings.encoder)
    torch.manual_seed(derive_seed(settings.train.seed, "weights"))
    encoder = Encoder(settings.encoder)
    identity, dataset = dataset.identity, _with_frames(dataset, encoder, settings.batch.crop_s)
    stage = stage_after(init)
    train = with_stage_seed(settings.train, stage)
    batches = Batches(dataset, settings.batch, train.seed)
    task = make_task(encoder, settings.model_copy(update={"train": train}))
    say(
        f"pretraining {millions(task)} on {len(dataset)} chunks, {dataset.seconds / 3600:.2f} h; "
        f"{batches.steps_per_epoch} updates an epoch, {settings.train.steps / batches.steps_per_epoch:.1f} epochs"
    )
    about: Table = {"data": {"stores": identity, "splits": list(splits)}} | ({"stage": stage} if stage else {})
    if init is not None:
        about["init"] = origin_of(Path(init))
        _start_from(task, settings, Path(init))
    if isinstance(task, Units):
        task.to(pick_device(settings.train.device)).fit(dataset)
        if settings.units.teacher is not None:
            about["teacher"] = origin_of(Path(settings.units.teacher))["files"]
    validation = None if measure is None else _watch(encoder, measure, settings.train)

    def finish() -> None:
        save_pretrained(task, Path(run, "model"), settings, stage)

    fit(task, batches, settings.optim, train, run, as_table(settings) | about, validation, finish=finish)
    return Path(run, "model")


def _watch(encoder: Encoder, measure: Callable[[Encoder], Mapping[str, float]], train: TrainConfig) -> Validation:
    """``measure`` as the loop takes it, with a word when it has not got better for some time."""
    since_best = 0

    def measured() -> Mapping[str, float]:
        nonlocal since_best
        since_best += 1
        if since_best > STALE:
            updates = (since_best - 1) * train.validate_every
            say(f"no better probe for {updates} updates: this run may have learned what it can, stop here to save time")
        return measure(encoder)

    def better(_found: Mapping[str, float]) -> None:
        nonlocal since_best
        since_best = 0

    return Validation(measured, "probe_mean", better, "probe.png")


def make_task(encoder: Encoder, settings: PretrainSettings) -> Task:
    """The pretext task over ``encoder``: a module whose forward(batch, step, statistics) returns a ``LossOutput``.

    Raises:
        ConfigError: it reads log-mel rows, and the encoder does not.
    """
    mask, seed, decoder = settings.mask, settings.train.seed, settings.decoder
    match settings.task:
        case "contrastive":
            return Contrastive(encoder, settings.objective, settings.quantizer, mask, seed, decoder)
        case "random_projection":
            return RandomProjection(encoder, settings.random_projection, mask, seed, decoder)
        case "reconstruction":
            return Reconstruction(encoder, settings.reconstruction, mask, seed, decoder)
        case "units":
            teacher = None if settings.units.teacher is None else load_encoder(settings.units.teacher)
            return Units(encoder, teacher, settings.units, mask, seed, decoder)
        case "views":
            return Views(encoder, settings.views, mask, seed, decoder)


def _start_from(task: Task, settings: PretrainSettings, init: Path) -> None:
    """Weights of a model: all of another pretraining's of the same task (but ``units``), else the encoder's."""
    tensors, record = load_folder(model_folder(init))
    same = record.get("kind") == "pretraining" and record.get("about", {}).get("task", "contrastive") == settings.task
    if same and settings.task != "units":
        load_into(task, tensors, str(init))
        return
    task.encoder.load_state_dict(load_encoder(init, task.encoder.config).state_dict())
    say(f"only the encoder of {init} is of use here: all else of the task starts anew")


def pretrain_cost(stores: Sequence[str | Path], settings: PretrainSettings, splits: Sequence[str] = ("train",)) -> str:
    """What a run will take, from a few real updates, the first of them the one with the most audio; nothing is kept.

    Returns:
        one line: memory, hours of audio per hour, epochs, time to the end.
    """
    if ranks.count() > 1:
        raise ConfigError("--dry-run times one process: give the command without torchrun")
    trial = settings.model_copy(update={"train": settings.train.model_copy(update={"steps": 5, "log_every": 5})})
    with TemporaryDirectory() as folder:
        pretrain(stores, Path(folder, "run"), trial, splits)
        rows = read_metrics(Path(folder, "run", "metrics.jsonl"))[1:]  # the first update also allocates and compiles
    dataset = Dataset([Store(path) for path in stores], splits)
    epochs = settings.train.steps / Batches(dataset, settings.batch, settings.train.seed).steps_per_epoch
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
    crop = None if crop_s is None else num_units(round(crop_s * config.sample_rate_hz), config)
    if crop is not None and int(encoder.num_frames(torch.tensor([crop]))) < 1:
        raise ConfigError(f"batch.crop_s is {crop_s} s, too short for one frame of the encoder: give seconds")
    keep = np.flatnonzero(encoder.num_frames(torch.from_numpy(dataset.num_units)).numpy() > 0)
    if not len(keep):
        raise ConfigError("every chunk is too short for one frame of the encoder: prepare with a longer --min-chunk")
    if len(keep) < len(dataset):
        say(f"{len(dataset) - len(keep)} chunks left out: too short for one frame")
    return dataset.subset(keep)


def save_pretrained(task: Task, path: Path, settings: PretrainSettings, stage: int = 0) -> None:
    """Encoder and all else of the task as a model folder; ``stage``: how many trainings came before."""
    about = as_table(settings) | {"stage": stage}
    record = {"kind": "pretraining", "encoder": as_table(settings.encoder), "about": about}
    save_folder(path, task.state_dict(), record)


def finetune(
    stores: Sequence[str | Path],
    run: str | Path,
    settings: FinetuneSettings,
    init: str | Path | Encoder | None,
    labels: str | Path | None = None,
    keep: float = KEEP,
    begin: Callable[[], None] = lambda: None,
) -> CtcModel:
    """Train a CTC recogniser on the train splits of ``stores``; the best model by WER on their dev splits is kept.

    Args:
        settings: as ``finetune_settings`` makes them for ``init``: the weights must fit ``settings.encoder``.
        init: the folder of a run or model, an encoder in memory (copied, with its own settings), or None for random
            weights.
        labels: what ``label`` wrote: chunks of train that have no transcript, or are none of the ``settings.minutes``,
            are learned from with these.
        keep: share of the labels that can be used, the most confident.
        begin: called once all input is known to be usable, before anything is written.

    Returns:
        the best model, as it stands in ``run/model``.

    Raises:
        ConfigError, ManifestError, CheckpointError: input that cannot be used, found before the first update.
        TrainingError: the run is lost; see ``train.fit``.
    """
    ranks.start(pick_device(settings.train.device))  # before work that may take one of them longer
    if isinstance(init, Encoder):
        settings = settings.model_copy(update={"encoder": init.config})
    if settings.batch.crop_s is not None:
        raise ConfigError("batch.crop_s would cut words off that the transcript holds: pretraining alone takes it")
    labelled = [Store(path) for path in stores]
    train, dev = Dataset(labelled, ["train"]), Dataset(labelled, ["dev"])
    _check_features(train, settings.encoder)
    own = _transcribed(train, settings, labels is not None)
    texts = [normalise(_text(train, position), settings.normaliser) for position in own]
    tokenizer = train_tokenizer(settings.tokenizer, texts)
    about = as_table(settings)
    if labels is None:
        train = train.subset(own)
    else:
        train, about["labels"] = _labelled(train, own, Path(labels), keep, settings.normaliser, tokenizer)
    encoder, origin, stage = _initial(init, settings)
    draws = with_stage_seed(settings.train, stage)
    torch.manual_seed(derive_seed(settings.train.seed, "head"))  # the same head whatever the encoder came from
    model = CtcModel(encoder, tokenizer, settings.normaliser, settings.ctc, draws.seed)
    train, skipped = _fitting(train, model)
    _warn_of(dev, model)
    run = Path(run)
    begin()
    run.mkdir(parents=True, exist_ok=True)
    batches = Batches(train, settings.batch, draws.seed)
    say(
        f"fine-tuning {millions(model)} on {len(train)} utterances, {train.seconds / 60:.1f} min, "
        f"{tokenizer.size} tokens; dev {len(dev)} utterances"
    )

    def keep_best(measured: Mapping[str, float]) -> None:
        scaling = Scaling(measured["confidence_slope"], measured["confidence_offset"])
        if (run / "model" / LM_FOLDER).exists():
            say("a better model takes the place of one with a language model, which goes with it: tune-lm anew")
        save_ctc(model, run / "model", {"preset": settings.preset, "stage": stage, **measured}, scaling)

    validation = Validation(lambda: _measure(model, dev), "dev_score", keep_best)
    about |= {"init": origin, "data": {"stores": train.identity}} | ({"stage": stage} if stage else {})
    notes = {SKIPPED: skipped, TEXTS: "".join(f"{' '.join(text.split())}\n" for text in texts)}
    fit(model, batches, settings.optim, draws, run, about, validation, notes)
    if read_metrics(run / "metrics.jsonl")[-1]["dev_empty"] == 1.0:
        say(
            "the model still answers every dev utterance with nothing but blanks: CTC has not started to learn. Its "
            "transcripts, lengths and weights were checked; try more train.steps, another optim.lr, or less masking"
        )
    return load_ctc(run / "model")


def _initial(init: str | Path | Encoder | None, settings: FinetuneSettings) -> tuple[Encoder, Table | str, int]:
    """The encoder that fine-tuning begins with, where it came from, and which stage of training this is."""
    torch.manual_seed(derive_seed(settings.train.seed, "weights"))
    if init is None:
        return Encoder(settings.encoder), "none", 0
    if isinstance(init, Encoder):
        return copy.deepcopy(init), "an encoder in memory", 1
    return load_encoder(init, settings.encoder), origin_of(Path(init)), stage_after(init)


def _measure(model: CtcModel, dev: Dataset) -> dict[str, float]:
    """Scores on dev, and what makes confidences probabilities there."""
    result = evaluate(model, dev)
    scaling = result.calibration.scaling if result.calibration else Scaling()
    return {
        "dev_wer": result.wer,
        "dev_cer": result.cer,
        "dev_empty": sum(not u.hypothesis for u in result.utterances) / len(result.utterances),
        # Words first: characters only separate models of equal WER, as all are at the start.
        "dev_score": result.wer + 1e-3 * result.cer,
        **{f"confidence_{name}": value for name, value in asdict(scaling).items()},
    }


def _transcribed(train: Dataset, settings: FinetuneSettings, labels: bool) -> NDArray[np.int64]:
    """Positions of the chunks with a transcript, the chosen ones of them."""
    texts = [train.id_text(position)[1] for position in range(len(train))]
    empty = [p for p, text in enumerate(texts) if text is not None and not normalise(text, settings.normaliser)]
    if empty:
        say(
            f"{len(empty)} transcripts hold nothing that {settings.normaliser} keeps (first: {texts[empty[0]]!r} of "
            f"{train.id_text(empty[0])[0]}): they teach nothing"
        )
    learned = set(range(len(train))) - set(empty)
    own = np.array([p for p in sorted(learned) if texts[p] is not None], dtype=np.int64)
    if not len(own):
        raise ConfigError("no chunk of train has a transcript that says anything: give a store with some")
    if (silent := texts.count(None)) and not labels:
        say(f"{silent} of {len(train)} chunks have no transcript: without --labels they teach nothing")
    if settings.minutes:
        own = own[choose_positions(train.subset(own), settings.minutes, settings.train.seed)]
    return own


def _labelled(
    train: Dataset, own: NDArray[np.int64], path: Path, keep: float, normaliser: str, tokenizer: Tokenizer
) -> tuple[Dataset, Table]:
    """Chunks with a transcript and chunks with a label, and what is noted of the labels."""

    def usable(text: str) -> bool:
        normalised = normalise(text, normaliser)
        return bool(normalised) and not tokenizer.has_unknown(normalised)

    both, used, unused = with_labels(train, own, read_labels(path), usable, keep)
    left = ", ".join(f"{count} {reason}" for reason, count in unused.items())
    say(f"{len(used)} labels are learned from" + (f"; not from {left}" if left else ""))
    heard = json.dumps(sorted((one.id, one.crc32, one.text) for one in used))
    return both, {"count": len(used), "digest": hashlib.sha256(heard.encode()).hexdigest()}


def _text(dataset: Dataset, position: int) -> str:
    utterance_id, text = dataset.id_text(position)
    if text is None:
        raise ConfigError(f"utterance {utterance_id} has no transcript: fine-tune on a labelled store")
    return text


def _fitting(train: Dataset, model: CtcModel) -> tuple[Dataset, str]:
    """Utterances whose frames can hold their tokens (the exact CTC rule), and a JSON line for each of the others.

    Raises:
        ConfigError: more than 5 % do not fit.
    """
    frames = model.num_outputs(torch.from_numpy(train.num_units)).tolist()
    keep, lines = [], []
    for position in range(len(train)):
        tokens = model.encode_text(_text(train, position))
        if frames[position] >= max(1, min_ctc_frames(tokens)):
            keep.append(position)
            continue
        row = {"id": train.id_text(position)[0], "frames": frames[position], "needed": min_ctc_frames(tokens)}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    if len(lines) > MAX_SKIPPED * len(train):
        raise ConfigError(
            f"{len(lines)} of {len(train)} transcripts are longer than their frames allow (first: "
            f"{lines[0].strip()}): use encoder.subsampling=2, a larger --tokenizer bpe:N, or check the transcripts"
        )
    if lines:
        say(f"{len(lines)} utterances left out: transcript longer than its frames, see {SKIPPED} in the run folder")
    return train.subset(np.array(keep, dtype=np.int64)), "".join(lines)


def _warn_of(dev: Dataset, model: CtcModel) -> None:
    """Say which transcripts of dev cannot be met."""
    texts = [normalise(_text(dev, position), model.normaliser) for position in range(len(dev))]
    if empty := texts.count(""):
        say(f"{empty} of {len(texts)} transcripts of dev hold nothing: whatever is heard there counts as inserted")
    unknown: set[str] = set()
    for text in texts:
        unknown |= model.tokenizer.unknown(text)
    if unknown:
        shown = " ".join(sorted(unknown)[:20])
        say(f"the training transcripts never hold these characters of dev: {shown}; they cannot be recognised")


def _check_features(dataset: Dataset, encoder: EncoderConfig) -> None:
    if dataset.features != encoder.features:
        raise ConfigError(
            f"the store holds {dataset.features}, the encoder reads {encoder.features}: "
            f"prepare with --features {encoder.features.kind}, or choose another --preset"
        )
