"""Weights of a language model, found on a development set."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import NamedTuple

import torch
from torch import Tensor

from speechssl.batching import Dataset
from speechssl.beam import BeamConfig, BeamSearch
from speechssl.ctc import CtcModel
from speechssl.recognise import Emissions, beam_decoder, emissions, recognised, references, score_words
from speechssl.runtime import log
from speechssl.score import Scaling, Score

GRID = {
    "lm_weight": (0.5, 1.0, 2.0, 3.0, 4.5),
    "prior_scale": (0.0, 0.3, 0.6, 0.9),
    "word_score": (-6.0, -4.0, -2.0, 0.0, 2.0),
}
SWEEPS = 2  # through the grid: the best of one depends on the others
STEPS = {"lm_weight": 0.5, "word_score": 1.0}  # to the neighbours that are looked at last
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
        return config.model_copy(update={f"confidence_{name}": value for name, value in asdict(scaling).items()})


def tune(
    model: CtcModel, dataset: Dataset, config: BeamConfig, search: Callable[[BeamConfig, Tensor], BeamSearch]
) -> Tuned:
    """Try the values of ``GRID`` for each weight in turn with the best of the others, then neighbours of the best.

    The best has the lowest sum of word and character error rate, then weight: by words alone a poor recogniser with a
    language model of few words does best to leave most of what was said out (docs/log.md 48). The recogniser runs once.

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

    def look(**changes: float) -> None:
        given = (tried[0].config if tried else config).model_copy(update=changes)
        if given not in [t.config for t in tried]:
            found = recognised(model, heard, beam_decoder(search(given, log_prior)))
            tried.append(Tried(given, score_words(said, found, model.normaliser)))
            log(", ".join(f"{name.replace('_', ' ')} {getattr(given, name):g}" for name in GRID) + _rates(tried[-1]))

    def look_all(name: str, values: Sequence[float]) -> None:
        for value in values:
            look(**{name: value})
        tried.sort(key=lambda t: (t.score.wer + t.score.cer, t.config.lm_weight))

    for _ in range(SWEEPS):
        for name, values in GRID.items():
            look_all(name, values)
    for name, step in STEPS.items():
        middle = getattr(tried[0].config, name)
        look_all(name, [v for v in (middle - step, middle + step) if v > 0 or name == "word_score"])
    return Tuned(greedy, tried, log_prior)


def _log_prior(heard: Sequence[Emissions]) -> Tensor:
    """(V,) ln of the mean probability of each token over all frames, none below ``MIN_PRIOR``."""
    rows = [row[:n].float() for _, batch, frames in heard for row, n in zip(batch, frames.tolist(), strict=True)]
    return torch.cat(rows).exp().mean(0).clamp(min=MIN_PRIOR).log()


def _rates(tried: Tried) -> str:
    return f": WER {tried.score.wer:.1%}, CER {tried.score.cer:.1%}"
