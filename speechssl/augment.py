"""Log-mel rows changed at random: tempo, a stretch along the mel axis, masked bins. Drawn per utterance."""

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from speechssl.config import Settings


class AugmentConfig(Settings):
    """How far training inputs are changed; nothing by default."""

    tempo: float = Field(0.0, ge=0, lt=0.5, description="largest relative change of the tempo")
    mel_stretch: float = Field(0.0, ge=0, lt=0.5, description="largest relative change of all frequencies, in mel")
    mel_masks: int = Field(0, ge=0, description="bands of mel bins hidden in a whole utterance")
    mel_mask_bins: int = Field(15, ge=1, description="width of a band at most")

    @property
    def active(self) -> bool:
        """Whether anything is changed."""
        return bool(self.tempo or self.mel_stretch or self.mel_masks)


def augment(
    inputs: Tensor,
    num_units: Tensor,
    least_units: Sequence[int],
    config: AugmentConfig,
    rngs: Sequence[np.random.Generator],
) -> tuple[Tensor, Tensor]:
    """Changed copies of a batch of log-mel rows.

    Args:
        inputs: (B, U, F) float32.
        num_units: (B,) int64, valid rows.
        least_units: of each utterance, rows that must be left (a CTC transcript needs its frames).
        rngs: one generator an utterance, so that its changes do not depend on its batch mates.

    Returns:
        (B, U', F) with (B,) valid rows; padded rows are zero.

    Source: tempo as in speed perturbation (Ko et al. 2015) without its change of pitch; the stretch as VTLP (Jaitly and
    Hinton 2013); masks as SpecAugment (arXiv 1904.08779), with the mean of the bin, which the front end makes 0.
    """
    changed = [
        _augment_one(rows[:count], least, config, rng)
        for rows, count, least, rng in zip(inputs, num_units.tolist(), least_units, rngs, strict=True)
    ]
    lengths = torch.tensor([len(rows) for rows in changed])
    return torch.nn.utils.rnn.pad_sequence(changed, batch_first=True), lengths


def _augment_one(rows: Tensor, least: int, config: AugmentConfig, rng: np.random.Generator) -> Tensor:
    """(U, F) -> (U', F)."""
    if config.tempo:
        length = max(least, round(len(rows) / (1 + config.tempo * rng.uniform(-1, 1))))
        rows = _interpolate(rows, torch.linspace(0, len(rows) - 1, length))
    if config.mel_stretch:
        factor = 1 + config.mel_stretch * rng.uniform(-1, 1)
        bins = torch.arange(rows.shape[1]) * factor
        rows = _interpolate(rows.T, bins.clamp_max(rows.shape[1] - 1)).T
    if config.mel_masks:
        rows = rows.clone()
        for _ in range(config.mel_masks):
            width = int(rng.integers(0, config.mel_mask_bins + 1))
            start = int(rng.integers(0, rows.shape[1] - min(width, rows.shape[1]) + 1))
            rows[:, start : start + width] = 0.0
    return rows


def _interpolate(rows: Tensor, places: Tensor) -> Tensor:
    """(N, C) at ``places`` between 0 and N - 1, linearly."""
    below = places.long().clamp_max(max(0, len(rows) - 2))
    above = (below + 1).clamp_max(len(rows) - 1)
    share = (places - below).to(rows.device)[:, None]
    mixed: Tensor = torch.lerp(rows[below], rows[above], share)
    return mixed
