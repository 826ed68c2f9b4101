"""The context network: Transformer layers above the front end's frames.

Shapes, here and in encoder.py:
    B  utterances of the batch
    T  frames of the padded batch
    D  width of the context network
    M  frames that are asked for (``wanted``): those that were masked, in pretraining
    K  frames that the layers read (``visible``); all T where none are given
    H  attention heads, d = D / H the width of one
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from speechssl.encoder.config import EncoderConfig
from speechssl.encoder.kernels import Dropout, attention, gelu_linear, grouped_conv
from speechssl.encoder.norm import ValidBatchNorm
from speechssl.encoder.padding import valid_mask


class Visible(NamedTuple):
    """The only frames of a batch that the Transformer layers read."""

    frames: Tensor
    """(B, K) int64, rising; any frame behind the valid ones"""
    num_frames: Tensor
    """(B,) int64 on the host, valid ones of each utterance"""


class ContextNetwork(nn.Module):
    """Convolutional positions and Transformer layers: (B, T, D) -> (B, T, D)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.pre_norm = config.norm == "pre"
        self.layer_drop = config.layer_drop

        width = config.width
        kernel = config.pos_kernel
        padding = kernel // 2
        conv = nn.Conv1d(width, width, kernel, padding=padding, groups=config.pos_groups)
        variance = 4 / (kernel * width)
        nn.init.normal_(conv.weight, std=math.sqrt(variance))
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
        self.pos_conv = weight_norm(conv, dim=2)

        self.norm = nn.LayerNorm(width)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList()
        for _ in range(config.num_layers):
            layer = TransformerLayer(config)
            self.layers.append(layer)

    def forward(
        self,
        hidden: Tensor,
        num_frames: Tensor,
        wanted: Tensor | None = None,
        visible: Visible | None = None,
    ) -> Tensor:
        """Compute the context of each frame.

        Args:
            hidden: (B, T, D), projected frames of the front end.
            num_frames: (B,) int64 on the host, valid frames.
            wanted: (B, M) int64, the frames to return; None = all.
            visible: the only frames that the layers read, after all have had a part in their
                positions; None = all.

        Returns:
            (B, T, D), or (B, M, D) of ``wanted``, or (B, K, D) of ``visible``.
        """
        attend = None
        length = hidden.shape[1]
        # An exported graph has no branch on values: it always takes the mask.
        if torch.compiler.is_exporting() or bool((num_frames < length).any()):
            valid = valid_mask(num_frames, length, hidden.device)
            # The positional convolution must not see what stands in the padding.
            hidden = hidden * valid[..., None]
            attend = valid[:, None, None]

        hidden = hidden + self._positions(hidden)

        if visible is not None:
            hidden = _pick(hidden, visible.frames)  # (B, K, D)
            num_frames = visible.num_frames
            num_visible = hidden.shape[1]
            valid = valid_mask(num_frames, num_visible, hidden.device)
            attend = valid[:, None, None]

        if not self.pre_norm:
            hidden = self.norm(hidden)
        hidden = self.dropout(hidden)

        layers = self._layers_of_this_pass()
        if not layers:
            hidden = _pick(hidden, wanted)

        for layer in layers:
            # Every frame is attended to, but the last layer leaves out those that nobody reads.
            is_last = layer is layers[-1]
            wanted_here = wanted if is_last else None
            hidden = layer(hidden, num_frames, attend, wanted_here)

        if self.pre_norm:
            hidden = self.norm(hidden)
        return hidden

    def _positions(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D): the position of each frame, from the frames around it."""
        conv = self.pos_conv
        assert conv.bias is not None
        convolved = grouped_conv(hidden, conv.weight, conv.bias, conv.groups)
        return F.gelu(convolved)

    def _layers_of_this_pass(self) -> list[nn.Module]:
        """All layers; in training without those that layer drop skips."""
        layers = list(self.layers)
        if not self.training:
            return layers

        draws = torch.rand(len(layers))
        skipped = draws.lt(self.layer_drop).tolist()

        kept = []
        for layer, is_skipped in zip(layers, skipped, strict=True):
            if not is_skipped:
                kept.append(layer)

        return kept


class ConvolutionContext(nn.Module):
    """Residual layers of dilated convolutions: (B, T, D) -> (B, T, D).

    A frame hears only its neighbours, 12 to each side with the default dilations. This learns to
    tell sounds apart from minutes of labels, where attention needs hours. Order needs no
    positions here.

    Source: the time-delay network of Waibel et al. 1989 as residual layers, as in Kriman et al.
    2020 (QuartzNet, arXiv 1910.10261), without separable convolutions. Differs: without
    ``batch_norm`` LayerNorm stands in its place.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for dilation in config.dilations:
            layer = ConvolutionLayer(config, dilation)
            self.layers.append(layer)

        self.norm = _make_norm(config)

    def forward(
        self,
        hidden: Tensor,
        num_frames: Tensor,
        wanted: Tensor | None = None,
        visible: Visible | None = None,
    ) -> Tensor:
        """Compute the context of each frame; arguments as ``ContextNetwork``'s.

        Frames that are not ``visible`` are zeros to the layers.
        """
        read = _read_frames(hidden, num_frames, visible)

        for layer in self.layers:
            hidden = layer(hidden, read)

        # Before frames are left out: a batch norm has the statistics of all that were read.
        normed = _normed(self.norm, hidden, read)
        picked = wanted if visible is None else visible.frames
        return F.relu(_pick(normed, picked))


class ConvolutionLayer(nn.Module):
    """A norm, ReLU and a dilated convolution over three frames, added to its input."""

    def __init__(self, config: EncoderConfig, dilation: int) -> None:
        super().__init__()
        self.norm = _make_norm(config)
        width = config.width
        self.conv = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.dropout = Dropout(config.dropout)

    def forward(self, hidden: Tensor, read: Tensor | None) -> Tensor:
        """(B, T, D) and (B, T, 1) bool, True = a frame that is read; None = all -> (B, T, D)."""
        activated = F.relu(_normed(self.norm, hidden, read))
        if read is not None:
            activated = activated * read

        channels_first = activated.transpose(1, 2)  # (B, D, T)
        around = self.conv(channels_first)
        around = around.transpose(1, 2)  # (B, T, D)
        out: Tensor = hidden + self.dropout(around)
        return out


def _make_norm(config: EncoderConfig) -> nn.Module:
    """Make a norm of (B, T, D) for convolutions."""
    return ValidBatchNorm(config.width) if config.batch_norm else nn.LayerNorm(config.width)


def _normed(norm: nn.Module, hidden: Tensor, read: Tensor | None) -> Tensor:
    """Apply a norm to (B, T, D), of whose frames those of ``read`` (B, T, 1) count; None = all."""
    if isinstance(norm, ValidBatchNorm):
        valid = None if read is None else read[..., 0]
        return norm.forward(hidden, valid)

    normed: Tensor = norm(hidden)
    return normed


class TransformerLayer(nn.Module):
    """Self-attention and feed-forward, with LayerNorm after ("post") or before ("pre") each."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.pre_norm = config.norm == "pre"
        self.num_heads = config.num_heads
        self.attention_dropout = config.attention_dropout
        self.activation_dropout = config.activation_dropout

        width = config.width
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width)
        self.ffn_in = nn.Linear(width, config.ffn_width)
        self.ffn_out = nn.Linear(config.ffn_width, width)
        self.ffn_norm = nn.LayerNorm(width)
        self.dropout = Dropout(config.dropout)

        self.conv: ConvModule | None = None
        if config.conv_kernel:
            self.conv = ConvModule(width, config.conv_kernel, config.dropout)

        self.adapter: Adapter | None = None
        if config.adapter_width:
            self.adapter = Adapter(width, config.adapter_width)

    def forward(
        self,
        hidden: Tensor,
        num_frames: Tensor,
        attend: Tensor | None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Transform the frames of a batch.

        Args:
            hidden: (B, T, D).
            num_frames: (B,) int64 on the host, valid frames.
            attend: (B, 1, 1, T) bool, True = valid; None = all are.
            wanted: (B, M) int64, the frames to return; None = all.

        Returns:
            (B, T, D), or (B, M, D) of ``wanted``.
        """
        # Before attention, which may leave out frames that their neighbours need here.
        if self.conv is not None:
            hidden = hidden + self.conv(hidden, attend)

        if self.pre_norm:
            normed = self.attention_norm(hidden)
            attended = self._attention(normed, num_frames, attend, wanted)  # (B, M, D)
            attended = self.dropout(attended)
            hidden = _pick(hidden, wanted) + attended

            normed = self.ffn_norm(hidden)
            transformed = self._ffn(normed)
            transformed = self.dropout(transformed)
            hidden = hidden + transformed
        else:
            attended = self._attention(hidden, num_frames, attend, wanted)  # (B, M, D)
            attended = self.dropout(attended)
            hidden = _pick(hidden, wanted) + attended
            hidden = self.attention_norm(hidden)

            transformed = self._ffn(hidden)
            transformed = self.dropout(transformed)
            hidden = hidden + transformed
            hidden = self.ffn_norm(hidden)

        if self.adapter is not None:
            hidden = self.adapter(hidden)
        return hidden

    def _attention(
        self, hidden: Tensor, num_frames: Tensor, attend: Tensor | None, wanted: Tensor | None
    ) -> Tensor:
        """(B, T, D) -> (B, M, D): each wanted frame (or each frame) attends to all valid ones."""
        if wanted is None:
            query, key, value = self.qkv(hidden).chunk(3, -1)
        else:
            # The rows of ``qkv`` are those of the query, then of the key and the value.
            width = hidden.shape[2]
            weight = self.qkv.weight
            bias = self.qkv.bias
            wanted_frames = _pick(hidden, wanted)  # (B, M, D)
            query = F.linear(wanted_frames, weight[:width], bias[:width])
            key_and_value = F.linear(hidden, weight[width:], bias[width:])  # (B, T, 2 D)
            key, value = key_and_value.chunk(2, -1)

        query = self._split_heads(query)
        key = self._split_heads(key)
        value = self._split_heads(value)

        p = self.attention_dropout if self.training else 0.0
        attended = attention(query, key, value, num_frames, attend, p)  # (B, M, D)
        out: Tensor = self.attention_out(attended)
        return out

    def _split_heads(self, frames: Tensor) -> Tensor:
        """(B, T, D) -> (B, H, T, d)."""
        batch, length, width = frames.shape
        head_width = width // self.num_heads
        heads = frames.view(batch, length, self.num_heads, head_width)
        return heads.transpose(1, 2)

    def _ffn(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D), frame by frame."""
        p = self.activation_dropout if self.training else 0.0
        out = self.ffn_out
        inner = self.ffn_in(hidden)  # before the activation
        return gelu_linear(inner, out.weight, out.bias, p)


class ConvModule(nn.Module):
    """Gated pointwise, depthwise and pointwise convolution, to be added to its input.

    Source: Conformer (arXiv 2005.08100), section 2.2. Differs: LayerNorm in place of batch norm,
    whose statistics would depend on batch mates.
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
        """(B, T, D) and (B, 1, 1, T) bool, True = valid -> (B, T, D)."""
        gated = self.gate(self.norm_in(hidden))  # (B, T, 2 D)
        gated = F.glu(gated)  # (B, T, D)
        if attend is not None:
            valid = attend[:, 0, 0, :, None]
            gated = gated * valid

        channels_first = gated.transpose(1, 2)  # (B, D, T)
        around = self.depthwise(channels_first)
        around = around.transpose(1, 2)  # (B, T, D)

        out: Tensor = F.silu(self.norm(around))
        out = self.out(out)
        out = self.dropout(out)
        return out


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
        normed = self.norm(hidden)
        squeezed = F.relu(self.down(normed))
        out: Tensor = hidden + self.up(squeezed)
        return out


def _read_frames(hidden: Tensor, num_frames: Tensor, visible: Visible | None) -> Tensor | None:
    """Mark the frames of (B, T, D) that a convolution may read: (B, T, 1) bool; None = all."""
    batch, length, _ = hidden.shape
    if visible is not None:
        num_slots = visible.frames.shape[1]
        is_valid = valid_mask(visible.num_frames, num_slots, hidden.device)  # (B, K)
        # A frame may also stand behind the valid ones, as a filler: it is read if it is valid once.
        times_valid = torch.zeros(batch, length, dtype=torch.int64, device=hidden.device)
        times_valid.scatter_add_(1, visible.frames, is_valid.long())
        return (times_valid > 0)[..., None]

    # An exported graph has no branch on values: it always takes the mask.
    if torch.compiler.is_exporting() or bool((num_frames < length).any()):
        return valid_mask(num_frames, length, hidden.device)[..., None]
    return None


def _pick(hidden: Tensor, wanted: Tensor | None) -> Tensor:
    """(B, T, D) -> the frames ``wanted`` (B, M) int64 of each utterance, (B, M, D); None = all."""
    if wanted is None:
        return hidden

    width = hidden.shape[2]
    index = wanted[..., None].expand(-1, -1, width)
    return hidden.gather(1, index)
