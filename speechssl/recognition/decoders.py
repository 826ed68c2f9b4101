"""From a model's log-probabilities to words: greedily, or by a beam search with a language model.

Shapes: B utterances, T outputs of the head in time, V tokens of the vocabulary.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from speechssl.data.collate import length_batches, max_batch_length
from speechssl.data.dataset import Dataset
from speechssl.decoding.align import WordSpan, find_words
from speechssl.decoding.beam import BeamSearch
from speechssl.decoding.greedy import greedy
from speechssl.decoding.hypothesis import Decoded
from speechssl.decoding.spoken_units import SpokenUnit, find_units
from speechssl.recognition.defaults import BATCH_SECONDS
from speechssl.recognition.model import CtcModel
from speechssl.scoring.calibration import Scaling
from speechssl.scoring.score import Unit
from speechssl.text.phone_tokenizer import PhoneTokenizer

# What a decoder finds in an utterance.
Spoken = WordSpan | SpokenUnit


class CtcDecoder(NamedTuple):
    """How log-probabilities become words.

    Attributes:
        search: (B, T, V) log-probabilities and (B,) valid outputs -> what was said in each
            utterance.
        scaling: what makes the confidences of the words probabilities.
        unit: what the words are.
    """

    search: Callable[[Tensor, Tensor], Sequence[Decoded]]
    scaling: Scaling
    unit: Unit = "word"


class Emissions(NamedTuple):
    """What the model computes for a batch.

    Attributes:
        ids: of the B utterances.
        log_probs: (B, T, V) float32, natural log.
        num_outputs: (B,) int64, valid outputs of each utterance.
    """

    ids: tuple[str, ...]
    log_probs: Tensor
    num_outputs: Tensor


def greedy_decoder(model: CtcModel) -> CtcDecoder:
    """Take the best token of each output, then drop repeats and blanks.

    Of a recogniser with a pronunciation lexicon the words are phones.
    """
    blank_id = model.tokenizer.blank_id

    def search(log_probs: Tensor, num_outputs: Tensor) -> Sequence[Decoded]:
        return [Decoded(tuple(ids)) for ids in greedy(log_probs, num_outputs, blank_id)]

    unit: Unit = "phone" if isinstance(model.tokenizer, PhoneTokenizer) else "word"
    return CtcDecoder(search, model.scaling, unit)


def beam_decoder(beam: BeamSearch) -> CtcDecoder:
    """Take the best hypothesis of a beam search."""

    def search(log_probs: Tensor, num_outputs: Tensor) -> Sequence[Decoded]:
        hypotheses = beam(log_probs, num_outputs)
        return [best_first[0].decoded for best_first in hypotheses]

    scaling = Scaling(beam.config.confidence_slope, beam.config.confidence_offset)
    return CtcDecoder(search, scaling)


@torch.inference_mode()
def emissions(
    model: CtcModel, dataset: Dataset, batch_seconds: float = BATCH_SECONDS
) -> Iterator[Emissions]:
    """Compute the log-probabilities of all utterances, in batches of like length, longest first.

    Utterances that are too short for one output come last, with none. What an utterance gets does
    not depend on the batch.
    """
    model.eval()
    device = next(model.parameters()).device
    limit = max_batch_length(batch_seconds, dataset.features.sample_rate_hz)

    num_frames = model.encoder.num_frames(torch.from_numpy(dataset.input_lengths)).numpy()
    long_enough = dataset.subset(np.flatnonzero(num_frames > 0))
    too_short = np.flatnonzero(num_frames == 0)

    lengths = np.asarray(long_enough.num_samples, dtype=np.int64)
    for positions in length_batches(lengths, limit):
        batch = long_enough.batch(positions)
        output = model.log_probs(batch.to(device))
        yield Emissions(tuple(batch.ids), output.hidden, output.num_frames)

    if len(too_short):
        ids = tuple(dataset.id_text(position)[0] for position in too_short.tolist())
        nothing = torch.zeros(len(ids), 0, model.tokenizer.size)
        yield Emissions(ids, nothing, torch.zeros(len(ids), dtype=torch.long))


def recognise(
    model: CtcModel, batches: Iterable[Emissions], decoder: CtcDecoder
) -> dict[str, Sequence[Spoken]]:
    """Find the words of each utterance, with their place in time and their confidence.

    In scripts without spaces between words, these are characters.

    Returns:
        the words by utterance id; places count outputs of the head.
    """
    found: dict[str, Sequence[Spoken]] = {}

    for batch in batches:
        results = decoder.search(batch.log_probs, batch.num_outputs)
        rows = batch.log_probs.cpu()
        counts = batch.num_outputs.tolist()

        for name, row, count, decoded in zip(batch.ids, rows, counts, results, strict=True):
            # Phones are of no script, whatever they are written with.
            find = find_words if decoder.unit == "phone" else find_units
            found[name] = find(row[:count], decoded, model.tokenizer, decoder.scaling)

    return found
