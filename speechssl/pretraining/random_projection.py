"""Pretext task: name the random code of each masked stretch of log-mel (BEST-RQ).

Shapes: G codebooks of V codes, W values each; N, D, F as in masked_prediction.py.
"""

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
    PretextTask,
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


class RandomProjection(PretextTask):
    """Cross-entropy of the codes at masked frames.

        code_g = argmax_v cos(P_g row, c_gv)  with P_g, c_gv random and fixed
        loss = sum over masked frames of mean over g of -ln softmax(head_g(context))[code_g]

    Source: BEST-RQ (arXiv 2202.01855), section 3.1; several codebooks as in USM (arXiv 2303.01037).
    Rows are the log-mel under a frame, normalised per utterance and bin.
    """

    projection: Tensor
    """(G, subsampling x F, W)"""
    codebook: Tensor
    """(G, V, W) unit vectors"""

    def __init__(
        self,
        encoder: Encoder,
        config: RandomProjectionConfig,
        mask: MaskConfig,
        seed: int = 0,
        decoder: MaskDecoderConfig | None = None,
    ) -> None:
        super().__init__(encoder, mask, seed)
        self.config = config
        groups = config.num_codebooks
        width = encoder.config.width
        row_width = encoder.config.stacked_width

        self.decoder = make_decoder(width, decoder)
        self.head = nn.Linear(width, groups * config.num_codes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

        rng = generator("random projection", seed)
        projection = rng.standard_normal((groups, row_width, config.width)) / math.sqrt(row_width)
        codebook = rng.standard_normal((groups, config.num_codes, config.width))
        self.register_buffer("projection", torch.from_numpy(projection).float())
        self.register_buffer("codebook", F.normalize(torch.from_numpy(codebook).float(), dim=-1))

    def forward(self, batch: Batch, step: int) -> LossOutput:
        """Compute the loss (nats) of a batch at update ``step``, weighed by its masked frames."""
        groups = self.config.num_codebooks
        num_codes = self.config.num_codes
        context, rows, masked_share = context_and_rows(self, self.decoder, batch, step)
        weight = len(rows)

        codes = self.codes(rows)  # (N, G)
        logits = self.head(context).float().unflatten(-1, (groups, num_codes))  # (N, G, V)

        cross_entropy = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="sum")
        loss = cross_entropy / groups

        is_right = logits.detach().argmax(-1) == codes
        metrics = {
            "loss": loss.detach(),
            # All logits equal.
            "chance": math.log(num_codes) * weight,
            "accuracy": is_right.float().mean(-1).sum(),
        }
        return LossOutput(loss, weight, metrics, {"masked_share": masked_share})

    def codes(self, rows: Tensor) -> Tensor:
        """(N, subsampling x F) log-mel rows -> (N, G) int64, the code at the smallest angle."""
        with torch.autocast(rows.device.type, enabled=False):
            projected = torch.einsum("nf,gfw->gnw", rows.float(), self.projection)
            # Codes have unit length, so the largest product is at the smallest angle.
            products = torch.bmm(projected, self.codebook.transpose(1, 2))  # (G, N, V)
            found: Tensor = products.argmax(-1).T
        return found
