"""Product quantiser: G codebooks of V entries, chosen by a hard Gumbel-softmax with a straight-through gradient."""

from typing import Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from speechssl.config import Settings


class QuantizerConfig(Settings):
    """Shape and temperature of the quantiser; defaults are wav2vec 2.0 BASE."""

    num_codebooks: int = Field(2, ge=1)
    num_codes: int = Field(320, ge=2, description="entries of each codebook")
    width: int = Field(
        256, gt=0, description="of the joined code vectors; divisible by num_codebooks"
    )
    codebook_init: Literal["uniform", "normal"] = Field(
        "uniform", description="U(0, 1) as published, or N(0, 1)"
    )
    logits_std: float = Field(
        1.0, gt=0, description="of the initial weights; smaller = softer choices at the start"
    )
    max_temperature: float = Field(2.0, gt=0)
    min_temperature: float = Field(0.5, gt=0)
    temperature_decay: float = Field(0.999995, gt=0, le=1, description="factor per update")

    @model_validator(mode="after")
    def _divisible(self) -> "QuantizerConfig":
        if self.width % self.num_codebooks:
            raise ValueError(
                f"width {self.width} must be divisible by num_codebooks {self.num_codebooks}"
            )
        if (
            self.num_codes**self.num_codebooks >= 1 << 63
        ):  # combinations of codes are compared as one number
            raise ValueError(
                f"{self.num_codebooks} codebooks of {self.num_codes} codes: at most 2^63 combinations"
            )
        return self


class Quantized(NamedTuple):
    """Codes of N frames."""

    vectors: Tensor
    """(N, width) float32, differentiable in the codebook and, straight through, in the input."""
    codes: Tensor
    """(N, G) int64"""
    probs: Tensor
    """(N, G, V) float32, softmax of the logits without noise or temperature (for the diversity term)."""


class Quantizer(nn.Module):
    """Frames -> codes.

    Source: wav2vec 2.0, section 2 "Quantization module". Logits weights N(0, 1), bias 0, entries U(0, 1), as released.
    """

    def __init__(self, input_width: int, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        groups, entries = config.num_codebooks, config.num_codes
        self.logits = nn.Linear(input_width, groups * entries)
        nn.init.normal_(self.logits.weight, std=config.logits_std)
        nn.init.zeros_(self.logits.bias)
        draw = torch.rand if config.codebook_init == "uniform" else torch.randn
        self.codebook = nn.Parameter(draw(groups, entries, config.width // groups))

    def temperature(self, step: int) -> float:
        """Gumbel temperature of update ``step``: a function of the update, not of how often forward ran."""
        return max(
            self.config.max_temperature * self.config.temperature_decay**step,
            self.config.min_temperature,
        )

    def class_probs(self, frames: Tensor) -> Tensor:
        """(N, C) -> (N, G, V) float32 softmax without noise."""
        return self._class_logits(frames).softmax(-1)

    def forward(self, frames: Tensor, noise: Tensor | None, temperature: float) -> Quantized:
        """Quantise frames.

        Args:
            frames: (N, C).
            noise: (N, G, V) standard Gumbel draws (training), or None for the plain argmax (evaluation).
            temperature: of the soft distribution that carries the gradient.
        """
        logits = self._class_logits(frames)
        if noise is None:
            codes = logits.argmax(-1)
            choice = torch.zeros_like(logits).scatter_(-1, codes[..., None], 1.0)
        else:
            soft = ((logits + noise) / temperature).softmax(-1)
            codes = soft.argmax(-1)
            hard = torch.zeros_like(soft).scatter_(-1, codes[..., None], 1.0)
            choice = hard - soft.detach() + soft
        with torch.autocast(frames.device.type, enabled=False):
            vectors = torch.einsum("ngv,gvd->ngd", choice, self.codebook.float()).flatten(1)
        return Quantized(vectors, codes, logits.softmax(-1))

    def _class_logits(self, frames: Tensor) -> Tensor:
        config = self.config
        # float32 even under autocast: bfloat16 noise would tie codes.
        with torch.autocast(frames.device.type, enabled=False):
            logits: Tensor = self.logits(frames.float())
        return logits.view(-1, config.num_codebooks, config.num_codes)


def code_perplexity(mean_probs: Tensor) -> Tensor:
    """(G, V) mean distribution -> (G,) exp of its entropy in nats: V when every code is used alike, 1 when one is."""
    # A probability that underflowed to 0 has an infinite gradient of its entropy, and softmax turns that into NaN.
    entropy: Tensor = torch.special.entr(mean_probs.clamp_min(1e-12)).sum(-1)
    return entropy.exp()


def diversity(mean_probs: Tensor) -> Tensor:
    """(G V - sum of perplexities) / (G V), from 0 (all codes alike) towards 1 (one code), as the reference computes it.

    Source: fairseq's and transformers' wav2vec 2.0; the paper's equation 4 has the entropy itself.
    """
    return 1.0 - code_perplexity(mean_probs).sum() / mean_probs.numel()
