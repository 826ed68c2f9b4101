"""The frames in which each token and each word of a hypothesis was spoken, with probabilities."""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from speechssl.decoding.greedy import min_ctc_frames
from speechssl.decoding.hypothesis import Decoded
from speechssl.scoring.calibration import Scaling
from speechssl.text.tokenizer import Tokenizer


class TokenSpan(NamedTuple):
    """A token that the model emitted over frames ``start`` up to, not including, ``end``.

    ``probability`` is the mean over these frames of the token's own probability, 0..1. CTC models
    put nearly all probability into few frames, so it compares tokens but is not calibrated.
    """

    token: int
    start: int
    end: int
    probability: float


class WordSpan(NamedTuple):
    """A word over frames ``start`` up to, not including, ``end``.

    ``probability`` is the product of ``TokenSpan.probability`` over the word's tokens, 0..1, passed
    through the scaling that calibrated it on the development set. ``speechssl evaluate`` measures
    how well calibrated it is on other data.
    """

    text: str
    start: int
    end: int
    probability: float

    @property
    def follows(self) -> bool:
        """Whether no space stands before it: words have one."""
        return False


def align(log_probs: Tensor, tokens: Sequence[int], blank_id: int = 0) -> list[TokenSpan]:
    """Find the most probable frames of each token, in order and without overlap.

    Args:
        log_probs: (T, V) normalised, of one utterance.
        tokens: ids without blanks, a repeated token twice. They need ``min_ctc_frames(tokens)``
            frames.

    Source: Graves et al. 2006, section 4.1, with the best path instead of the sum, as computed by
    torchaudio's forced alignment.
    """
    from torchaudio.functional import forced_align

    if not tokens:
        return []
    frames_needed = min_ctc_frames(tokens)
    assert frames_needed <= len(log_probs), "fewer frames than the tokens need"

    on_host = log_probs.detach().float().cpu()
    batch = on_host[None].contiguous()  # (1, T, V)
    targets = torch.tensor([list(tokens)], dtype=torch.int32)
    paths, log_scores = forced_align(batch, targets, blank=blank_id)

    # The token of each frame, blanks included: a run of one token is one emission.
    token_of_frame = paths[0].tolist()
    spans: list[TokenSpan] = []
    start = 0
    for token, run in groupby(token_of_frame):
        num_frames = len(list(run))
        end = start + num_frames

        if token != blank_id:
            own_scores = log_scores[0, start:end].double()
            mean = own_scores.exp().mean()
            # Rounding of float32 log-probabilities can lift a certain token above 1.
            probability = min(float(mean), 1.0)
            spans.append(TokenSpan(token, start, end, probability))

        start = end

    return spans


def find_words(
    log_probs: Tensor, decoded: Decoded, tokenizer: Tokenizer, scaling: Scaling
) -> list[WordSpan]:
    """Find where the words of a hypothesis were spoken, in (T, V) log-probabilities."""
    spans = align(log_probs, decoded.ids, tokenizer.blank_id)
    if decoded.words is None:
        return words_of(spans, tokenizer, scaling)

    words: list[WordSpan] = []
    start = 0
    for word in decoded.words:
        end = start + word.num_tokens
        without_space = [span for span in spans[start:end] if tokenizer.texts[span.token].strip()]
        words.append(_word(word.text, without_space, scaling))
        start = end
    return words


def words_of(spans: Sequence[TokenSpan], tokenizer: Tokenizer, scaling: Scaling) -> list[WordSpan]:
    """Join tokens to words; white space at either end of a token separates words."""
    groups = word_groups(spans, tokenizer)
    return [_word(_text(group, tokenizer), group, scaling) for group in groups]


def word_groups(spans: Sequence[TokenSpan], tokenizer: Tokenizer) -> list[list[TokenSpan]]:
    """Group the tokens of each word, without those that are only white space."""
    groups: list[list[TokenSpan]] = []
    word_spans: list[TokenSpan] = []

    for span in spans:
        text = tokenizer.texts[span.token]

        begins_with_space = text[:1].isspace()
        if begins_with_space and word_spans:
            groups.append(word_spans)
            word_spans = []

        is_only_space = not text.strip()
        if not is_only_space:
            word_spans.append(span)

        ends_with_space = text[-1:].isspace()
        if ends_with_space and word_spans:
            groups.append(word_spans)
            word_spans = []

    if word_spans:
        groups.append(word_spans)
    return groups


def _text(spans: Sequence[TokenSpan], tokenizer: Tokenizer) -> str:
    """Join the texts of the tokens of one word."""
    texts = [tokenizer.texts[span.token].strip() for span in spans]
    return "".join(texts)


def _word(text: str, spans: Sequence[TokenSpan], scaling: Scaling) -> WordSpan:
    """Give a word the frames of its tokens, and their probability."""
    probability = math.prod(span.probability for span in spans)
    confidence = scaling(probability)

    first = spans[0]
    last = spans[-1]
    return WordSpan(text, first.start, last.end, confidence)
