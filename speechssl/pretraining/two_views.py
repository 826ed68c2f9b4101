"""Pretext task: two changed views of one recording agree frame by frame, and no other frame does.

Shapes: W is the width in which frames are compared; B, T, N, D as in masked_prediction.py.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from speechssl.config import Settings
from speechssl.data.collate import Batch
from speechssl.encoder.augment import AugmentConfig, augment
from speechssl.encoder.encoder import Encoder
from speechssl.encoder.masking import MaskConfig
from speechssl.encoder.padding import valid_mask
from speechssl.errors import ConfigError
from speechssl.pretraining.masked_prediction import (
    MaskDecoderConfig,
    MaskedFrames,
    PretextTask,
    draw_masks,
    make_decoder,
    masked_context,
)
from speechssl.runtime.seeds import generator
from speechssl.training.loss import LossOutput


class TwoViewsConfig(Settings):
    """How the two views differ, and how their frames are compared."""

    augment: AugmentConfig = Field(
        AugmentConfig(mel_stretch=0.1, mel_masks=2), description="of each view; the tempo must stay"
    )
    width: int = Field(128, gt=0, description="of the space in which frames are compared")
    logit_temp: float = Field(0.1, gt=0, description="cosine similarities are divided by it")

    @model_validator(mode="after")
    def _frame_by_frame(self) -> "TwoViewsConfig":
        if self.augment.tempo:
            raise ValueError(
                f"tempo {self.augment.tempo:g} would move the frames of one view away from the "
                "other's: give 0"
            )
        return self


class TwoViews(PretextTask):
    """Each masked frame of one view finds its own in the other view, and the other way round.

    It finds it among the frames u of its utterance. Let x_t and y_t be the projected context of
    frame t in the two views, and tau ``logit_temp``:

        s(t, u) = cos(x_t, y_u) / tau

        loss = sum over t masked in x of -ln( exp s(t, t) / sum over u of exp s(t, u) )
             + sum over t masked in y of -ln( exp s(t, t) / sum over u of exp s(u, t) )

    Source: NT-Xent of SimCLR (arXiv 2002.05709), section 2.1, over the frames of an utterance in
    place of the images of a batch. Both views are masked besides: without that, a frame could
    answer for itself by what is in it.
    """

    def __init__(
        self,
        encoder: Encoder,
        config: TwoViewsConfig,
        mask: MaskConfig,
        seed: int = 0,
        decoder: MaskDecoderConfig | None = None,
    ) -> None:
        if config.augment.active and encoder.config.features.kind != "logmel":
            raise ConfigError(
                "two_views.augment changes log-mel rows, and this encoder reads waveforms: "
                "take another task"
            )

        super().__init__(encoder, mask, seed)
        self.config = config
        width = encoder.config.width
        self.decoder = make_decoder(width, decoder)
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, config.width)
        )

    def forward(self, batch: Batch, step: int) -> LossOutput:
        """Compute the loss (nats) of a batch at update ``step``, weighed by its masked frames."""
        first = self._view(batch, step, 0)
        second = self._view(batch, step, 1)
        # Both views have the frames of the batch.
        num_frames = first.num_frames
        valid = valid_mask(num_frames, first.frames.shape[1], first.frames.device)

        with torch.autocast(first.frames.device.type, enabled=False):
            products = torch.bmm(first.frames, second.frames.transpose(1, 2))
            similarity = products / self.config.logit_temp  # (B, T of the first, T of the second)

        to_second = _find_own_frame(similarity, valid, first.masked)
        to_first = _find_own_frame(similarity.transpose(1, 2), valid, second.masked)
        loss = to_second.loss + to_first.loss

        weight = len(first.masked.batch_positions) + len(second.masked.batch_positions)
        num_masked = float(first.masked.mask.sum() + second.masked.mask.sum())
        metrics: dict[str, Tensor | float] = {
            "loss": loss.detach(),
            "chance": to_second.chance + to_first.chance,
            "accuracy": to_second.num_right + to_first.num_right,
        }
        masked_share = (num_masked, 2 * int(num_frames.sum()))
        return LossOutput(loss, weight, metrics, {"masked_share": masked_share})

    def _view(self, batch: Batch, step: int, which: int) -> "_View":
        """Change and mask the batch as view ``which`` (0 or 1) of update ``step``."""
        rngs = [generator("view", which, self.seed, step, key) for key in batch.keys]
        least = batch.input_lengths.tolist()
        inputs, input_lengths = augment(
            batch.inputs, batch.input_lengths, least, self.config.augment, rngs
        )

        raw, num_frames = self.encoder.extract(inputs, input_lengths)  # (B, T, C)
        masked = draw_masks(num_frames.tolist(), raw.shape[1], self.mask, rngs)
        normed = self.encoder.norm(raw)
        context = masked_context(
            self.encoder, self.decoder, normed, num_frames, masked, everywhere=True
        )

        projected = self.head(context).float()  # (B, T, D) -> (B, T, W)
        return _View(F.normalize(projected, dim=-1), num_frames, masked)


class _View(NamedTuple):
    """One view of a batch."""

    frames: Tensor
    """(B, T, W) float32 unit vectors"""
    num_frames: Tensor
    """(B,) int64 on the host, valid frames"""
    masked: MaskedFrames


class _Found(NamedTuple):
    """Sums over the masked frames of one view."""

    loss: Tensor
    """() cross-entropy, nats"""
    num_right: Tensor
    """() frames whose own is the most similar one"""
    chance: Tensor
    """() the cross-entropy if all frames were equally similar"""


def _find_own_frame(similarity: Tensor, valid: Tensor, masked: MaskedFrames) -> _Found:
    """Let each masked frame of one view find its own in the other.

    Args:
        similarity: (B, T of this view, T of the other).
        valid: (B, T) bool.
        masked: frames of this view.
    """
    length = similarity.shape[1]
    logits = similarity.masked_fill(~valid[:, None], -torch.inf).flatten(0, 1)  # (B T, T)

    positions = torch.from_numpy(masked.batch_positions).to(logits.device)
    own_logits = logits[positions]  # (N, T)
    own_frame = positions % length

    loss = F.cross_entropy(own_logits, own_frame, reduction="sum")
    is_right = own_logits.detach().argmax(-1) == own_frame
    num_candidates = own_logits.detach().isfinite().sum(-1)
    return _Found(loss, is_right.sum(), num_candidates.log().sum())
