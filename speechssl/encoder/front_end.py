"""Front ends: raw samples or log-mel rows -> frames."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from speechssl.encoder.kernels import on_cpu
from speechssl.encoder.padding import after_window, normalise_valid, valid_mask

Windows = tuple[tuple[int, int], tuple[int, int]]
BLOCK_VALUES = (
    1 << 20
)  # activations between two passes over them: 4 MB of float32 stay in the cache


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
        valid = valid_mask(num_valid, frames.shape[2], frames.device)[:, None]
        count = num_valid.to(frames.device, non_blocking=True).clamp_min(1)[:, None, None]
        mean = (frames * valid).sum(2, keepdim=True) / count
        centred = (frames - mean) * valid
        variance = centred.square().sum(2, keepdim=True) / count
        return centred * (self.weight[:, None] * (variance + self.eps).rsqrt()) + self.bias[:, None]

    def folded(self, samples: Tensor, conv: nn.Conv1d, num_valid: Tensor) -> tuple[Tensor, Tensor]:
        """The same norm as part of the convolution of the samples below it: no frame has to be computed for it.

        Mean and variance of ``w x`` over windows x follow from the mean and the covariance of the windows.

        Args:
            samples: (B, S) float32, zeros behind the valid ones.
            num_valid: (B,) valid windows.

        Returns:
            weights (B, K, C) and biases (B, C), for each utterance its own.
        """
        (kernel,), (stride,) = conv.kernel_size, conv.stride
        weight = conv.weight[:, 0].double()  # (C, K)
        means, covariances = [], []
        for row, count in zip(samples, num_valid.tolist(), strict=True):
            windows = row.unfold(0, kernel, stride)[:count].double()
            means.append(windows.sum(0) / max(1, count))
            centred = windows - means[-1]
            covariances.append(centred.T @ centred / max(1, count))
        mean = torch.stack(means) @ weight.T  # (B, C)
        variance = torch.einsum("ck,bkl,cl->bc", weight, torch.stack(covariances), weight)
        scale = self.weight * (variance + self.eps).rsqrt()
        weights = scale[:, None] * weight.T  # a bias of the convolution would go away with the mean
        return weights.float(), (self.bias - mean * scale).float()


class WaveformFrontEnd(nn.Module):
    """wav2vec 2.0's convolutions: (B, S) samples -> (B, T, C) frames.

    conv_norm "group": group norm after the first layer (BASE); "layer": LayerNorm in every layer (LARGE).
    Source: wav2vec 2.0 section 2 and its released configurations. Differs in the statistics: valid samples only.
    """

    def __init__(
        self,
        conv_layers: Sequence[tuple[int, int, int]],
        grouped: bool,
        conv_bias: bool,
        normalise_input: bool,
    ) -> None:
        super().__init__()
        self.normalise_input = normalise_input
        widths = [1] + [channels for channels, _, _ in conv_layers]
        self.convs = nn.ModuleList(
            nn.Conv1d(below, channels, kernel, stride, bias=conv_bias)
            for below, (channels, kernel, stride) in zip(widths, conv_layers, strict=False)
        )
        self.group_norm = ValidGroupNorm(widths[1]) if grouped else None
        self.layer_norms = nn.ModuleList(
            [] if grouped else [nn.LayerNorm(channels) for channels in widths[1:]]
        )
        self.windows = [(kernel, stride) for _, kernel, stride in conv_layers]
        for conv in self.convs:
            assert isinstance(conv, nn.Conv1d)
            nn.init.kaiming_normal_(conv.weight)

    def forward(self, inputs: Tensor, input_lengths: Tensor) -> Tensor:
        """(B, S) samples, zeros behind the valid ones, and (B,) valid samples -> (B, T, C)."""
        if self.normalise_input:
            inputs = normalise_valid(inputs[..., None], input_lengths, 1e-7)[..., 0]
        return (
            self._blockwise(inputs, input_lengths)
            if on_cpu(inputs)
            else self._plain(inputs, input_lengths)
        )

    def _plain(self, inputs: Tensor, input_lengths: Tensor) -> Tensor:
        frames: Tensor = inputs[:, None]
        num_valid = input_lengths
        for index, (conv, window) in enumerate(zip(self.convs, self.windows, strict=True)):
            frames, num_valid = conv(frames), after_window(num_valid, *window)
            if self.group_norm is not None:
                frames = self.group_norm(frames, num_valid) if index == 0 else frames
            else:
                frames = self.layer_norms[index](frames.transpose(1, 2)).transpose(1, 2)
            frames = F.gelu(frames)
        return frames.transpose(1, 2)

    def _blockwise(self, samples: Tensor, num_samples: Tensor) -> Tensor:
        """Equal to ``_plain``: frames last, each activation computed in blocks, where the next convolution reads it."""
        stored, below, num_valid = (
            samples,
            self.windows[0],
            after_window(num_samples, *self.windows[0]),
        )
        parameters = self._of_samples(samples, num_valid)
        for index, conv in enumerate(self.convs):
            assert isinstance(conv, nn.Conv1d)
            if index:
                num_valid = after_window(num_valid, *self.windows[index])
                weight = conv.weight.permute(2, 1, 0).flatten(
                    0, 1
                )  # rows of K neighbouring frames: (K C, C')
                windows = (below, self.windows[index])
                stored = _ActivatedConv.apply(
                    stored, weight, conv.bias, windows, num_valid.tolist(), *parameters
                )
                below, parameters = (1, 1), ()
            if self.group_norm is None:
                affine = self.layer_norms[index].parameters()
                parameters += tuple(x.expand(len(samples), -1) for x in affine)
        rows = [_activate(row, below, own) for row, *own in zip(stored, *parameters, strict=True)]
        return torch.stack(rows)

    def _of_samples(self, samples: Tensor, num_valid: Tensor) -> tuple[Tensor, ...]:
        """Weights (B, K, C) and biases (B, C) of the first convolution, with the group norm folded in, if any."""
        conv = self.convs[0]
        assert isinstance(conv, nn.Conv1d)
        if self.group_norm is not None:
            return self.group_norm.folded(samples, conv, num_valid)
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias
        return conv.weight[:, 0].T.expand(len(samples), -1, -1), bias.expand(len(samples), -1)


def _activate(stored: Tensor, window: tuple[int, int], parameters: Sequence[Tensor]) -> Tensor:
    """GELU of the (normalised) output of a convolution, from what is stored of one utterance: (N, C) frames.

    Args:
        stored: (S,) samples, or (N, C) outputs of a convolution.
        window: (kernel, stride) of the convolution of samples.
        parameters: its weight (K, C) and bias (C,) where ``stored`` is samples; then those of a LayerNorm, if any.
    """
    if stored.dim() == 1:
        weight, bias, *parameters = parameters
        windows = F.pad(stored.unfold(0, *window), (0, 1), value=1.0)
        stored = windows @ torch.cat(
            [weight, bias[None]]
        )  # the bias as a row: another pass would cost as much again
    if parameters:
        weight, bias = parameters
        stored = F.layer_norm(stored, stored.shape[1:], weight, bias)
    return F.gelu(stored)


class _ActivatedConv(Function):
    """Convolution over time of ``_activate(stored)``; only ``stored`` is kept for the backward pass.

    The activations, the largest thing of a step by far, exist block by block in a core's cache, in both passes. The
    convolution itself is a few matrix products of frames-last blocks: ``stride`` neighbouring frames are one row.
    """

    @staticmethod
    def forward(
        ctx: Any,
        stored: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        windows: Windows,
        counts: list[int],
        *parameters: Tensor,
    ) -> Tensor:
        """The convolution's output at valid frames.

        Args:
            stored: (B, S) samples or (B, T, C) outputs of the convolution below.
            weight: (K C, C').
            windows: (kernel, stride) of the samples under an activation, and of the activations under an output.
            counts: valid output frames of each utterance; the others are zero.
            parameters: of ``_activate``, each with a leading axis B.

        Returns:
            (B, T', C').
        """
        ctx.save_for_backward(stored, weight, *parameters)
        ctx.windows, ctx.counts = windows, counts
        length = int(
            after_window(after_window(torch.tensor(stored.shape[1]), *windows[0]), *windows[1])
        )
        if length < 1:
            raise RuntimeError("the inputs are too short for one frame")
        out = stored.new_empty(len(counts), length, weight.shape[1])
        for row, span, read in _blocks(windows, counts, len(weight)):
            frames = _activate(stored[row, read], windows[0], [p[row] for p in parameters])
            block = out[row, span]
            for taps, part in _parts(frames, windows[1], len(block)):
                if taps.start:
                    block.addmm_(part, weight[taps])
                else:
                    torch.mm(part, weight[taps], out=block)
            if bias is not None:
                block += bias
        for row, count in enumerate(counts):
            out[row, count:] = 0
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        stored, weight, *parameters = ctx.saved_tensors
        ((below, hop), (kernel, stride)), learns = ctx.windows, ctx.needs_input_grad[0]
        shared = max(
            0, (kernel - stride - 1) * hop + below
        )  # stored values that a block shares with the one before
        to_stored = torch.zeros_like(stored) if learns else None
        to_weight, to_parameters = (
            torch.zeros_like(weight),
            [torch.zeros_like(p) for p in parameters],
        )
        to_bias = weight.new_zeros(weight.shape[1]) if ctx.needs_input_grad[2] else None
        for row, span, read in _blocks(ctx.windows, ctx.counts, len(weight)):
            own = [
                stored[row, read].detach().requires_grad_(learns),
                *(p[row].detach().requires_grad_() for p in parameters),
            ]
            with torch.enable_grad():
                frames = _activate(own[0], ctx.windows[0], own[1:])
            above, inner = gradients[0][row, span], torch.zeros_like(frames)
            parts = (_parts(x, ctx.windows[1], len(above)) for x in (frames.detach(), inner))
            for (taps, part), (_, to_part) in zip(*parts, strict=True):
                to_weight[taps].addmm_(part.T, above)
                if taps.start:
                    to_part.addmm_(above, weight[taps].T)
                else:
                    torch.mm(above, weight[taps].T, out=to_part)
            if to_bias is not None:
                to_bias += above.sum(0)
            wanted = own if learns else own[1:]
            found = list(torch.autograd.grad(frames, wanted, inner)) if wanted else []
            if to_stored is not None:
                to_block = found.pop(0)
                to_block[:shared] += to_stored[row, read][:shared]
                to_stored[row, read] = to_block
            for total, one in zip(to_parameters, found, strict=True):
                total[row] += one
        return to_stored, to_weight, to_bias, None, None, *to_parameters


def _blocks(
    windows: Windows, counts: Sequence[int], values: int
) -> Iterator[tuple[int, slice, slice]]:
    """Output frames of each utterance in blocks: (row, output frames, what is stored of their activations).

    Args:
        values: activations under one output frame.
    """
    (below, hop), (kernel, stride) = windows
    size = max(1, BLOCK_VALUES // values)
    for row, count in enumerate(counts):
        for start in range(0, count, size):
            stop = min(start + size, count)
            first, last = start * stride, (stop - 1) * stride + kernel - 1
            yield row, slice(start, stop), slice(first * hop, last * hop + below)


def _parts(frames: Tensor, window: tuple[int, int], count: int) -> Iterator[tuple[slice, Tensor]]:
    """A convolution as matrix products: (rows of its weight, the ``count`` x N matrix of ``frames`` they apply to).

    ``stride`` frames that follow each other are one row of a matrix without overlap, which no product has to copy.
    """
    (kernel, stride), channels = window, frames.shape[1]
    for tap in range(0, kernel, stride):
        taps = slice(tap * channels, min(tap + stride, kernel) * channels)
        shape = (count, taps.stop - taps.start)
        yield (
            taps,
            frames.as_strided(shape, (stride * channels, 1), frames.storage_offset() + taps.start),
        )


class LogMelFrontEnd(nn.Module):
    """(B, U, F) log-mel -> (B, T, C): normalised per utterance and bin over valid frames, then stride-2 convolutions.

    Each convolution is one matrix product over windows of 3 frames-last rows: no layout copies.
    """

    def __init__(self, num_mels: int, channels: int, windows: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.windows = windows
        widths = [num_mels] + [channels] * len(windows)
        self.convs = nn.ModuleList(
            nn.Linear(kernel * below, channels)
            for below, (kernel, _) in zip(widths, windows, strict=False)
        )

    def forward(self, inputs: Tensor, input_lengths: Tensor) -> Tensor:
        """(B, U, F) rows and (B,) valid rows -> (B, T, C)."""
        frames = normalise_valid(inputs, input_lengths, 1e-5)
        for conv, (kernel, stride) in zip(self.convs, self.windows, strict=True):
            windows = frames.unfold(1, kernel, stride).transpose(2, 3).flatten(2)
            frames = F.gelu(conv(windows))
        return frames
