"""Padded batches: which units are valid, how many are left after a convolution, statistics over the valid ones.

Counts of valid units, (B,) int64, stay on the host wherever the batch is: nothing has to wait for the device to read
them.
"""

import torch
from torch import Tensor


def valid_mask(num_valid: Tensor, length: int, device: torch.device | None = None) -> Tensor:
    """(B,) counts -> (B, length) bool on ``device``, True = valid."""
    return (torch.arange(length) < num_valid[:, None]).to(device, non_blocking=True)


def after_window(length: Tensor, kernel: int, stride: int) -> Tensor:
    """(B,) int64 -> how many windows lie wholly inside so many units."""
    windows: Tensor = (
        length - kernel
    ) // stride + 1  # not torch.div, which an ONNX graph would do in float32
    return windows.clamp_min(0)


def zero_padding(inputs: Tensor, num_valid: Tensor) -> Tensor:
    """(B, U) or (B, U, F) with zeros behind the valid units, by selection: NaN there must not get through either."""
    valid = valid_mask(num_valid, inputs.shape[1], inputs.device)
    return inputs.masked_fill(~(valid if inputs.dim() == 2 else valid[..., None]), 0.0)


def normalise_valid(inputs: Tensor, num_valid: Tensor, eps: float) -> Tensor:
    """(B, U, F) -> zero mean, unit variance per utterance and column over its valid rows; padded rows are zero."""
    valid = valid_mask(num_valid, inputs.shape[1], inputs.device)[..., None]
    count = num_valid.to(inputs.device, non_blocking=True).clamp_min(1)[:, None, None]
    # ONNX Runtime adds up the samples of a single recording one by one: float32 loses four digits over 30 s of them.
    units = inputs.double() if torch.compiler.is_exporting() else inputs
    centred = (units - (units * valid).sum(1, keepdim=True) / count) * valid
    variance = centred.square().sum(1, keepdim=True) / count
    return (centred * (variance + eps).rsqrt()).to(inputs.dtype)
