"""The operations that take most of a step's time, made for a CPU's caches or a GPU's library; each equals a plain one.

``on_cpu`` decides about those for a CPU, ``is_cuda`` about those for a GPU. Elsewhere, in an exported graph and under a
CPU's autocast the plain ones run.
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


def on_cpu(inputs: Tensor) -> bool:
    """Whether the operations for a CPU apply: float32 there, outside autocast and graph export."""
    plain = torch.compiler.is_exporting() or torch.is_autocast_enabled("cpu")
    return inputs.device.type == "cpu" and inputs.dtype == torch.float32 and not plain


# ---- dropout ------------------------------------------------------------------------------------------------------


class Dropout(nn.Module):
    """``nn.Dropout``, on a CPU five times as fast: 16 random bits a value instead of a generator's call.

    There the probability is rounded to a multiple of 2**-16, and the scale with it, so that the mean stays exact.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training or not self.p:
            return inputs
        if not on_cpu(inputs):
            return F.dropout(inputs, self.p)
        out: Tensor = _Dropout.apply(inputs, *_keep(inputs.shape, self.p))
        return out


def _keep(shape: Sequence[int], p: float) -> tuple[Tensor, float]:
    """Random uint8 of ``shape``, 1 with probability 1 - ``p`` (rounded) else 0, and the reciprocal of that probability.

    Bytes because torch multiplies float32 by them three times as fast as by bool.
    """
    dropped = round(p * 65536)
    count = torch.Size(shape).numel()
    # All 64 bits of each draw: torch's default range leaves the top one 0, which would be a sign bit here.
    bits = (
        torch.empty(-(-count // 4), dtype=torch.int64)
        .random_(-(2**63), None)
        .view(torch.int16)[:count]
    )
    return bits.ge_(dropped - 32768).to(torch.uint8).view(shape), 65536 / (65536 - dropped)


class _Dropout(Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, keep: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(keep)
        ctx.scale = scale
        return (inputs * keep).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (keep,) = ctx.saved_tensors
        return (gradients[0] * keep).mul_(ctx.scale), None, None


# ---- the second half of a feed-forward block -----------------------------------------------------------------------


def gelu_linear(inputs: Tensor, weight: Tensor, bias: Tensor, p: float) -> Tensor:
    """``F.linear(dropout(gelu(inputs)))``; on a CPU the activation, the widest tensor of a layer, is not kept.

    Args:
        inputs: (..., I).
        weight: (O, I).
        p: dropout of the activation.
    """
    if on_cpu(inputs):
        keep, scale = _keep(inputs.shape, p) if p else (None, 1.0)
        out: Tensor = _GeluLinear.apply(inputs, weight, bias, keep, scale)
        return out
    return F.linear(F.dropout(F.gelu(inputs), p), weight, bias)


class _GeluLinear(Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, keep: Tensor | None, scale: float
    ) -> Tensor:
        ctx.save_for_backward(inputs, weight, keep)
        ctx.scale = scale
        return F.linear(_GeluLinear.activation(inputs, keep, scale), weight, bias)

    @staticmethod
    def activation(inputs: Tensor, keep: Tensor | None, scale: float) -> Tensor:
        active = F.gelu(inputs)
        return active if keep is None else active.mul_(keep).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        inputs, weight, keep = ctx.saved_tensors
        above = gradients[0].flatten(0, -2)
        active = _GeluLinear.activation(inputs, keep, ctx.scale)
        to_weight = above.T @ active.flatten(0, -2)
        inner = (above @ weight).view(inputs.shape)
        if keep is not None:
            inner.mul_(keep).mul_(ctx.scale)
        return torch.ops.aten.gelu_backward(inner, inputs), to_weight, above.sum(0), None, None


# ---- attention ----------------------------------------------------------------------------------------------------


# cuDNN's attention makes a plan for each new shape, 10 ms in each direction, and every batch has a shape of its own.
WITHOUT_PLANS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def attention(
    query: Tensor, key: Tensor, value: Tensor, num_frames: Tensor, attend: Tensor | None, p: float
) -> Tensor:
    """Scaled dot-product attention over the valid frames of each utterance.

    Args:
        query: (B, H, M, d).
        key, value: (B, H, T, d).
        num_frames: (B,) int64 on the host, valid frames; padded ones are not attended to.
        attend: the same as (B, 1, 1, T) bool on the device; None = all are valid.
        p: dropout of the attention weights.

    Returns:
        (B, M, H d).
    """
    if p and on_cpu(query):
        out: Tensor = _DroppedAttention.apply(query, key, value, num_frames.tolist(), p)
        return out
    with sdpa_kernel(WITHOUT_PLANS) if query.is_cuda else nullcontext():
        heads = F.scaled_dot_product_attention(query, key, value, attn_mask=attend, dropout_p=p)
    return heads.transpose(1, 2).flatten(2)


class _DroppedAttention(Function):
    """Utterance by utterance, so that its weights stay in the cache; they are made again in the backward pass.

    Kept is a byte a weight, the choice of dropout. torch's own attention on a CPU has no fused path with dropout: it
    stores the weights three times over.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, counts: list[int], p: float
    ) -> Tensor:
        batch, heads, length, width = query.shape
        out = query.new_zeros(batch, length, heads, width)
        ctx.counts, ctx.scale, keeps = counts, 1.0, []
        for b, count in enumerate(counts):
            keep, ctx.scale = _keep((heads, length, count), p)
            weights = _weights(query[b], key[b, :, :count]).mul_(keep)
            out[b] = torch.bmm(weights, value[b, :, :count]).mul_(ctx.scale).transpose(0, 1)
            keeps.append(keep)
        ctx.save_for_backward(query, key, value, *keeps)
        return out.flatten(2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, *keeps = ctx.saved_tensors
        grads = [torch.zeros_like(x) for x in (query, key, value)]
        shape = (query.shape[0], query.shape[2], query.shape[1], query.shape[3])
        above = gradients[0].reshape(shape).transpose(1, 2) * ctx.scale
        for b, (count, keep) in enumerate(zip(ctx.counts, keeps, strict=True)):
            q, k, v, out = query[b], key[b, :, :count], value[b, :, :count], above[b]
            weights = _weights(q, k)
            grads[2][b, :, :count] = torch.bmm((weights * keep).transpose(1, 2), out)
            inner = torch.bmm(out, v.transpose(1, 2)).mul_(keep)
            scores = torch.ops.aten._softmax_backward_data(inner, weights, -1, torch.float32)
            scores.mul_(query.shape[3] ** -0.5)
            grads[0][b] = torch.bmm(scores, k)
            grads[1][b, :, :count] = torch.bmm(scores.transpose(1, 2), q)
        return grads[0], grads[1], grads[2], None, None


def _weights(query: Tensor, key: Tensor) -> Tensor:
    """(H, M, d) and (H, T, d) -> (H, M, T) softmax of the scaled products."""
    scores = torch.bmm(query * query.shape[2] ** -0.5, key.transpose(1, 2))
    return scores.softmax(-1)


# ---- convolution over positions -----------------------------------------------------------------------------------


def grouped_conv(inputs: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """``F.conv1d`` of frames-last ``inputs``, padded by half the kernel, one output a frame.

    On a CPU through the FFT, block by block (overlap-save): a kernel of 128 takes a tenth of the multiplications. On a
    GPU as one long row.

    Args:
        inputs: (B, T, D).
        weight: (D, D / groups, K).

    Returns:
        (B, T, D); an even kernel looks one frame further back than ahead.
    """
    length, kernel = inputs.shape[1], weight.shape[2]
    if inputs.is_cuda:
        return in_one_row(inputs, weight, bias, groups)
    if not on_cpu(inputs):
        full = F.conv1d(inputs.transpose(1, 2), weight, bias, padding=kernel // 2, groups=groups)
        return full[..., :length].transpose(1, 2)
    if (
        not torch.is_grad_enabled()
    ):  # and checkpoint imports the compiler of torch, a second and a half at each start
        return _through_fft(inputs, weight, groups) + bias
    # Spectra are larger than what they are made of: made again in the backward pass, not kept.
    convolved: Tensor = checkpoint(
        _through_fft, inputs, weight, groups, use_reentrant=False, preserve_rng_state=False
    )
    return convolved + bias


def in_one_row(inputs: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """``grouped_conv``, (B, T, D) -> (B, T, D), of the utterances behind each other, zeros between them and at the end.

    cuDNN makes a plan for each new shape, which takes longer than the convolution: the row has few different lengths.
    """
    (batch, length, width), kernel = inputs.shape, weight.shape[2]
    count = batch * (length + kernel // 2)
    step = 1 << max(0, count.bit_length() - 3)  # four lengths from one power of two to the next
    row = F.pad(inputs, (0, 0, 0, kernel // 2)).reshape(1, count, width)
    row = F.pad(row, (0, 0, 0, -count % step)).transpose(1, 2).contiguous()
    found = F.conv1d(row, weight, bias, padding=kernel // 2, groups=groups)[0, :, :count].T
    return found.reshape(batch, -1, width)[:, :length]


def _through_fft(inputs: Tensor, weight: Tensor, groups: int) -> Tensor:
    (batch, length, width), kernel = inputs.shape, weight.shape[2]
    size, hop = 3 * kernel, 2 * kernel + 1
    blocks = -(-length // hop)
    padded = F.pad(inputs, (0, 0, kernel // 2, blocks * hop + kernel - 1 - length - kernel // 2))
    spectrum = torch.fft.rfft(padded.unfold(1, size, hop), dim=-1).view(
        batch * blocks, groups, width // groups, -1
    )
    # A convolution layer correlates, hence the conjugate; (F, G, B, in) x (F, G, in, out) is all there is to do.
    filters = (
        torch.fft.rfft(weight, size, dim=2)
        .conj()
        .view(groups, width // groups, width // groups, -1)
    )
    product = torch.matmul(spectrum.permute(3, 1, 0, 2), filters.permute(3, 0, 2, 1))
    found: Tensor = torch.fft.irfft(product.permute(2, 1, 3, 0), size, dim=-1)[..., :hop]
    frames = found.reshape(batch, blocks, width, hop).transpose(2, 3).reshape(batch, -1, width)
    return frames[:, :length]
