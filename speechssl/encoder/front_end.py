"""Front ends: raw samples or log-mel rows -> frames.

Shapes:
    B  utterances of the batch
    S  audio samples of the padded batch
    U  mel frames of the padded batch, F mel bins
    T  frames of the padded batch after a convolution, T' after the next one
    C  channels of a convolution, C' of the next one
    K  kernel of a convolution
    N  windows or frames of one utterance, or of a block of it

A window is (kernel, stride) of a convolution. On a CPU the waveform front end takes its own way
(``_ActivatedConv``), which never holds the activations of a whole layer: they are by far the
largest thing of a step.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from speechssl.encoder.kernels import on_cpu
from speechssl.encoder.norm import ValidBatchNorm, ValidGroupNorm
from speechssl.encoder.padding import after_window, normalise_valid, valid_mask

Window = tuple[int, int]

# The window of the samples under an activation, and that of the activations under an output.
Windows = tuple[Window, Window]

# Weights and biases of a convolution, of a LayerNorm, or of both in this order; may be empty.
Parameters = tuple[Tensor, ...]

# Activations between two passes over them: 4 MB of float32, which stay in the cache.
BLOCK_VALUES = 1 << 20


class LogMelFrontEnd(nn.Module):
    """(B, U, F) log-mel -> (B, T, C) frames: normalisation, then stride-2 convolutions.

    Each convolution is one matrix product over windows of 3 frames-last rows: no layout copies.

    Args:
        mel_norm: (B, U, F) rows and (B,) valid rows -> normalised rows.
    """

    def __init__(
        self, mel_norm: nn.Module, num_mels: int, channels: int, windows: Sequence[Window]
    ) -> None:
        super().__init__()
        self.mel_norm = mel_norm
        self.windows = windows
        self.convs = nn.ModuleList()

        width_below = num_mels
        for kernel, _ in windows:
            conv = nn.Linear(kernel * width_below, channels)
            self.convs.append(conv)
            width_below = channels

    def forward(self, inputs: Tensor, input_lengths: Tensor) -> Tensor:
        """(B, U, F) rows and (B,) valid rows -> (B, T, C)."""
        frames: Tensor = self.mel_norm(inputs, input_lengths)

        layers = zip(self.convs, self.windows, strict=True)
        for conv, (kernel, stride) in layers:
            windows = frames.unfold(1, kernel, stride)  # (B, T', C, K)
            windows = windows.transpose(2, 3)  # (B, T', K, C)
            windows = windows.flatten(2)
            frames = F.gelu(conv(windows))

        return frames


class PlaneFrontEnd(nn.Module):
    """(B, U, F) log-mel -> (B, T, C F') frames: 2-D convolutions over time and mel bins.

    The same patterns are looked for at every pitch, so a few minutes of speech teach more than one
    weight for each bin would.

    Shapes: C channels, each a plane of time and mel; F' mel bins that the strides leave.

    Args:
        mel_norm: (B, U, F) rows and (B,) valid rows -> normalised rows.
        windows: kernel of each convolution along both axes, and its stride over time.
        mel_strides: its stride along the mel axis.
        batch_norm: whether each convolution has a batch norm before its ReLU.
    """

    def __init__(
        self,
        mel_norm: nn.Module,
        channels: int,
        windows: Sequence[Window],
        mel_strides: Sequence[int],
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.mel_norm = mel_norm
        self.windows = windows
        self.convs = nn.ModuleList()

        channels_below = 1
        for (kernel, stride), mel_stride in zip(windows, mel_strides, strict=True):
            # A convolution sees zeros beyond the ends of the mel axis.
            padding = (0, kernel // 2)
            strides = (stride, mel_stride)
            conv = nn.Conv2d(channels_below, channels, kernel, stride=strides, padding=padding)
            self.convs.append(conv)
            channels_below = channels

        self.norms = nn.ModuleList()
        if batch_norm:
            self.norms.extend(ValidBatchNorm(channels) for _ in windows)

    def forward(self, inputs: Tensor, input_lengths: Tensor) -> Tensor:
        """(B, U, F) rows and (B,) valid rows -> (B, T, C F')."""
        normalised: Tensor = self.mel_norm(inputs, input_lengths)
        planes = normalised[:, None]  # (B, 1, U, F)
        num_valid = input_lengths

        for index, (conv, window) in enumerate(zip(self.convs, self.windows, strict=True)):
            assert isinstance(conv, nn.Conv2d)
            planes = _conv_channels_last(conv, planes)  # (B, C, T, bins)
            num_valid = after_window(num_valid, *window)
            if self.norms:
                planes = self._normed(index, planes, num_valid)
            planes = F.relu(planes)

        frames = planes.transpose(1, 2)  # (B, T, C, bins)
        return frames.flatten(2)

    def _normed(self, index: int, planes: Tensor, num_valid: Tensor) -> Tensor:
        """Apply the batch norm behind convolution ``index`` to (B, C, T, bins)."""
        frames = planes.permute(0, 2, 3, 1)  # (B, T, bins, C)
        valid = valid_mask(num_valid, frames.shape[1], frames.device)
        normed: Tensor = self.norms[index](frames, valid)
        return normed.permute(0, 3, 1, 2)


def _conv_channels_last(conv: nn.Conv2d, planes: Tensor) -> Tensor:
    """Convolve (B, C, T, bins) with the channels of a place beside each other in memory.

    On a CPU this takes half the time, and a norm of the channels then reads memory in order. The
    weight decides about it where there is a single channel below.

    Returns:
        (B, C', T', bins').
    """
    weight = conv.weight.contiguous(memory_format=torch.channels_last)
    planes = planes.contiguous(memory_format=torch.channels_last)
    stride = (conv.stride[0], conv.stride[1])
    padding = (0, int(conv.padding[1]))
    return F.conv2d(planes, weight, conv.bias, stride, padding)


class WaveformFrontEnd(nn.Module):
    """wav2vec 2.0's convolutions: (B, S) samples -> (B, T, C) frames.

    Args:
        conv_layers: (channels, kernel, stride) of each convolution.
        grouped: group norm after the first layer (BASE); else LayerNorm in every layer (LARGE).
        conv_bias: whether the convolutions have a bias.
        normalise_input: whether each utterance is given zero mean and unit variance first.

    Source: wav2vec 2.0 section 2 and its released configurations. Differs in the statistics: valid
    samples only.
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
        self.windows = [(kernel, stride) for _, kernel, stride in conv_layers]
        widths = [channels for channels, _, _ in conv_layers]

        self.convs = nn.ModuleList()
        width_below = 1
        for channels, kernel, stride in conv_layers:
            layer = nn.Conv1d(width_below, channels, kernel, stride, bias=conv_bias)
            self.convs.append(layer)
            width_below = channels

        self.group_norm: ValidGroupNorm | None = None
        self.layer_norms = nn.ModuleList()
        if grouped:
            self.group_norm = ValidGroupNorm(widths[0])
        else:
            self.layer_norms.extend(nn.LayerNorm(channels) for channels in widths)

        # After all layers are made: the order of the draws decides the initial weights of a seed.
        for conv in self.convs:
            assert isinstance(conv, nn.Conv1d)
            nn.init.kaiming_normal_(conv.weight)

    def forward(self, inputs: Tensor, input_lengths: Tensor) -> Tensor:
        """(B, S) samples, zeros behind the valid ones, and (B,) valid samples -> (B, T, C)."""
        samples = inputs
        if self.normalise_input:
            one_column = inputs[..., None]  # (B, S, 1)
            normalised = normalise_valid(one_column, input_lengths, eps=1e-7)
            samples = normalised[..., 0]

        if on_cpu(samples):
            return self._blockwise(samples, input_lengths)
        return self._plain(samples, input_lengths)

    def _plain(self, samples: Tensor, num_samples: Tensor) -> Tensor:
        """(B, S) and (B,) valid -> (B, T, C): layer by layer, channels first."""
        frames = samples[:, None]  # (B, 1, S)
        num_valid = num_samples

        layers = zip(self.convs, self.windows, strict=True)
        for index, (conv, window) in enumerate(layers):
            frames = conv(frames)  # (B, C, T)
            num_valid = after_window(num_valid, *window)

            if self.group_norm is None:
                layer_norm = self.layer_norms[index]
                frames = frames.transpose(1, 2)  # (B, T, C)
                frames = layer_norm(frames)
                frames = frames.transpose(1, 2)
            elif index == 0:
                frames = self.group_norm(frames, num_valid)

            frames = F.gelu(frames)

        return frames.transpose(1, 2)

    def _blockwise(self, samples: Tensor, num_samples: Tensor) -> Tensor:
        """Compute what ``_plain`` does, frames last and each activation in blocks.

        A block of activations is computed where the next convolution reads it.

        What is kept between two layers is ``stored``, from which ``_activate`` makes the
        activations. It is the samples below the second convolution, and below every later one the
        outputs of the convolution before it.
        """
        batch = len(samples)
        num_valid = after_window(num_samples, *self.windows[0])

        stored = samples
        # What one activation is made of: a window of samples at first, later a single output.
        window = self.windows[0]
        of_first_conv = self._first_conv(samples, num_valid)
        parameters = of_first_conv + self._layer_norm(0, batch)

        for index in range(1, len(self.convs)):
            conv = self.convs[index]
            assert isinstance(conv, nn.Conv1d)
            own_window = self.windows[index]
            windows = (window, own_window)
            num_valid = after_window(num_valid, *own_window)
            counts = num_valid.tolist()

            # Rows of K neighbouring frames: (C', C, K) -> (K C, C').
            weight = conv.weight.permute(2, 1, 0)
            weight = weight.flatten(0, 1)
            stored = _ActivatedConv.apply(stored, weight, conv.bias, windows, counts, *parameters)

            window = (1, 1)
            parameters = self._layer_norm(index, batch)

        # To iterate makes one gradient for all rows. To index makes one as large as the batch for
        # each row, so that the time of the backward pass would grow with the batch's square.
        activated = []
        for own_stored, *own_parameters in zip(stored, *parameters, strict=True):
            activations = _activate(own_stored, window, own_parameters)
            activated.append(activations)

        return torch.stack(activated)

    def _first_conv(self, samples: Tensor, num_valid: Tensor) -> Parameters:
        """Weights (B, K, C) and biases (B, C) of the first convolution, group norm folded in."""
        conv = self.convs[0]
        assert isinstance(conv, nn.Conv1d)
        if self.group_norm is not None:
            return self.group_norm.folded(samples, conv, num_valid)

        batch = len(samples)
        weight = conv.weight[:, 0]  # (C, K)
        weight = weight.T
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias

        weights = weight.expand(batch, -1, -1)
        biases = bias.expand(batch, -1)
        return weights, biases

    def _layer_norm(self, index: int, batch: int) -> Parameters:
        """Weights (B, C) and biases (B, C) of a layer's LayerNorm; none with group norm."""
        if self.group_norm is not None:
            return ()

        layer_norm = self.layer_norms[index]
        return tuple(parameter.expand(batch, -1) for parameter in layer_norm.parameters())


def _activate(stored: Tensor, window: Window, parameters: Sequence[Tensor]) -> Tensor:
    """Compute the activations of one utterance, from what is stored of it.

    They are the GELU of the output of a convolution, with a LayerNorm between where there is one.

    Args:
        stored: (S,) samples, or (N, C) outputs of a convolution.
        window: of the convolution of samples.
        parameters: its weight (K, C) and bias (C,) where ``stored`` is samples; then those of a
            LayerNorm, if any.

    Returns:
        (N, C).
    """
    frames = stored
    norm_parameters = parameters

    if stored.dim() == 1:
        conv_weight, conv_bias, *norm_parameters = parameters
        # The bias is a row of the weight, over a column of ones: to add it would be a pass over all
        # activations, as expensive as the product itself.
        bias_row = conv_bias[None]
        weight_and_bias = torch.cat([conv_weight, bias_row])  # (K + 1, C)
        windows = stored.unfold(0, *window)  # (N, K)
        samples_and_one = F.pad(windows, (0, 1), value=1.0)  # (N, K + 1)
        frames = samples_and_one @ weight_and_bias

    if norm_parameters:
        norm_weight, norm_bias = norm_parameters
        channels = frames.shape[1:]
        frames = F.layer_norm(frames, channels, norm_weight, norm_bias)

    return F.gelu(frames)


class _ActivatedConv(Function):
    """Convolution over time of ``_activate(stored)``.

    Only ``stored`` is kept for the backward pass. The activations, the largest thing of a step by
    far, exist block by block in a core's cache, in both passes. The convolution itself is a few
    matrix products of frames-last blocks: ``stride`` neighbouring frames are one row.
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
            bias: (C',).
            windows: of the samples under an activation, and of the activations under an output.
            counts: valid output frames of each utterance; the others are zero.
            parameters: of ``_activate``, each with a leading axis B.

        Returns:
            (B, T', C').
        """
        ctx.save_for_backward(stored, weight, *parameters)
        ctx.windows = windows
        ctx.counts = counts
        window_below, window = windows

        num_stored = torch.tensor(stored.shape[1])
        num_activations = after_window(num_stored, *window_below)
        length = int(after_window(num_activations, *window))
        if length < 1:
            raise RuntimeError("the inputs are too short for one frame")

        batch = len(counts)
        channels = weight.shape[1]
        out = stored.new_empty(batch, length, channels)

        for block in _blocks(windows, counts, len(weight)):
            own_stored = stored[block.row, block.stored]
            own_parameters = [parameter[block.row] for parameter in parameters]
            activations = _activate(own_stored, window_below, own_parameters)

            out_block = out[block.row, block.outputs]
            num_outputs = len(out_block)
            for product in _products(activations, window, num_outputs):
                taps = weight[product.taps]
                # The block is uninitialised memory: the first product fills it, the others add.
                if product.taps.start == 0:
                    torch.mm(product.matrix, taps, out=out_block)
                else:
                    out_block.addmm_(product.matrix, taps)

            if bias is not None:
                out_block += bias

        for row, count in enumerate(counts):
            out[row, count:] = 0
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """Make each block's activations again, and from them the gradients of all that learns."""
        stored, weight, *parameters = ctx.saved_tensors
        (from_above,) = gradients
        window_below, window = ctx.windows
        stored_learns = ctx.needs_input_grad[0]
        bias_learns = ctx.needs_input_grad[2]

        channels = weight.shape[1]
        to_stored = torch.zeros_like(stored) if stored_learns else None
        to_weight = torch.zeros_like(weight)
        to_bias = weight.new_zeros(channels) if bias_learns else None
        to_parameters = [torch.zeros_like(parameter) for parameter in parameters]
        num_shared = _shared_by_blocks(ctx.windows)

        for block in _blocks(ctx.windows, ctx.counts, len(weight)):
            # Activations with a graph of their own, which ends at what this block reads.
            own_stored = stored[block.row, block.stored].detach()
            own_stored.requires_grad_(stored_learns)
            own_parameters = [parameter[block.row].detach() for parameter in parameters]
            for parameter in own_parameters:
                parameter.requires_grad_()

            with torch.enable_grad():
                activations = _activate(own_stored, window_below, own_parameters)

            from_block = from_above[block.row, block.outputs]
            num_outputs = len(from_block)
            to_activations = torch.zeros_like(activations)
            products = _products(activations.detach(), window, num_outputs)
            to_products = _products(to_activations, window, num_outputs)

            for product, to_product in zip(products, to_products, strict=True):
                taps = product.taps
                to_weight[taps].addmm_(product.matrix.T, from_block)

                weight_columns = weight[taps].T  # (C', taps)
                # Where kernels overlap the matrices share frames, so the later products add.
                if taps.start == 0:
                    torch.mm(from_block, weight_columns, out=to_product.matrix)
                else:
                    to_product.matrix.addmm_(from_block, weight_columns)

            if to_bias is not None:
                to_bias += from_block.sum(0)

            learning = own_parameters
            if stored_learns:
                learning = [own_stored, *own_parameters]
            found: list[Tensor] = []
            if learning:
                gradients_of_block = torch.autograd.grad(activations, learning, to_activations)
                found.extend(gradients_of_block)

            if to_stored is not None:
                to_block = found.pop(0)
                total_of_block = to_stored[block.row, block.stored]  # a view
                # The values that the block before has read too, and has written its share of.
                to_block[:num_shared] += total_of_block[:num_shared]
                total_of_block.copy_(to_block)

            for total, share in zip(to_parameters, found, strict=True):
                total[block.row] += share

        # None for ``windows`` and ``counts``.
        return to_stored, to_weight, to_bias, None, None, *to_parameters


class _Block(NamedTuple):
    """Neighbouring output frames of one utterance, whose activations stay in the cache."""

    row: int
    """the utterance"""
    outputs: slice
    """output frames"""
    stored: slice
    """what is stored of the activations under them"""


def _blocks(windows: Windows, counts: Sequence[int], values: int) -> Iterator[_Block]:
    """Cut the output frames of each utterance into blocks.

    Args:
        windows: as in ``_ActivatedConv``.
        counts: valid output frames of each utterance.
        values: activations under one output frame.
    """
    (kernel_below, stride_below), (kernel, stride) = windows
    frames_per_block = max(1, BLOCK_VALUES // values)

    for row, count in enumerate(counts):
        for start in range(0, count, frames_per_block):
            stop = min(start + frames_per_block, count)
            first_activation = start * stride
            last_activation = (stop - 1) * stride + kernel - 1
            first_stored = first_activation * stride_below
            last_window = last_activation * stride_below
            stop_stored = last_window + kernel_below

            outputs = slice(start, stop)
            stored = slice(first_stored, stop_stored)
            yield _Block(row, outputs, stored)


def _shared_by_blocks(windows: Windows) -> int:
    """Stored values that a block reads and the block before has read too."""
    (kernel_below, stride_below), (kernel, stride) = windows
    shared_activations = kernel - stride
    # From the first value under the first of them to the last one under the last.
    last_window = (shared_activations - 1) * stride_below
    shared_values = last_window + kernel_below
    return max(0, shared_values)


class _Product(NamedTuple):
    """One of the matrix products that make up a convolution."""

    taps: slice
    """rows of the convolution's weight (K C, C')"""
    matrix: Tensor
    """(frames, taps) view of the activations that they apply to"""


def _products(activations: Tensor, window: Window, count: int) -> Iterator[_Product]:
    """Take a convolution apart into matrix products.

    ``stride`` frames that follow each other are one row of a matrix without overlap, which no
    product has to copy.

    Args:
        activations: (N, C), contiguous.
        window: of the convolution.
        count: output frames.
    """
    kernel, stride = window
    channels = activations.shape[1]

    for first_tap in range(0, kernel, stride):
        stop_tap = min(first_tap + stride, kernel)
        first_value = first_tap * channels
        stop_value = stop_tap * channels
        taps = slice(first_value, stop_value)

        shape = (count, stop_value - first_value)
        row_step = stride * channels
        steps = (row_step, 1)
        offset = activations.storage_offset() + first_value
        matrix = activations.as_strided(shape, steps, offset)
        yield _Product(taps, matrix)
