"""Span masks and negatives for the contrastive task, drawn per utterance from its own generator."""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from speechssl.config import Settings


class MaskConfig(Settings):
    """Spans of masked frames. ``prob`` is the expected masked share before overlaps: start probability x length."""

    prob: float = Field(0.65, ge=0, le=1, description="spans x length / frames, before overlap")
    length: int = Field(10, ge=1, description="frames of a span")
    min_spans: int = Field(2, ge=0, description="spans drawn at least, however short the utterance")


def span_mask(num_frames: int, config: MaskConfig, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Frames to mask in one utterance.

    ``prob * num_frames / length`` starts (rounded up or down at random, so that the expectation is exact) are
    drawn without replacement; spans may overlap and are never cut or moved to equalise counts. An utterance
    shorter than three spans gets spans of a third of its length, and never so many that no frame could be left
    to predict from; a single frame stays unmasked.

    Args:
        num_frames: valid frames. Padding is no concern here: the caller pads with False.

    Returns:
        (num_frames,) bool, True = masked.

    Source: wav2vec 2.0 (arXiv 2006.11477) section 3.1 and appendix; its 49 % masked and mean run of 14.7 frames at
    15.6 s are reproduced in test_masking.py.
    """
    mask = np.zeros(num_frames, dtype=bool)
    if config.prob == 0 or num_frames < 2:
        return mask
    length = min(config.length, max(1, num_frames // 3))
    num_spans = int(config.prob * num_frames / length + rng.random())
    num_spans = min(max(num_spans, config.min_spans), (num_frames - 1) // length)
    starts = rng.choice(num_frames - length + 1, size=num_spans, replace=False)
    mask[(starts[:, None] + np.arange(length)).ravel()] = True
    return mask
