"""Recognisers shaped like those of other projects."""

import torch
from reference.models import tiny_encoder

from speechssl.recognition.model import CtcConfig, CtcModel
from speechssl.text.character_tokenizer import CharTokenizer


def recogniser(kind: str, **changes: object) -> CtcModel:
    """A recogniser over ``tiny_encoder(kind)`` whose texts differ between recordings."""
    encoder = tiny_encoder(kind, **changes)
    model = CtcModel(encoder, CharTokenizer("' abcd"), "basic-1", CtcConfig()).eval()
    with torch.no_grad():
        model.head.weight.normal_()
        model.head.bias[0] += 1
    return model
