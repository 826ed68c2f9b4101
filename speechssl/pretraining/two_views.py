"""Pretext task: two changed views of one recording agree frame by frame, and no other frame does."""

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
                f"tempo {self.augment.tempo:g} would move the frames of one view away from the other's: 0"
            )
        return self


class TwoViews(nn.Module):
    """Each masked frame of one view finds its own in the other view, among the frames of its utterance; both ways.

    Source: NT-Xent of SimCLR (arXiv 2002.05709), section 2.1, over the frames of an utterance in place of the images of
    a batch. Both views are masked besides: without that, a frame could answer for itself by what is in it.
    """

    def __init__(
        self,
        encoder: Encoder,
        config: TwoViewsConfig,
        mask: MaskConfig,
        seed: int = 0,
        decoder: MaskDecoderConfig | None = None,
    ) -> None:
        super().__init__()
        if config.augment.active and encoder.config.features.kind != "logmel":
            raise ConfigError(
                "two_views.augment changes log-mel rows, and this encoder reads waveforms: take another task"
            )
        self.encoder, self.config, self.mask, self.seed = encoder, config, mask, seed
        width = encoder.config.width
        self.decoder = make_decoder(width, decoder)
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, config.width)
        )

    def forward(self, batch: Batch, step: int) -> LossOutput:
        """Loss of a batch at update ``step``: the sum over the masked frames of both views, nats."""
        (first, num_frames, masked), (second, _, masked_too) = (
            self._view(batch, step, which) for which in range(2)
        )
        valid = valid_mask(num_frames, first.shape[1], first.device)
        with torch.autocast(first.device.type, enabled=False):
            similarity = (
                torch.bmm(first, second.transpose(1, 2)) / self.config.logit_temp
            )  # (B, T, T)
        losses, rights, chances = [], [], []
        for logits, hidden in ((similarity, masked), (similarity.transpose(1, 2), masked_too)):
            rows = logits.masked_fill(~valid[:, None], -torch.inf).flatten(0, 1)
            slots = torch.from_numpy(hidden.slots).to(rows.device)
            rows, itself = rows[slots], slots % first.shape[1]
            losses.append(F.cross_entropy(rows, itself, reduction="sum"))
            rights.append((rows.detach().argmax(-1) == itself).sum())
            chances.append(rows.detach().isfinite().sum(-1).log().sum())
        weight = len(masked.slots) + len(masked_too.slots)
        metrics = {
            "loss": sum(loss.detach() for loss in losses),
            "chance": sum(chances),
            "accuracy": sum(rights),
            "masked_share": float(masked.mask.sum() + masked_too.mask.sum())
            / (2 * int(num_frames.sum()))
            * weight,
        }
        return LossOutput(losses[0] + losses[1], weight, metrics)

    def _view(self, batch: Batch, step: int, which: int) -> tuple[Tensor, Tensor, MaskedFrames]:
        """(B, T, W) float32 unit vectors of view ``which``, its (B,) valid frames, and what was masked."""
        rngs = [generator("view", which, self.seed, step, key) for key in batch.keys]
        least = batch.input_lengths.tolist()
        inputs, input_lengths = augment(
            batch.inputs, batch.input_lengths, least, self.config.augment, rngs
        )
        raw, num_frames = self.encoder.extract(inputs, input_lengths)
        masked = draw_masks(num_frames.tolist(), raw.shape[1], self.mask, rngs)
        context = masked_context(
            self.encoder, self.decoder, self.encoder.norm(raw), num_frames, masked, everywhere=True
        )
        return F.normalize(self.head(context).float(), dim=-1), num_frames, masked
