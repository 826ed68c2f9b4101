"""``find_weights``: the weights of a language model with the fewest errors on a development set."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from speechssl.data.dataset import Dataset
from speechssl.decoding.beam import BeamSearch
from speechssl.decoding.hypothesis import BeamConfig, Decoded
from speechssl.decoding.lexicon import separator
from speechssl.recognition.decoders import (
    CtcDecoder,
    Emissions,
    beam_decoder,
    emissions,
    greedy_decoder,
    recognise,
)
from speechssl.recognition.emission_file import EmissionFile
from speechssl.recognition.evaluate import references, score_phones, score_words
from speechssl.recognition.model import CtcModel
from speechssl.recognition.remarks import ask_if_paired
from speechssl.runtime.log import log
from speechssl.scoring.calibration import Scaling
from speechssl.scoring.score import Score
from speechssl.text.word_spaces import are_without_word_spaces

# All of the grid is tried, since the best value of one weight depends on the others. The best path
# alone, which the search for words scores, wants other weights than the sum of all paths.
GRIDS = {
    "words": {
        "lm_weight": (2.0, 3.0, 4.0),
        "prior_scale": (0.0, 0.2, 0.5),
        "word_score": (-3.0, -1.0),
    },
    "tokens": {
        "lm_weight": (1.0, 2.0, 3.0),
        "prior_scale": (0.0, 0.3, 0.6),
        "word_score": (-4.0, 0.0),
    },
}
# Steps from the best point of the grid, for as long as that gets better.
STEPS = {"lm_weight": 0.5, "prior_scale": 0.1, "word_score": 1.0}
# The smallest and largest value that a step may reach.
BOUNDS = {
    "lm_weight": (0.0, float("inf")),
    "prior_scale": (0.0, 1.0),
    "word_score": (float("-inf"), float("inf")),
}
# Over words, the weights are found with the first of these beams, and all are tried with the best
# weights. The widest that is fast enough is kept.
BEAMS = (300, 100, 1000, 3000)
# Seconds of audio searched in a second.
FAST_ENOUGH = 20.0
# Points tried, after which no further round of steps begins.
MAX_TRIED = 50
# With fewer words in the references, one word more or less decides between weights.
FEW = 100
# Probability of a token that the recogniser hardly ever says: its prior is no smaller.
MIN_PRIOR = 1e-4


class Tried(NamedTuple):
    """Weights of a language model, and the errors they made.

    Attributes:
        speed: seconds of audio that the search took in a second, on one core.
        by_characters: whether only characters count, as in texts without spaces between words.
    """

    config: BeamConfig
    score: Score
    speed: float
    by_characters: bool = False

    @property
    def errors(self) -> Fraction:
        """What is made as small as it can be, see ``_errors``."""
        return _errors(self.score, self.by_characters)


class Tuned(NamedTuple):
    """What tuning found.

    Attributes:
        greedy: score of greedy decoding: in phones where the recogniser's tokens are phones.
        tried: all weights that were tried, the best first.
        beams: the best weights with beams of several widths, the narrowest first; over tokens, the
            one beam that was tried.
        log_prior: (V,) natural log of the share that each token has of all outputs.
    """

    greedy: Score
    tried: list[Tried]
    beams: list[Tried]
    log_prior: Tensor

    @property
    def chosen(self) -> Tried:
        """The best weights with the widest beam that is fast enough, else the narrowest."""
        fast = [beam for beam in self.beams if beam.speed >= FAST_ENOUGH]
        return fast[-1] if fast else self.beams[0]

    @property
    def best(self) -> BeamConfig:
        """What was chosen, with the scaling that makes the confidences of words probabilities."""
        config, score = self.chosen.config, self.chosen.score
        scaling = score.calibration.scaling if score.calibration else Scaling()
        changes = {f"confidence_{name}": value for name, value in asdict(scaling).items()}
        return config.model_copy(update=changes)

    @property
    def is_worth_keeping(self) -> bool:
        """Whether what was chosen makes no more errors than greedy decoding.

        Without a language model there are no words of phones, so then it always is.
        """
        if self.greedy.unit == "phone":
            return True
        return self.chosen.errors <= _errors(self.greedy, self.chosen.by_characters)


def _errors(score: Score, by_characters: bool) -> Fraction:
    """Sum of word and character error rate, or the character error rate alone.

    By words alone, a poor recogniser with a language model of few words does best to leave most of
    what was said out (docs/experiments/048). The sum is exact: else its rounding would decide
    between weights that are equal.
    """
    characters = score.characters.exact_rate
    return characters if by_characters else score.words.exact_rate + characters


def find_weights(
    model: CtcModel,
    dataset: Dataset,
    config: BeamConfig,
    search: Callable[[BeamConfig, Tensor], BeamSearch],
    folder: Path | None = None,
) -> Tuned:
    """Try all of the grid, then go on from the best point step by step; then try other beams.

    The best point has the lowest sum of word and character error rate, or the lowest character
    error rate in texts without spaces between words. Of equal ones it is the nearest to the middle
    of the grid: a set on which all are equal must not turn the language model off. Of equally near
    ones it has the smallest weight of the language model, then of the prior, then score of a word.
    The recogniser runs once. A language model over pieces that begin words themselves has no score
    for each word.

    Args:
        config: of the search; its weights are replaced, and over words its beam.
        search: makes a beam search with these weights and this log-prior.
        folder: on whose disk the log-probabilities lie meanwhile; None takes that of temporary
            files.

    Raises:
        ConfigError: a chunk has no transcript, or the features are not the model's.
    """
    transcripts = references(model, dataset)
    with EmissionFile(emissions(model, dataset), folder) as batches:
        return _find_weights(model, transcripts, batches, config, search)


def _find_weights(
    model: CtcModel,
    transcripts: Mapping[str, str],
    batches: EmissionFile,
    config: BeamConfig,
    search: Callable[[BeamConfig, Tensor], BeamSearch],
) -> Tuned:
    log_prior, num_outputs = _log_prior(batches)
    audio_s = num_outputs * model.seconds_per_output

    greedy = _greedy_score(model, transcripts, batches)
    ask_if_paired(greedy, "greedy decoding")
    by_characters = are_without_word_spaces(transcripts.values())

    grid = GRIDS[config.unit]
    has_word_score = config.unit == "words" or bool(separator(model.tokenizer))
    names = [name for name in grid if name != "word_score" or has_word_score]
    tried: list[Tried] = []
    if config.unit == "words":
        config = config.model_copy(update={"beam_size": BEAMS[0]})

    def measure(weights: BeamConfig) -> Tried:
        decoder = _Timed(beam_decoder(search(weights, log_prior)))
        found = recognise(model, batches, decoder.decoder)
        score = score_words(transcripts, found, model.normaliser)
        speed = audio_s / max(decoder.seconds, 1e-9)
        return Tried(weights, score, speed, by_characters)

    def look(weights: BeamConfig) -> None:
        if any(weights == point.config for point in tried):
            return
        point = measure(weights)
        tried.append(point)
        log(_line(point, names))

    def best() -> BeamConfig:
        tried.sort(key=lambda point: _rank(point, names))
        return tried[0].config

    for values in product(*(grid[name] for name in names)):
        look(config.model_copy(update=dict(zip(names, values, strict=True))))

    start: BeamConfig | None = None
    while start != best() and len(tried) < MAX_TRIED:
        start = best()
        for name in names:
            for value in _neighbours(name, getattr(start, name)):
                look(start.model_copy(update={name: value}))

    _say_how_sure(tried)

    beams = [tried[0]]
    if config.unit == "words":
        # The first one is measured again: its time may have been that of compiling the search.
        beams = []
        for beam_size in BEAMS:
            point = measure(best().model_copy(update={"beam_size": beam_size}))
            beams.append(point)
            log(f"beam {beam_size}: {_rates(point)}, {point.speed:.0f} times real time")
        beams.sort(key=lambda point: point.config.beam_size)

    return Tuned(greedy, tried, beams, log_prior)


def _greedy_score(
    model: CtcModel, transcripts: Mapping[str, str], batches: Iterable[Emissions]
) -> Score:
    """Score greedy decoding."""
    decoder = greedy_decoder(model)
    found = recognise(model, batches, decoder)
    if decoder.unit == "phone":
        return score_phones(model.tokenizer, transcripts, found, model.normaliser)
    return score_words(transcripts, found, model.normaliser)


class _Timed:
    """A decoder that adds up the processor time its search takes, on a busy machine too."""

    def __init__(self, decoder: CtcDecoder) -> None:
        self.seconds = 0.0
        self._search = decoder.search
        self.decoder = decoder._replace(search=self._timed_search)

    def _timed_search(self, log_probs: Tensor, num_outputs: Tensor) -> Sequence[Decoded]:
        start = time.thread_time()
        found = self._search(log_probs, num_outputs)
        self.seconds += time.thread_time() - start
        return found


def _rank(point: Tried, names: Sequence[str]) -> tuple[Fraction, float, float, float, float]:
    """Say how good weights are, less is better: no two have the same rank."""
    config = point.config
    weights = config.lm_weight, config.prior_scale, config.word_score
    return point.errors, _steps_from_middle(config, names), *weights


def _steps_from_middle(config: BeamConfig, names: Sequence[str]) -> float:
    """Say how far these weights are from the middle of the grid, in steps of ``STEPS``."""
    grid = GRIDS[config.unit]
    middle = {name: (min(grid[name]) + max(grid[name])) / 2 for name in names}
    steps = sum(abs(float(getattr(config, name)) - middle[name]) / STEPS[name] for name in names)
    # Weights above and below the middle are equally far from it, whatever the rounding.
    return round(steps, 2)


def _say_how_sure(tried: Sequence[Tried]) -> None:
    """Say where chance decides between weights, or nothing does.

    Args:
        tried: the best first.
    """
    best = tried[0]
    ask_if_paired(best.score, "the best of these weights")

    if len({point.errors for point in tried}) == 1:
        log(
            f"all {len(tried)} weights make the same errors, so these texts cannot choose between "
            "them: those nearest to the middle of the grid are taken"
        )

    of_what = "characters" if best.by_characters else "words"
    total = sum(_length(one.reference, best.by_characters) for one in best.score.utterances)
    if total < FEW:
        log(
            f"weights found on {total} {of_what} are left to chance: take a split with at least "
            f"{FEW}, by --split or prepare --dev-share"
        )


def _length(text: str, by_characters: bool) -> int:
    return len(text if by_characters else text.split())


def _neighbours(name: str, value: float) -> list[float]:
    """Give the values one step below and above, as far as they are allowed."""
    lowest, highest = BOUNDS[name]
    candidates = (round(value - STEPS[name], 2), round(value + STEPS[name], 2))
    return [candidate for candidate in candidates if lowest <= candidate <= highest]


def _log_prior(batches: Iterable[Emissions]) -> tuple[Tensor, int]:
    """(V,) natural log of each token's mean probability over all valid outputs; their number."""
    total: Tensor | float = 0.0
    num_outputs = 0

    for batch in batches:
        for rows, count in zip(batch.log_probs, batch.num_outputs.tolist(), strict=True):
            total = total + rows[:count].exp().sum(0, dtype=torch.float64)
            num_outputs += count

    mean = torch.as_tensor(total / max(1, num_outputs)).float()
    return mean.clamp(min=MIN_PRIOR).log(), num_outputs


def _line(point: Tried, names: Sequence[str]) -> str:
    return f"{weights_line(point.config, names)}: {_rates(point)}"


def weights_line(config: BeamConfig, names: Iterable[str] = tuple(STEPS)) -> str:
    """Name the weights of a search and their values."""
    return ", ".join(f"{name.replace('_', ' ')} {getattr(config, name):g}" for name in names)


def _rates(point: Tried) -> str:
    return f"WER {point.score.wer:.1%}, CER {point.score.cer:.1%}"
