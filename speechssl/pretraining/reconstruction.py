"""Pretext task: predict the log-mel rows of the masked frames themselves.

Shapes: N masked frames, D, F as in masked_prediction.py.
"""

from pydantic import Field
from torch import nn

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
from speechssl.training.loss import LossOutput


class ReconstructionConfig(Settings):
    """How the distance from a prediction to the truth is measured."""

    power: int = Field(1, ge=1, le=2, description="1 = mean absolute error, 2 = mean squared error")


class Reconstruction(PretextTask):
    """Error of predicted log-mel rows, normalised per utterance and bin.

        loss = sum over masked frames of mean over values of |predicted - row|^power

    Source: masked reconstruction as in Mockingjay (arXiv 1910.12638) and TERA (arXiv 2007.06028),
    L1; the rows under one frame are predicted together, by one linear layer.
    """

    def __init__(
        self,
        encoder: Encoder,
        config: ReconstructionConfig,
        mask: MaskConfig,
        seed: int = 0,
        decoder: MaskDecoderConfig | None = None,
    ) -> None:
        super().__init__(encoder, mask, seed)
        self.config = config
        width = encoder.config.width
        self.decoder = make_decoder(width, decoder)
        self.head = nn.Linear(width, encoder.config.stacked_width)

    def forward(self, batch: Batch, step: int) -> LossOutput:
        """Compute the loss of a batch at update ``step``, weighed by its masked frames."""
        context, rows, masked_share = context_and_rows(self, self.decoder, batch, step)
        power = self.config.power
        weight = len(rows)

        predicted = self.head(context).float()  # (N, D) -> (N, subsampling x F)
        loss = (predicted - rows).abs().pow(power).mean(-1).sum()

        metrics = {
            "loss": loss.detach(),
            # What answering with the mean of each bin, which is 0, would cost.
            "chance": rows.abs().pow(power).mean(-1).sum(),
        }
        return LossOutput(loss, weight, metrics, {"masked_share": masked_share})
