"""Norms whose statistics are those of valid frames, whatever utterances are padded with.

Shapes:
    B  utterances of the batch, S  audio samples of the padded batch
    C  channels, K  kernel of a convolution
    F  values of a channel in a frame
    T  frames of the padded batch, N  valid windows of one utterance
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechssl.encoder.padding import valid_mask


class ValidBatchNorm(nn.BatchNorm1d):
    """Batch norm whose statistics come from the valid frames of an update.

    Outside of training they are the running ones, so that no utterance depends on another.

    LayerNorm takes from each frame how loud it is beside its neighbours, which tells a recogniser
    of few labels much (docs/experiments/063).

    Source: Ioffe and Szegedy 2015 (arXiv 1502.03167). Differs: padding has no part in it.
    """

    def forward(self, frames: Tensor, valid: Tensor | None = None) -> Tensor:
        """Normalise each channel.

        Args:
            frames: (B, T, C), or (B, T, F, C) with F values of each channel in a frame.
            valid: (B, T) bool, True = valid; None = all are.

        Returns:
            The shape of ``frames``, float32; in training padded frames are zero.
        """
        frames = frames.float()

        if not self.training or valid is None:
            return self._of_values(frames)

        all_frames = frames.flatten(0, 1)  # (B T, C) or (B T, F, C)
        (places,) = valid.flatten().nonzero(as_tuple=True)
        valid_frames = all_frames.index_select(0, places)
        normed = self._of_values(valid_frames)

        # Whole frames are picked and put back, which a mask of their values would make slow.
        padded = torch.zeros_like(all_frames)
        padded.index_copy_(0, places, normed)
        return padded.view(frames.shape)

    def _of_values(self, frames: Tensor) -> Tensor:
        """Normalise the channels of (..., C)."""
        values = frames.flatten(0, -2)  # (N, C)
        # A single value has no variance, and torch refuses it: the running statistics stand in.
        learns = self.training and len(values) > 1

        normed = F.batch_norm(
            values,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=learns,
            momentum=self.momentum or 0.0,
            eps=self.eps,
        )

        return normed.view(frames.shape)


class ValidGroupNorm(nn.Module):
    """GroupNorm with one group per channel whose statistics come from the valid frames only.

    The known implementations average over padding too, so that an utterance's features depend on
    its batch mates.
    """

    def __init__(self, num_channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))
        self.eps = eps

    def forward(self, frames: Tensor, num_valid: Tensor) -> Tensor:
        """(B, C, T) and (B,) valid frames -> (B, C, T) float32."""
        # Statistics over seconds of audio are not for bfloat16.
        frames = frames.float()

        _, channels, length = frames.shape
        device = frames.device

        # A full batch needs no mask. An exported graph has no branch on values, so it takes the
        # general way below: equal but for rounding. So does a single frame, which has no variance
        # and which torch refuses.
        is_full = length > 1 and bool((num_valid == length).all())
        if not torch.compiler.is_exporting() and is_full:
            return F.group_norm(frames, channels, self.weight, self.bias, self.eps)

        valid = valid_mask(num_valid, length, device)[:, None]  # (B, 1, T)
        count = num_valid.to(device, non_blocking=True)
        count = count.clamp_min(1)
        count = count[:, None, None]  # (B, 1, 1)

        # Each sum in one expression: a name would keep a product as large as the frames.
        total = (frames * valid).sum(2, keepdim=True)
        mean = total / count
        centred = (frames - mean) * valid

        sum_of_squares = centred.square().sum(2, keepdim=True)
        variance = sum_of_squares / count
        inverse_std = (variance + self.eps).rsqrt()

        scale = self.weight[:, None] * inverse_std
        return centred * scale + self.bias[:, None]

    def folded(self, samples: Tensor, conv: nn.Conv1d, num_valid: Tensor) -> tuple[Tensor, Tensor]:
        """Fold the same norm into the convolution of the samples below it.

        No frame has to be computed for its statistics. The mean and the variance of ``w x`` over
        windows x follow from the mean m and the covariance V of the windows:

            mean(w x) = w m,  var(w x) = w V w

        Args:
            samples: (B, S) float32, zeros behind the valid ones.
            conv: the convolution, (C, 1, K).
            num_valid: (B,) valid windows.

        Returns:
            weights (B, K, C) and biases (B, C), for each utterance its own.
        """
        (kernel,) = conv.kernel_size
        (stride,) = conv.stride
        # Far from zero mean float32 would lose the digits of the variance.
        weight = conv.weight[:, 0]  # (C, K)
        weight = weight.double()

        window_means = []
        covariances = []
        counts = num_valid.tolist()
        for row, count in zip(samples, counts, strict=True):
            divisor = max(1, count)
            windows = row.unfold(0, kernel, stride)  # (all windows, K)
            windows = windows[:count].double()  # (N, K)

            window_mean = windows.sum(0) / divisor
            window_means.append(window_mean)

            centred = windows - window_mean
            products = centred.T @ centred  # (K, K)
            covariances.append(products / divisor)

        window_mean = torch.stack(window_means)  # (B, K)
        covariance = torch.stack(covariances)  # (B, K, K)
        mean = window_mean @ weight.T  # (B, C)
        variance = torch.einsum("ck,bkl,cl->bc", weight, covariance, weight)
        inverse_std = (variance + self.eps).rsqrt()
        scale = self.weight * inverse_std

        # A bias of the convolution would go away with the mean.
        weights = scale[:, None] * weight.T
        biases = self.bias - mean * scale
        return weights.float(), biases.float()


# ---- the waveform front end on a CPU -------------------------------------------------------------
