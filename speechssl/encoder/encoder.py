"""Front ends (waveform or log-mel -> frames) and the context network above them: wav2vec 2.0's encoder."""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from speechssl.audio.features import FeatureConfig
from speechssl.config import Settings
from speechssl.encoder.front_end import LogMelFrontEnd, WaveformFrontEnd
from speechssl.encoder.kernels import Dropout, attention, gelu_linear, grouped_conv
from speechssl.encoder.padding import after_window, normalise_valid, valid_mask, zero_padding
from speechssl.errors import ConfigError

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
    conv_kernel: int = Field(0, ge=0, description="odd: frames under a depthwise convolution in each layer; 0 = none")
    adapter_width: int = Field(0, ge=0, description="of a bottleneck after each layer, MMS has them; 0 = none")
    dropout: float = Field(0.1, ge=0, lt=1)
    attention_dropout: float = Field(0.1, ge=0, lt=1)
    activation_dropout: float = Field(0.0, ge=0, lt=1)
    layer_drop: float = Field(0.05, ge=0, lt=1, description="probability that training skips a layer")

    @model_validator(mode="after")
    def _divisible(self) -> "EncoderConfig":
        if self.width % self.num_heads or self.width % self.pos_groups:
            raise ValueError(f"width {self.width} must be divisible by num_heads and pos_groups")
        if self.conv_kernel and self.conv_kernel % 2 == 0:
            raise ValueError(f"conv_kernel {self.conv_kernel} must be odd, or 0 for none")
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
            raise ConfigError("a log-mel target needs a log-mel front end: use objective.targets=features, or a preset")
        return self.subsampling * self.features.num_mels

    @property
    def frame_windows(self) -> tuple[tuple[int, int], ...]:
        """(kernel, stride) of each convolution over units, in order."""
        if self.features.kind == "waveform":
            return tuple((kernel, stride) for _, kernel, stride in self.conv_layers)
        return ((3, 2),) * (1 if self.subsampling == 2 else 2)

    def min_units(self, num_frames: int) -> int:
        """Samples or mel frames of the shortest input with ``num_frames`` encoder frames, at least one."""
        for kernel, stride in self.frame_windows[::-1]:
            num_frames = (num_frames - 1) * stride + kernel
        return num_frames

    @property
    def samples_per_frame(self) -> int:
        """Audio samples from one encoder frame to the next."""
        return self.features.hop * math.prod(stride for _, stride in self.frame_windows)


class Visible(NamedTuple):
    """The frames of a batch that the Transformer layers are to read; none of the others reaches them."""

    frames: Tensor
    """(B, K) int64, rising; whatever stands behind the valid ones"""
    num_frames: Tensor
    """(B,) int64 on the host, valid ones of each utterance"""


class EncoderOutput(NamedTuple):
    """What the encoder makes of a batch. Padded frames hold no meaning."""

    hidden: Tensor
    """(B, T, D)"""
    num_frames: Tensor
    """(B,) int64, valid frames"""


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


class ConvModule(nn.Module):
    """Gated pointwise, depthwise and pointwise convolution, to be added to its input.

    Source: Conformer (arXiv 2005.08100), section 2.2. Differs: LayerNorm in place of batch norm, whose statistics would
    depend on batch mates.
    """

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(width)
        self.gate = nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, width)
        self.dropout = Dropout(dropout)

    def forward(self, hidden: Tensor, attend: Tensor | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        hidden = F.glu(self.gate(self.norm_in(hidden)))
        if attend is not None:
            hidden = hidden * attend[:, 0, 0, :, None]
        around = self.depthwise(hidden.transpose(1, 2)).transpose(1, 2)
        out: Tensor = self.dropout(self.out(F.silu(self.norm(around))))
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
        self.dropout = Dropout(config.dropout)
        self.activation_dropout = config.activation_dropout
        self.conv = ConvModule(config.width, config.conv_kernel, config.dropout) if config.conv_kernel else None
        self.adapter = Adapter(config.width, config.adapter_width) if config.adapter_width else None

    def forward(
        self, hidden: Tensor, num_frames: Tensor, attend: Tensor | None, wanted: Tensor | None = None
    ) -> Tensor:
        """(B, T, D) -> (B, T, D), or (B, M, D) of the frames ``wanted`` (B, M); the others as in ``attention``."""
        if self.conv is not None:  # before attention, whose answers may be wanted for some frames only
            hidden = hidden + self.conv(hidden, attend)
        if self.pre_norm:
            normed = self.attention_norm(hidden)
            hidden = _pick(hidden, wanted) + self.dropout(self._attention(normed, num_frames, attend, wanted))
            hidden = hidden + self.dropout(self._ffn(self.ffn_norm(hidden)))
        else:
            attended = self.dropout(self._attention(hidden, num_frames, attend, wanted))
            hidden = self.attention_norm(_pick(hidden, wanted) + attended)
            hidden = self.ffn_norm(hidden + self.dropout(self._ffn(hidden)))
        return hidden if self.adapter is None else self.adapter(hidden)

    def _attention(self, hidden: Tensor, num_frames: Tensor, attend: Tensor | None, wanted: Tensor | None) -> Tensor:
        if wanted is None:
            query, key, value = self.qkv(hidden).chunk(3, -1)
        else:
            width = hidden.shape[2]
            query = F.linear(_pick(hidden, wanted), self.qkv.weight[:width], self.qkv.bias[:width])
            key, value = F.linear(hidden, self.qkv.weight[width:], self.qkv.bias[width:]).chunk(2, -1)
        query, key, value = (x.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for x in (query, key, value))
        p = self.attention_dropout if self.training else 0.0
        out: Tensor = self.attention_out(attention(query, key, value, num_frames, attend, p))
        return out

    def _ffn(self, hidden: Tensor) -> Tensor:
        p = self.activation_dropout if self.training else 0.0
        return gelu_linear(self.ffn_in(hidden), self.ffn_out.weight, self.ffn_out.bias, p)


def _pick(hidden: Tensor, wanted: Tensor | None) -> Tensor:
    """(B, T, D) -> the frames ``wanted`` (B, M) int64 of each utterance, (B, M, D); None = all."""
    return hidden if wanted is None else hidden.gather(1, wanted[..., None].expand(-1, -1, hidden.shape[2]))


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
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.num_layers))

    def forward(
        self, hidden: Tensor, num_frames: Tensor, wanted: Tensor | None = None, visible: Visible | None = None
    ) -> Tensor:
        """(B, T, D) and (B,) valid frames -> (B, T, D), or (B, M, D) of the frames ``wanted`` (B, M) alone.

        With ``visible`` the layers read those frames only, after all have had a part in their positions: (B, K, D).
        """
        attend = None
        if torch.compiler.is_exporting() or bool((num_frames < hidden.shape[1]).any()):
            valid = valid_mask(num_frames, hidden.shape[1], hidden.device)
            hidden, attend = hidden * valid[..., None], valid[:, None, None]
        assert self.pos_conv.bias is not None
        positions = grouped_conv(hidden, self.pos_conv.weight, self.pos_conv.bias, self.pos_conv.groups)
        hidden = hidden + F.gelu(positions)
        if visible is not None:
            hidden, num_frames = _pick(hidden, visible.frames), visible.num_frames
            attend = valid_mask(num_frames, hidden.shape[1], hidden.device)[:, None, None]
        hidden = self.dropout(hidden if self.pre_norm else self.norm(hidden))
        layers = list(self.layers)
        if self.training:
            dropped = torch.rand(len(layers)).lt(self.layer_drop).tolist()
            layers = [layer for layer, skip in zip(layers, dropped, strict=True) if not skip]
        for layer in layers[:-1]:
            hidden = layer(hidden, num_frames, attend)
        # Every frame is attended to, but the last layer need not answer for frames that nobody reads.
        hidden = layers[-1](hidden, num_frames, attend, wanted) if layers else _pick(hidden, wanted)
        return self.norm(hidden) if self.pre_norm else hidden


class Encoder(nn.Module):
    """Front end, LayerNorm, projection, mask vector and context network.

    Inputs everywhere: ``inputs`` (B, S) float32 samples or (B, U, F) float32 log-mel, ``num_units`` (B,) int64 valid
    samples or mel frames, on the host. Whatever stands in the padding changes no valid output.

    Source: wav2vec 2.0, section 2; BASE and LARGE as released.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.front_end: nn.Module
        if config.features.kind == "waveform":
            grouped = config.conv_norm == "group"
            self.front_end = WaveformFrontEnd(config.conv_layers, grouped, config.conv_bias, config.normalise_input)
        else:
            self.front_end = LogMelFrontEnd(config.features.num_mels, config.channels, config.frame_windows)
        self.norm = nn.LayerNorm(config.front_width)
        self.projection = nn.Linear(config.front_width, config.width)
        self.dropout = Dropout(config.dropout)
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
        self,
        normed: Tensor,
        num_frames: Tensor,
        mask: Tensor | None = None,
        channel_mask: Tensor | None = None,
        wanted: Tensor | None = None,
        visible: Visible | None = None,
    ) -> Tensor:
        """LayerNormed front-end frames -> context.

        Args:
            normed: (B, T, C).
            num_frames: (B,) int64, valid frames.
            mask: (B, T) bool, True = replaced by the learned mask vector, after the projection.
            channel_mask: (B, D) bool, True = this channel of the projection is zero in every frame.
            wanted: (B, M) int64, the frames to return; None = all.
            visible: the frames that the Transformer layers read and answer for; None = all.

        Returns:
            (B, T, D), or (B, M, D), or (B, K, D) of K ``visible`` ones.
        """
        projected: Tensor = self.dropout(self.projection(normed))
        if mask is not None:
            projected = torch.where(mask[..., None], self.mask_embedding.to(projected.dtype), projected)
        if channel_mask is not None:
            projected = projected.masked_fill(channel_mask[:, None], 0.0)
        hidden: Tensor = self.context(projected, num_frames, wanted, visible)
        return hidden

    def forward(self, inputs: Tensor, num_units: Tensor) -> EncoderOutput:
        """Unmasked context, (B, T, D) with (B,) valid frames."""
        frames, num_frames = self.extract(inputs, num_units)
        return EncoderOutput(self.contextualise(self.norm(frames), num_frames), num_frames)


@torch.no_grad()  # not inference mode: probes learn from what comes out
def layer_outputs(encoder: Encoder, inputs: Tensor, num_units: Tensor) -> tuple[list[Tensor], Tensor]:
    """(B, T, D) of the projected front end and of each Transformer layer, nothing dropped, and (B,) valid frames."""
    kept: list[Tensor] = []
    modules = [encoder.projection, *encoder.context.layers]
    hooks = [m.register_forward_hook(lambda _module, _inputs, output: kept.append(output)) for m in modules]
    training = encoder.training
    try:
        _, num_frames = encoder.eval()(inputs, num_units)
    finally:
        encoder.train(training)
        for hook in hooks:
            hook.remove()
    return kept, num_frames
