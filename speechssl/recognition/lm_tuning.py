"""``tune_lm``: the weights of a language model, found on a development set."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from speechssl.data.dataset import Dataset
from speechssl.data.store import Store
from speechssl.decoding.arpa import read_words
from speechssl.decoding.beam import BeamSearch
from speechssl.decoding.hypothesis import BeamConfig
from speechssl.decoding.lexicon import is_over_tokens, known_words, separator, spellings
from speechssl.recognition.decoders import (
    Emissions,
    beam_decoder,
    emissions,
    greedy_decoder,
    recognise,
)
from speechssl.recognition.evaluate import references, score_words
from speechssl.recognition.language_model import LM_FOLDER, save_lm
from speechssl.recognition.model import CtcModel, load_ctc
from speechssl.runtime.device import pick_device
from speechssl.runtime.log import log
from speechssl.scoring.calibration import Scaling
from speechssl.scoring.score import Score
from speechssl.storage.checkpoint import model_folder

# All of the grid is tried, since the best value of one weight depends on the others.
GRID = {"lm_weight": (1.0, 2.0, 3.0), "prior_scale": (0.0, 0.3, 0.6), "word_score": (-4.0, 0.0)}
# Steps from the best point of the grid, for as long as that gets better.
STEPS = {"lm_weight": 0.5, "prior_scale": 0.15, "word_score": 1.0}
# The smallest and largest value that a step may reach.
BOUNDS = {
    "lm_weight": (0.0, float("inf")),
    "prior_scale": (0.0, 1.0),
    "word_score": (float("-inf"), float("inf")),
}
# Points tried, after which no further round of steps begins.
MAX_TRIED = 50
# Probability of a token that the recogniser hardly ever says: its prior is no smaller.
MIN_PRIOR = 1e-4


class Tried(NamedTuple):
    """Weights of a language model, and the errors they made."""

    config: BeamConfig
    score: Score

    @property
    def errors(self) -> float:
        """Sum of word and character error rate.

        By words alone, a poor recogniser with a language model of few words does best to leave
        most of what was said out (docs/experiments/048).
        """
        return self.score.wer + self.score.cer


class Tuned(NamedTuple):
    """What tuning found.

    Attributes:
        greedy: score of greedy decoding.
        tried: all weights that were tried, the best first.
        log_prior: (V,) natural log of the share that each token has of all outputs.
    """

    greedy: Score
    tried: list[Tried]
    log_prior: Tensor

    @property
    def best(self) -> BeamConfig:
        """The best weights, with the scaling that makes the confidences of words probabilities."""
        config, score = self.tried[0]
        scaling = score.calibration.scaling if score.calibration else Scaling()
        changes = {f"confidence_{name}": value for name, value in asdict(scaling).items()}
        return config.model_copy(update=changes)

    @property
    def is_worth_keeping(self) -> bool:
        """Whether the best weights make no more errors than greedy decoding."""
        return self.tried[0].errors <= self.greedy.wer + self.greedy.cer


def tune_lm(
    model: str | Path,
    lm: Path,
    store: str | Path,
    split: str = "dev",
    words: Path | None = None,
    report: Callable[[Tuned], None] = lambda tuned: None,
) -> Tuned:
    """Find the weights of a language model, and keep it in the model folder if it helps.

    Where greedy decoding makes fewer errors nothing is kept, and what was there stays.

    Args:
        model: run or model folder.
        lm: ARPA file, or a binary file of KenLM with ``words``.
        store: prepared store with transcripts.
        split: the split to tune on, never the one to measure on.
        words: file of the words to recognise, one a line; None takes those of the ARPA file.
        report: called with what was found before anything is saved, so that a full disk does not
            lose it.

    Raises:
        ConfigError: the model, the language model or the store cannot be used.
    """
    folder = model_folder(Path(model))
    recogniser = load_ctc(folder).to(pick_device("auto"))
    tokenizer = recogniser.tokenizer

    listed = read_words(lm, words)
    known: list[str] | None = None
    lexicon: dict[str, tuple[int, ...]] | None = None
    config = BeamConfig(unit="tokens")
    if not is_over_tokens(tokenizer, listed):
        known = known_words(tokenizer, recogniser.normaliser, listed)
        lexicon = spellings(tokenizer, known)
        config = BeamConfig(unit="words")

    def search(weights: BeamConfig, log_prior: Tensor) -> BeamSearch:
        return BeamSearch(tokenizer, lm, lexicon, weights, log_prior=log_prior)

    tuned = tune(recogniser, Dataset([Store(store)], [split]), config, search)
    report(tuned)

    if tuned.is_worth_keeping:
        best = tuned.tried[0].score
        found_on = {"lm": str(lm), "store": str(store), "split": split}
        rates = {"wer": best.wer, "greedy_wer": tuned.greedy.wer}
        save_lm(folder, lm, known, tuned.best, found_on | rates, tuned.log_prior)
        log(
            f"{folder / LM_FOLDER} holds the language model over {config.unit} "
            "with the best of these weights"
        )
    else:
        stays = "; the one that is there stays" if (folder / LM_FOLDER).exists() else ""
        log(f"no weight makes the language model as good as greedy decoding: it is not kept{stays}")

    return tuned


def tune(
    model: CtcModel,
    dataset: Dataset,
    config: BeamConfig,
    search: Callable[[BeamConfig, Tensor], BeamSearch],
) -> Tuned:
    """Try all of ``GRID``, then go on from the best point step by step.

    The best point has the lowest sum of word and character error rate, and of equal ones the
    lowest weight. The recogniser runs once. A language model over pieces that begin words
    themselves has no score for each word.

    Args:
        config: of the search; its weights are replaced.
        search: makes a beam search with these weights and this log-prior.

    Raises:
        ConfigError: a chunk has no transcript, or the features are not the model's.
    """
    transcripts = references(model, dataset)
    batches = [_on_cpu(batch) for batch in emissions(model, dataset)]
    log_prior = _log_prior(batches)

    greedy_words = recognise(model, batches, greedy_decoder(model))
    greedy = score_words(transcripts, greedy_words, model.normaliser)

    has_word_score = config.unit == "words" or bool(separator(model.tokenizer))
    names = [name for name in GRID if name != "word_score" or has_word_score]
    tried: list[Tried] = []

    def look(weights: BeamConfig) -> None:
        if any(weights == point.config for point in tried):
            return
        decoder = beam_decoder(search(weights, log_prior))
        found = recognise(model, batches, decoder)
        point = Tried(weights, score_words(transcripts, found, model.normaliser))
        tried.append(point)
        log(_line(point, names))

    def best() -> BeamConfig:
        tried.sort(key=lambda point: (point.errors, point.config.lm_weight))
        return tried[0].config

    for values in product(*(GRID[name] for name in names)):
        look(config.model_copy(update=dict(zip(names, values, strict=True))))

    start: BeamConfig | None = None
    while start != best() and len(tried) < MAX_TRIED:
        start = best()
        for name in names:
            for value in _neighbours(name, getattr(start, name)):
                look(start.model_copy(update={name: value}))

    return Tuned(greedy, tried, log_prior)


def _neighbours(name: str, value: float) -> list[float]:
    """Give the values one step below and above, as far as they are allowed."""
    lowest, highest = BOUNDS[name]
    candidates = (round(value - STEPS[name], 2), round(value + STEPS[name], 2))
    return [candidate for candidate in candidates if lowest <= candidate <= highest]


def _on_cpu(batch: Emissions) -> Emissions:
    return Emissions(batch.ids, batch.log_probs.cpu(), batch.num_outputs.cpu())


def _log_prior(batches: Sequence[Emissions]) -> Tensor:
    """(V,) natural log of each token's mean probability over all valid outputs."""
    valid: list[Tensor] = []
    for batch in batches:
        for rows, count in zip(batch.log_probs, batch.num_outputs.tolist(), strict=True):
            valid.append(rows[:count].float())

    mean = torch.cat(valid).exp().mean(0)
    return mean.clamp(min=MIN_PRIOR).log()


def _line(point: Tried, names: Sequence[str]) -> str:
    weights = [f"{name.replace('_', ' ')} {getattr(point.config, name):g}" for name in names]
    return f"{', '.join(weights)}: WER {point.score.wer:.1%}, CER {point.score.cer:.1%}"
