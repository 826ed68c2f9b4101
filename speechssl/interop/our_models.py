"""The kinds of our models that are converted, and what of them no other library has."""

from speechssl.encoder.encoder import Encoder
from speechssl.errors import ConfigError
from speechssl.pretraining.contrastive import Contrastive
from speechssl.recognition.model import CtcModel

Model = Encoder | Contrastive | CtcModel


def encoder_of(model: Model) -> Encoder:
    """Find the encoder, which may be the whole model."""
    if isinstance(model, Encoder):
        return model
    return model.encoder


def check_portable(model: Model) -> None:
    """Refuse what no other library has.

    Raises:
        ConfigError: a log-mel front end, a context of convolutions or with some in its layers, or
            several outputs a frame.
    """
    config = encoder_of(model).config
    if config.features.kind != "waveform":
        raise ConfigError(
            f"{config.features.kind} front ends exist in no other library; "
            "recognisers: export --to onnx"
        )

    if config.context != "transformer":
        raise ConfigError(
            f"context {config.context} exists in no other library; recognisers: export --to onnx"
        )

    several_outputs = isinstance(model, CtcModel) and model.config.tokens_per_frame > 1
    if config.conv_kernel or several_outputs:
        raise ConfigError(
            "conv_kernel and tokens_per_frame exist in no other library; "
            "recognisers: export --to onnx"
        )
