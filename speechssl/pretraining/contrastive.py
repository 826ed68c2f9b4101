"""Pretext task of wav2vec 2.0: tell the quantised target of a masked frame from others.

Shapes, besides those of masked_prediction.py:
    K  negatives of each masked frame
    P  width of the space in which context and target are compared
    G  codebooks, V codes in each
"""

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
    Positions,
    PretextTask,
    draw_masks,
    make_decoder,
    masked_context,
)
from speechssl.pretraining.quantizer import (
    Quantized,
    Quantizer,
    QuantizerConfig,
    code_perplexity,
    diversity,
)
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
        description="what the quantiser reads: the front end's frames (published), "
        "or stacked log-mel rows",
    )
    front_end_gradient: float = Field(
        0.1, ge=0, description="factor on the gradient that reaches the front end"
    )


@dataclass(frozen=True)
class StepStatistics:
    """Sums over all masked frames of an update.

    With them the diversity term does not depend on how an update is cut into micro-batches.
    """

    probs: Tensor
    """(G, V) float32, sum of the code distributions over masked frames"""
    num_masked: int
    num_frames: int

    def __add__(self, other: "StepStatistics") -> "StepStatistics":
        probs = self.probs + other.probs
        num_masked = self.num_masked + other.num_masked
        num_frames = self.num_frames + other.num_frames
        return StepStatistics(probs, num_masked, num_frames)


@dataclass(frozen=True)
class Draws(MaskedFrames):
    """Everything random that a batch needs.

    Valid is a masked frame with at least one other in its utterance to contrast with.
    """

    negatives: Positions
    """(B, M, K) positions among 0..M-1 of the same utterance"""
    noise: NDArray[np.float32] | None
    """(N, G, V) Gumbel draws for the valid frames, utterance by utterance; None in evaluation"""


class Contrastive(PretextTask):
    """wav2vec 2.0's pretext task.

    Let c_t be the projected context of masked frame t, q_t the projected code vectors of its
    target, and tau ``logit_temp``:

        s(t, u) = cos(c_t, q_u) / tau

        loss = sum over masked t of -ln( exp s(t, t) / sum over u of exp s(t, u) )
             + N diversity_weight (G V - sum over codebooks of exp entropy) / (G V)
             + N penalty_weight mean(front-end frames^2)

    where u is t itself and its K negatives.

    Source: wav2vec 2.0 (arXiv 2006.11477) sections 3.1 and 3.2, with the details of the released
    BASE model. We differ from known implementations where those see padding, draw the positive as a
    negative, or depend on micro-batches.
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
        super().__init__(encoder, mask, seed)
        self.config = config

        if config.targets == "features":
            target_width = encoder.config.front_width
        else:
            target_width = encoder.config.stacked_width

        context_width = encoder.config.width
        self.quantizer = Quantizer(target_width, quantizer)
        self.target_projection = nn.Linear(quantizer.width, config.width)
        self.context_projection = nn.Linear(context_width, config.width)
        self.decoder = make_decoder(context_width, decoder)

    def forward(
        self, batch: Batch, step: int, statistics: StepStatistics | None = None
    ) -> LossOutput:
        """Compute the loss (nats) of a batch at update ``step``.

        Args:
            batch: B utterances.
            step: the update, which decides masks, negatives and noise together with the seed.
            statistics: of the whole update when this batch is a part of it; None = the batch is the
                update.

        Returns:
            the sum over the masked frames of the batch, weighed by their number.
        """
        config = self.config
        encoder = self.encoder

        raw, num_frames = encoder.extract(batch.inputs, batch.input_lengths)  # (B, T, C)
        frames = ScaleGradient.apply(raw, config.front_end_gradient)
        normed = encoder.norm(frames)

        lengths = num_frames.tolist()
        draws = self.draw(batch, lengths, frames.shape[1], step, noisy=self.training)
        weight = int(draws.valid.sum())

        quantized = self._quantize(batch, normed, draws, step)
        context = masked_context(encoder, self.decoder, normed, num_frames, draws)  # (B, M, D)

        with torch.autocast(frames.device.type, enabled=False):
            predicted = self.context_projection(context.float())  # (B, M, P)
            targets = self.target_projection(quantized.vectors)  # (N, P)
            logits = self._logits(predicted, targets, quantized.codes, draws)  # (N, 1 + K)

            probs = quantized.probs.sum(0)  # (G, V)
            own = StepStatistics(probs, weight, sum(lengths))
            whole = statistics or own
            mean_probs = _mean_probs(own, whole)
            perplexity = code_perplexity(mean_probs.detach()).mean()
            unevenness = diversity(mean_probs)
            own_unevenness = _own_share(unevenness, own, whole)
            penalty = _sum_of_squares(frames, num_frames) / whole.num_frames

            # Each term of the update is multiplied by the update's masked frames.
            losses = logits.logsumexp(-1) - logits[:, 0]  # (N,)
            contrastive_term = losses.sum()
            diversity_term = config.diversity_weight * own_unevenness
            penalty_term = config.penalty_weight * penalty * whole.num_masked
            regularisation = diversity_term + penalty_term
            loss = contrastive_term + regularisation

        # All logits equal: ln(1 + K) where every negative differs from the positive.
        num_choices = logits.detach().isfinite().sum(-1)  # (N,)
        chance = num_choices.log().sum()

        # A frame whose every negative equals the positive is right by default. It still counts,
        # because that is how a collapse shows.
        is_right = logits.argmax(-1) == 0
        num_right = is_right.sum().detach()

        temperature = self.quantizer.temperature(step)
        masked_share = (float(draws.mask.sum()), sum(lengths))
        code_counts = _code_counts(quantized.codes, self.quantizer.config.num_codes)

        metrics: dict[str, Tensor | float] = {
            "diversity": unevenness.detach() * own.num_masked,
            "penalty": penalty.detach() * whole.num_masked,
            "code_perplexity": perplexity * own.num_masked,
            "loss": contrastive_term.detach(),
            "chance": chance,
            "accuracy": num_right,
            "temperature": temperature * weight,
        }
        shares = {"masked_share": masked_share}
        return LossOutput(loss, weight, metrics, shares, {"live_codes": code_counts})

    @torch.no_grad()
    def statistics(self, batch: Batch, step: int) -> StepStatistics:
        """Measure this batch's share of the statistics, for updates of several micro-batches."""
        frames, num_frames = self.encoder.extract(batch.inputs, batch.input_lengths)
        lengths = num_frames.tolist()
        draws = self.draw(batch, lengths, frames.shape[1], step, noisy=False)

        normed = self.encoder.norm(frames)
        sources = self._sources(batch, normed, draws)
        probs = self.quantizer.class_probs(sources)  # (N, G, V)
        return StepStatistics(probs.sum(0), len(sources), sum(lengths))

    def draw(
        self, batch: Batch, num_frames: list[int], length: int, step: int, noisy: bool
    ) -> Draws:
        """Draw masks, negatives and, if ``noisy``, Gumbel noise.

        What is drawn for an utterance does not depend on its batch mates.

        Args:
            batch: whose keys seed the draws.
            num_frames: of each utterance.
            length: frames of the padded batch, T.
            step: the update.
            noisy: whether the quantiser is to sample codes, as it does in training.
        """
        rngs = [generator("masks", self.seed, step, key) for key in batch.keys]
        masked = draw_masks(num_frames, length, self.mask, rngs, least=2)
        counts = masked.valid.sum(1).tolist()

        num_negatives = self.config.num_negatives
        shape = (*masked.frames.shape, num_negatives)
        negatives = np.zeros(shape, dtype=np.int64)
        noise = []

        utterances = zip(counts, rngs, strict=True)
        for row, (count, rng) in enumerate(utterances):
            # Nothing to contrast with.
            if count < 2:
                continue

            negatives[row, :count] = sample_negatives(count, num_negatives, rng)
            if noisy:
                own_noise = self._gumbel_noise(count, rng)
                noise.append(own_noise)

        joined = np.concatenate(noise) if noise else None
        return Draws(masked.mask, masked.frames, masked.valid, negatives, joined)

    def _gumbel_noise(self, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """(count, G, V) standard Gumbel draws."""
        config = self.quantizer.config
        shape = (count, config.num_codebooks, config.num_codes)
        exponential = rng.standard_exponential(shape, dtype=np.float32)
        # A draw of 0 would be infinite noise.
        exponential += np.float32(1e-20)
        noise: NDArray[np.float32] = -np.log(exponential)
        return noise

    def _quantize(self, batch: Batch, normed: Tensor, draws: Draws, step: int) -> Quantized:
        """(B, T, C) LayerNormed frames -> the codes of the N masked ones."""
        sources = self._sources(batch, normed, draws)
        noise = None
        if draws.noise is not None:
            noise = torch.from_numpy(draws.noise)
            noise = noise.to(normed.device)

        temperature = self.quantizer.temperature(step)
        quantized: Quantized = self.quantizer(sources, noise, temperature)
        return quantized

    def _sources(self, batch: Batch, normed: Tensor, draws: Draws) -> Tensor:
        """(N, C) that the quantiser reads of the masked frames; the others would be thrown away."""
        positions = torch.from_numpy(draws.batch_positions)
        positions = positions.to(normed.device)

        frames = self._target_frames(batch, normed)
        frames = frames.flatten(0, 1)  # (B T, C)
        return frames[positions]

    def _target_frames(self, batch: Batch, normed: Tensor) -> Tensor:
        """(B, T, C) that targets are made of: unmasked LayerNormed front-end frames, or log-mel.

        Log-mel rows cannot drift towards what is easy to predict, as frames of a young front end do
        in a short run.
        """
        if self.config.targets == "features":
            return normed

        length = normed.shape[1]
        stacked = self.encoder.stacked_log_mel(batch.inputs, batch.input_lengths, length)
        width = stacked.shape[-1:]
        return F.layer_norm(stacked, width)

    def _logits(self, predicted: Tensor, targets: Tensor, codes: Tensor, draws: Draws) -> Tensor:
        """Compare each prediction with its target and its negatives.

        It takes one M x M similarity per utterance and a gather. A negative with the positive's
        codes is -inf.

        Args:
            predicted: (B, M, P).
            targets: (N, P).
            codes: (N, G) int64.
            draws: the negatives.

        Returns:
            (N, 1 + K), the positive first.
        """
        batch, most_masked, _ = draws.negatives.shape
        device = predicted.device
        # Positions, because indexing by a bool mask makes the host wait for the device.
        positions = torch.from_numpy(draws.packed_positions)
        positions = positions.to(device)

        def pack(values: Tensor) -> Tensor:
            """(N, ...) -> (B, M, ...), zero where an utterance has no more masked frames."""
            own_shape = values.shape[1:]
            empty = values.new_zeros(batch * most_masked, *own_shape)
            packed = empty.index_copy(0, positions, values)
            return packed.view(batch, most_masked, *own_shape)

        packed_targets = pack(F.normalize(targets, dim=-1))  # (B, M, P)
        packed_predictions = F.normalize(predicted, dim=-1)
        target_columns = packed_targets.transpose(1, 2)  # (B, P, M)
        similarity = torch.bmm(packed_predictions, target_columns)  # (B, M, M)

        itself = torch.arange(most_masked, device=device)
        itself = itself.expand(batch, most_masked)[..., None]  # (B, M, 1)
        negatives = torch.from_numpy(draws.negatives)
        negatives = negatives.to(device)
        choices = torch.cat([itself, negatives], 2)  # (B, M, 1 + K)

        logits = similarity.gather(2, choices)
        logits = logits.flatten(0, 1)  # (B M, 1 + K)
        logits = logits[positions] / self.config.logit_temp  # (N, 1 + K)

        # One number per combination of codes turns the comparison of vectors into one of integers.
        combination = self._combine_codes(codes)  # (N,)
        combinations = pack(combination)[:, None]  # (B, 1, M)
        combinations = combinations.expand(-1, most_masked, -1)  # (B, M, M)

        chosen = combinations.gather(2, choices)
        chosen = chosen.flatten(0, 1)  # (B M, 1 + K)
        chosen = chosen[positions]
        same = chosen == chosen[:, :1]
        same[:, 0] = False
        return logits.masked_fill(same, -torch.inf)

    def _combine_codes(self, codes: Tensor) -> Tensor:
        """(N, G) int64 -> (N,) int64: the codes of a frame as the digits of one number."""
        num_codes = self.quantizer.config.num_codes
        num_groups = codes.shape[1]
        place_values = torch.tensor(
            [num_codes**group for group in range(num_groups)], device=codes.device
        )
        digits = codes * place_values
        return digits.sum(-1)


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
        (from_above,) = gradients
        return from_above * ctx.factor, None  # type: ignore[attr-defined]


def sample_negatives(num_masked: int, num_negatives: int, rng: np.random.Generator) -> Positions:
    """Draw distractors for each masked frame among the *other* masked frames of the same utterance.

    Args:
        num_masked: masked frames of the utterance.
        num_negatives: K, drawn with replacement.
        rng: of this utterance.

    Returns:
        (num_masked, K) int64, positions among the masked frames; row i never holds i. With fewer
        than two masked frames there is no other frame: the shape is (num_masked, 0).

    Source: wav2vec 2.0 section 3.2.
    """
    if num_masked < 2:
        return np.zeros((num_masked, 0), dtype=np.int64)

    shape = (num_masked, num_negatives)
    num_others = num_masked - 1
    others = rng.integers(0, num_others, size=shape, dtype=np.int64)

    # Positions from the frame's own on move up by one, so that it is left out.
    own_position = np.arange(num_masked)[:, None]
    moves_up = others >= own_position
    return others + moves_up


def _mean_probs(own: StepStatistics, whole: StepStatistics) -> Tensor:
    """(G, V) mean code distribution of the update.

    Its gradient flows through this batch's part of it alone.
    """
    of_others = whole.probs.detach() - own.probs.detach()
    total = of_others + own.probs
    return total / max(1, whole.num_masked)


def _own_share(unevenness: Tensor, own: StepStatistics, whole: StepStatistics) -> Tensor:
    """This batch's share of the update's diversity times its masked frames.

    The value is shared out by the masked frames of each batch. The gradient is not: that of the
    update is the sum of those through each batch's part of the mean distribution, and each is
    multiplied by all masked frames.
    """
    value = unevenness.detach() * own.num_masked
    gradient_only = unevenness - unevenness.detach()
    return value + gradient_only * whole.num_masked


def _sum_of_squares(frames: Tensor, num_frames: Tensor) -> Tensor:
    """(B, T, C) -> () sum over valid frames of their mean square."""
    length = frames.shape[1]
    valid = valid_mask(num_frames, length, frames.device)
    mean_squares = frames.float().square().mean(-1)  # (B, T)
    of_valid = mean_squares * valid
    return of_valid.sum()


def _code_counts(codes: Tensor, num_codes: int) -> Tensor:
    """(N, G) -> (G, V) float32, how many frames have each code."""
    # Unlike ``bincount`` this does not make the host wait for the device.
    num_groups = codes.shape[1]
    counts = torch.zeros(num_groups, num_codes, device=codes.device)
    by_group = codes.T
    ones = torch.ones(by_group.shape, device=codes.device)
    return counts.scatter_add_(1, by_group, ones)
