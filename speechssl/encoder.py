"""Front ends (waveform or log-mel -> frames) and the context network above them: wav2vec 2.0's encoder."""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from speechssl.config import Settings
from speechssl.errors import ConfigError
from speechssl.features import FeatureConfig

ConvLayerSpec = tuple[PositiveInt, PositiveInt, PositiveInt]
WAV2VEC2_CONVS: tuple[ConvLayerSpec, ...] = ((512, 10, 5), *[(512, 3, 2)] * 4, *[(512, 2, 2)] * 2)


class EncoderConfig(Settings):
    """Shape of an encoder. Defaults are wav2vec 2.0 BASE; the presets change them."""

    features: FeatureConfig = Field(FeatureConfig(kind="waveform"), description="what the front end reads")
    conv_layers: tuple[ConvLayerSpec, ...] = Field(
        WAV2VEC2_CONVS, min_length=1, description="(channels, kernel, stride), waveform"
    )
    conv_norm: Literal["group", "layer"] = Field("group", description="group: after the first layer only (waveform)")
    conv_bias: bool = Field(False, description="whether the convolutions have a bias, as LARGE's do (waveform)")
    normalise_input: bool = Field(False, description="zero mean, unit variance per utterance (waveform)")
    subsampling: Literal[2, 4] = Field(2, description="mel frames per encoder frame (logmel)")
    channels: int = Field(256, gt=0, description="width of the log-mel front end")
    width: int = Field(768, gt=0, description="width of the context network")
    num_layers: int = Field(12, ge=1)
    num_heads: int = Field(12, ge=1)
    ffn_width: int = Field(3072, gt=0)
    norm: Literal["post", "pre"] = Field("post", description="LayerNorm after (BASE) or before (LARGE) each block")
    pos_kernel: int = Field(128, ge=1, description="frames that the positional convolution covers")
    pos_groups: int = Field(16, ge=1)
    adapter_width: int = Field(0, ge=0, description="of a bottleneck after each layer, MMS has them; 0 = none")
    dropout: float = Field(0.1, ge=0, lt=1)
    attention_dropout: float = Field(0.1, ge=0, lt=1)
    activation_dropout: float = Field(0.0, ge=0, lt=1)
    layer_drop: float = Field(0.05, ge=0, lt=1, description="probability that training skips a layer")

    @model_validator(mode="after")
    def _divisible(self) -> "EncoderConfig":
        if self.width % self.num_heads or self.width % self.pos_groups:
            raise ValueError(f"width {self.width} must be divisible by num_heads and pos_groups")
        if self.adapter_width and self.norm != "pre":
            raise ValueError(f"adapter_width {self.adapter_width} needs norm pre: MMS has adapters in such layers only")
        return self

    @property
    def front_width(self) -> int:
        """Width of the front end's frames."""
        return self.conv_layers[-1][0] if self.features.kind == "waveform" else self.channels

    @property
    def stacked_width(self) -> int:
        """Width of the log-mel rows under one frame, side by side.

        Raises:
            ConfigError: the front end does not read log-mel.
        """
        if self.features.kind != "logmel":
            raise ConfigError("objective.targets=logmel needs a log-mel front end: use features, or another preset")
        return self.subsampling * self.features.num_mels

    @property
    def frame_windows(self) -> tuple[tuple[int, int], ...]:
        """(kernel, stride) of each convolution over units, in order."""
        if self.features.kind == "waveform":
            return tuple((kernel, stride) for _, kernel, stride in self.conv_layers)
        return ((3, 2),) * (1 if self.subsampling == 2 else 2)

    @property
    def samples_per_frame(self) -> int:
        """Audio samples from one encoder frame to the next."""
        return self.features.hop * math.prod(stride for _, stride in self.frame_windows)


class EncoderOutput(NamedTuple):
    """What the encoder makes of a batch. Padded frames hold no meaning."""

    hidden: Tensor
    """(B, T, D)"""
    num_frames: Tensor
    """(B,) int64, valid frames"""


def valid_mask(num_valid: Tensor, length: int) -> Tensor:
    """(B,) counts -> (B, length) bool, True = valid."""
    return torch.arange(length, device=num_valid.device) < num_valid[:, None]


def after_window(length: Tensor, kernel: int, stride: int) -> Tensor:
    """(B,) int64 -> how many windows lie wholly inside so many units."""
    windows: Tensor = (length - kernel) // stride + 1  # not torch.div, which an ONNX graph would do in float32
    return windows.clamp_min(0)


class ValidGroupNorm(nn.Module):
    """GroupNorm with one group per channel whose statistics come from the valid frames only.

    The known implementations average over padding too, so that an utterance's features depend on its batch mates.
    """

    def __init__(self, num_channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))
        self.eps = eps

    def forward(self, frames: Tensor, num_valid: Tensor) -> Tensor:
        """(B, C, T) and (B,) valid frames -> (B, C, T) float32."""
        frames = frames.float()  # statistics over seconds of audio are not for bfloat16
        # An exported graph has no branch on values, so it takes the general way: equal but for rounding.
        if not torch.compiler.is_exporting() and bool((num_valid == frames.shape[2]).all()):
            return F.group_norm(frames, frames.shape[1], self.weight, self.bias, self.eps)
        valid = valid_mask(num_valid, frames.shape[2])[:, None]
        count = num_valid.clamp_min(1)[:, None, None]
        mean = (frames * valid).sum(2, keepdim=True) / count
        centred = (frames - mean) * valid
        variance = centred.square().sum(2, keepdim=True) / count
        return centred * (self.weight[:, None] * (variance + self.eps).rsqrt()) + self.bias[:, None]


class WaveformFrontEnd(nn.Module):
    """wav2vec 2.0's convolutions: (B, S) samples -> (B, T, C) frames.

    conv_norm "group": group norm after the first layer (BASE); "layer": LayerNorm in every layer (LARGE).
    Source: wav2vec 2.0 section 2 and its released configurations. Differs in the statistics: valid samples only.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.normalise_input = config.normalise_input
        grouped = config.conv_norm == "group"
        widths = [1] + [channels for channels, _, _ in config.conv_layers]
        self.convs = nn.ModuleList(
            nn.Conv1d(below, channels, kernel, stride, bias=config.conv_bias)
            for below, (channels, kernel, stride) in zip(widths, config.conv_layers, strict=False)
        )
        self.group_norm = ValidGroupNorm(widths[1]) if grouped else None
        self.layer_norms = nn.ModuleList([] if grouped else [nn.LayerNorm(channels) for channels in widths[1:]])
        self.windows = config.frame_windows
        for conv in self.convs:
            assert isinstance(conv, nn.Conv1d)
            nn.init.kaiming_normal_(conv.weight)

    def forward(self, inputs: Tensor, num_units: Tensor) -> Tensor:
        if self.normalise_input:
            inputs = normalise_valid(inputs[..., None], num_units, 1e-7)[..., 0]
        frames: Tensor = inputs[:, None]
        num_valid = num_units
        for index, (conv, window) in enumerate(zip(self.convs, self.windows, strict=True)):
            frames, num_valid = conv(frames), after_window(num_valid, *window)
            if self.group_norm is not None:
                frames = self.group_norm(frames, num_valid) if index == 0 else frames
            else:
                frames = self.layer_norms[index](frames.transpose(1, 2)).transpose(1, 2)
            frames = F.gelu(frames)
        return frames.transpose(1, 2)


class LogMelFrontEnd(nn.Module):
    """(B, U, F) log-mel -> (B, T, C): normalised per utterance and bin over valid frames, then stride-2 convolutions.

    Each convolution is one matrix product over windows of 3 frames-last rows: no layout copies.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.windows = config.frame_windows
        widths = [config.features.num_mels] + [config.channels] * len(self.windows)
        self.convs = nn.ModuleList(
            nn.Linear(kernel * below, config.channels) for below, (kernel, _) in zip(widths, self.windows, strict=False)
        )

    def forward(self, inputs: Tensor, num_units: Tensor) -> Tensor:
        frames = normalise_valid(inputs, num_units, 1e-5)
        for conv, (kernel, stride) in zip(self.convs, self.windows, strict=True):
            windows = frames.unfold(1, kernel, stride).transpose(2, 3).flatten(2)
            frames = F.gelu(conv(windows))
        return frames


def zero_padding(inputs: Tensor, num_valid: Tensor) -> Tensor:
    """(B, U) or (B, U, F) with zeros behind the valid units, by selection: NaN there must not get through either."""
    valid = valid_mask(num_valid, inputs.shape[1])
    return inputs.masked_fill(~(valid if inputs.dim() == 2 else valid[..., None]), 0.0)


def normalise_valid(inputs: Tensor, num_valid: Tensor, eps: float) -> Tensor:
    """(B, U, F) -> zero mean, unit variance per utterance and column over its valid rows; padded rows are zero."""
    valid = valid_mask(num_valid, inputs.shape[1])[..., None]
    count = num_valid.clamp_min(1)[:, None, None]
    # ONNX Runtime adds up the samples of a single recording one by one: float32 loses four digits over 30 s of them.
    units = inputs.double() if torch.compiler.is_exporting() else inputs
    centred = (units - (units * valid).sum(1, keepdim=True) / count) * valid
    variance = centred.square().sum(1, keepdim=True) / count
    return (centred * (variance + eps).rsqrt()).to(inputs.dtype)


class Adapter(nn.Module):
    """LayerNorm, a bottleneck with ReLU, added to its input: what MMS learns per language.

    Source: MMS (arXiv 2305.13516), section 5.3.
    """

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        out: Tensor = hidden + self.up(F.relu(self.down(self.norm(hidden))))
        return out


class TransformerLayer(nn.Module):
    """Self-attention and feed-forward, with LayerNorm after ("post") or before ("pre") each of them."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.pre_norm = config.norm == "pre"
        self.num_heads = config.num_heads
        self.attention_dropout = config.attention_dropout
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.attention_out = nn.Linear(config.width, config.width)
        self.attention_norm = nn.LayerNorm(config.width)
        self.ffn_in = nn.Linear(config.width, config.ffn_width)
        self.ffn_out = nn.Linear(config.ffn_width, config.width)
        self.ffn_norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.activation_dropout = nn.Dropout(config.activation_dropout)
        self.adapter = Adapter(config.width, config.adapter_width) if config.adapter_width else None

    def forward(self, hidden: Tensor, attend: Tensor | None) -> Tensor:
        """(B, T, D); ``attend`` (B, 1, 1, T) bool, True = a frame to attend to, None = all."""
        if self.pre_norm:
            hidden = hidden + self.dropout(self._attention(self.attention_norm(hidden), attend))
            hidden = hidden + self.dropout(self._ffn(self.ffn_norm(hidden)))
        else:
            hidden = self.attention_norm(hidden + self.dropout(self._attention(hidden, attend)))
            hidden = self.ffn_norm(hidden + self.dropout(self._ffn(hidden)))
        return hidden if self.adapter is None else self.adapter(hidden)

    def _attention(self, hidden: Tensor, attend: Tensor | None) -> Tensor:
        qkv = self.qkv(hidden).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        p = self.attention_dropout if self.training else 0.0
        heads = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], attn_mask=attend, dropout_p=p)
        out: Tensor = self.attention_out(heads.transpose(1, 2).flatten(2))
        return out

    def _ffn(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.ffn_out(self.activation_dropout(F.gelu(self.ffn_in(hidden))))
        return out


class ContextNetwork(nn.Module):
    """Convolutional positions and Transformer layers: (B, T, D) -> (B, T, D)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.pre_norm = config.norm == "pre"
        self.layer_drop = config.layer_drop
        kernel = config.pos_kernel
        conv = nn.Conv1d(config.width, config.width, kernel, padding=kernel // 2, groups=config.pos_groups)
        nn.init.normal_(conv.weight, std=math.sqrt(4 / (kernel * config.width)))
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
        self.pos_conv = weight_norm(conv, dim=2)
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.num_layers))

    def forward(self, hidden: Tensor, num_frames: Tensor) -> Tensor:
        attend = None
        if torch.compiler.is_exporting() or bool((num_frames < hidden.shape[1]).any()):
            valid = valid_mask(num_frames, hidden.shape[1])
            hidden, attend = hidden * valid[..., None], valid[:, None, None]
        # An even kernel padded by half of it on both sides gives one frame too many: the last is dropped.
        positions = self.pos_conv(hidden.transpose(1, 2))[..., : hidden.shape[1]].transpose(1, 2)
        hidden = hidden + F.gelu(positions)
        hidden = self.dropout(hidden if self.pre_norm else self.norm(hidden))
        dropped = torch.rand(len(self.layers)).lt(self.layer_drop).tolist() if self.training else []
        for index, layer in enumerate(self.layers):
            if not (dropped and dropped[index]):
                hidden = layer(hidden, attend)
        if self.pre_norm:
            hidden = self.norm(hidden)
        return hidden


class Encoder(nn.Module):
    """Front end, LayerNorm, projection, mask vector and context network.

    Inputs everywhere: ``inputs`` (B, S) float32 samples or (B, U, F) float32 log-mel, ``num_units`` (B,) int64 valid
    samples or mel frames. Whatever stands in the padding changes no valid output.

    Source: wav2vec 2.0, section 2; BASE and LARGE as released.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        waveform = config.features.kind == "waveform"
        self.front_end = WaveformFrontEnd(config) if waveform else LogMelFrontEnd(config)
        self.norm = nn.LayerNorm(config.front_width)
        self.projection = nn.Linear(config.front_width, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.mask_embedding = nn.Parameter(torch.rand(config.width))
        self.context = ContextNetwork(config)
        for module in [self.projection, *(m for m in self.context.modules() if isinstance(m, nn.Linear))]:
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)

    def num_frames(self, num_units: Tensor) -> Tensor:
        """(B,) valid samples or mel frames -> (B,) valid encoder frames; exact for any front end."""
        for kernel, stride in self.config.frame_windows:
            num_units = after_window(num_units, kernel, stride)
        return num_units

    def extract(self, inputs: Tensor, num_units: Tensor) -> EncoderOutput:
        """Front-end frames (B, T, C), before any normalisation of theirs."""
        inputs = zero_padding(inputs, num_units)
        frames: Tensor = self.front_end(inputs, num_units)
        return EncoderOutput(frames, self.num_frames(num_units))

    def stacked_log_mel(self, inputs: Tensor, num_units: Tensor, num_frames: int) -> Tensor:
        """(B, U, F) log-mel -> (B, T, subsampling x F): the normalised rows in the middle of each frame's window."""
        subsampling = self.config.subsampling
        inputs = zero_padding(inputs, num_units)
        rows = normalise_valid(inputs, num_units, 1e-5)[:, 1 : 1 + subsampling * num_frames]
        return rows.reshape(rows.shape[0], num_frames, -1)

    def contextualise(
        self, normed: Tensor, num_frames: Tensor, mask: Tensor | None = None, channel_mask: Tensor | None = None
    ) -> Tensor:
        """LayerNormed front-end frames -> context.

        Args:
            normed: (B, T, C).
            num_frames: (B,) int64, valid frames.
            mask: (B, T) bool, True = replaced by the learned mask vector, after the projection.
            channel_mask: (B, D) bool, True = this channel of the projection is zero in every frame.

        Returns:
            (B, T, D).
        """
        projected: Tensor = self.dropout(self.projection(normed))
        if mask is not None:
            projected = torch.where(mask[..., None], self.mask_embedding.to(projected.dtype), projected)
        if channel_mask is not None:
            projected = projected.masked_fill(channel_mask[:, None], 0.0)
        hidden: Tensor = self.context(projected, num_frames)
        return hidden

    def forward(self, inputs: Tensor, num_units: Tensor) -> EncoderOutput:
        """Unmasked context, (B, T, D) with (B,) valid frames."""
        frames, num_frames = self.extract(inputs, num_units)
        return EncoderOutput(self.contextualise(self.norm(frames), num_frames), num_frames)
