"""Tiny encoders of every kind, each with noise of several lengths."""

from reference.models import noise, tiny_encoder
from torch import Tensor

from speechssl.encoder.encoder import Encoder

LENGTHS = {"waveform": [700, 431, 30, 250], "logmel": [60, 41, 7, 33]}


def make(kind: str, **changes: object) -> tuple[Encoder, list[Tensor]]:
    """A tiny encoder, and four utterances of lengths that pad one another."""
    encoder = tiny_encoder(kind, **changes)
    return encoder, noise(encoder.config, LENGTHS[encoder.config.features.kind])
