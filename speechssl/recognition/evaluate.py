"""A fine-tuned model at work: batches -> log-probabilities -> words, and stored chunks -> score."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from speechssl.data.batches import length_batches, max_batch_length
from speechssl.data.dataset import Dataset, check_features
from speechssl.decoding.align import WordSpan, align, words_of
from speechssl.decoding.beam import BeamSearch
from speechssl.decoding.greedy import greedy
from speechssl.errors import ConfigError
from speechssl.recognition.model import CtcModel
from speechssl.scoring.calibration import Scaling
from speechssl.scoring.score import Score, score
from speechssl.text.normalise import normalise

BATCH_SECONDS = 40.0  # larger batches leave a CPU's caches, smaller ones its cores


Emissions = tuple[
    tuple[str, ...], Tensor, Tensor
]  # of a batch: utterance ids, log-probabilities, valid frames


class CtcDecoder(NamedTuple):
    """How log-probabilities become words.

    Attributes:
        search: (B, T, V) log-probabilities, (B,) valid frames -> token ids of each utterance, as CTC emits them.
        scaling: of the confidences of the words.
    """

    search: Callable[[Tensor, Tensor], Sequence[Sequence[int]]]
    scaling: Scaling


def greedy_decoder(model: CtcModel) -> CtcDecoder:
    """The best token of each frame, repeats and blanks dropped."""
    return CtcDecoder(
        lambda log_probs, frames: greedy(log_probs, frames, model.tokenizer.blank_id), model.scaling
    )


def beam_decoder(beam: BeamSearch) -> CtcDecoder:
    """The best hypothesis of a beam search."""
    scaling = Scaling(beam.config.confidence_slope, beam.config.confidence_offset)
    return CtcDecoder(
        lambda log_probs, frames: [found[0].ids for found in beam(log_probs, frames)], scaling
    )


@torch.inference_mode()
def emissions(
    model: CtcModel, dataset: Dataset, batch_seconds: float = BATCH_SECONDS
) -> Iterator[Emissions]:
    """Utterance ids, (B, T, V) log-probabilities and (B,) valid frames, in batches of like length, the longest first.

    Those too short for a frame come last, with 0 frames. Batching never changes what an utterance gets.
    """
    model.eval()
    limit = max_batch_length(batch_seconds, dataset.features.sample_rate_hz)
    heard = model.encoder.num_frames(torch.from_numpy(dataset.input_lengths)).numpy() > 0
    rest, device = dataset.subset(np.flatnonzero(heard)), next(model.parameters()).device
    for positions in length_batches(np.asarray(rest.num_samples, dtype=np.int64), limit):
        batch = rest.batch(positions)
        yield (tuple(batch.ids), *model.log_probs(batch.to(device)))
    ids = tuple(dataset.id_text(p)[0] for p in np.flatnonzero(~heard).tolist())
    if ids:
        yield (
            ids,
            torch.zeros(len(ids), 0, model.tokenizer.size),
            torch.zeros(len(ids), dtype=torch.long),
        )


def recognised(
    model: CtcModel, heard: Iterable[Emissions], decoder: CtcDecoder | None = None
) -> dict[str, list[WordSpan]]:
    """Words of what ``emissions`` gave, with frames and confidence, by utterance id; greedy if not said otherwise."""
    found: dict[str, list[WordSpan]] = {}
    search, scaling = decoder or greedy_decoder(model)
    for names, log_probs, frames in heard:
        said = search(log_probs, frames)
        for name, rows, count, ids in zip(
            names, log_probs.cpu(), frames.tolist(), said, strict=True
        ):
            found[name] = words_of(
                align(rows[:count], ids, model.tokenizer.blank_id), model.tokenizer, scaling
            )
    return found


def references(model: CtcModel, dataset: Dataset) -> dict[str, str]:
    """The transcripts as they were given.

    Raises:
        ConfigError: a chunk has no transcript, or the features are not the model's.
    """
    check_features(dataset, model.encoder.config.features)
    found = dict(dataset.id_text(p) for p in range(len(dataset)))
    missing = [i for i, text in found.items() if text is None]
    if missing:
        raise ConfigError(
            f"{len(missing)} utterances have no transcript (first: {missing[0]}): they cannot be scored"
        )
    return {i: text or "" for i, text in found.items()}


def evaluate(
    model: CtcModel,
    dataset: Dataset,
    batch_seconds: float = BATCH_SECONDS,
    decoder: CtcDecoder | None = None,
    normaliser: str | None = None,
) -> Score:
    """Word and character error rate against the transcripts, of greedy decoding if not said otherwise.

    Both sides are normalised, by the model's normaliser if no other is named; what they give as they stand is in
    ``raw``. How far the confidences of the words can be trusted is in it too, see ``score``.

    Raises:
        ConfigError: a chunk has no transcript, the features are not the model's, or there is no such normaliser.
    """
    normalise("", normaliser or model.normaliser)  # better refused now than after hours
    said = references(model, dataset)
    found = recognised(model, emissions(model, dataset, batch_seconds), decoder)
    return score_words(said, found, normaliser or model.normaliser)


def score_words(
    said: Mapping[str, str], found: Mapping[str, Sequence[WordSpan]], normaliser: str
) -> Score:
    """Recognised words against references, both normalised, since a vocabulary from elsewhere may be upper case."""
    confidences = {name: _confidences(spans, normaliser) for name, spans in found.items()}
    raw_texts = {name: " ".join(span.text for span in spans) for name, spans in found.items()}
    reference, hypothesis = (
        {name: normalise(text, normaliser) for name, text in texts.items()}
        for texts in (said, raw_texts)
    )
    return replace(score(reference, hypothesis, confidences), raw=score(said, raw_texts))


def _confidences(spans: Sequence[WordSpan], normaliser: str) -> list[float]:
    """Of each word of the normalised text: a recognised word may vanish there, or become several."""
    alone = iter(
        [
            (word, span.probability)
            for span in spans
            for word in normalise(span.text, normaliser).split()
        ]
    )
    words = normalise(" ".join(span.text for span in spans), normaliser).split()
    # What surrounds a word can make it vanish, as "and" in a number; it never makes one.
    return [next(probability for own, probability in alone if own == word) for word in words]
