"""Padded batches: which units are valid, how many a convolution leaves, their statistics.

Shapes: B utterances, U units (samples, mel frames or encoder frames), F values of each unit.

Counts of valid units, (B,) int64, stay on the host wherever the batch is, so that reading them
never makes the host wait for the device.
"""

import torch
from torch import Tensor


def valid_mask(num_valid: Tensor, length: int, device: torch.device | None = None) -> Tensor:
    """Mark the valid units of a padded batch.

    Args:
        num_valid: (B,) int64 on the host, valid units of each utterance.
        length: units of the padded batch, U.
        device: where the mask is needed; None = the host.

    Returns:
        (B, U) bool, True = valid.
    """
    positions = torch.arange(length)
    valid = positions < num_valid[:, None]
    return valid.to(device, non_blocking=True)


def after_window(length: Tensor, kernel: int, stride: int) -> Tensor:
    """(B,) int64 units -> (B,) int64 windows that lie wholly inside them, ``stride`` apart."""
    last_start = length - kernel
    # Not torch.div, which an ONNX graph would compute in float32.
    windows: Tensor = last_start // stride + 1
    return windows.clamp_min(0)


def zero_padding(inputs: Tensor, num_valid: Tensor) -> Tensor:
    """Replace what stands behind the valid units by zeros.

    It is a selection and not a product with zero, because NaN in the padding must not get through
    either.

    Args:
        inputs: (B, U) or (B, U, F).
        num_valid: (B,) int64 on the host.

    Returns:
        The shape of ``inputs``.
    """
    length = inputs.shape[1]
    padding = ~valid_mask(num_valid, length, inputs.device)
    if inputs.dim() == 3:
        padding = padding[..., None]

    return inputs.masked_fill(padding, 0.0)


def normalise_valid(inputs: Tensor, num_valid: Tensor, eps: float) -> Tensor:
    """Give each utterance and column zero mean and unit variance over its valid rows.

    Args:
        inputs: (B, U, F).
        num_valid: (B,) int64 on the host.
        eps: added to the variance.

    Returns:
        (B, U, F) of the same dtype; padded rows are zero.
    """
    length = inputs.shape[1]
    device = inputs.device
    valid = valid_mask(num_valid, length, device)[..., None]  # (B, U, 1)

    count = num_valid.to(device, non_blocking=True)
    count = count.clamp_min(1)
    count = count[:, None, None]  # (B, 1, 1)

    # In float64 for ONNX Runtime, which adds up the samples of a single recording one by one:
    # float32 loses four digits over 30 s of them.
    units = inputs.double() if torch.compiler.is_exporting() else inputs

    # Each sum in one expression: a name would keep a product as large as the batch.
    total = (units * valid).sum(1, keepdim=True)
    mean = total / count
    centred = (units - mean) * valid

    sum_of_squares = centred.square().sum(1, keepdim=True)
    variance = sum_of_squares / count
    inverse_std = (variance + eps).rsqrt()

    normalised = centred * inverse_std
    return normalised.to(inputs.dtype)
