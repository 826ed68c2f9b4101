"""The contrastive objective of wav2vec 2.0 over an encoder: masks, quantised targets, negatives, loss."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from speechssl.config import Settings
from speechssl.data.collate import Batch
from speechssl.encoder.encoder import Encoder
from speechssl.encoder.masking import MaskConfig
from speechssl.encoder.padding import valid_mask
from speechssl.pretraining.masked_prediction import (
    MaskDecoderConfig,
    MaskedFrames,
    draw_masks,
    make_decoder,
    masked_context,
)
from speechssl.pretraining.quantizer import Quantizer, QuantizerConfig, code_perplexity, diversity
from speechssl.runtime.seeds import generator
from speechssl.training.loss import LossOutput


class ContrastiveConfig(Settings):
    """Weights and shapes of the objective; defaults are wav2vec 2.0 BASE."""

    num_negatives: int = Field(100, ge=1, description="K, per masked frame")
    logit_temp: float = Field(0.1, gt=0, description="cosine similarities are divided by it")
    width: int = Field(
        256, gt=0, description="of the space in which context and target are compared"
    )
    diversity_weight: float = Field(0.1, ge=0)
    penalty_weight: float = Field(
        10.0, ge=0, description="of the mean square of the front end's frames"
    )
    targets: Literal["features", "logmel"] = Field(
        "features",
        description="what the quantiser reads: the front end's frames (published), or stacked log-mel rows",
    )
    front_end_gradient: float = Field(
        0.1, ge=0, description="factor on the gradient that reaches the front end"
    )


@dataclass(frozen=True)
class StepStatistics:
    """Sums over all masked frames of an update, so that the diversity term does not see micro-batches."""

    probs: Tensor
    """(G, V) float32, sum of the code distributions over masked frames"""
    num_masked: int
    num_frames: int

    def __add__(self, other: "StepStatistics") -> "StepStatistics":
        return StepStatistics(
            self.probs + other.probs,
            self.num_masked + other.num_masked,
            self.num_frames + other.num_frames,
        )


@dataclass(frozen=True)
class Draws(MaskedFrames):
    """Everything random that a batch needs; valid = a masked frame with at least one other to contrast with."""

    negatives: NDArray[np.int64]
    """(B, M, K) positions among 0..M-1 of the same utterance"""
    noise: NDArray[np.float32] | None
    """(N, G, V) Gumbel draws for the valid slots in row order; None in evaluation"""


class ScaleGradient(torch.autograd.Function):
    """Identity forward; the gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, inputs: Tensor, factor: float) -> Tensor:
        ctx.factor = factor  # type: ignore[attr-defined]
        return inputs.view_as(inputs)

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor
    ) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None  # type: ignore[attr-defined]


class Contrastive(nn.Module):
    """wav2vec 2.0's pretext task.

    Source: wav2vec 2.0 (arXiv 2006.11477) sections 3.1 and 3.2, with the details of the released BASE model. We differ
    from known implementations where those see padding, draw the positive as a negative, or depend on micro-batches.
    """

    def __init__(
        self,
        encoder: Encoder,
        config: ContrastiveConfig,
        quantizer: QuantizerConfig,
        mask: MaskConfig,
        seed: int = 0,
        decoder: MaskDecoderConfig | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.config, self.mask, self.seed = encoder, config, mask, seed
        published = config.targets == "features"
        self.quantizer = Quantizer(
            encoder.config.front_width if published else encoder.config.stacked_width, quantizer
        )
        self.target_projection = nn.Linear(quantizer.width, config.width)
        self.context_projection = nn.Linear(encoder.config.width, config.width)
        self.decoder = make_decoder(encoder.config.width, decoder)

    def draw(
        self, batch: Batch, num_frames: list[int], width: int, step: int, noisy: bool
    ) -> Draws:
        """Masks, negatives and, if ``noisy``, Gumbel noise; an utterance's own do not depend on its batch mates.

        Args:
            num_frames: of each utterance.
            width: frames of the padded batch, T.
        """
        rngs = [generator("masks", self.seed, step, key) for key in batch.keys]
        masked = draw_masks(num_frames, width, self.mask, rngs, least=2)
        quantizer = self.quantizer.config
        negatives = np.zeros((*masked.frames.shape, self.config.num_negatives), dtype=np.int64)
        noise = []
        for row, (count, rng) in enumerate(zip(masked.valid.sum(1).tolist(), rngs, strict=True)):
            if count < 2:  # nothing to contrast with
                continue
            negatives[row, :count] = sample_negatives(count, self.config.num_negatives, rng)
            if noisy:
                shape = (count, quantizer.num_codebooks, quantizer.num_codes)
                noise.append(
                    -np.log(rng.standard_exponential(shape, dtype=np.float32) + np.float32(1e-20))
                )
        joined = np.concatenate(noise) if noise else None
        return Draws(masked.mask, masked.frames, masked.valid, negatives, joined)

    @torch.no_grad()
    def statistics(self, batch: Batch, step: int) -> StepStatistics:
        """This batch's share of the update's statistics, for updates of more than one micro-batch."""
        frames, num_frames = self.encoder.extract(batch.inputs, batch.input_lengths)
        lengths = num_frames.tolist()
        draws = self.draw(batch, lengths, frames.shape[1], step, noisy=False)
        slots = torch.from_numpy(draws.slots).to(frames.device)
        probs = self.quantizer.class_probs(
            self._target_frames(batch, self.encoder.norm(frames)).flatten(0, 1)[slots]
        )
        return StepStatistics(probs.sum(0), len(slots), sum(lengths))

    def forward(
        self, batch: Batch, step: int, statistics: StepStatistics | None = None
    ) -> LossOutput:
        """Loss of a batch at update ``step``.

        Args:
            statistics: of the whole update when this batch is a part of it; None = the batch is the update.

        Returns:
            sums over masked frames: contrastive cross-entropy (nats) + weighted diversity + weighted penalty.
        """
        config, encoder = self.config, self.encoder
        raw, num_frames = encoder.extract(batch.inputs, batch.input_lengths)
        frames = ScaleGradient.apply(raw, config.front_end_gradient)
        lengths = num_frames.tolist()
        draws = self.draw(batch, lengths, frames.shape[1], step, noisy=self.training)
        device = frames.device
        slots = torch.from_numpy(draws.slots).to(device)
        normed = encoder.norm(frames)
        # Only masked frames go through quantiser, projections and similarities: the rest would be thrown away.
        noise = None if draws.noise is None else torch.from_numpy(draws.noise).to(device)
        sources = self._target_frames(batch, normed).flatten(0, 1)[slots]
        quantized = self.quantizer(sources, noise, self.quantizer.temperature(step))
        context = masked_context(encoder, self.decoder, normed, num_frames, draws)
        with torch.autocast(device.type, enabled=False):
            predicted = self.context_projection(context.float())
            targets = self.target_projection(quantized.vectors)
            logits = self._logits(predicted, targets, quantized.codes, draws)
            contrastive = (logits.logsumexp(-1) - logits[:, 0]).sum()
            own = StepStatistics(quantized.probs.sum(0), len(slots), sum(lengths))
            whole = statistics or own
            regulariser, metrics = self._regularise(frames, num_frames, own, whole)
        weight = len(slots)
        metrics |= {
            "loss": contrastive.detach(),
            # All logits equal: ln(1 + K) where every negative differs from the positive.
            "chance": logits.detach().isfinite().sum(-1).log().sum(),
            # A frame whose every negative equals the positive is right by default; it still counts: that is collapse.
            "accuracy": (logits.argmax(-1) == 0).sum().detach(),
            "live_codes": _live_codes(quantized.codes, self.quantizer.config.num_codes) * weight,
            "temperature": self.quantizer.temperature(step) * weight,
            "masked_share": float(draws.mask.sum()) / max(1, whole.num_frames) * whole.num_masked,
        }
        return LossOutput(contrastive + regulariser, weight, metrics)

    def _target_frames(self, batch: Batch, normed: Tensor) -> Tensor:
        """(B, T, C) that the quantiser reads: unmasked front-end frames after LayerNorm, or log-mel rows alike.

        Log-mel rows cannot drift towards what is easy to predict, as frames of a young front end do in a short run.
        """
        if self.config.targets == "features":
            return normed
        stacked = self.encoder.stacked_log_mel(batch.inputs, batch.input_lengths, normed.shape[1])
        return F.layer_norm(stacked, stacked.shape[-1:])

    def _logits(self, predicted: Tensor, targets: Tensor, codes: Tensor, draws: Draws) -> Tensor:
        """(B, M, W) predictions, (N, W) targets, (N, G) codes -> (N, 1 + K) logits, the positive first.

        One M x M similarity per utterance and a gather; a negative with the positive's codes is -inf.
        """
        rows, columns, _ = draws.negatives.shape
        device = predicted.device
        # Positions, because indexing by a bool mask makes the host wait for the device.
        places = torch.from_numpy(draws.places).to(device)

        def pack(values: Tensor) -> Tensor:
            empty = values.new_zeros(rows * columns, *values.shape[1:])
            return empty.index_copy(0, places, values).view(rows, columns, *values.shape[1:])

        packed_targets = pack(F.normalize(targets, dim=-1))
        similarity = torch.bmm(F.normalize(predicted, dim=-1), packed_targets.transpose(1, 2))
        itself = torch.arange(columns, device=device).expand(rows, columns)[..., None]
        choices = torch.cat([itself, torch.from_numpy(draws.negatives).to(device)], 2)
        logits = similarity.gather(2, choices).flatten(0, 1)[places] / self.config.logit_temp
        # One number per combination of codes turns the comparison of vectors into one of integers.
        base = torch.tensor(
            [self.quantizer.config.num_codes**g for g in range(codes.shape[1])], device=device
        )
        number = pack((codes * base).sum(-1))[:, None].expand(-1, columns, -1).gather(2, choices)
        number = number.flatten(0, 1)[places]
        same = number == number[:, :1]
        same[:, 0] = False
        return logits.masked_fill(same, -torch.inf)

    def _regularise(
        self, frames: Tensor, num_frames: Tensor, own: StepStatistics, whole: StepStatistics
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Weighted diversity and feature penalty of this batch's share, scaled by masked frames."""
        # The value comes from the whole update, the gradient flows through this batch's part of it.
        mean_probs = (whole.probs.detach() - own.probs.detach() + own.probs) / max(
            1, whole.num_masked
        )
        unevenness = diversity(mean_probs)
        squares = frames.float().square().mean(-1) * valid_mask(
            num_frames, frames.shape[1], frames.device
        )
        penalty = squares.sum() / whole.num_frames
        # Both terms of the update are multiplied by its masked frames; the diversity's value is shared out by weight.
        spread = (
            unevenness.detach() * own.num_masked
            + (unevenness - unevenness.detach()) * whole.num_masked
        )
        weighted = (
            self.config.diversity_weight * spread
            + self.config.penalty_weight * penalty * whole.num_masked
        )
        perplexity = code_perplexity(mean_probs.detach())
        metrics: dict[str, Tensor | float] = {
            "diversity": unevenness.detach() * own.num_masked,
            "penalty": penalty.detach() * whole.num_masked,
            "code_perplexity": perplexity.mean() * own.num_masked,
        }
        return weighted, metrics


def _live_codes(codes: Tensor, num_codes: int) -> Tensor:
    """(N, G) -> () distinct codes in use, mean over codebooks; unlike ``unique`` it does not make the host wait."""
    used = torch.zeros(codes.shape[1], num_codes, device=codes.device)
    return used.scatter_(1, codes.T, 1.0).sum(1).mean()


def sample_negatives(
    num_masked: int, num_negatives: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Distractors for each masked frame among the *other* masked frames of the same utterance.

    Args:
        num_masked: masked frames of the utterance.
        num_negatives: K, drawn with replacement.

    Returns:
        (num_masked, K) int64, positions among the masked frames; row i never holds i. With fewer than two masked
        frames there is no other frame: the shape is (num_masked, 0).

    Source: wav2vec 2.0 section 3.2.
    """
    if num_masked < 2:
        return np.zeros((num_masked, 0), dtype=np.int64)
    others = rng.integers(0, num_masked - 1, size=(num_masked, num_negatives), dtype=np.int64)
    return others + (others >= np.arange(num_masked)[:, None])
