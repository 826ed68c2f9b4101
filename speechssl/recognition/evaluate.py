"""How well a recogniser does on stored utterances: its words against the transcripts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher

import numpy as np

from speechssl.data.dataset import Dataset, check_features
from speechssl.decoding.spoken_units import joined
from speechssl.errors import ConfigError
from speechssl.recognition.decoders import (
    CtcDecoder,
    Spoken,
    emissions,
    greedy_decoder,
    recognise,
)
from speechssl.recognition.defaults import BATCH_SECONDS
from speechssl.recognition.model import CtcModel
from speechssl.runtime.ranks import log_once
from speechssl.scoring.score import Score, score
from speechssl.text.normalise import normalise
from speechssl.text.tokenizer import Tokenizer
from speechssl.text.word_spaces import are_without_word_spaces
from speechssl.text.words_or_characters import words_or_characters


@dataclass(frozen=True)
class Evaluation:
    """The scores of a recogniser.

    Attributes:
        greedy: of greedy decoding, which shows the network alone.
        with_language_model: of the beam search with its language model; None if it has none.
        unwritable: how often the references hold each character that the recogniser cannot write,
            and each word that the words of its language model lack.
    """

    greedy: Score
    with_language_model: Score | None
    unwritable: Mapping[str, int] = field(default_factory=dict)

    @property
    def best(self) -> Score:
        """The score of what the recogniser writes: with its language model if it has one."""
        return self.with_language_model or self.greedy


def evaluate(
    model: CtcModel,
    dataset: Dataset,
    batch_seconds: float = BATCH_SECONDS,
    decoder: CtcDecoder | None = None,
    normaliser: str | None = None,
) -> Score:
    """Measure the word and character error rate against the transcripts, or the phone error rate.

    A recogniser with a pronunciation lexicon gives phones without a language model. These are
    compared with the phones of the transcripts, see ``score_phones``.

    Both sides are normalised. The rates of the texts as they stand are in ``raw``, and how far
    the confidences of the words can be trusted is in ``calibration``.

    Args:
        decoder: from log-probabilities to words; None decodes greedily.
        normaliser: for both sides; None takes the model's.

    Raises:
        ConfigError: a chunk has no transcript, the features are not the model's, or there is no
            such normaliser.
    """
    scores = evaluate_decoders(
        model, dataset, [decoder or greedy_decoder(model)], batch_seconds, normaliser
    )
    return scores[0]


def evaluate_decoders(
    model: CtcModel,
    dataset: Dataset,
    decoders: Sequence[CtcDecoder],
    batch_seconds: float = BATCH_SECONDS,
    normaliser: str | None = None,
) -> list[Score]:
    """``evaluate`` with several decoders, for which the model computes each batch once."""
    normaliser = normaliser or model.normaliser
    # A name that does not exist is better refused now than after an hour of recognition.
    normalise("", normaliser)

    transcripts = references(model, dataset)
    found: list[dict[str, Sequence[Spoken]]] = [{} for _ in decoders]

    for batch in emissions(model, dataset, batch_seconds):
        for words, decoder in zip(found, decoders, strict=True):
            words.update(recognise(model, [batch], decoder))

    scores: list[Score] = []
    for words, decoder in zip(found, decoders, strict=True):
        if decoder.unit == "phone":
            scores.append(score_phones(model.tokenizer, transcripts, words, normaliser))
        else:
            scores.append(score_words(transcripts, words, normaliser))
    return scores


def with_transcripts(dataset: Dataset, split: str) -> Dataset:
    """Leave out the chunks without a transcript, which measure nothing, and say how many.

    Args:
        split: where the chunks come from, for messages.

    Raises:
        ConfigError: no chunk has one.
    """
    labelled: list[int] = []
    for position in range(len(dataset)):
        _, text = dataset.id_text(position)
        if text is not None:
            labelled.append(position)

    num_without = len(dataset) - len(labelled)
    if not labelled:
        raise ConfigError(
            f"none of the {num_without} chunks of {split} has a transcript, so nothing can be "
            "scored: prepare the recordings with transcripts, or give a store with some"
        )
    if num_without:
        log_once(
            f"{num_without} of {len(dataset)} chunks of {split} have no transcript: "
            "they measure nothing"
        )
    return dataset.subset(np.array(labelled, dtype=np.int64))


def references(model: CtcModel, dataset: Dataset) -> dict[str, str]:
    """Give the transcripts as they stand, by utterance id.

    Raises:
        ConfigError: a chunk has no transcript, or the features are not the model's.
    """
    check_features(dataset, model.encoder.config.features)

    transcripts: dict[str, str] = {}
    missing: list[str] = []
    for position in range(len(dataset)):
        name, text = dataset.id_text(position)
        transcripts[name] = text or ""
        if text is None:
            missing.append(name)

    if missing:
        raise ConfigError(
            f"{len(missing)} utterances have no transcript (first: {missing[0]}): "
            "they cannot be scored"
        )
    return transcripts


def score_words(
    transcripts: Mapping[str, str], found: Mapping[str, Sequence[Spoken]], normaliser: str
) -> Score:
    """Score recognised words against transcripts.

    Both are normalised, the hypotheses too: the vocabulary of an imported model may be upper case.
    """
    raw_texts = {name: joined(words) for name, words in found.items()}
    hypotheses = {name: normalise(text, normaliser) for name, text in raw_texts.items()}
    normalised = {name: normalise(text, normaliser) for name, text in transcripts.items()}

    # A sentence without spaces is one word, whose confidence says nothing of its characters.
    by_characters = are_without_word_spaces(normalised.values())
    part = words_or_characters if by_characters else str.split
    confidences = {name: _confidences(words, normaliser, part) for name, words in found.items()}

    raw = score(transcripts, raw_texts, part=part)
    return replace(score(normalised, hypotheses, confidences, part=part), raw=raw)


def score_phones(
    tokenizer: Tokenizer,
    transcripts: Mapping[str, str],
    found: Mapping[str, Sequence[Spoken]],
    normaliser: str,
) -> Score:
    """Score recognised phones against the most probable pronunciation of each transcript's words.

    A word without a pronunciation counts as one phone that nobody can get right.
    """
    expected: dict[str, str] = {}
    for name, text in transcripts.items():
        ids = tokenizer.encode(normalise(text, normaliser))
        expected[name] = tokenizer.decode(ids)

    heard = {name: joined(phones) for name, phones in found.items()}
    confidences = {name: [phone.probability for phone in phones] for name, phones in found.items()}
    return score(expected, heard, confidences, unit="phone")


def _confidences(
    words: Sequence[Spoken],
    normaliser: str,
    part: Callable[[str], list[str]] = str.split,
) -> list[float]:
    """Give the confidence of each word of the normalised text, as ``part`` finds them.

    Normalising may drop a recognised word or make several of it; each of those has its confidence.
    It may also put words in another order or make one of several, as of "$5" and "million". Such a
    word has the least of the confidences of those that stand in its place.
    """
    parts: list[str] = []
    confidences: list[float] = []
    for word in words:
        for found_part in part(normalise(word.text, normaliser)):
            parts.append(found_part)
            confidences.append(word.probability)

    whole = part(normalise(joined(words), normaliser))
    matcher = SequenceMatcher(None, parts, whole, autojunk=False)

    found: list[float] = []
    for kind, start, end, first, last in matcher.get_opcodes():
        if kind == "equal":
            found += confidences[start:end]
        else:
            # Where nothing stands in its place, a word came from those beside it.
            in_place = confidences[start:end] or confidences[max(start - 1, 0) : end + 1]
            everywhere = [word.probability for word in words]
            least = min(in_place or everywhere)
            found += [least] * (last - first)

    return found
