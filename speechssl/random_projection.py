"""Pretext task: name the random code of each masked stretch of log-mel (BEST-RQ)."""

import math

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from speechssl.batching import Batch
from speechssl.config import Settings
from speechssl.diagnostics import LossOutput
from speechssl.encoder import Encoder
from speechssl.masked import DecoderConfig, draw_masks, make_decoder, masked_context
from speechssl.masking import MaskConfig
from speechssl.quantizer import code_perplexity
from speechssl.runtime import generator


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
        decoder: DecoderConfig | None = None,
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
        projection = rng.standard_normal((config.num_codebooks, rows, config.width)) / math.sqrt(rows)
        codebook = rng.standard_normal((config.num_codebooks, config.num_codes, config.width))
        self.register_buffer("projection", torch.from_numpy(projection).float())
        self.register_buffer("codebook", F.normalize(torch.from_numpy(codebook).float(), dim=-1))

    def codes(self, rows: Tensor) -> Tensor:
        """(N, subsampling x F) log-mel rows -> (N, G) int64, the code at the smallest angle."""
        with torch.autocast(rows.device.type, enabled=False):
            placed = torch.einsum("nf,gfw->gnw", rows.float(), self.projection)
            found: Tensor = torch.bmm(placed, self.codebook.transpose(1, 2)).argmax(-1).T
        return found

    def forward(self, batch: Batch, step: int, statistics: None = None) -> LossOutput:
        """Loss of a batch at update ``step``: the sum over masked frames of the mean over codebooks, nats."""
        encoder = self.encoder
        raw, num_frames = encoder.extract(batch.inputs, batch.num_units)
        rngs = [generator("masks", self.seed, step, key) for key in batch.keys]
        masked = draw_masks(num_frames.tolist(), raw.shape[1], self.mask, rngs)
        slots = torch.from_numpy(masked.slots).to(raw.device)
        places = torch.from_numpy(masked.places).to(raw.device)
        stacked = encoder.stacked_log_mel(batch.inputs, batch.num_units, raw.shape[1])
        codes = self.codes(stacked.flatten(0, 1)[slots])
        context = masked_context(encoder, self.decoder, encoder.norm(raw), num_frames, masked).flatten(0, 1)[places]
        logits = self.head(context).float().unflatten(-1, (self.config.num_codebooks, self.config.num_codes))
        loss = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="sum") / self.config.num_codebooks
        weight = len(slots)
        with torch.no_grad():
            shares = F.one_hot(codes, self.config.num_codes).float().sum(0) / max(1, weight)
            metrics = {
                "loss": loss.detach(),
                # What always naming the codes by how common they are would cost.
                "chance": torch.special.entr(shares).sum(-1).mean() * weight,
                "accuracy": (logits.argmax(-1) == codes).float().mean(-1).sum(),
                "code_perplexity": code_perplexity(shares).mean() * weight,
                "masked_share": float(masked.mask.sum()) / max(1, int(num_frames.sum())) * weight,
            }
        return LossOutput(loss, weight, metrics)
