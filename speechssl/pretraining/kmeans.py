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
    for _ in range(rounds):
        own_code = nearest(frames, codes)  # (N,)
        counts = torch.bincount(own_code, minlength=len(codes))[:, None]

        sums = torch.zeros_like(codes).index_add_(0, own_code, frames)
        means = sums / counts.clamp_min(1)
        codes = torch.where(counts > 0, means, codes)

    return codes


def nearest(frames: Tensor, codes: Tensor) -> Tensor:
    """(..., W) frames and (V, W) codes -> (...) int64, the nearest code by Euclidean distance.

        |x - c|^2 = |x|^2 - 2 (x c - |c|^2 / 2)

    The first term is the same for all codes, so the nearest is the one with the largest bracket.
    """
    closeness = frames @ codes.T - codes.square().sum(1) / 2
    return closeness.argmax(-1)


def cepstra(rows: Tensor, num_frames: Tensor, subsampling: int) -> Tensor:
    """Compute the cepstra of each half of a frame and of its neighbours.

    They are the cosine transform of the mel axis without its mean; beyond the ends of an utterance
    there are zeros.

    Args:
        rows: (B, T, subsampling x F) log-mel.
        num_frames: (B,) int64, valid frames.
        subsampling: mel frames under a frame.

    Returns:
        (B, T, CEPSTRA_WIDTH).
    """
    batch, length, width = rows.shape
    num_bins = width // subsampling
    rows_by_half = rows.reshape(batch, length, 2, subsampling // 2, num_bins)
    halves = rows_by_half.mean(3)  # (B, T, 2, F)

    order = torch.arange(1, NUM_CEPSTRA + 1)[:, None]
    angles = math.pi / num_bins * (torch.arange(num_bins) + 0.5) * order
    transform = angles.cos() * math.sqrt(2 / num_bins)  # (cepstra, F)
    own = (halves @ transform.T.to(rows.device)).flatten(2)  # (B, T, 2 cepstra)

    own = own * valid_mask(num_frames, length, own.device)[..., None]
    padded = F.pad(own, (0, 0, NEIGHBOURS, NEIGHBOURS))
    around = padded.unfold(1, 2 * NEIGHBOURS + 1, 1)  # (B, T, 2 cepstra, neighbours)
    return around.flatten(2)
