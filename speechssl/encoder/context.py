"""The context network: Transformer layers above the front end's frames."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from speechssl.encoder.config import EncoderConfig
from speechssl.encoder.kernels import Dropout, attention, gelu_linear, grouped_conv
from speechssl.encoder.padding import valid_mask


class Visible(NamedTuple):
    """The frames of a batch that the Transformer layers are to read; none of the others reaches them."""

    frames: Tensor
    """(B, K) int64, rising; whatever stands behind the valid ones"""
    num_frames: Tensor
    """(B,) int64 on the host, valid ones of each utterance"""


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
        self.conv = (
            ConvModule(config.width, config.conv_kernel, config.dropout)
            if config.conv_kernel
            else None
        )
        self.adapter = Adapter(config.width, config.adapter_width) if config.adapter_width else None

    def forward(
        self,
        hidden: Tensor,
        num_frames: Tensor,
        attend: Tensor | None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D), or (B, M, D) of the frames ``wanted`` (B, M); the others as in ``attention``."""
        if (
            self.conv is not None
        ):  # before attention, whose answers may be wanted for some frames only
            hidden = hidden + self.conv(hidden, attend)
        if self.pre_norm:
            normed = self.attention_norm(hidden)
            hidden = _pick(hidden, wanted) + self.dropout(
                self._attention(normed, num_frames, attend, wanted)
            )
            hidden = hidden + self.dropout(self._ffn(self.ffn_norm(hidden)))
        else:
            attended = self.dropout(self._attention(hidden, num_frames, attend, wanted))
            hidden = self.attention_norm(_pick(hidden, wanted) + attended)
            hidden = self.ffn_norm(hidden + self.dropout(self._ffn(hidden)))
        return hidden if self.adapter is None else self.adapter(hidden)

    def _attention(
        self, hidden: Tensor, num_frames: Tensor, attend: Tensor | None, wanted: Tensor | None
    ) -> Tensor:
        if wanted is None:
            query, key, value = self.qkv(hidden).chunk(3, -1)
        else:
            width = hidden.shape[2]
            query = F.linear(_pick(hidden, wanted), self.qkv.weight[:width], self.qkv.bias[:width])
            key, value = F.linear(hidden, self.qkv.weight[width:], self.qkv.bias[width:]).chunk(
                2, -1
            )
        query, key, value = (
            x.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for x in (query, key, value)
        )
        p = self.attention_dropout if self.training else 0.0
        out: Tensor = self.attention_out(attention(query, key, value, num_frames, attend, p))
        return out

    def _ffn(self, hidden: Tensor) -> Tensor:
        p = self.activation_dropout if self.training else 0.0
        return gelu_linear(self.ffn_in(hidden), self.ffn_out.weight, self.ffn_out.bias, p)


def _pick(hidden: Tensor, wanted: Tensor | None) -> Tensor:
    """(B, T, D) -> the frames ``wanted`` (B, M) int64 of each utterance, (B, M, D); None = all."""
    return (
        hidden
        if wanted is None
        else hidden.gather(1, wanted[..., None].expand(-1, -1, hidden.shape[2]))
    )


class ContextNetwork(nn.Module):
    """Convolutional positions and Transformer layers: (B, T, D) -> (B, T, D)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.pre_norm = config.norm == "pre"
        self.layer_drop = config.layer_drop
        kernel = config.pos_kernel
        conv = nn.Conv1d(
            config.width, config.width, kernel, padding=kernel // 2, groups=config.pos_groups
        )
        nn.init.normal_(conv.weight, std=math.sqrt(4 / (kernel * config.width)))
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
        self.pos_conv = weight_norm(conv, dim=2)
        self.norm = nn.LayerNorm(config.width)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.num_layers))

    def forward(
        self,
        hidden: Tensor,
        num_frames: Tensor,
        wanted: Tensor | None = None,
        visible: Visible | None = None,
    ) -> Tensor:
        """(B, T, D) and (B,) valid frames -> (B, T, D), or (B, M, D) of the frames ``wanted`` (B, M) alone.

        With ``visible`` the layers read those frames only, after all have had a part in their positions: (B, K, D).
        """
        attend = None
        if torch.compiler.is_exporting() or bool((num_frames < hidden.shape[1]).any()):
            valid = valid_mask(num_frames, hidden.shape[1], hidden.device)
            hidden, attend = hidden * valid[..., None], valid[:, None, None]
        assert self.pos_conv.bias is not None
        positions = grouped_conv(
            hidden, self.pos_conv.weight, self.pos_conv.bias, self.pos_conv.groups
        )
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
