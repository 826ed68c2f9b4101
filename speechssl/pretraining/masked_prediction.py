"""Masked prediction: the frames hidden from an encoder, and what it makes of them. All pretext tasks share it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from speechssl.config import Settings
from speechssl.data.collate import Batch
from speechssl.encoder.context import Visible
from speechssl.encoder.encoder import Encoder
from speechssl.encoder.masking import MaskConfig, span_mask
from speechssl.encoder.padding import valid_mask
from speechssl.errors import ConfigError
from speechssl.runtime.seeds import generator


class MaskDecoderConfig(Settings):
    """What answers for the masked frames."""

    num_layers: int = Field(
        0, ge=0, description="0 = the context network, which reads mask vectors (published); more = it reads visible "
        "frames only, and so many convolutions fill the gaps"
    )  # fmt: skip
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
    """The hidden frames of a batch of B utterances of at most T frames."""

    mask: NDArray[np.bool_]
    """(B, T) True = masked; padding is never masked"""
    frames: NDArray[np.int64]
    """(B, M) the m-th masked frame of each utterance; 0 where there is none"""
    valid: NDArray[np.bool_]
    """(B, M) True = a masked frame"""

    @property
    def slots(self) -> NDArray[np.int64]:
        """(N,) the valid ones of ``frames`` as positions in the flattened (B T)."""
        flat: NDArray[np.int64] = (
            self.frames + np.arange(len(self.mask))[:, None] * self.mask.shape[1]
        )
        return flat[self.valid]

    @property
    def places(self) -> NDArray[np.int64]:
        """(N,) the valid ones of ``frames`` as positions in the flattened (B M)."""
        return np.flatnonzero(self.valid)


def draw_masks(
    num_frames: Sequence[int],
    width: int,
    config: MaskConfig,
    rngs: Sequence[np.random.Generator],
    least: int = 1,
) -> MaskedFrames:
    """Spans of each utterance from its own generator.

    Args:
        num_frames: valid frames of each utterance.
        width: frames of the padded batch, T.
        least: an utterance with fewer masked frames has them masked and none of them valid.
    """
    masks = [span_mask(t, config, rng) for t, rng in zip(num_frames, rngs, strict=True)]
    counts = [int(m.sum()) for m in masks]
    mask = np.zeros((len(masks), width), dtype=bool)
    frames = np.zeros((len(masks), max(counts)), dtype=np.int64)
    valid = np.zeros(frames.shape, dtype=bool)
    for row, (own, count) in enumerate(zip(masks, counts, strict=True)):
        mask[row, : len(own)] = own
        if count >= least:
            frames[row, :count] = np.flatnonzero(own)
            valid[row, :count] = True
    return MaskedFrames(mask, frames, valid)


class MaskDecoder(nn.Module):
    """Visible frames -> all frames: a learned vector in every gap, then convolutions with residuals.

    Source: data2vec 2.0 (arXiv 2212.07525), sections 3.2 and 3.3.
    """

    def __init__(self, width: int, config: MaskDecoderConfig) -> None:
        super().__init__()
        self.gap = nn.Parameter(0.02 * torch.randn(width))
        self.convs = nn.ModuleList(
            nn.Conv1d(width, width, config.kernel, padding=config.kernel // 2, groups=config.groups)
            for _ in range(config.num_layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(config.num_layers))
        self.out = nn.Linear(width, width)

    def forward(self, hidden: Tensor, visible: Visible, num_frames: Tensor, length: int) -> Tensor:
        """(B, K, D) of the visible frames -> (B, T, D)."""
        batch, width = hidden.shape[0], hidden.shape[2]
        there = valid_mask(visible.num_frames, hidden.shape[1], hidden.device)
        places = visible.frames.masked_fill(~there, length)[..., None].expand(
            -1, -1, width
        )  # padding goes behind
        filled = self.gap.expand(batch, length + 1, width).scatter(
            1, places, hidden.to(self.gap.dtype)
        )[:, :length]
        valid = valid_mask(num_frames, length, hidden.device)[..., None]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            around = conv((filled * valid).transpose(1, 2)).transpose(1, 2)
            filled = filled + F.gelu(norm(around))
        out: Tensor = self.out(filled)
        return out


def make_decoder(width: int, config: MaskDecoderConfig | None) -> MaskDecoder | None:
    """A decoder for context frames of ``width``, or none where the context network itself answers.

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


def masked_context(
    encoder: Encoder,
    decoder: MaskDecoder | None,
    normed: Tensor,
    num_frames: Tensor,
    masked: MaskedFrames,
    everywhere: bool = False,
) -> Tensor:
    """What is predicted at the masked frames.

    Args:
        normed: (B, T, C) LayerNormed frames of the front end.
        num_frames: (B,) valid ones.
        everywhere: answer for all frames instead.

    Returns:
        (B, M, D), or (B, T, D); invalid frames hold no meaning.
    """
    device = normed.device
    mask = torch.from_numpy(masked.mask).to(device)
    wanted = None if everywhere else torch.from_numpy(masked.frames).to(device)
    if decoder is None:
        return encoder.contextualise(normed, num_frames, mask, wanted=wanted)
    seen = _visible(masked, num_frames)
    visible = Visible(seen.frames.to(device), seen.num_frames)
    hidden = encoder.contextualise(normed, num_frames, mask, visible=visible)
    decoded: Tensor = decoder(hidden, visible, num_frames, normed.shape[1])
    return (
        decoded
        if wanted is None
        else decoded.gather(1, wanted[..., None].expand(-1, -1, decoded.shape[2]))
    )


def context_and_rows(
    encoder: Encoder,
    decoder: MaskDecoder | None,
    batch: Batch,
    mask: MaskConfig,
    seed: int,
    step: int,
) -> tuple[Tensor, Tensor, float]:
    """What is predicted at the N masked frames of update ``step``, and the log-mel rows that are hidden there.

    Returns:
        (N, D) context; (N, subsampling x F) float32 rows, normalised per utterance and bin; the share of masked frames.

    Raises:
        ConfigError: the encoder does not read log-mel.
    """
    raw, num_frames = encoder.extract(batch.inputs, batch.input_lengths)
    rngs = [generator("masks", seed, step, key) for key in batch.keys]
    masked = draw_masks(num_frames.tolist(), raw.shape[1], mask, rngs)
    slots = torch.from_numpy(masked.slots).to(raw.device)
    places = torch.from_numpy(masked.places).to(raw.device)
    rows = (
        encoder.stacked_log_mel(batch.inputs, batch.input_lengths, raw.shape[1])
        .flatten(0, 1)[slots]
        .float()
    )
    context = masked_context(encoder, decoder, encoder.norm(raw), num_frames, masked).flatten(0, 1)[
        places
    ]
    return context, rows, float(masked.mask.sum()) / max(1, int(num_frames.sum()))


def _visible(masked: MaskedFrames, num_frames: Tensor) -> Visible:
    """The frames that are neither masked nor padding."""
    open_ = ~masked.mask & valid_mask(num_frames, masked.mask.shape[1]).numpy()
    counts = open_.sum(1)
    # A stable sort brings the visible frames to the front of each row, in their order.
    frames = np.argsort(~open_, axis=1, kind="stable")[:, : int(counts.max())]
    return Visible(torch.from_numpy(np.ascontiguousarray(frames)), torch.from_numpy(counts))
