"""Random changes of log-mel rows: tempo, a stretch along the mel axis, noise, masks, a shift.

Shapes: B utterances, U rows (mel frames) before and U' after a change of the tempo, F mel bins. A
place is where on an axis a value of the output is read from the input: a number between two rows or
two bins.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from speechssl.config import Settings
from speechssl.encoder.loudness import speech_level
from speechssl.encoder.padding import zero_padding

# By how much noise lies below the speech, dB.
NOISE_BELOW_DB = (5.0, 40.0)
# The change of its spectrum from the lowest to the highest bin, nats of power: rooms and machines
# are louder at the low end.
NOISE_SLOPE = (-3.0, 1.0)
# Bends of the spectrum, and how far they go (standard deviation), nats of power.
NUM_BENDS = 5
NOISE_BEND = 0.7
# Frequencies that the lowest and the highest of 80 mel bins hear, in windows of 25 ms at 16 kHz.
FREQUENCIES_OF_BINS = (1.0, 7.0)


class AugmentConfig(Settings):
    """How far training inputs are changed; nothing by default."""

    tempo: float = Field(0.0, ge=0, lt=0.5, description="largest relative change of the tempo")
    mel_stretch: float = Field(
        0.0, ge=0, lt=0.5, description="largest relative change of all frequencies, in mel"
    )
    noise: float = Field(
        0.0, ge=0, le=1, description="share of utterances that steady noise is added to"
    )
    mel_masks: int = Field(0, ge=0, description="bands of mel bins hidden in a whole utterance")
    mel_mask_bins: int = Field(15, ge=1, description="width of a band at most")
    time_masks: float = Field(0.0, ge=0, description="spans of rows hidden, for each 100 rows")
    time_mask_rows: int = Field(20, ge=1, description="length of a span at most")
    shift_rows: int = Field(
        0, ge=0, description="rows cut off the beginning at most: encoder frames fall differently"
    )

    @property
    def active(self) -> bool:
        """Whether anything is changed."""
        of_rows = (self.tempo, self.time_masks, self.shift_rows)
        of_bins = (self.mel_stretch, self.noise, self.mel_masks)
        return any(of_rows) or any(of_bins)


def augment(
    inputs: Tensor,
    input_lengths: Tensor,
    least_units: Sequence[int],
    config: AugmentConfig,
    rngs: Sequence[np.random.Generator],
) -> tuple[Tensor, Tensor]:
    """Make changed copies of a batch of log-mel rows.

    Args:
        inputs: (B, U, F) float32.
        input_lengths: (B,) int64, valid rows.
        least_units: of each utterance, rows that must be left (a CTC transcript needs its frames).
        config: which changes, and how far.
        rngs: one generator an utterance, so that its changes do not depend on its batch mates.

    Returns:
        (B, U', F) with (B,) valid rows; padded rows are zero.

    Source: tempo as in speed perturbation (Ko et al. 2015) without its change of pitch; the stretch
    as VTLP (Jaitly and Hinton 2013); noise as in multi-condition training (Seltzer et al. 2013),
    made of the rows themselves; masks as SpecAugment (arXiv 1904.08779), with the mean of the bin
    in the utterance; the shift as the frame offsets of Kaldi's chain models (Povey et al. 2016,
    "Purely sequence-trained neural networks for ASR based on lattice-free MMI").
    """
    batch, num_rows, num_bins = inputs.shape
    counts = input_lengths.tolist()
    for count in counts:
        assert 0 < count <= num_rows, "beyond its rows are those of another utterance"

    changes = []
    for count, least, rng in zip(counts, least_units, rngs, strict=True):
        own_changes = _draw_changes(count, num_bins, least, config, rng)
        changes.append(own_changes)

    most_rows = max(counts)
    changed = inputs[:, :most_rows]
    lengths = torch.tensor(counts)

    if config.tempo:
        places = [change.row_places for change in changes]
        row_places = pad_sequence(places, batch_first=True)  # (B, U')
        changed = _interpolate(changed, row_places, counts)
        lengths = torch.tensor([len(own) for own in places])

    if config.mel_stretch:
        bin_places = torch.stack([change.bin_places for change in changes])  # (B, F)
        bin_counts = [num_bins] * batch
        bins_first = changed.transpose(1, 2)  # (B, F, U')
        bins_first = _interpolate(bins_first, bin_places, bin_counts)
        changed = bins_first.transpose(1, 2)

    if config.noise:
        noise = pad_sequence([change.noise for change in changes], batch_first=True)  # (B, U', F)
        level = speech_level(changed, lengths)
        noise = noise.to(changed.device, non_blocking=True) + level[:, None, None]
        changed = torch.logaddexp(changed, noise)

    if config.mel_masks:
        hidden_bins = torch.stack([change.hidden_bins for change in changes])  # (B, F)
        hidden_bins = hidden_bins.to(changed.device, non_blocking=True)
        mean = _bin_means(changed, lengths)
        changed = torch.where(hidden_bins[:, None], mean, changed)

    if config.time_masks:
        changed = _hide_rows(changed, lengths, [change.hidden_spans for change in changes])

    if config.shift_rows:
        shifts = torch.tensor([change.shift for change in changes])
        changed, lengths = _shift(changed, lengths, shifts)

    return zero_padding(changed, lengths), lengths


@dataclass(frozen=True)
class _Changes:
    """What is drawn for one utterance, on the host."""

    row_places: Tensor
    """(U',) the place on the time axis of each row of the output"""
    bin_places: Tensor
    """(F,) the place on the mel axis of each bin of the output"""
    noise: Tensor
    """(U', F) log-mel of the noise, counted from the level of the speech"""
    hidden_bins: Tensor
    """(F,) bool, True = masked"""
    hidden_spans: list[tuple[int, int]]
    """first row, and row after the last, of each masked span; counted after a change of tempo"""
    shift: int
    """rows that are cut off the beginning"""


def _draw_changes(
    count: int,
    num_bins: int,
    least: int,
    config: AugmentConfig,
    rng: np.random.Generator,
) -> _Changes:
    """Draw the changes of an utterance of ``count`` rows.

    A change that is switched off takes nothing from the generator.
    """
    length = count
    if config.tempo:
        tempo = 1 + config.tempo * rng.uniform(-1, 1)
        changed_length = round(count / tempo)
        length = max(least, changed_length)
    row_places = torch.linspace(0, count - 1, length)

    factor = 1.0
    if config.mel_stretch:
        factor = 1 + config.mel_stretch * rng.uniform(-1, 1)
    bin_places = torch.arange(num_bins) * factor
    bin_places = bin_places.clamp_max(num_bins - 1)

    noise = torch.full((length, num_bins), -torch.inf)
    if config.noise and rng.random() < config.noise:
        noise = _draw_noise(length, num_bins, rng)

    hidden_bins = torch.zeros(num_bins, dtype=torch.bool)
    for _ in range(config.mel_masks):
        band = int(rng.integers(0, config.mel_mask_bins + 1))
        last_start = num_bins - min(band, num_bins)
        start = int(rng.integers(0, last_start + 1))
        stop = start + band
        hidden_bins[start:stop] = True

    hidden_spans: list[tuple[int, int]] = []
    if config.time_masks:
        num_spans = max(1, round(config.time_masks * length / 100))
        for _ in range(num_spans):
            span = min(int(rng.integers(0, config.time_mask_rows + 1)), length)
            start = int(rng.integers(0, length - span + 1))
            hidden_spans.append((start, start + span))

    shift = 0
    if config.shift_rows:
        most = min(config.shift_rows, max(0, length - least))
        shift = int(rng.integers(0, most + 1))

    return _Changes(row_places, bin_places, noise, hidden_bins, hidden_spans, shift)


def _draw_noise(num_rows: int, num_bins: int, rng: np.random.Generator) -> Tensor:
    """Draw log-mel rows (U', F) of steady noise, counted from the level of the speech.

    Its spectrum is a slope, a few bends, and in each row and bin the random power of as many
    frequencies as the bin hears.
    """
    below_db = rng.uniform(*NOISE_BELOW_DB)
    below = below_db * math.log(10) / 10

    slope = rng.uniform(*NOISE_SLOPE) * np.linspace(-0.5, 0.5, num_bins)
    bends = rng.normal(0, NOISE_BEND, NUM_BENDS)
    places = np.linspace(0, NUM_BENDS - 1, num_bins)
    spectrum = slope + np.interp(places, np.arange(NUM_BENDS), bends)  # (F,)

    num_frequencies = np.linspace(*FREQUENCIES_OF_BINS, num_bins)
    power = rng.standard_gamma(num_frequencies, (num_rows, num_bins)) / num_frequencies
    rows = spectrum - below + np.log(power)
    return torch.from_numpy(rows.astype(np.float32))


def _hide_rows(rows: Tensor, lengths: Tensor, spans: Sequence[Sequence[tuple[int, int]]]) -> Tensor:
    """Put the mean of the utterance's bins into the spans of (B, U, F).

    Args:
        lengths: (B,) valid rows.
        spans: of each utterance, first row and row after the last.
    """
    batch, num_rows, _ = rows.shape
    hidden = torch.zeros(batch, num_rows, 1, dtype=torch.bool)
    for row, own_spans in enumerate(spans):
        for start, stop in own_spans:
            hidden[row, start:stop] = True

    return torch.where(hidden.to(rows.device), _bin_means(rows, lengths), rows)


def _bin_means(rows: Tensor, lengths: Tensor) -> Tensor:
    """(B, U, F) rows, of which (B,) are valid -> (B, 1, F): the mean of each bin."""
    valid_rows = zero_padding(rows, lengths)
    counts = lengths.to(rows.device)[:, None, None]
    return valid_rows.sum(1, keepdim=True) / counts


def _shift(rows: Tensor, lengths: Tensor, shifts: Tensor) -> tuple[Tensor, Tensor]:
    """Cut ``shifts`` (B,) rows off the beginning of each utterance of (B, U, F)."""
    _, num_rows, width = rows.shape
    places = torch.arange(num_rows) + shifts[:, None]  # (B, U)
    places = places.clamp_max(num_rows - 1)
    index = places.to(rows.device)[..., None].expand(-1, -1, width)

    left = lengths - shifts
    longest = int(left.max())
    return rows.gather(1, index)[:, :longest], left


def _interpolate(rows: Tensor, places: Tensor, counts: Sequence[int]) -> Tensor:
    """Read rows at places between them, linearly.

    Args:
        rows: (B, N, C).
        places: (B, M) on the host, between 0 and the last valid row.
        counts: valid rows of each utterance.

    Returns:
        (B, M, C).
    """
    batch, num_rows, width = rows.shape
    num_valid = torch.tensor(counts)[:, None]  # (B, 1)
    last = num_valid - 1
    # A place on the last row is read from the row before it, at a share of 1.
    last_below = (last - 1).clamp_min(0)

    row_below = torch.minimum(places.long(), last_below)  # (B, M)
    row_above = torch.minimum(row_below + 1, last)
    share_above = places - row_below

    # One table of all utterances: a GPU would have to wait for the draws of each by itself.
    utterances = torch.arange(batch)[:, None]
    first_of_utterance = utterances * num_rows
    index_below = first_of_utterance + row_below
    index_above = first_of_utterance + row_above
    table = rows.flatten(0, 1)  # (B N, C)

    device = rows.device
    index_below = index_below.flatten().to(device, non_blocking=True)
    index_above = index_above.flatten().to(device, non_blocking=True)
    share_above = share_above.to(device, non_blocking=True)

    shape = (*places.shape, width)
    lower = table.index_select(0, index_below)  # (B M, C)
    lower = lower.view(shape)
    upper = table.index_select(0, index_above)
    upper = upper.view(shape)
    return lower.lerp_(upper, share_above[..., None])
