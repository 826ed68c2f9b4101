"""``pretrain`` and ``finetune``: from stores and settings to a run folder with a model in it."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from speechssl.config import Table, as_table
from speechssl.data.batches import Batches
from speechssl.data.dataset import Dataset, check_features
from speechssl.data.store import Store
from speechssl.encoder.encoder import Encoder, load_encoder
from speechssl.errors import ConfigError
from speechssl.recognition.evaluate import evaluate
from speechssl.recognition.language_model import LM_FOLDER
from speechssl.recognition.model import CtcModel, load_ctc, save_ctc
from speechssl.recognition.pseudo_labels import KEEP
from speechssl.recognition.settings import FinetuneSettings
from speechssl.recognition.training_set import (
    SKIPPED,
    TEXTS,
    fitting,
    text_of,
    transcribed,
    warn_of,
    with_pseudo_labels,
)
from speechssl.runtime import distributed
from speechssl.runtime.device import pick_device
from speechssl.runtime.distributed import log_once
from speechssl.runtime.seeds import derive_seed
from speechssl.scoring.calibration import Scaling
from speechssl.storage.json_text import read_json_lines
from speechssl.text.normalise import normalise
from speechssl.text.tokenizers import train_tokenizer
from speechssl.training.lineage import millions, origin_of, stage_after, with_stage_seed
from speechssl.training.loop import Validation, fit

# A run may continue when the model it starts from lies elsewhere: what counts is its checksums, which are
# settings too.
FREE_SETTINGS = ("init.path",)


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
    distributed.start(
        pick_device(settings.train.device)
    )  # before work that may take one of them longer
    if isinstance(init, Encoder):
        settings = settings.model_copy(update={"encoder": init.config})
    if settings.batch.crop_s is not None:
        raise ConfigError(
            "batch.crop_s would cut words off that the transcript holds: pretraining alone takes it"
        )
    labelled = [Store(path) for path in stores]
    train, dev = Dataset(labelled, ["train"]), Dataset(labelled, ["dev"])
    check_features(train, settings.encoder.features, ", or choose another --preset")
    own = transcribed(train, settings, labels is not None)
    texts = [normalise(text_of(train, position), settings.normaliser) for position in own]
    tokenizer = train_tokenizer(settings.tokenizer, texts)
    about = as_table(settings)
    if labels is None:
        train = train.subset(own)
    else:
        train, about["labels"] = with_pseudo_labels(
            train, own, Path(labels), keep, settings.normaliser, tokenizer
        )
    encoder, origin, stage = _initial(init, settings)
    draws = with_stage_seed(settings.train, stage)
    torch.manual_seed(
        derive_seed(settings.train.seed, "head")
    )  # the same head whatever the encoder came from
    model = CtcModel(encoder, tokenizer, settings.normaliser, settings.ctc, draws.seed)
    train, skipped = fitting(train, model)
    warn_of(dev, model)
    run = Path(run)
    begin()
    run.mkdir(parents=True, exist_ok=True)
    batches = Batches(train, settings.batch, draws.seed)
    log_once(
        f"fine-tuning {millions(model)} on {len(train)} utterances, {train.seconds / 60:.1f} min, "
        f"{tokenizer.size} tokens; dev {len(dev)} utterances"
    )

    def keep_best(measured: Mapping[str, float]) -> None:
        scaling = Scaling(measured["confidence_slope"], measured["confidence_offset"])
        if (run / "model" / LM_FOLDER).exists():
            log_once(
                "a better model takes the place of one with a language model, which goes with it: tune-lm anew"
            )
        save_ctc(
            model, run / "model", {"preset": settings.preset, "stage": stage, **measured}, scaling
        )

    validation = Validation(lambda: _measure(model, dev), "dev_score", keep_best)
    about |= {"init": origin, "data": {"stores": train.identity}} | (
        {"stage": stage} if stage else {}
    )
    notes = {SKIPPED: skipped, TEXTS: "".join(f"{' '.join(text.split())}\n" for text in texts)}
    fit(
        model,
        batches,
        settings.optim,
        draws,
        run,
        about,
        validation,
        notes,
        free_settings=FREE_SETTINGS,
    )
    if read_json_lines(run / "metrics.jsonl")[-1]["dev_empty"] == 1.0:
        log_once(
            "the model still answers every dev utterance with nothing but blanks: CTC has not started to learn. Its "
            "transcripts, lengths and weights were checked; try more train.steps, another optim.lr, or less masking"
        )
    return load_ctc(run / "model")


def _initial(
    init: str | Path | Encoder | None, settings: FinetuneSettings
) -> tuple[Encoder, Table | str, int]:
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
