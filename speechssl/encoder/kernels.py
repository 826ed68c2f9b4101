"""Operations that take most of a step's time, written for a CPU's caches or a GPU's library.

Each equals a plain operation of torch, which its docstring names. ``on_cpu`` decides about those
for a CPU, ``is_cuda`` about those for a GPU. Elsewhere, in an exported graph and under a CPU's
autocast the plain ones run.

Shapes:
    B  utterances, T frames of the padded batch, D width of a frame
    H  attention heads, d = D / H the width of one
    M  frames that attend, to T frames
    K  kernel of a convolution in frames, G its groups
    I  input width of a linear layer, O its output width
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

# Dropout on a CPU decides by 16 random bits a value, which can take so many different values.
DROPOUT_LEVELS = 65536

# cuDNN's attention makes a plan for each new shape, 10 ms in each direction, and every batch has a
# shape of its own.
WITHOUT_PLANS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]

# What a backward pass returns: a gradient for each argument, None for those that never learn.
Gradients = tuple[Tensor | None, ...]


def on_cpu(inputs: Tensor) -> bool:
    """Whether the operations for a CPU apply: float32 there, outside autocast and graph export."""
    plain = torch.compiler.is_exporting() or torch.is_autocast_enabled("cpu")
    is_cpu = inputs.device.type == "cpu"
    is_float32 = inputs.dtype == torch.float32
    return is_cpu and is_float32 and not plain


# ---- dropout -------------------------------------------------------------------------------------


class Dropout(nn.Module):
    """``nn.Dropout``, on a CPU five times as fast.

    A CPU takes 16 random bits a value instead of a call of the generator. There the probability is
    rounded to a multiple of 2**-16, and the scale with it, so that the mean stays exact.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, inputs: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        if not self.training or not self.p:
            return inputs

        if not on_cpu(inputs):
            return F.dropout(inputs, self.p)

        keep, scale = _keep(inputs.shape, self.p)
        out: Tensor = _Dropout.apply(inputs, keep, scale)
        return out


def _keep(shape: Sequence[int], p: float) -> tuple[Tensor, float]:
    """Draw which values dropout keeps.

    Args:
        shape: of the values.
        p: probability that a value is dropped.

    Returns:
        uint8 of ``shape``, 1 with probability 1 - ``p`` (rounded) else 0; the reciprocal of that
        probability. Bytes, because torch multiplies float32 by them three times as fast as by bool.
    """
    dropped_levels = round(p * DROPOUT_LEVELS)
    kept_levels = DROPOUT_LEVELS - dropped_levels
    count = torch.Size(shape).numel()

    # Each draw of 64 bits is four values of 16 bits.
    num_draws = -(-count // 4)
    draws = torch.empty(num_draws, dtype=torch.int64)
    # All 64 bits of a draw: torch's default range leaves the top one 0, here a sign bit.
    lowest = -(2**63)
    draws.random_(lowest, None)
    bits = draws.view(torch.int16)
    bits = bits[:count]

    # int16 begins at -32768, so that many levels lie below the threshold.
    lowest_level = -(DROPOUT_LEVELS // 2)
    threshold = lowest_level + dropped_levels
    bits.ge_(threshold)
    keep = bits.to(torch.uint8)

    scale = DROPOUT_LEVELS / kept_levels
    return keep.view(shape), scale


class _Dropout(Function):
    """Multiply by what ``_keep`` drew; the backward pass needs nothing but those bytes."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, keep: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(keep)
        ctx.scale = scale

        kept = inputs * keep
        return kept.mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        (keep,) = ctx.saved_tensors
        (from_above,) = gradients

        to_inputs = from_above * keep
        to_inputs.mul_(ctx.scale)
        return to_inputs, None, None


# ---- the second half of a feed-forward block -----------------------------------------------------


def gelu_linear(inputs: Tensor, weight: Tensor, bias: Tensor, p: float) -> Tensor:
    """Compute ``F.linear(dropout(gelu(inputs)))``.

    On a CPU the activation, the widest tensor of a layer, is not kept: the backward pass makes it
    again.

    Args:
        inputs: (..., I).
        weight: (O, I).
        bias: (O,).
        p: dropout of the activation.

    Returns:
        (..., O).
    """
    if not on_cpu(inputs):
        active = F.gelu(inputs)
        active = F.dropout(active, p)
        return F.linear(active, weight, bias)

    keep: Tensor | None = None
    scale = 1.0
    if p:
        keep, scale = _keep(inputs.shape, p)

    out: Tensor = _GeluLinear.apply(inputs, weight, bias, keep, scale)
    return out


class _GeluLinear(Function):
    """``gelu_linear`` on a CPU."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, keep: Tensor | None, scale: float
    ) -> Tensor:
        ctx.save_for_backward(inputs, weight, keep)
        ctx.scale = scale
        active = _GeluLinear.activation(inputs, keep, scale)
        return F.linear(active, weight, bias)

    @staticmethod
    def activation(inputs: Tensor, keep: Tensor | None, scale: float) -> Tensor:
        """(..., I) -> (..., I): GELU with dropout."""
        active = F.gelu(inputs)
        if keep is not None:
            active.mul_(keep)
            active.mul_(scale)

        return active

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        inputs, weight, keep = ctx.saved_tensors
        (from_above,) = gradients
        from_above = from_above.flatten(0, -2)  # (N, O), N all leading axes together

        active = _GeluLinear.activation(inputs, keep, ctx.scale)
        rows = active.flatten(0, -2)  # (N, I)
        to_weight = from_above.T @ rows
        to_bias = from_above.sum(0)

        to_active = from_above @ weight  # (N, I)
        to_active = to_active.view(inputs.shape)
        if keep is not None:
            to_active.mul_(keep)
            to_active.mul_(ctx.scale)

        to_inputs = torch.ops.aten.gelu_backward(to_active, inputs)
        return to_inputs, to_weight, to_bias, None, None


# ---- attention -----------------------------------------------------------------------------------


def attention(
    query: Tensor, key: Tensor, value: Tensor, num_frames: Tensor, attend: Tensor | None, p: float
) -> Tensor:
    """Compute scaled dot-product attention over the valid frames of each utterance.

    It equals ``F.scaled_dot_product_attention``, which runs wherever there is no dropout on a CPU.

    Args:
        query: (B, H, M, d).
        key, value: (B, H, T, d).
        num_frames: (B,) int64 on the host, valid frames; padded ones are not attended to.
        attend: the same as (B, 1, 1, T) bool on the device, True = valid; None = all are valid.
        p: dropout of the attention weights.

    Returns:
        (B, M, H d).
    """
    if p and on_cpu(query):
        counts = num_frames.tolist()
        out: Tensor = _DroppedAttention.apply(query, key, value, counts, p)
        return out

    with sdpa_kernel(WITHOUT_PLANS) if query.is_cuda else nullcontext():
        heads = F.scaled_dot_product_attention(query, key, value, attn_mask=attend, dropout_p=p)

    frames = heads.transpose(1, 2)  # (B, M, H, d)
    return frames.flatten(2)


class _DroppedAttention(Function):
    """Attention with dropout, utterance by utterance, so that its weights stay in the cache.

        weights = softmax(query key^T / sqrt(d)),  out = dropout(weights) value

    The backward pass makes the weights again: kept is a byte a weight, the choice of dropout.
    torch's own attention on a CPU has no fused path with dropout, and stores the weights three
    times over.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, counts: list[int], p: float
    ) -> Tensor:
        batch, heads, length, width = query.shape
        out = query.new_zeros(batch, length, heads, width)
        keeps = []
        scale = 1.0

        for b, count in enumerate(counts):
            own_query = query[b]
            valid_key = key[b, :, :count]
            valid_value = value[b, :, :count]

            shape = (heads, length, count)
            keep, scale = _keep(shape, p)
            keeps.append(keep)

            weights = _attention_weights(own_query, valid_key)  # (H, M, count)
            weights.mul_(keep)
            attended = torch.bmm(weights, valid_value)  # (H, M, d)
            attended.mul_(scale)
            out[b] = attended.transpose(0, 1)

        ctx.save_for_backward(query, key, value, *keeps)
        ctx.counts = counts
        # The same for every utterance: it follows from p.
        ctx.scale = scale
        return out.flatten(2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        query, key, value, *keeps = ctx.saved_tensors
        batch, heads, length, width = query.shape
        to_query = torch.zeros_like(query)
        to_key = torch.zeros_like(key)
        to_value = torch.zeros_like(value)

        (from_above,) = gradients
        from_above = from_above.reshape(batch, length, heads, width)
        # The scale of dropout once, on the narrow end: it reaches all three gradients from here.
        from_above = from_above.transpose(1, 2) * ctx.scale  # (B, H, M, d)

        utterances = zip(ctx.counts, keeps, strict=True)
        for b, (count, keep) in enumerate(utterances):
            own_query = query[b]
            own_from_above = from_above[b]
            valid_key = key[b, :, :count]
            valid_value = value[b, :, :count]

            weights = _attention_weights(own_query, valid_key)  # (H, M, count)
            to_value[b, :, :count] = _value_gradient(weights, keep, own_from_above)

            value_columns = valid_value.transpose(1, 2)  # (H, d, count)
            to_weights = torch.bmm(own_from_above, value_columns)
            to_weights.mul_(keep)
            to_scores = torch.ops.aten._softmax_backward_data(
                to_weights, weights, -1, torch.float32
            )
            to_scores.mul_(width**-0.5)

            to_query[b] = torch.bmm(to_scores, valid_key)
            score_columns = to_scores.transpose(1, 2)  # (H, count, M)
            to_key[b, :, :count] = torch.bmm(score_columns, own_query)

        return to_query, to_key, to_value, None, None


def _attention_weights(query: Tensor, key: Tensor) -> Tensor:
    """(H, M, d) and (H, T, d) -> (H, M, T) softmax of the scaled products."""
    width = query.shape[2]
    scaled_query = query * width**-0.5
    key_columns = key.transpose(1, 2)  # (H, d, T)
    scores = torch.bmm(scaled_query, key_columns)
    return scores.softmax(-1)


def _value_gradient(weights: Tensor, keep: Tensor, from_above: Tensor) -> Tensor:
    """(H, M, T) twice and (H, M, d) -> (H, T, d): what reaches the values of an utterance.

    A function of its own, so that the dropped weights go when it returns.
    """
    dropped = weights * keep
    weight_columns = dropped.transpose(1, 2)  # (H, T, M)
    return torch.bmm(weight_columns, from_above)


# ---- convolution over positions ------------------------------------------------------------------


def grouped_conv(inputs: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """Compute ``F.conv1d`` of frames-last inputs, padded by half the kernel, one output a frame.

    On a CPU it goes through the FFT, which takes a tenth of the multiplications at a kernel of 128;
    on a GPU as one long row.

    Args:
        inputs: (B, T, D).
        weight: (D, D / G, K).
        bias: (D,).
        groups: G.

    Returns:
        (B, T, D); an even kernel looks one frame further back than ahead.
    """
    if inputs.is_cuda:
        return in_one_row(inputs, weight, bias, groups)

    if not on_cpu(inputs):
        channels_first = inputs.transpose(1, 2)
        padding = weight.shape[2] // 2
        convolved = F.conv1d(channels_first, weight, bias, padding=padding, groups=groups)
        # An even kernel gives one frame too many.
        length = inputs.shape[1]
        convolved = convolved[..., :length]
        return convolved.transpose(1, 2)

    # Recognition goes without checkpointing, which imports the compiler of torch: a second and a
    # half at each start.
    if not torch.is_grad_enabled():
        convolved = _through_fft(inputs, weight, groups)
        return convolved + bias

    # Spectra are larger than what they are made of: the backward pass makes them again.
    through_fft: Tensor = checkpoint(
        _through_fft, inputs, weight, groups, use_reentrant=False, preserve_rng_state=False
    )
    return through_fft + bias


def in_one_row(inputs: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """Compute ``grouped_conv`` of all utterances as one row, with zeros between them.

    cuDNN makes a plan for each new shape, which takes longer than the convolution: the row has few
    different lengths.

    Args and Returns: as ``grouped_conv``.
    """
    batch, length, width = inputs.shape
    kernel = weight.shape[2]

    # Zeros behind each utterance keep it from being heard in the next.
    gap = kernel // 2
    utterance_length = length + gap
    row_length = batch * utterance_length
    row = F.pad(inputs, (0, 0, 0, gap))  # (B, T + gap, D)
    row = row.reshape(1, row_length, width)

    # Rounded up so that there are four lengths from one power of two to the next.
    step_bits = max(0, row_length.bit_length() - 3)
    step = 1 << step_bits
    missing = -row_length % step
    row = F.pad(row, (0, 0, 0, missing))

    channels_first = row.transpose(1, 2)
    channels_first = channels_first.contiguous()
    convolved = F.conv1d(channels_first, weight, bias, padding=gap, groups=groups)

    frames = convolved[0, :, :row_length]
    frames = frames.T  # (B (T + gap), D)
    frames = frames.reshape(batch, utterance_length, width)
    return frames[:, :length]


def _through_fft(inputs: Tensor, weight: Tensor, groups: int) -> Tensor:
    """(B, T, D) convolved with (D, D / G, K) -> (B, T, D), block by block through the FFT.

    The method is overlap-save: a block of 3 K frames gives the 2 K + 1 outputs whose whole kernel
    lies inside it. Shapes below: N all blocks of all utterances, f a frequency, i and o the inputs
    and the outputs of a group.
    """
    batch, length, width = inputs.shape
    kernel = weight.shape[2]
    group_width = width // groups

    block = 3 * kernel
    hop = 2 * kernel + 1
    num_blocks = -(-length // hop)

    num_outputs = num_blocks * hop
    num_inputs = num_outputs + kernel - 1
    pad_before = kernel // 2
    pad_after = num_inputs - length - pad_before
    padded = F.pad(inputs, (0, 0, pad_before, pad_after))
    blocks = padded.unfold(1, block, hop)  # (B, blocks, D, block)

    spectrum = torch.fft.rfft(blocks, dim=-1)
    spectrum = spectrum.view(batch * num_blocks, groups, group_width, -1)  # (N, G, i, f)

    # A convolution layer correlates, hence the conjugate.
    filters = torch.fft.rfft(weight, block, dim=2)
    filters = filters.conj()
    filters = filters.view(groups, group_width, group_width, -1)  # (G, o, i, f)

    # For each frequency and group one product, (N, i) x (i, o): all there is to do.
    spectrum = spectrum.permute(3, 1, 0, 2)  # (f, G, N, i)
    filters = filters.permute(3, 0, 2, 1)  # (f, G, i, o)
    product = torch.matmul(spectrum, filters)
    product = product.permute(2, 1, 3, 0)  # (N, G, o, f)

    convolved: Tensor = torch.fft.irfft(product, block, dim=-1)
    convolved = convolved[..., :hop]  # (N, G, o, hop)
    frames = convolved.reshape(batch, num_blocks, width, hop)
    frames = frames.transpose(2, 3)  # (B, blocks, hop, D)
    frames = frames.reshape(batch, num_outputs, width)
    return frames[:, :length]
