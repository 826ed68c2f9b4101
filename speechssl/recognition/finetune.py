"""``finetune``: from a small transcribed store to a run folder with a recogniser in it."""

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch

from speechssl.config import Table, as_table
from speechssl.data.batches import Batches
from speechssl.data.dataset import Dataset, check_features, open_stores
from speechssl.encoder.encoder import Encoder, load_encoder
from speechssl.errors import ConfigError
from speechssl.recognition.budget import check_one_process, planned_steps
from speechssl.recognition.ctc_crf import TokenBigram, token_bigram
from speechssl.recognition.defaults import KEEP
from speechssl.recognition.evaluate import evaluate, with_transcripts
from speechssl.recognition.language_model import LM_FOLDER
from speechssl.recognition.model import CtcModel, load_ctc, save_ctc
from speechssl.recognition.remarks import ALL_WRONG, QUESTION, RAW_CONFIDENCES, telling_rate
from speechssl.recognition.settings import FinetuneSettings
from speechssl.recognition.training_set import (
    SKIPPED,
    TEXTS,
    TrainingSet,
    choose_training_set,
    leave_out_too_long,
    leave_out_unspelled,
    text_of,
    warn_about_dev,
)
from speechssl.runtime import distributed
from speechssl.runtime.device import pick_device
from speechssl.runtime.ranks import log_once
from speechssl.runtime.seeds import derive_seed
from speechssl.scoring.calibration import Scaling
from speechssl.storage.json_text import read_json_lines
from speechssl.text.phone_tokenizer import LEXICON_FILE
from speechssl.text.tokenizer import Tokenizer
from speechssl.training.lineage import millions, origin_of, stage_after, with_stage_seed
from speechssl.training.loop import Validation, fit
from speechssl.training.settings import check_whole_updates

# A run may go on when the model that it starts from lies elsewhere: the checksums of that model are
# among the settings too, and they count.
FREE_SETTINGS = ("init.path",)
# Words decide which model is best. Characters only separate models of equal word error rate, as
# all are at the start, when not one word is right. Where texts have no spaces between words it is
# the other way round.
SECOND_WEIGHT = 1e-3
# The largest vocabulary of CTC-CRF: its sum takes a product with a square matrix for each output.
MAX_CRF_TOKENS = 2000


class Start(NamedTuple):
    """What fine-tuning begins with.

    Attributes:
        encoder: pretrained, or of random weights.
        origin: where it comes from, for the run's settings.
        stage: how many trainings came before this one.
    """

    encoder: Encoder
    origin: Table | str
    stage: int


def finetune(
    stores: Sequence[str | Path],
    run: str | Path,
    settings: FinetuneSettings,
    init: str | Path | Encoder | None,
    labels: str | Path | None = None,
    keep: float = KEEP,
    begin: Callable[[], None] = lambda: None,
    budget_s: float | None = None,
) -> CtcModel:
    """Train a CTC recogniser on the train splits of ``stores``, and keep the best by WER on dev.

    With a pronunciation lexicon it is the best by the phone error rate.

    The same call continues a run that was stopped.

    Args:
        settings: as ``finetune_settings`` makes them for ``init``: the weights must fit
            ``settings.encoder``.
        init: the folder of a run or model; an encoder in memory, which is copied, with its own
            settings; or None for random weights.
        labels: file that ``label`` wrote. Chunks of train without a transcript, or with one that
            is not among ``settings.minutes``, are learned from with these.
        keep: share of the usable labels, the most confident.
        begin: called once all input is known to be usable, before anything is written.
        budget_s: seconds that the training should take on this machine, in place of
            ``settings.train.steps``; see ``recognition.budget``.

    Returns:
        the best model, as it stands in ``run/model``.

    Raises:
        ConfigError, ManifestError, CheckpointError: input that cannot be used, found before the
            first update.
        TrainingError: the run is lost; see ``training.loop.fit``.
    """
    # Processes meet before work that may take one of them longer than the others.
    distributed.start(pick_device(settings.train.device))
    if budget_s is not None:
        check_one_process()
    run = Path(run)

    if isinstance(init, Encoder):
        settings = settings.model_copy(update={"encoder": init.config})
    check_whole_updates(settings.encoder, settings.batch)
    if settings.batch.crop_s is not None:
        raise ConfigError(
            "batch.crop_s would cut words off that the transcript holds: pretraining alone takes it"
        )

    opened = open_stores(stores)
    train = Dataset(opened, ["train"])
    dev = with_transcripts(Dataset(opened, ["dev"]), "dev")
    check_features(train, settings.encoder.features, ", or choose another --preset")

    label_file = None if labels is None else Path(labels)
    chosen = choose_training_set(train, dev, settings, label_file, keep)

    start = _start_from(init, settings)
    seed = with_stage_seed(settings.train, start.stage).seed
    model = _new_model(start.encoder, chosen, settings, seed)
    train, unspelled = leave_out_unspelled(chosen.dataset, model)
    train, too_long = leave_out_too_long(train, model)
    warn_about_dev(dev, model)
    if init is None:
        model.encoder.learn_corpus(train)

    bigram = _bigram_of(model, train) if settings.ctc.criterion == "ctc-crf" else None
    batches = Batches(train, settings.batch, seed)

    begin()
    if budget_s is not None:
        steps = planned_steps(
            model, bigram, batches, lambda trial: _measure(trial, dev), settings, run, budget_s
        )
        settings = _with_steps(settings, steps)
    settings = _within_epochs(settings, batches)

    train_settings = with_stage_seed(settings.train, start.stage)
    if bigram is not None:
        num_ctc_steps = round((1 - settings.ctc.crf_share) * train_settings.steps)
        model.learn_by_crf(bigram, num_ctc_steps)

    log_once(
        f"fine-tuning {millions(model)} on {len(train)} utterances, {train.seconds / 60:.1f} min, "
        f"{chosen.tokenizer.size} tokens; dev {len(dev)} utterances; "
        f"{batches.summary(train_settings.steps)}"
    )

    def keep_best(measured: Mapping[str, float]) -> None:
        about = {"preset": settings.preset, "stage": start.stage, **measured}
        _save_best(model, run / "model", about, measured)

    # CTC-CRF trades better words with a lexicon for worse greedy tokens, so these cannot choose
    # between models; its learning rate has fallen by the end.
    best_by = None if settings.ctc.criterion == "ctc-crf" else "dev_score"
    validation = Validation(lambda: _measure(model, dev), best_by, keep_best)

    about = _about(settings, chosen, start, train)
    notes = {SKIPPED: unspelled + too_long, TEXTS: _one_a_line(chosen.texts)}

    fit(
        model,
        batches,
        settings.optim,
        train_settings,
        run,
        about,
        validation,
        notes,
        free_settings=FREE_SETTINGS,
    )

    _warn_if_nothing_is_right(run)
    tuned = load_ctc(run / "model")
    if tuned.scaling.is_raw:
        log_once(RAW_CONFIDENCES)
    return tuned


def _start_from(init: str | Path | Encoder | None, settings: FinetuneSettings) -> Start:
    torch.manual_seed(derive_seed(settings.train.seed, "weights"))

    if init is None:
        return Start(Encoder(settings.encoder), "none", 0)
    if isinstance(init, Encoder):
        return Start(copy.deepcopy(init), "an encoder in memory", 1)

    encoder = load_encoder(init, settings.encoder)
    return Start(encoder, origin_of(Path(init)), stage_after(init))


def _new_model(
    encoder: Encoder, chosen: TrainingSet, settings: FinetuneSettings, seed: int
) -> CtcModel:
    # The head's first weights are the same whatever the encoder came from.
    torch.manual_seed(derive_seed(settings.train.seed, "head"))
    return CtcModel(encoder, chosen.tokenizer, settings.normaliser, settings.ctc, seed)


def _bigram_of(model: CtcModel, train: Dataset) -> TokenBigram:
    """Count the tokens that follow one another in the transcripts, for CTC-CRF.

    Raises:
        ConfigError: the vocabulary is too large for its sum over all pairs of tokens.
    """
    num_tokens = model.tokenizer.size
    if num_tokens > MAX_CRF_TOKENS:
        raise ConfigError(
            f"ctc.criterion=ctc-crf sums over all pairs of {num_tokens} tokens, allowed are "
            f"{MAX_CRF_TOKENS}: take criterion ctc, or a tokenizer of fewer tokens"
        )

    sequences = [model.encode_text(text_of(train, position)) for position in range(len(train))]
    return token_bigram(sequences, num_tokens)


def _with_steps(settings: FinetuneSettings, steps: int) -> FinetuneSettings:
    train = settings.train.model_copy(update={"steps": steps})
    return settings.model_copy(update={"train": train})


def _within_epochs(settings: FinetuneSettings, batches: Batches) -> FinetuneSettings:
    """Leave out the updates beyond ``ctc.max_epochs`` passes over the labels.

    Minutes of labels are learned by heart in more of them.
    """
    max_epochs = settings.ctc.max_epochs
    if max_epochs is None:
        return settings

    most_steps = max_epochs * batches.steps_per_epoch
    if settings.train.steps <= most_steps:
        return settings

    log_once(
        f"{most_steps} updates in place of {settings.train.steps}, for "
        f"ctc.max_epochs={max_epochs}: with more passes over so few labels there were more errors "
        "(--set train.steps does as many as you say)"
    )
    return _with_steps(settings, most_steps)


def _about(settings: FinetuneSettings, chosen: TrainingSet, start: Start, train: Dataset) -> Table:
    """All that decides the run: it continues only where this is equal."""
    about = as_table(settings)
    if chosen.labels is not None:
        about["labels"] = chosen.labels

    about |= _about_lexicon(chosen.tokenizer)
    about["init"] = start.origin
    about["data"] = {"stores": train.identity}
    if start.stage:
        about["stage"] = start.stage
    return about


def _about_lexicon(tokenizer: Tokenizer) -> Table:
    """Give the digest of a tokenizer's lexicon: its path does not tell whether it changed."""
    lexicon = tokenizer.files().get(LEXICON_FILE)
    return {} if lexicon is None else {"lexicon": hashlib.sha256(lexicon).hexdigest()}


def _one_a_line(texts: Sequence[str]) -> str:
    lines = [" ".join(text.split()) for text in texts]
    return "".join(f"{line}\n" for line in lines)


def _measure(model: CtcModel, dev: Dataset) -> dict[str, float]:
    """Score the model on dev, and find what makes its confidences probabilities there."""
    result = evaluate(model, dev)
    num_empty = sum(not utterance.hypothesis for utterance in result.utterances)
    scaling = result.calibration.scaling if result.calibration else Scaling()

    if result.unit == "phone":
        measured = {"dev_per": result.wer, "dev_score": result.wer}
    else:
        first, second = result.wer, result.cer
        if telling_rate(result).name == "CER":
            first, second = second, first
        measured = {
            "dev_wer": result.wer,
            "dev_cer": result.cer,
            "dev_score": first + SECOND_WEIGHT * second,
        }

    measured["dev_empty"] = num_empty / len(result.utterances)
    for name, value in asdict(scaling).items():
        measured[f"confidence_{name}"] = value
    return measured


def _save_best(
    model: CtcModel, folder: Path, about: Mapping[str, object], measured: Mapping[str, float]
) -> None:
    if (folder / LM_FOLDER).exists():
        log_once(
            "a better model takes the place of one with a language model, which goes with it: "
            "tune-lm anew"
        )
    scaling = Scaling(measured["confidence_slope"], measured["confidence_offset"])
    save_ctc(model, folder, about, scaling)


def _warn_if_nothing_is_right(run: Path) -> None:
    """Say so where dev was answered with nothing but blanks, or with wrong words at all times."""
    rows = read_json_lines(run / "metrics.jsonl")
    if rows[-1]["dev_empty"] == 1.0:
        log_once(
            "the model still answers every dev utterance with nothing but blanks: CTC has not "
            "started to learn. Its transcripts, lengths and weights were checked; try more "
            "train.steps, another optim.lr, or less masking"
        )
        return

    lowest = min(row["dev_score"] for row in rows if "dev_score" in row)
    if lowest >= ALL_WRONG:
        log_once(f"the error rate of dev never fell, though something was heard: {QUESTION}")
