"""Shapes of encoders: the published sizes, and those that cannot be."""

import pytest
import torch
from reference.models import TINY

from speechssl.config import build, read_preset
from speechssl.encoder.config import EncoderConfig
from speechssl.encoder.encoder import Encoder
from speechssl.errors import ConfigError


def test_presets_are_the_published_sizes() -> None:
    for name, millions in (("base", 94.4), ("large", 315.4)):
        config = build(EncoderConfig, read_preset(name)["encoder"])
        with torch.device("meta"):
            count = sum(p.numel() for p in Encoder(config).parameters())
        assert count / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 18, "num_heads": 4}, "width 18 must be divisible"),
        ({"conv_layers": []}, "conv_layers"),
        ({"conv_layers": [(8, 0, 1)]}, "conv_layers.0.1"),
        ({"subsampling": 3}, "subsampling"),
        ({"conv_kernel": 4}, "conv_kernel 4 must be odd"),
        ({"depth": 3}, "unknown setting 'depth'"),
    ],
)
def test_wrong_shapes_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(EncoderConfig, TINY | wrong)
