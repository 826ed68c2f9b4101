"""When each word of a hypothesis was said, and how sure the recogniser was."""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from speechssl.decoding.greedy import TokenSpan, min_ctc_frames
from speechssl.scoring.calibration import Scaling
from speechssl.text.tokenizers import Tokenizer


class WordSpan(NamedTuple):
    """A word over frames ``start`` up to, not including, ``end``.

    ``probability``: the product over the word's tokens of ``TokenSpan.probability``, which is the mean over the token's
    frames of what the recogniser gave that token there, 0..1; then scaled as made it a probability on the development
    set. ``speechssl evaluate`` measures how far it is from one elsewhere.
    """

    text: str
    start: int
    end: int
    probability: float


def align(log_probs: Tensor, tokens: Sequence[int], blank_id: int = 0) -> list[TokenSpan]:
    """The most probable place of each token, in order and without overlap.

    Args:
        log_probs: (T, V) normalised, of one utterance.
        tokens: ids without blanks, repeats meant. They need ``min_ctc_frames(tokens)`` frames.

    Source: Graves et al. 2006, section 4.1, with the best path instead of the sum; torchaudio's forced alignment.
    """
    from torchaudio.functional import forced_align

    if not tokens:
        return []
    assert min_ctc_frames(tokens) <= len(log_probs), "fewer frames than the tokens need"
    rows = log_probs.detach().float().cpu()
    path, scores = forced_align(
        rows[None].contiguous(), torch.tensor([list(tokens)], dtype=torch.int32), blank=blank_id
    )
    spans = []
    frame = 0
    for token, run in groupby(path[0].tolist()):
        length = len(list(run))
        if token != blank_id:
            probability = float(scores[0, frame : frame + length].double().exp().mean())
            spans.append(TokenSpan(token, frame, frame + length, min(probability, 1.0)))
        frame += length
    return spans


def words_of(spans: Sequence[TokenSpan], tokenizer: Tokenizer, scaling: Scaling) -> list[WordSpan]:
    """Tokens joined to words; a token that is a space, or begins with one, ends the word before it."""
    found, group, text = [], list[TokenSpan](), ""

    def close() -> None:
        nonlocal text
        if text:
            product = math.prod(span.probability for span in group)
            found.append(WordSpan(text, group[0].start, group[-1].end, scaling(product)))
        group.clear()
        text = ""

    for span in spans:
        piece = tokenizer.texts[span.token]
        if piece[:1].isspace():
            close()
        if piece.strip():
            group.append(span)
            text += piece.strip()
        if piece[-1:].isspace():
            close()
    close()
    return found
