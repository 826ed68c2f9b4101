"""Very small models."""

import torch

from speechssl.config import build
from speechssl.encoder.config import EncoderConfig
from speechssl.encoder.encoder import Encoder
from speechssl.recognition.model import CtcConfig, CtcModel
from speechssl.text.character_tokenizer import CharTokenizer

SMALL_ENCODER = {
    "features": {"kind": "logmel"},
    "subsampling": 4,
    "channels": 32,
    "width": 32,
    "num_layers": 2,
    "num_heads": 2,
    "ffn_width": 64,
    "norm": "pre",
    "pos_kernel": 8,
    "pos_groups": 4,
    "layer_drop": 0.1,
}


def random_recogniser() -> CtcModel:
    """The same random weights each time, and a head so wide that texts differ by recording."""
    torch.manual_seed(0)
    tokenizer = CharTokenizer.train(["abcdef "])
    model = CtcModel(
        Encoder(build(EncoderConfig, SMALL_ENCODER)), tokenizer, "basic-1", CtcConfig()
    )
    torch.nn.init.normal_(model.head.weight, std=0.5)
    return model.eval()
