"""Product quantiser: G codebooks of V entries, chosen by a hard Gumbel-softmax.

Shapes:
    N  frames
    C  width of a frame
    G  codebooks
    V  entries of each codebook, W / G values each
    W  width of the joined code vectors
"""

from typing import Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from speechssl.config import Settings

# Combinations of codes are compared as one int64.
MOST_COMBINATIONS = 1 << 63


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
    def _fitting_sizes(self) -> "QuantizerConfig":
        if self.width % self.num_codebooks:
            raise ValueError(
                f"width {self.width} must be divisible by num_codebooks {self.num_codebooks}"
            )

        if self.num_codes**self.num_codebooks >= MOST_COMBINATIONS:
            raise ValueError(
                f"{self.num_codebooks} codebooks of {self.num_codes} codes: "
                "at most 2^63 combinations"
            )
        return self


class Quantized(NamedTuple):
    """Codes of N frames."""

    vectors: Tensor
    """(N, W) float32, differentiable in the codebook and, straight through, in the input."""
    codes: Tensor
    """(N, G) int64"""
    probs: Tensor
    """(N, G, V) float32, softmax of the logits without noise or temperature, for the diversity."""


class Quantizer(nn.Module):
    """Frames -> codes.

    With logits l of a frame, noise n and temperature t, for each codebook:

        soft = softmax((l + n) / t)
        hard = one_hot(argmax soft)
        choice = hard - stop(soft) + soft

    where stop(.) has no gradient: the value is the hard choice, the gradient that of the soft one
    (straight through).

    Source: wav2vec 2.0, section 2 "Quantization module". Logits weights N(0, 1), bias 0, entries
    U(0, 1), as released.
    """

    def __init__(self, input_width: int, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        groups = config.num_codebooks
        entries = config.num_codes
        entry_width = config.width // groups

        self.logits = nn.Linear(input_width, groups * entries)
        nn.init.normal_(self.logits.weight, std=config.logits_std)
        nn.init.zeros_(self.logits.bias)

        draw = torch.rand if config.codebook_init == "uniform" else torch.randn
        codebook = draw(groups, entries, entry_width)
        self.codebook = nn.Parameter(codebook)

    def temperature(self, step: int) -> float:
        """The Gumbel temperature of update ``step``, however often forward ran before."""
        config = self.config
        decayed = config.max_temperature * config.temperature_decay**step
        return max(decayed, config.min_temperature)

    def class_probs(self, frames: Tensor) -> Tensor:
        """(N, C) -> (N, G, V) float32 softmax without noise."""
        logits = self._class_logits(frames)
        return logits.softmax(-1)

    def forward(self, frames: Tensor, noise: Tensor | None, temperature: float) -> Quantized:
        """Quantise frames.

        Args:
            frames: (N, C).
            noise: (N, G, V) standard Gumbel draws (training), or None for the plain argmax
                (evaluation).
            temperature: of the soft distribution that carries the gradient.
        """
        logits = self._class_logits(frames)  # (N, G, V)

        if noise is None:
            codes = logits.argmax(-1)
            choice = _one_hot(codes, logits)
        else:
            soft = (logits + noise) / temperature
            soft = soft.softmax(-1)
            codes = soft.argmax(-1)
            hard = _one_hot(codes, soft)
            choice = hard - soft.detach() + soft

        with torch.autocast(frames.device.type, enabled=False):
            codebook = self.codebook.float()
            entries = torch.einsum("ngv,gvd->ngd", choice, codebook)  # (N, G, W / G)
            vectors = entries.flatten(1)  # (N, W)

        probs = logits.softmax(-1)
        return Quantized(vectors, codes, probs)

    def _class_logits(self, frames: Tensor) -> Tensor:
        """(N, C) -> (N, G, V) float32."""
        # float32 even under autocast: bfloat16 noise would tie codes.
        with torch.autocast(frames.device.type, enabled=False):
            logits: Tensor = self.logits(frames.float())

        config = self.config
        return logits.view(-1, config.num_codebooks, config.num_codes)


def diversity(mean_probs: Tensor) -> Tensor:
    """Compute the diversity loss of a distribution over codes.

        (G V - sum over codebooks of their perplexity) / (G V)

    Args:
        mean_probs: (G, V), mean over frames.

    Returns:
        () from 0 (all codes alike) towards 1 (one code), as the reference computes it.

    Source: fairseq's and transformers' wav2vec 2.0; the paper's equation 4 has the entropy itself.
    """
    total_perplexity = code_perplexity(mean_probs).sum()
    num_codes = mean_probs.numel()  # G V
    return 1.0 - total_perplexity / num_codes


def code_perplexity(mean_probs: Tensor) -> Tensor:
    """Compute the perplexity of each codebook: exp(-sum over codes of p ln p).

    Args:
        mean_probs: (G, V), mean over frames.

    Returns:
        (G,): V when every code is used alike, 1 when one is.
    """
    # The entropy of a probability that underflowed to 0 has an infinite gradient, which softmax
    # turns into NaN.
    positive = mean_probs.clamp_min(1e-12)
    terms = torch.special.entr(positive)  # -p ln p
    entropy: Tensor = terms.sum(-1)  # (G,)
    return entropy.exp()


def _one_hot(codes: Tensor, like: Tensor) -> Tensor:
    """(N, G) int64 -> (N, G, V) of the type of ``like``, 1 at the code."""
    one_hot = torch.zeros_like(like)
    index = codes[..., None]  # (N, G, 1)
    return one_hot.scatter_(-1, index, 1.0)
