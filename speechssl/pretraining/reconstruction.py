"""Pretext task: the log-mel rows of masked frames themselves."""

from pydantic import Field
from torch import nn

from speechssl.config import Settings
from speechssl.data.collate import Batch
from speechssl.encoder.encoder import Encoder
from speechssl.encoder.masking import MaskConfig
from speechssl.pretraining.masked_prediction import (
    MaskDecoderConfig,
    context_and_rows,
    make_decoder,
)
from speechssl.training.loss import LossOutput


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
        decoder: MaskDecoderConfig | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.config, self.mask, self.seed = encoder, config, mask, seed
        width = encoder.config.width
        self.decoder = make_decoder(width, decoder)
        self.head = nn.Linear(width, encoder.config.stacked_width)

    def forward(self, batch: Batch, step: int) -> LossOutput:
        """Loss of a batch at update ``step``: the sum over masked frames of the mean error of a value."""
        context, rows, share = context_and_rows(
            self.encoder, self.decoder, batch, self.mask, self.seed, step
        )
        power, weight = self.config.power, len(rows)
        loss = (self.head(context).float() - rows).abs().pow(power).mean(-1).sum()
        metrics = {
            "loss": loss.detach(),
            # What answering with the mean of each bin would cost.
            "chance": rows.abs().pow(power).mean(-1).sum(),
            "masked_share": share * weight,
        }
        return LossOutput(loss, weight, metrics)
