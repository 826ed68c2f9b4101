"""Log-mel rows changed at random: tempo, a stretch along the mel axis, masked bins. Drawn per utterance."""

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from speechssl.config import Settings
from speechssl.encoder.padding import zero_padding


class AugmentConfig(Settings):
    """How far training inputs are changed; nothing by default."""

    tempo: float = Field(0.0, ge=0, lt=0.5, description="largest relative change of the tempo")
    mel_stretch: float = Field(
        0.0, ge=0, lt=0.5, description="largest relative change of all frequencies, in mel"
    )
    mel_masks: int = Field(0, ge=0, description="bands of mel bins hidden in a whole utterance")
    mel_mask_bins: int = Field(15, ge=1, description="width of a band at most")

    @property
    def active(self) -> bool:
        """Whether anything is changed."""
        return bool(self.tempo or self.mel_stretch or self.mel_masks)


def augment(
    inputs: Tensor,
    input_lengths: Tensor,
    least_units: Sequence[int],
    config: AugmentConfig,
    rngs: Sequence[np.random.Generator],
) -> tuple[Tensor, Tensor]:
    """Changed copies of a batch of log-mel rows.

    Args:
        inputs: (B, U, F) float32.
        input_lengths: (B,) int64, valid rows.
        least_units: of each utterance, rows that must be left (a CTC transcript needs its frames).
        rngs: one generator an utterance, so that its changes do not depend on its batch mates.

    Returns:
        (B, U', F) with (B,) valid rows; padded rows are zero.

    Source: tempo as in speed perturbation (Ko et al. 2015) without its change of pitch; the stretch as VTLP (Jaitly and
    Hinton 2013); masks as SpecAugment (arXiv 1904.08779), with the mean of the bin, which the front end makes 0.
    """
    width, counts = inputs.shape[2], input_lengths.tolist()
    assert all(0 < count <= inputs.shape[1] for count in counts), (
        "beyond its rows are those of another utterance"
    )
    rows, bins, hide = (
        list[Tensor](),
        list[Tensor](),
        torch.zeros(len(rngs), width, dtype=torch.bool),
    )
    for index, (count, least, rng) in enumerate(zip(counts, least_units, rngs, strict=True)):
        if config.tempo:
            length = max(least, round(count / (1 + config.tempo * rng.uniform(-1, 1))))
            rows.append(torch.linspace(0, count - 1, length))
        if config.mel_stretch:
            factor = 1 + config.mel_stretch * rng.uniform(-1, 1)
            bins.append((torch.arange(width) * factor).clamp_max(width - 1))
        for _ in range(config.mel_masks):
            hidden = int(rng.integers(0, config.mel_mask_bins + 1))
            start = int(rng.integers(0, width - min(hidden, width) + 1))
            hide[index, start : start + hidden] = True
    changed, lengths = inputs[:, : max(counts)], torch.tensor(counts)
    if rows:
        changed = _interpolate(changed, pad_sequence(rows, batch_first=True), counts)
        lengths = torch.tensor([len(places) for places in rows])
    if bins:
        changed = _interpolate(
            changed.transpose(1, 2), torch.stack(bins), [width] * len(bins)
        ).transpose(1, 2)
    if config.mel_masks:
        changed = changed.masked_fill(hide.to(changed.device, non_blocking=True)[:, None], 0.0)
    return zero_padding(changed, lengths), lengths


def _interpolate(rows: Tensor, places: Tensor, counts: Sequence[int]) -> Tensor:
    """(B, N, C) of ``counts`` valid rows, linearly, at ``places`` (B, M) between 0 and the last one, on the host."""
    last = torch.tensor(counts)[:, None] - 1
    below = torch.minimum(places.long(), (last - 1).clamp_min(0))
    above = torch.minimum(below + 1, last)
    first = (
        torch.arange(len(rows))[:, None] * rows.shape[1]
    )  # of each utterance, when all rows are one table
    # All utterances at once: to copy what is drawn for each by itself has a GPU wait for each.
    drawn = (places - below, (first + below).flatten(), (first + above).flatten())
    share, below, above = (x.to(rows.device, non_blocking=True) for x in drawn)
    table, shape = rows.flatten(0, 1), (*places.shape, rows.shape[2])
    lower, upper = (table.index_select(0, index).view(shape) for index in (below, above))
    return lower.lerp_(upper, share[..., None])
