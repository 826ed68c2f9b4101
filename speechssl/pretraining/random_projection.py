"""Pretext task: name the random code of each masked stretch of log-mel (BEST-RQ)."""

import math

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from speechssl.config import Settings
from speechssl.data.collate import Batch
from speechssl.encoder.encoder import Encoder
from speechssl.encoder.masking import MaskConfig
from speechssl.pretraining.masked_prediction import (
    MaskDecoderConfig,
    context_and_rows,
    make_decoder,
)
from speechssl.runtime.seeds import generator
from speechssl.training.loss import LossOutput


class RandomProjectionConfig(Settings):
    """Codebooks that never learn."""

    num_codebooks: int = Field(4, ge=1, description="each with a projection of its own")
    num_codes: int = Field(512, ge=2, description="entries of each codebook")
    width: int = Field(16, gt=0, description="of the space in which rows and codes are compared")


class RandomProjection(nn.Module):
    """Cross-entropy of the codes at masked frames.

    Source: BEST-RQ (arXiv 2202.01855), section 3.1; several codebooks as in USM (arXiv 2303.01037). Rows are the
    log-mel under a frame, normalised per utterance and bin.
    """

    projection: Tensor
    codebook: Tensor

    def __init__(
        self,
        encoder: Encoder,
        config: RandomProjectionConfig,
        mask: MaskConfig,
        seed: int = 0,
        decoder: MaskDecoderConfig | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.config, self.mask, self.seed = encoder, config, mask, seed
        width = encoder.config.width
        self.decoder = make_decoder(width, decoder)
        self.head = nn.Linear(width, config.num_codebooks * config.num_codes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        rng = generator("random projection", seed)
        rows = encoder.config.stacked_width
        projection = rng.standard_normal((config.num_codebooks, rows, config.width)) / math.sqrt(
            rows
        )
        codebook = rng.standard_normal((config.num_codebooks, config.num_codes, config.width))
        self.register_buffer("projection", torch.from_numpy(projection).float())
        self.register_buffer("codebook", F.normalize(torch.from_numpy(codebook).float(), dim=-1))

    def codes(self, rows: Tensor) -> Tensor:
        """(N, subsampling x F) log-mel rows -> (N, G) int64, the code at the smallest angle."""
        with torch.autocast(rows.device.type, enabled=False):
            placed = torch.einsum("nf,gfw->gnw", rows.float(), self.projection)
            found: Tensor = torch.bmm(placed, self.codebook.transpose(1, 2)).argmax(-1).T
        return found

    def forward(self, batch: Batch, step: int) -> LossOutput:
        """Loss of a batch at update ``step``: the sum over masked frames of the mean over codebooks, nats."""
        config = self.config
        context, rows, share = context_and_rows(
            self.encoder, self.decoder, batch, self.mask, self.seed, step
        )
        codes = self.codes(rows)
        logits = self.head(context).float().unflatten(-1, (config.num_codebooks, config.num_codes))
        loss = (
            F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="sum")
            / config.num_codebooks
        )
        weight = len(codes)
        metrics = {
            "loss": loss.detach(),
            "chance": math.log(config.num_codes) * weight,  # all logits equal
            "accuracy": (logits.detach().argmax(-1) == codes).float().mean(-1).sum(),
            "masked_share": share * weight,
        }
        return LossOutput(loss, weight, metrics)
