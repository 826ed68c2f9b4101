"""The contrastive objective of wav2vec 2.0 over an encoder: masks, quantised targets, negatives, loss."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from speechssl.batching import Batch
from speechssl.config import Settings
from speechssl.diagnostics import LossOutput, chance_loss
from speechssl.encoder import Encoder, valid_mask
from speechssl.masking import MaskConfig, sample_negatives, span_mask
from speechssl.quantizer import Quantizer, QuantizerConfig, code_perplexity, diversity
from speechssl.runtime import generator


class ContrastiveConfig(Settings):
    """Weights and shapes of the objective; defaults are wav2vec 2.0 BASE."""

    num_negatives: int = Field(100, ge=1, description="K, per masked frame")
    logit_temp: float = Field(0.1, gt=0, description="cosine similarities are divided by it")
    width: int = Field(256, gt=0, description="of the space in which context and target are compared")
    diversity_weight: float = Field(0.1, ge=0)
    penalty_weight: float = Field(10.0, ge=0, description="of the mean square of the front end's frames")
    front_end_gradient: float = Field(0.1, ge=0, description="factor on the gradient that reaches the front end")


@dataclass(frozen=True)
class StepStatistics:
    """Sums over all masked frames of an update, so that the diversity term does not see micro-batches."""

    probs: Tensor
    """(G, V) float32, sum of the code distributions over masked frames"""
    num_masked: int
    num_frames: int

    def __add__(self, other: "StepStatistics") -> "StepStatistics":
        return StepStatistics(
            self.probs + other.probs, self.num_masked + other.num_masked, self.num_frames + other.num_frames
        )


@dataclass(frozen=True)
class Draws:
    """Everything random that a batch of B utterances needs, drawn per utterance from (seed, step, key)."""

    mask: NDArray[np.bool_]
    """(B, T) True = masked; padding is never masked"""
    slots: NDArray[np.int64]
    """(B, M) frame in the flattened (B T) of the m-th masked frame; 0 where there is none"""
    valid: NDArray[np.bool_]
    """(B, M) True = a masked frame with at least one other to contrast with"""
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
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None  # type: ignore[attr-defined]


class Contrastive(nn.Module):
    """wav2vec 2.0's pretext task.

    Source: wav2vec 2.0 (arXiv 2006.11477) sections 3.1 and 3.2, with the details of the released BASE model. We differ
    from known implementations where those see padding, draw the positive as a negative, or depend on micro-batches.
    """

    def __init__(
        self, encoder: Encoder, config: ContrastiveConfig, quantizer: QuantizerConfig, mask: MaskConfig, seed: int = 0
    ) -> None:
        super().__init__()
        self.encoder, self.config, self.mask, self.seed = encoder, config, mask, seed
        self.quantizer = Quantizer(encoder.config.front_width, quantizer)
        self.target_projection = nn.Linear(quantizer.width, config.width)
        self.context_projection = nn.Linear(encoder.config.width, config.width)

    def draw(self, batch: Batch, num_frames: list[int], step: int) -> Draws:
        """Masks, negatives and Gumbel noise of a batch; an utterance's own do not depend on its batch mates."""
        rngs = [generator(self.seed, step, key) for key in batch.keys]
        masks = [span_mask(t, self.mask, rng) for t, rng in zip(num_frames, rngs, strict=True)]
        counts = [int(m.sum()) for m in masks]
        width, quantizer = max(num_frames), self.quantizer.config
        mask = np.zeros((len(masks), width), dtype=bool)
        slots = np.zeros((len(masks), max(counts)), dtype=np.int64)
        valid = np.zeros(slots.shape, dtype=bool)
        negatives = np.zeros((*slots.shape, self.config.num_negatives), dtype=np.int64)
        noise = []
        for row, (own, count, rng) in enumerate(zip(masks, counts, rngs, strict=True)):
            mask[row, : len(own)] = own
            if count < 2:  # nothing to contrast with
                continue
            slots[row, :count] = np.flatnonzero(own) + row * width
            valid[row, :count] = True
            negatives[row, :count] = sample_negatives(count, self.config.num_negatives, rng)
            if self.training:
                shape = (count, quantizer.num_codebooks, quantizer.num_codes)
                noise.append(-np.log(rng.standard_exponential(shape, dtype=np.float32) + np.float32(1e-20)))
        return Draws(mask, slots, valid, negatives, np.concatenate(noise) if noise else None)

    @torch.no_grad()
    def statistics(self, batch: Batch, step: int) -> StepStatistics:
        """This batch's share of the update's statistics, for updates of more than one micro-batch."""
        frames, num_frames = self.encoder.extract(batch.inputs, batch.num_units)
        draws = self.draw(batch, num_frames.tolist(), step)
        slots = torch.from_numpy(draws.slots[draws.valid]).to(frames.device)
        probs = self.quantizer.class_probs(self.encoder.norm(frames.flatten(0, 1)[slots]))
        return StepStatistics(probs.sum(0), len(slots), int(num_frames.sum()))

    def forward(self, batch: Batch, step: int, statistics: StepStatistics | None = None) -> LossOutput:
        """Loss of a batch at update ``step``.

        Args:
            statistics: of the whole update when this batch is a part of it; None = the batch is the update.

        Returns:
            sums over masked frames: contrastive cross-entropy (nats) + weighted diversity + weighted penalty.
        """
        config, encoder = self.config, self.encoder
        raw, num_frames = encoder.extract(batch.inputs, batch.num_units)
        frames = ScaleGradient.apply(raw, config.front_end_gradient)
        draws = self.draw(batch, num_frames.tolist(), step)
        device = frames.device
        valid = torch.from_numpy(draws.valid).to(device)
        slots = torch.from_numpy(draws.slots[draws.valid]).to(device)
        normed = encoder.norm(frames)
        # Only masked frames go through quantiser, projections and similarities: the rest would be thrown away.
        noise = None if draws.noise is None else torch.from_numpy(draws.noise).to(device)
        quantized = self.quantizer(normed.flatten(0, 1)[slots], noise, self.quantizer.temperature(step))
        context = encoder.contextualise(normed, num_frames, torch.from_numpy(draws.mask).to(device))
        with torch.autocast(device.type, enabled=False):
            predicted = self.context_projection(context.flatten(0, 1)[slots].float())
            targets = self.target_projection(quantized.vectors)
            logits = self._logits(predicted, targets, quantized.codes, valid, draws.negatives)
            contrastive = (logits.logsumexp(-1) - logits[:, 0]).sum()
            regulariser, metrics = self._regularise(frames, num_frames, quantized.probs, statistics)
        weight = len(slots)
        metrics |= {
            "loss": contrastive.detach(),
            "chance": chance_loss(config.num_negatives) * weight,
            # A frame whose every negative equals the positive is right by default; it still counts: that is collapse.
            "accuracy": (logits.argmax(-1) == 0).sum().detach(),
            "live_codes": _live_codes(quantized.codes) * weight,
            "temperature": self.quantizer.temperature(step) * weight,
            "masked_share": float(draws.mask.sum()) / max(1, sum(num_frames.tolist())) * weight,
        }
        return LossOutput(contrastive + regulariser, weight, metrics)

    def _logits(
        self, predicted: Tensor, targets: Tensor, codes: Tensor, valid: Tensor, negatives: NDArray[np.int64]
    ) -> Tensor:
        """(N, W) predictions and targets -> (N, 1 + K) logits, the positive first.

        One M x M similarity per utterance and a gather; a negative with the positive's codes is -inf.
        """
        rows, columns = valid.shape
        packed = predicted.new_zeros(2, rows, columns, predicted.shape[1])
        packed[0][valid] = F.normalize(predicted, dim=-1)
        packed[1][valid] = F.normalize(targets, dim=-1)
        similarity = torch.bmm(packed[0], packed[1].transpose(1, 2)) / self.config.logit_temp
        choices = torch.from_numpy(negatives).to(valid.device)
        itself = torch.arange(columns, device=valid.device).expand(rows, columns)[..., None]
        logits = similarity.gather(2, torch.cat([itself, choices], 2))[valid]
        # One number per combination of codes turns the comparison of vectors into one of integers.
        base = torch.tensor([self.quantizer.config.num_codes**g for g in range(codes.shape[1])], device=codes.device)
        number = torch.zeros(valid.shape, dtype=torch.int64, device=valid.device)
        number[valid] = (codes * base).sum(-1)
        same = number[:, None].expand(-1, columns, -1).gather(2, choices) == number[..., None]
        return torch.cat([logits[:, :1], logits[:, 1:].masked_fill(same[valid], -torch.inf)], 1)

    def _regularise(
        self, frames: Tensor, num_frames: Tensor, probs: Tensor, statistics: StepStatistics | None
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Weighted diversity and feature penalty of this batch's share, scaled by masked frames."""
        own = StepStatistics(probs.sum(0), len(probs), int(num_frames.sum()))
        whole = statistics or own
        # The value comes from the whole update, the gradient flows through this batch's part of it.
        mean_probs = (whole.probs.detach() - own.probs.detach() + own.probs) / max(1, whole.num_masked)
        unevenness = diversity(mean_probs)
        squares = frames.float().square().mean(-1) * valid_mask(num_frames, frames.shape[1])
        penalty = squares.sum() / whole.num_frames
        # Both terms of the update are multiplied by its masked frames; the diversity's value is shared out by weight.
        spread = unevenness.detach() * own.num_masked + (unevenness - unevenness.detach()) * whole.num_masked
        weighted = self.config.diversity_weight * spread + self.config.penalty_weight * penalty * whole.num_masked
        perplexity = code_perplexity(mean_probs.detach())
        metrics: dict[str, Tensor | float] = {
            "diversity": unevenness.detach() * own.num_masked,
            "penalty": penalty.detach() * whole.num_masked,
            "code_perplexity": perplexity.mean() * own.num_masked,
        }
        return weighted, metrics


def _live_codes(codes: Tensor) -> float:
    """Distinct codes in use, mean over codebooks."""
    return sum(len(column.unique()) for column in codes.T) / codes.shape[1]
