"""k-means, and the cepstra of log-mel frames: from what speech looks like to units that can be named."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from speechssl.encoder.padding import valid_mask

NUM_CEPSTRA = 16
NEIGHBOURS = 2  # frames on each side whose cepstra belong to a frame's
CEPSTRA_WIDTH = 2 * NUM_CEPSTRA * (2 * NEIGHBOURS + 1)
ROUNDS = 15  # of k-means


def k_means(frames: Tensor, codes: Tensor, rounds: int = ROUNDS) -> Tensor:
    """Lloyd's algorithm: (N, W) frames and (K, W) first codes -> (K, W); a code without frames stays where it is."""
    for _ in range(rounds):
        own = nearest(frames, codes)
        counts = torch.bincount(own, minlength=len(codes))[:, None]
        means = torch.zeros_like(codes).index_add_(0, own, frames) / counts.clamp_min(1)
        codes = torch.where(counts > 0, means, codes)
    return codes


def nearest(frames: Tensor, codes: Tensor) -> Tensor:
    """(..., W) and (K, W) -> (...) int64, by Euclidean distance."""
    return (frames @ codes.T - codes.square().sum(1) / 2).argmax(-1)


def cepstra(rows: Tensor, num_frames: Tensor, subsampling: int) -> Tensor:
    """(B, T, subsampling x F) log-mel rows -> (B, T, W): of each half of a frame and of its neighbours.

    The cosine transform of the mel axis without its mean; beyond the ends of an utterance there are zeros.
    """
    shape = (*rows.shape[:2], 2, subsampling // 2, rows.shape[2] // subsampling)
    halves = rows.reshape(shape).mean(3)  # (B, T, 2, F)
    bins = halves.shape[-1]
    angles = math.pi / bins * (torch.arange(bins) + 0.5) * torch.arange(1, NUM_CEPSTRA + 1)[:, None]
    own = (halves @ (angles.cos() * math.sqrt(2 / bins)).T.to(rows.device)).flatten(2)
    own = own * valid_mask(num_frames, own.shape[1], own.device)[..., None]
    around = F.pad(own, (0, 0, NEIGHBOURS, NEIGHBOURS)).unfold(1, 2 * NEIGHBOURS + 1, 1)
    return around.flatten(2)
