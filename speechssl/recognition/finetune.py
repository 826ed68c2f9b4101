"""``pretrain`` and ``finetune``: from stores and settings to a run folder with a model in it."""

import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from speechssl.config import Table, as_table
from speechssl.data.batches import Batches
from speechssl.data.dataset import Dataset, choose_positions
from speechssl.data.store import Store
from speechssl.decoding.greedy import min_ctc_frames
from speechssl.encoder.config import EncoderConfig
from speechssl.encoder.encoder import Encoder, load_encoder
from speechssl.errors import ConfigError
from speechssl.recognition.evaluate import evaluate
from speechssl.recognition.language_model import LM_FOLDER
from speechssl.recognition.model import CtcModel, load_ctc, save_ctc
from speechssl.recognition.pseudo_labels import KEEP, read_labels, with_labels
from speechssl.recognition.settings import FinetuneSettings
from speechssl.runtime import distributed as ranks
from speechssl.runtime.device import pick_device
from speechssl.runtime.distributed import say
from speechssl.runtime.seeds import derive_seed
from speechssl.scoring.calibration import Scaling
from speechssl.storage.json_text import read_metrics
from speechssl.text.normalise import normalise
from speechssl.text.tokenizers import Tokenizer, train_tokenizer
from speechssl.training.lineage import millions, origin_of, stage_after, with_stage_seed
from speechssl.training.loop import Validation, fit

SKIPPED = "skipped.jsonl"  # in the run folder
TEXTS = "texts.txt"  # there: the transcripts that it learns from, for a language model of no others
MAX_SKIPPED = 0.05  # of the training utterances; more means that frame rate or transcripts are wrong


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
