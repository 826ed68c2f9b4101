"""Span masks, drawn for each utterance from its own generator."""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from speechssl.config import Settings


class MaskConfig(Settings):
    """Spans of masked frames.

    ``prob`` is the expected masked share before overlaps: start probability x length.
    """

    prob: float = Field(0.65, ge=0, le=1, description="spans x length / frames, before overlap")
    length: int = Field(10, ge=1, description="frames of a span")
    min_spans: int = Field(2, ge=0, description="spans drawn at least, however short the utterance")


def span_mask(num_frames: int, config: MaskConfig, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw the frames to mask in one utterance.

    ``prob * num_frames / length`` starts (rounded up or down at random, so that the expectation is
    exact) are drawn without replacement. Spans may overlap, and are never cut or moved to equalise
    counts.

    An utterance shorter than three spans gets spans of a third of its length. There are never so
    many spans that no frame could be left to predict from, and the frame of a one-frame utterance
    stays unmasked.

    Args:
        num_frames: valid frames. The caller pads the mask with False.
        config: share and length of the spans.
        rng: of this utterance alone, so that its mask does not depend on its batch mates.

    Returns:
        (num_frames,) bool, True = masked.

    Source: wav2vec 2.0 (arXiv 2006.11477) section 3.1 and appendix; its 49 % masked and mean run of
    14.7 frames at 15.6 s are reproduced in test_masking.py.
    """
    mask = np.zeros(num_frames, dtype=bool)
    if config.prob == 0 or num_frames < 2:
        return mask

    third_of_utterance = max(1, num_frames // 3)
    length = min(config.length, third_of_utterance)

    expected_spans = config.prob * num_frames / length
    rounding = rng.random()
    num_spans = int(expected_spans + rounding)
    num_spans = max(num_spans, config.min_spans)
    # This many spans side by side still leave one frame to predict from.
    most_spans = (num_frames - 1) // length
    num_spans = min(num_spans, most_spans)

    num_starts = num_frames - length + 1
    starts = rng.choice(num_starts, size=num_spans, replace=False)
    steps = np.arange(length)
    masked_frames = starts[:, None] + steps  # (spans, length)
    masked_frames = masked_frames.ravel()
    mask[masked_frames] = True
    return mask
