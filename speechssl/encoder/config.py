"""The shape of an encoder, and the arithmetic between samples, units and frames.

A unit is what the front end reads: an audio sample (waveform) or a mel frame (logmel). A frame is
one step of the encoder.
"""

import math
from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from speechssl.audio.feature_config import FeatureConfig
from speechssl.config import Settings
from speechssl.errors import ConfigError

# Channels, kernel and stride (both in units of the layer below) of one convolution.
ConvLayerSpec = tuple[PositiveInt, PositiveInt, PositiveInt]

# As published: 320 samples (20 ms at 16 kHz) from one frame to the next, 400 samples under each.
WAV2VEC2_CONVS: tuple[ConvLayerSpec, ...] = ((512, 10, 5), *[(512, 3, 2)] * 4, *[(512, 2, 2)] * 2)

# Kernel and stride in mel frames of each 1-D convolution of the log-mel front end.
LOG_MEL_WINDOW = (3, 2)
# The same of the first of its two 2-D convolutions, and the kernel of the second.
PLANE_WINDOW = (5, 1)
PLANE_KERNEL = 3
# Stride of the second one along the mel axis.
PLANE_MEL_STRIDE = 2


class EncoderConfig(Settings):
    """Shape of an encoder. Defaults are wav2vec 2.0 BASE; the presets change them."""

    features: FeatureConfig = Field(
        FeatureConfig(kind="waveform"), description="what the front end reads"
    )
    conv_layers: tuple[ConvLayerSpec, ...] = Field(
        WAV2VEC2_CONVS, min_length=1, description="(channels, kernel, stride), waveform"
    )
    conv_norm: Literal["group", "layer"] = Field(
        "group", description="group: after the first layer only (waveform)"
    )
    conv_bias: bool = Field(
        False, description="whether the convolutions have a bias, as LARGE's do (waveform)"
    )
    normalise_input: bool = Field(
        False, description="zero mean, unit variance per utterance (waveform)"
    )
    front_end: Literal["conv1d", "conv2d"] = Field(
        "conv1d", description="convolutions over time, or over time and mel bins (logmel)"
    )
    mel_norm: Literal["utterance", "corpus", "speech"] = Field(
        "utterance",
        description="where the mean and variance of each mel bin are from: each utterance, or the "
        "training data, after the level of each utterance (corpus) or of its speech (speech, which "
        "leaves hum out) is taken away (logmel)",
    )
    batch_norm: bool = Field(
        False,
        description="batch norm in place of LayerNorm (front_end conv2d and context convolution)",
    )
    subsampling: Literal[2, 3, 4] = Field(
        2, description="mel frames per encoder frame (logmel); 3 with conv2d only"
    )
    mel_stride: Literal[2, 4] = Field(
        2, description="stride of the first convolution along the mel axis (conv2d)"
    )
    channels: int = Field(256, gt=0, description="of each convolution of the log-mel front end")
    width: int = Field(768, gt=0, description="width of the context network")
    context: Literal["transformer", "convolution"] = Field(
        "transformer", description="what relates the frames: attention, or dilated convolutions"
    )
    dilations: tuple[PositiveInt, ...] = Field(
        (1, 1, 2, 2, 3, 3),
        min_length=1,
        description="frames between the taps of each layer's convolution (convolution)",
    )
    num_layers: int = Field(12, ge=1, description="of the transformer")
    num_heads: int = Field(12, ge=1)
    ffn_width: int = Field(3072, gt=0)
    norm: Literal["post", "pre"] = Field(
        "post", description="LayerNorm after (BASE) or before (LARGE) each block"
    )
    pos_kernel: int = Field(128, ge=1, description="frames that the positional convolution covers")
    pos_groups: int = Field(16, ge=1)
    conv_kernel: int = Field(
        0, ge=0, description="odd: frames under a depthwise convolution in each layer; 0 = none"
    )
    adapter_width: int = Field(
        0, ge=0, description="of a bottleneck after each layer, MMS has them; 0 = none"
    )
    dropout: float = Field(0.1, ge=0, lt=1)
    attention_dropout: float = Field(0.1, ge=0, lt=1)
    activation_dropout: float = Field(0.0, ge=0, lt=1)
    layer_drop: float = Field(
        0.05, ge=0, lt=1, description="probability that training skips a layer"
    )

    @model_validator(mode="after")
    def _fitting_sizes(self) -> "EncoderConfig":
        is_transformer = self.context == "transformer"
        if is_transformer and (self.width % self.num_heads or self.width % self.pos_groups):
            raise ValueError(f"width {self.width} must be divisible by num_heads and pos_groups")

        if self.batch_norm and (self.front_end, self.context) != ("conv2d", "convolution"):
            raise ValueError("batch_norm needs front_end conv2d and context convolution")

        if self.subsampling == 3 and self.front_end == "conv1d":
            raise ValueError("subsampling 3 needs front_end conv2d: conv1d halves the rate")

        if self.conv_kernel and self.conv_kernel % 2 == 0:
            raise ValueError(f"conv_kernel {self.conv_kernel} must be odd, or 0 for none")

        if self.adapter_width and self.norm != "pre":
            raise ValueError(
                f"adapter_width {self.adapter_width} needs norm pre: "
                "MMS has adapters in such layers only"
            )
        return self

    @property
    def front_width(self) -> int:
        """Width of the front end's frames, C."""
        if self.features.kind == "waveform":
            last_channels, _, _ = self.conv_layers[-1]
            return last_channels

        if self.front_end == "conv2d":
            num_bins = self.features.num_mels
            for stride in self.mel_strides:
                num_bins = math.ceil(num_bins / stride)
            return self.channels * num_bins

        return self.channels

    @property
    def stacked_width(self) -> int:
        """Width of the log-mel rows under one frame, side by side.

        Raises:
            ConfigError: the front end does not read log-mel.
        """
        if self.features.kind != "logmel":
            raise ConfigError(
                "a log-mel target needs a log-mel front end: "
                "use contrastive.targets=features, or a preset"
            )
        return self.subsampling * self.features.num_mels

    @property
    def rows_before_middle(self) -> int:
        """Mel frames of a frame's window before the ``subsampling`` ones in its middle."""
        return 2 if self.front_end == "conv2d" else 1

    @property
    def frame_windows(self) -> tuple[tuple[int, int], ...]:
        """(kernel, stride) of each convolution over units, in order."""
        if self.features.kind == "waveform":
            return tuple((kernel, stride) for _, kernel, stride in self.conv_layers)

        if self.front_end == "conv2d":
            return (PLANE_WINDOW, (PLANE_KERNEL, self.subsampling))

        # Each convolution halves the rate.
        num_convs = 1 if self.subsampling == 2 else 2
        return (LOG_MEL_WINDOW,) * num_convs

    @property
    def mel_strides(self) -> tuple[int, ...]:
        """Stride of each 2-D convolution along the mel axis, in order."""
        return (self.mel_stride, PLANE_MEL_STRIDE)

    def min_input_length(self, num_frames: int) -> int:
        """Samples or mel frames of the shortest input with ``num_frames`` (at least one) frames."""
        length = num_frames
        for kernel, stride in reversed(self.frame_windows):
            length = (length - 1) * stride + kernel

        return length

    @property
    def samples_per_frame(self) -> int:
        """Audio samples from one encoder frame to the next."""
        units_per_frame = math.prod(stride for _, stride in self.frame_windows)
        return self.features.hop * units_per_frame
