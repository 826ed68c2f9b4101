"""A very small pretraining model, what it draws, and one update from micro-batches."""

import numpy as np
import torch
from torch import Tensor

from reference.models import gradients, noise, tiny_encoder
from speechssl.data.collate import Batch
from speechssl.encoder.masking import MaskConfig
from speechssl.pretraining.contrastive import Contrastive, ContrastiveConfig, Draws
from speechssl.pretraining.quantizer import QuantizerConfig
from speechssl.recognition.model import CtcModel
from speechssl.training.loss import LossOutput

QUANTIZER = QuantizerConfig(num_codebooks=2, num_codes=5, width=8)
OBJECTIVE = ContrastiveConfig(num_negatives=10, width=6)
MASK = MaskConfig(prob=0.65, length=4)
LENGTHS = {
    "base": [1500, 900, 420, 1180, 700],
    "large": [1500, 900, 420, 1180, 700],
    "logmel-4": [190, 90, 60, 140, 99],
}
LENGTHS["logmel-2"] = LENGTHS["logmel-4"]


def make(
    kind: str = "base",
    mask: MaskConfig = MASK,
    quantizer: QuantizerConfig = QUANTIZER,
    **objective: float,
) -> Contrastive:
    config = OBJECTIVE.model_copy(update=objective)
    model = Contrastive(tiny_encoder(kind), config, quantizer, mask, seed=3)
    with torch.no_grad():
        model.quantizer.logits.weight.mul_(0.3)
        for name, parameter in model.named_parameters():
            if not name.startswith("encoder."):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def utterances_of(kind: str) -> list[Tensor]:
    return noise(tiny_encoder(kind).config, LENGTHS[kind])


def ids_of(indices: list[int]) -> list[str]:
    return [f"utterance {i}" for i in indices]


def drawn(model: Contrastive, batch: Batch, step: int) -> tuple[Draws, list[int]]:
    """Draw what ``model`` draws for a batch, and give the valid frames of each utterance."""
    frames, num_frames = model.encoder.extract(batch.inputs, batch.input_lengths)
    lengths = num_frames.tolist()
    return model.draw(batch, lengths, frames.shape[1], step, noisy=model.training), lengths


def masked_frames(draws: Draws) -> list[list[int]]:
    return [np.flatnonzero(row).tolist() for row in draws.mask]


def update(
    model: Contrastive | CtcModel, batches: list[Batch], step: int
) -> tuple[list[LossOutput], dict[str, Tensor]]:
    """Make one update as the training loop does it.

    The gradient is that of the sum, divided once by the summed weight.
    """
    if isinstance(model, Contrastive) and len(batches) > 1:
        statistics, *others = (model.statistics(batch, step) for batch in batches)
        for other in others:
            statistics = statistics + other
        outputs = [model(batch, step, statistics) for batch in batches]
    else:
        outputs = [model(batch, step) for batch in batches]
    for output in outputs:
        output.total.backward()
    weight = max(1, sum(output.weight for output in outputs))
    return outputs, {name: gradient / weight for name, gradient in gradients(model).items()}


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Refuse entries that differ by more than 2e-4 of the largest entry of their gradient.

    1e-7 more is allowed for rounding.
    """
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        difference = float((found[name] - gradient).abs().max())
        scale = float(gradient.abs().max())
        assert difference <= 2e-4 * scale + 1e-7, f"{name}: {difference} of {scale}"
