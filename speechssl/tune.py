"""Weights of a language model, found on a development set."""

from collections.abc import Callable
from dataclasses import asdict
from typing import NamedTuple

from speechssl.batching import Dataset
from speechssl.beam import BeamConfig, BeamSearch
from speechssl.ctc import CtcModel
from speechssl.recognise import beam_decoder, emissions, recognised, references, score_words
from speechssl.runtime import log
from speechssl.score import Scaling, Score

LM_WEIGHTS = (0.5, 1.0, 2.0, 3.0, 4.5)
WORD_SCORES = (-2.0, -1.0, 1.0, 2.0, 3.0)
STEP = 0.5  # of the last look at neighbouring weights


class Tried(NamedTuple):
    """One pair of weights and the errors it made."""

    config: BeamConfig
    score: Score


class Tuned(NamedTuple):
    """All that was tried, the best first, and greedy decoding beside it."""

    greedy: Score
    tried: list[Tried]

    @property
    def best(self) -> BeamConfig:
        """The best weights, with the scaling that made the confidences of their words probabilities."""
        config, score = self.tried[0]
        scaling = score.calibration.scaling if score.calibration else Scaling()
        return config.model_copy(update={f"confidence_{name}": value for name, value in asdict(scaling).items()})


def tune(model: CtcModel, dataset: Dataset, config: BeamConfig, search: Callable[[BeamConfig], BeamSearch]) -> Tuned:
    """Try weights and word scores, each in turn with the best of the other, then the neighbours of the best weight.

    The best has the lowest word error rate, then character error rate, then weight. The recogniser runs once.

    Raises:
        ConfigError: a chunk has no transcript, or the features are not the model's.
    """
    said = references(model, dataset)
    heard = [(ids, rows.cpu(), frames.cpu()) for ids, rows, frames in emissions(model, dataset)]
    greedy = score_words(said, recognised(model, heard), model.normaliser)
    tried: list[Tried] = []

    def best() -> BeamConfig:
        tried.sort(key=lambda t: (t.score.wer, t.score.cer, t.config.lm_weight))
        return tried[0].config

    def look(**changes: float) -> None:
        given = (tried[0].config if tried else config).model_copy(update=changes)
        if given not in [t.config for t in tried]:
            found = recognised(model, heard, beam_decoder(search(given)))
            tried.append(Tried(given, score_words(said, found, model.normaliser)))
            wer, cer = tried[-1].score.wer, tried[-1].score.cer
            log(f"weight {given.lm_weight:g}, word score {given.word_score:g}: WER {wer:.1%}, CER {cer:.1%}")

    for weight in LM_WEIGHTS:
        look(lm_weight=weight)
    best()
    for word_score in WORD_SCORES:
        look(word_score=word_score)
    middle = best().lm_weight
    for weight in (middle - STEP, middle + STEP):
        if weight > 0:
            look(lm_weight=weight)
    best()
    return Tuned(greedy, tried)
