"""Weights of a language model, found on a development set."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from speechssl.config import as_table, build
from speechssl.data.dataset import Dataset
from speechssl.data.store import Store, is_store
from speechssl.decoding.arpa import is_binary, opened
from speechssl.decoding.beam import BeamSearch
from speechssl.decoding.hypothesis import BeamConfig
from speechssl.decoding.lexicon import separator, spellings
from speechssl.errors import CheckpointError, ConfigError
from speechssl.recognition.evaluate import (
    Emissions,
    beam_decoder,
    emissions,
    recognised,
    references,
    score_words,
)
from speechssl.recognition.model import CtcModel
from speechssl.runtime.log import log
from speechssl.scoring.calibration import Scaling
from speechssl.scoring.score import Score
from speechssl.storage.checkpoint import load_folder, save_folder, stored_folder
from speechssl.text.tokenizers import Tokenizer

GRID = {"lm_weight": (1.0, 2.0, 3.0), "prior_scale": (0.0, 0.3, 0.6), "word_score": (-4.0, 0.0)}
STEPS = {
    "lm_weight": 0.5,
    "prior_scale": 0.15,
    "word_score": 1.0,
}  # from the best, for as long as that gets better
MOST = 50  # looks, after which no further round of steps begins
MIN_PRIOR = 1e-4  # of a token that the recogniser hardly ever says


class Tried(NamedTuple):
    """Weights and the errors they made."""

    config: BeamConfig
    score: Score


class Tuned(NamedTuple):
    """All that was tried, the best first, greedy decoding beside it, and (V,) ln of the share of each token."""

    greedy: Score
    tried: list[Tried]
    log_prior: Tensor

    @property
    def best(self) -> BeamConfig:
        """The best weights, with the scaling that made the confidences of their words probabilities."""
        config, score = self.tried[0]
        scaling = score.calibration.scaling if score.calibration else Scaling()
        return config.model_copy(
            update={f"confidence_{name}": value for name, value in asdict(scaling).items()}
        )


def tune(
    model: CtcModel,
    dataset: Dataset,
    config: BeamConfig,
    search: Callable[[BeamConfig, Tensor], BeamSearch],
) -> Tuned:
    """Try all of ``GRID``, since the best value of one depends on the others, then go on from the best step by step.

    The best has the lowest sum of word and character error rate, then weight: by words alone a poor recogniser with a
    language model of few words does best to leave most of what was said out (docs/log.md 48). The recogniser runs once.
    With a language model over pieces that begin words themselves there is no score for each word.

    Args:
        search: a beam search with these weights and this log-prior.

    Raises:
        ConfigError: a chunk has no transcript, or the features are not the model's.
    """
    said = references(model, dataset)
    heard = [(ids, rows.cpu(), frames.cpu()) for ids, rows, frames in emissions(model, dataset)]
    greedy = score_words(said, recognised(model, heard), model.normaliser)
    log_prior = _log_prior(heard)
    tried: list[Tried] = []
    has_words = config.unit == "words" or separator(model.tokenizer)
    grid = {name: values for name, values in GRID.items() if name != "word_score" or has_words}

    def look(**changes: float) -> None:
        given = (tried[0].config if tried else config).model_copy(update=changes)
        if given not in [t.config for t in tried]:
            found = recognised(model, heard, beam_decoder(search(given, log_prior)))
            tried.append(Tried(given, score_words(said, found, model.normaliser)))
            log(
                ", ".join(f"{name.replace('_', ' ')} {getattr(given, name):g}" for name in grid)
                + _rates(tried[-1])
            )

    def best() -> BeamConfig:
        tried.sort(key=lambda t: (t.score.wer + t.score.cer, t.config.lm_weight))
        return tried[0].config

    for values in product(*grid.values()):
        look(**dict(zip(grid, values, strict=True)))
    here: BeamConfig | None = None
    while here != best() and len(tried) < MOST:
        here = best()
        for name in grid:
            middle, step = getattr(here, name), STEPS[name]
            for value in (round(middle - step, 2), round(middle + step, 2)):
                if name == "word_score" or 0 <= value <= (1 if name == "prior_scale" else value):
                    look(**{name: value})
    return Tuned(greedy, tried, log_prior)


def _log_prior(heard: Sequence[Emissions]) -> Tensor:
    """(V,) ln of the mean probability of each token over all frames, none below ``MIN_PRIOR``."""
    rows = [
        row[:n].float()
        for _, batch, frames in heard
        for row, n in zip(batch, frames.tolist(), strict=True)
    ]
    return torch.cat(rows).exp().mean(0).clamp(min=MIN_PRIOR).log()


def _rates(tried: Tried) -> str:
    return f": WER {tried.score.wer:.1%}, CER {tried.score.cer:.1%}"


def read_texts(paths: Iterable[Path], split: str) -> Iterator[str]:
    """The lines of text files, and the transcripts of one split of stores.

    Raises:
        ConfigError: a file cannot be read as UTF-8 text, or is a table, or a store has no transcript there.
    """
    for path in paths:
        if is_store(path):
            store = Store(path)
            texts = [store.record(int(i)).text for i in store.indices([split])]
            if not any(texts):
                there = [
                    name
                    for name in store.splits
                    if any(store.record(int(i)).text for i in store.indices([name]))
                ]
                has = (
                    f"those with some: {', '.join(there)}"
                    if there
                    else "nor in any other: prepare it with transcripts"
                )
                raise ConfigError(f"{path} has no transcripts in split {split}; {has}")
            yield from (text for text in texts if text)
        elif path.exists() and path.suffix.lower() in (".csv", ".tsv", ".json", ".jsonl"):
            raise ConfigError(
                f"{path} is a table, not text: prepare it and give the store, or a file of one text a line"
            )
        else:
            with opened(path, "text") as file:
                yield from file


LM_FOLDER = "lm"  # in a model folder
LOG_PRIOR = "log_prior"  # among its tensors


def save_lm(
    model: Path,
    lm: Path,
    words: Sequence[str] | None,
    config: BeamConfig,
    about: Mapping[str, Any],
    log_prior: Tensor | None = None,
) -> None:
    """Put a language model, its words and its weights into a model folder, where ``load_lm`` finds them."""
    name = "lm.bin" if is_binary(lm) else "lm.arpa"
    files = {name: lm.read_bytes()}
    if words is not None:
        files["words.txt"] = "".join(f"{word}\n" for word in words).encode()
    record = {"kind": "lm", "file": name, "beam": as_table(config), "about": dict(about)}
    save_folder(
        model / LM_FOLDER, {} if log_prior is None else {LOG_PRIOR: log_prior}, record, files
    )


def load_lm(model: Path, tokenizer: Tokenizer) -> "BeamSearch | None":
    """The beam search of a model folder, or None if it has no language model.

    Raises:
        CheckpointError: damaged.
        ConfigError: it is a KenLM binary file and flashlight-text is not installed.
    """
    folder = stored_folder(model / LM_FOLDER)
    if not folder.exists():
        return None
    tensors, record = load_folder(folder)
    if (
        record["file"] not in record["files"]
    ):  # checked just now; any other may lie outside the folder
        raise CheckpointError(
            f"{folder} names the language model {record['file']!r}, which is not a file of it"
        )
    config, path = build(BeamConfig, record["beam"]), folder / record["file"]
    prior = tensors.get(LOG_PRIOR)
    if (prior is None and config.prior_scale) or (
        prior is not None and prior.shape != (tokenizer.size,)
    ):
        raise CheckpointError(
            f"{folder} does not hold {LOG_PRIOR} of the {tokenizer.size} tokens of its recogniser"
        )
    if config.unit == "tokens":
        return BeamSearch(tokenizer, path, None, config, log_prior=prior)
    words = (folder / "words.txt").read_text(encoding="utf-8").split("\n")[:-1]
    return BeamSearch(tokenizer, path, spellings(tokenizer, words), config, log_prior=prior)
