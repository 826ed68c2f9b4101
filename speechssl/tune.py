"""Weights of a language model, found on a development set."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from speechssl.batching import Dataset
from speechssl.beam import BeamConfig, BeamSearch
from speechssl.ctc import CtcModel
from speechssl.recognise import Decode, beam_ids, emissions, greedy_ids, references
from speechssl.runtime import log
from speechssl.score import Score, score
from speechssl.text import normalise

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


def tune(model: CtcModel, dataset: Dataset, config: BeamConfig, search: Callable[[BeamConfig], BeamSearch]) -> Tuned:
    """Try weights and word scores, each in turn with the best of the other, then the neighbours of the best weight.

    The best has the lowest word error rate, then character error rate, then weight. The recogniser runs once.

    Raises:
        ConfigError: a chunk has no transcript, or the features are not the model's.
    """
    said = references(model, dataset)
    heard = [(ids, rows.cpu(), frames.cpu()) for ids, rows, frames in emissions(model, dataset)]
    greedy = _score(model, said, heard, greedy_ids(model))
    tried: list[Tried] = []

    def best() -> BeamConfig:
        tried.sort(key=lambda t: (t.score.wer, t.score.cer, t.config.lm_weight))
        return tried[0].config

    def look(**changes: float) -> None:
        given = (tried[0].config if tried else config).model_copy(update=changes)
        if given not in [t.config for t in tried]:
            tried.append(Tried(given, _score(model, said, heard, beam_ids(search(given)))))
            found = tried[-1].score
            log(
                f"weight {given.lm_weight:g}, word score {given.word_score:g}: WER {found.wer:.1%}, CER {found.cer:.1%}"
            )

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


def _score(
    model: CtcModel, said: dict[str, str], heard: list[tuple[tuple[str, ...], Tensor, Tensor]], decode: Decode
) -> Score:
    found: dict[str, str] = {}
    for ids, rows, frames in heard:
        found |= dict(zip(ids, map(model.tokenizer.decode, decode(rows, frames)), strict=True))
    return score(said, {i: normalise(text, model.normaliser) for i, text in found.items()})
