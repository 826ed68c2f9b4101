"""Masked prediction, which all pretext tasks share: what is hidden, and what predicts it.

Shapes, here and in the files of the tasks:
    B  utterances of the batch
    U  mel frames (or samples) of the padded batch, F mel bins
    T  encoder frames of the padded batch
    C  width of the front end's frames, D width of the context network
    M  masked frames of the utterance that has most of them
    N  all masked frames of the batch, one utterance after another
    K  frames that are neither masked nor padding, of the utterance that has most of them

A task is written over (N, ...): values of the masked frames alone, as ``MaskedFrames`` numbers
them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from speechssl.config import Settings, Table
from speechssl.data.collate import Batch
from speechssl.data.dataset import Dataset
from speechssl.encoder.context import Visible
from speechssl.encoder.encoder import Encoder
from speechssl.encoder.masking import MaskConfig, span_mask
from speechssl.encoder.padding import valid_mask
from speechssl.errors import ConfigError
from speechssl.runtime.seeds import generator
from speechssl.training.loss import LossOutput

# Positions of frames, counted from 0.
Positions = NDArray[np.int64]

# For each frame whether something holds of it.
FrameMask = NDArray[np.bool_]


class PretextTask(nn.Module):
    """What a pretraining run trains: an encoder, and what its task needs besides.

    The training loop calls ``task(batch, step)``; see ``training.loss`` for a loss that needs
    statistics of the whole update.
    """

    continues: ClassVar[bool] = True
    """Whether a later run of the task can use all weights of this one, not its encoder's alone."""

    def __init__(self, encoder: Encoder, mask: MaskConfig, seed: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.mask = mask
        self.seed = seed

    def forward(self, batch: Batch, step: int) -> LossOutput:
        """Compute the loss of a batch at update ``step``.

        Returns:
            the sum over masked frames, with their number as its weight.
        """
        raise NotImplementedError

    def prepare(self, dataset: Dataset, device: torch.device) -> None:
        """Do what must be done with the data before the first update. Most tasks need nothing."""

    def made_from(self) -> Table:
        """Name what else than data and settings a run is made from, for its record."""
        return {}


class MaskDecoderConfig(Settings):
    """What answers for the masked frames."""

    num_layers: int = Field(
        0,
        ge=0,
        description="0 = the context network, which reads mask vectors (published); "
        "more = it reads visible frames only, and so many convolutions fill the gaps",
    )
    kernel: int = Field(7, ge=1, description="frames under a convolution of the decoder; odd")
    groups: int = Field(
        16, ge=1, description="of each convolution; they divide the encoder's width"
    )

    @model_validator(mode="after")
    def _centred(self) -> "MaskDecoderConfig":
        if self.kernel % 2 == 0:
            raise ValueError(f"decoder kernel {self.kernel} must be odd")
        return self


@dataclass(frozen=True)
class MaskedFrames:
    """The hidden frames of a batch of B utterances of at most T frames.

    The N valid ones among ``frames`` are those that a task predicts.
    """

    mask: FrameMask
    """(B, T) True = masked; padding is never masked"""
    frames: Positions
    """(B, M) the m-th masked frame of each utterance; 0 where there is none"""
    valid: FrameMask
    """(B, M) True = a masked frame"""

    @property
    def batch_positions(self) -> Positions:
        """(N,) where each valid one stands in the flattened batch (B T)."""
        batch, length = self.mask.shape
        utterances = np.arange(batch)[:, None]
        first_of_utterance = utterances * length
        positions: Positions = first_of_utterance + self.frames
        return positions[self.valid]

    @property
    def packed_positions(self) -> Positions:
        """(N,) where each valid one stands in the flattened ``frames`` (B M)."""
        return np.flatnonzero(self.valid)


def draw_masks(
    num_frames: Sequence[int],
    length: int,
    config: MaskConfig,
    rngs: Sequence[np.random.Generator],
    least: int = 1,
) -> MaskedFrames:
    """Draw the masked spans of each utterance from its own generator.

    Args:
        num_frames: valid frames of each utterance.
        length: frames of the padded batch, T.
        config: share and length of the spans.
        rngs: one generator an utterance, so that its mask does not depend on its batch mates.
        least: masked frames that an utterance needs to count. Those of an utterance with fewer are
            masked all the same, but none of them is valid.
    """
    masks = [span_mask(count, config, rng) for count, rng in zip(num_frames, rngs, strict=True)]
    counts = [int(own_mask.sum()) for own_mask in masks]

    batch = len(masks)
    most_masked = max(counts)
    mask = np.zeros((batch, length), dtype=bool)
    frames = np.zeros((batch, most_masked), dtype=np.int64)
    valid = np.zeros((batch, most_masked), dtype=bool)

    utterances = zip(masks, counts, strict=True)
    for row, (own_mask, count) in enumerate(utterances):
        own_length = len(own_mask)
        mask[row, :own_length] = own_mask
        if count >= least:
            frames[row, :count] = np.flatnonzero(own_mask)
            valid[row, :count] = True

    return MaskedFrames(mask, frames, valid)


def masked_context(
    encoder: Encoder,
    decoder: "MaskDecoder | None",
    normed: Tensor,
    num_frames: Tensor,
    masked: MaskedFrames,
    everywhere: bool = False,
) -> Tensor:
    """Compute what is predicted at the masked frames.

    Args:
        encoder: its context network reads the frames.
        decoder: fills the gaps that the encoder has not read; None = the encoder reads mask vectors
            there.
        normed: (B, T, C) LayerNormed frames of the front end.
        num_frames: (B,) valid ones.
        masked: which frames are hidden.
        everywhere: predict at all frames instead.

    Returns:
        (B, M, D), or (B, T, D); invalid frames hold no meaning.
    """
    device = normed.device
    mask = torch.from_numpy(masked.mask)
    mask = mask.to(device)

    wanted: Tensor | None = None
    if not everywhere:
        wanted = torch.from_numpy(masked.frames)
        wanted = wanted.to(device)

    if decoder is None:
        return encoder.contextualise(normed, num_frames, mask, wanted=wanted)

    on_host = _visible(masked, num_frames)
    visible_frames = on_host.frames.to(device)
    visible = Visible(visible_frames, on_host.num_frames)
    context = encoder.contextualise(normed, num_frames, mask, visible=visible)  # (B, K, D)

    length = normed.shape[1]
    decoded: Tensor = decoder(context, visible, num_frames, length)  # (B, T, D)
    if wanted is None:
        return decoded

    width = decoded.shape[2]
    index = wanted[..., None].expand(-1, -1, width)
    return decoded.gather(1, index)


class MaskedRows(NamedTuple):
    """What a task over log-mel rows predicts, and from what."""

    context: Tensor
    """(N, D) of the masked frames"""
    rows: Tensor
    """(N, subsampling x F) float32, the rows hidden there, normalised per utterance and bin"""
    masked_share: tuple[float, int]
    """masked frames and valid frames of the batch"""


def context_and_rows(
    task: PretextTask, decoder: "MaskDecoder | None", batch: Batch, step: int
) -> MaskedRows:
    """Compute the context of the masked frames of update ``step``, and the rows hidden there.

    Raises:
        ConfigError: the encoder does not read log-mel.
    """
    encoder = task.encoder
    raw, num_frames = encoder.extract(batch.inputs, batch.input_lengths)  # (B, T, C)
    length = raw.shape[1]

    rngs = [generator("masks", task.seed, step, key) for key in batch.keys]
    masked = draw_masks(num_frames.tolist(), length, task.mask, rngs)
    batch_positions = torch.from_numpy(masked.batch_positions)
    batch_positions = batch_positions.to(raw.device)
    packed_positions = torch.from_numpy(masked.packed_positions)
    packed_positions = packed_positions.to(raw.device)

    rows = encoder.stacked_log_mel(batch.inputs, batch.input_lengths, length)
    rows = rows.flatten(0, 1)  # (B T, subsampling x F)
    masked_rows = rows[batch_positions].float()

    normed = encoder.norm(raw)
    context = masked_context(encoder, decoder, normed, num_frames, masked)  # (B, M, D)
    context = context.flatten(0, 1)  # (B M, D)
    of_masked = context[packed_positions]

    masked_share = (float(masked.mask.sum()), int(num_frames.sum()))
    return MaskedRows(of_masked, masked_rows, masked_share)


class MaskDecoder(nn.Module):
    """Visible frames -> all frames: a learned vector in each gap, then residual convolutions.

    Source: data2vec 2.0 (arXiv 2212.07525), sections 3.2 and 3.3.
    """

    def __init__(self, width: int, config: MaskDecoderConfig) -> None:
        super().__init__()
        self.gap = nn.Parameter(0.02 * torch.randn(width))

        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        padding = config.kernel // 2
        for _ in range(config.num_layers):
            conv = nn.Conv1d(width, width, config.kernel, padding=padding, groups=config.groups)
            self.convs.append(conv)
            self.norms.append(nn.LayerNorm(width))

        self.out = nn.Linear(width, width)

    def forward(self, hidden: Tensor, visible: Visible, num_frames: Tensor, length: int) -> Tensor:
        """(B, K, D) context of the visible frames -> (B, T, D); ``length`` is T."""
        filled = self._fill_gaps(hidden, visible, length)

        valid = valid_mask(num_frames, length, hidden.device)[..., None]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            # The convolution must not see what stands in the padding.
            channels_first = (filled * valid).transpose(1, 2)  # (B, D, T)
            around = conv(channels_first)
            around = around.transpose(1, 2)  # (B, T, D)
            filled = filled + F.gelu(norm(around))

        out: Tensor = self.out(filled)
        return out

    def _fill_gaps(self, hidden: Tensor, visible: Visible, length: int) -> Tensor:
        """(B, K, D) -> (B, T, D): visible frames in their places, the learned vector elsewhere."""
        batch, num_visible, width = hidden.shape
        is_there = valid_mask(visible.num_frames, num_visible, hidden.device)

        # What stands behind an utterance's visible frames goes to one more frame, cut off again.
        places = visible.frames.masked_fill(~is_there, length)
        index = places[..., None].expand(-1, -1, width)

        gaps = self.gap.expand(batch, length + 1, width)
        hidden = hidden.to(self.gap.dtype)
        filled = gaps.scatter(1, index, hidden)
        return filled[:, :length]


def make_decoder(width: int, config: MaskDecoderConfig | None) -> MaskDecoder | None:
    """Make a decoder for context frames of ``width``; None where the context network answers.

    Raises:
        ConfigError: its groups do not divide the width.
    """
    if config is None or not config.num_layers:
        return None

    if width % config.groups:
        raise ConfigError(
            f"decoder.groups {config.groups} must divide the encoder's width, {width}"
        )
    return MaskDecoder(width, config)


def _visible(masked: MaskedFrames, num_frames: Tensor) -> Visible:
    """The frames that are neither masked nor padding, on the host."""
    length = masked.mask.shape[1]
    valid = valid_mask(num_frames, length).numpy()
    is_visible = valid & ~masked.mask
    counts = is_visible.sum(1)
    most_visible = int(counts.max())

    # A stable sort brings the visible frames to the front of each row, in their order.
    visible_first = np.argsort(~is_visible, axis=1, kind="stable")
    frames = np.ascontiguousarray(visible_first[:, :most_visible])
    return Visible(torch.from_numpy(frames), torch.from_numpy(counts))
