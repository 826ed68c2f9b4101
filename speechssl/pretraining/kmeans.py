"""k-means, and the cepstra of log-mel frames: how hidden units are found.

Shapes: N frames of W values, V codes (the centres of clusters); B, T, F as in masked_prediction.py.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from speechssl.encoder.padding import valid_mask

# Coefficients of the cosine transform for each half of a frame, the mean left out.
NUM_CEPSTRA = 16

# Frames on each side whose cepstra belong to a frame's.
NEIGHBOURS = 2

# Both halves of a frame and of its neighbours.
CEPSTRA_WIDTH = 2 * NUM_CEPSTRA * (2 * NEIGHBOURS + 1)

# Rounds of k-means.
ROUNDS = 15


def k_means(frames: Tensor, codes: Tensor, rounds: int = ROUNDS) -> Tensor:
    """Move codes to the centres of their clusters, by Lloyd's algorithm.

    Args:
        frames: (N, W).
        codes: (V, W) to start from.
        rounds: how often the codes move.

    Returns:
        (V, W); a code without frames stays where it is.
    """
    num_codes = len(codes)
    for _ in range(rounds):
        own_code = nearest(frames, codes)  # (N,)
        counts = torch.bincount(own_code, minlength=num_codes)
        counts = counts[:, None]  # (V, 1)

        sums = torch.zeros_like(codes)
        sums.index_add_(0, own_code, frames)
        means = sums / counts.clamp_min(1)
        codes = torch.where(counts > 0, means, codes)

    return codes


def nearest(frames: Tensor, codes: Tensor) -> Tensor:
    """(..., W) frames and (V, W) codes -> (...) int64, the nearest code by Euclidean distance.

        |x - c|^2 = |x|^2 - 2 (x c - |c|^2 / 2)

    The first term is the same for all codes, so the nearest is the one with the largest bracket.
    """
    half_squares = codes.square().sum(1) / 2  # (V,)
    closeness = frames @ codes.T - half_squares
    return closeness.argmax(-1)


def cepstra(rows: Tensor, num_frames: Tensor, subsampling: int) -> Tensor:
    """Compute the cepstra of each half of a frame and of its neighbours.

    The halves of an odd number of mel frames share the one in the middle. Cepstra are the cosine
    transform of the mel axis without its mean; beyond the ends of an utterance there are zeros.

    Args:
        rows: (B, T, subsampling x F) log-mel.
        num_frames: (B,) int64, valid frames.
        subsampling: mel frames under a frame.

    Returns:
        (B, T, CEPSTRA_WIDTH).
    """
    batch, length, width = rows.shape
    num_bins = width // subsampling
    rows_by_frame = rows.reshape(batch, length, subsampling, num_bins)
    rows_of_half = math.ceil(subsampling / 2)
    first_half = rows_by_frame[:, :, :rows_of_half].mean(2)  # (B, T, F)
    second_half = rows_by_frame[:, :, -rows_of_half:].mean(2)
    halves = torch.stack([first_half, second_half], dim=2)  # (B, T, 2, F)

    transform = _cosine_transform(num_bins)
    own = halves @ transform.T.to(rows.device)  # (B, T, 2, cepstra)
    own = own.flatten(2)  # (B, T, 2 cepstra)
    valid = valid_mask(num_frames, length, own.device)
    own = own * valid[..., None]

    padded = F.pad(own, (0, 0, NEIGHBOURS, NEIGHBOURS))
    num_neighbours = 2 * NEIGHBOURS + 1
    around = padded.unfold(1, num_neighbours, 1)  # (B, T, 2 cepstra, neighbours)
    return around.flatten(2)


def _cosine_transform(num_bins: int) -> Tensor:
    """(NUM_CEPSTRA, F): the orthonormal cosine transform (DCT-II) of F bins, from order 1 on."""
    order = torch.arange(1, NUM_CEPSTRA + 1)
    order = order[:, None]
    middles = torch.arange(num_bins) + 0.5  # of the bins

    bin_angle = math.pi / num_bins
    angles = bin_angle * middles * order
    scale = math.sqrt(2 / num_bins)
    return angles.cos() * scale
