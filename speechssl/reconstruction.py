"""Pretext task: the log-mel rows of masked frames themselves."""

import torch
from pydantic import Field
from torch import nn

from speechssl.batching import Batch
from speechssl.config import Settings
from speechssl.diagnostics import LossOutput
from speechssl.encoder import Encoder
from speechssl.masked import DecoderConfig, draw_masks, make_decoder, masked_context
from speechssl.masking import MaskConfig
from speechssl.runtime import generator


class ReconstructionConfig(Settings):
    """How far off is measured."""

    power: int = Field(1, ge=1, le=2, description="1 = mean absolute error, 2 = mean squared error")


class Reconstruction(nn.Module):
    """Error of predicted log-mel rows, normalised per utterance and bin, at masked frames.

    Source: masked reconstruction as in Mockingjay (arXiv 1910.12638) and TERA (arXiv 2007.06028), L1; the rows under
    one frame are predicted together, by one linear layer.
    """

    def __init__(
        self,
        encoder: Encoder,
        config: ReconstructionConfig,
        mask: MaskConfig,
        seed: int = 0,
        decoder: DecoderConfig | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.config, self.mask, self.seed = encoder, config, mask, seed
        width = encoder.config.width
        self.decoder = make_decoder(width, decoder)
        self.head = nn.Linear(width, encoder.config.stacked_width)

    def forward(self, batch: Batch, step: int, statistics: None = None) -> LossOutput:
        """Loss of a batch at update ``step``: the sum over masked frames of the mean error of a value."""
        encoder = self.encoder
        raw, num_frames = encoder.extract(batch.inputs, batch.num_units)
        rngs = [generator("masks", self.seed, step, key) for key in batch.keys]
        masked = draw_masks(num_frames.tolist(), raw.shape[1], self.mask, rngs)
        slots = torch.from_numpy(masked.slots).to(raw.device)
        places = torch.from_numpy(masked.places).to(raw.device)
        rows = encoder.stacked_log_mel(batch.inputs, batch.num_units, raw.shape[1]).flatten(0, 1)[slots].float()
        context = masked_context(encoder, self.decoder, encoder.norm(raw), num_frames, masked).flatten(0, 1)[places]
        power = self.config.power
        loss = (self.head(context).float() - rows).abs().pow(power).mean(-1).sum()
        weight = len(slots)
        with torch.no_grad():
            metrics = {
                "loss": loss.detach(),
                # What answering with the mean of each bin would cost.
                "chance": rows.abs().pow(power).mean(-1).sum(),
                "masked_share": float(masked.mask.sum()) / max(1, int(num_frames.sum())) * weight,
            }
        return LossOutput(loss, weight, metrics)
