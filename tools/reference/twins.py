"""transformers' models with the weights of ours, and the inputs to compute the same."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from transformers import Wav2Vec2ForCTC, Wav2Vec2ForPreTraining

from reference.models import as_theirs, batch_of, objective_as_theirs, their_config
from reference.objective import drawn
from speechssl.data.collate import Batch
from speechssl.pretraining.contrastive import Contrastive, Draws
from speechssl.recognition.model import CtcModel


def ctc_twin(model: CtcModel) -> Wav2Vec2ForCTC:
    """Make transformers' recogniser with the weights of ours."""
    config = their_config(
        model.encoder.config,
        vocab_size=model.tokenizer.size,
        pad_token_id=0,
        ctc_loss_reduction="sum",
    )
    theirs = Wav2Vec2ForCTC(config)

    encoder = as_theirs(model.encoder.state_dict(), model.encoder.config, "wav2vec2.")
    head = {"lm_head.weight": model.head.weight, "lm_head.bias": model.head.bias}
    theirs.load_state_dict(encoder | head, strict=True)
    return theirs.eval()


def objective_twin(model: Contrastive) -> Wav2Vec2ForPreTraining:
    """Make transformers' pretraining model with the weights of ours."""
    quantizer = model.quantizer.config
    objective = model.config
    config = their_config(
        model.encoder.config,
        num_codevectors_per_group=quantizer.num_codes,
        num_codevector_groups=quantizer.num_codebooks,
        codevector_dim=quantizer.width,
        proj_codevector_dim=objective.width,
        contrastive_logits_temperature=objective.logit_temp,
        diversity_loss_weight=objective.diversity_weight,
    )
    theirs = Wav2Vec2ForPreTraining(config)

    weights = objective_as_theirs(model.state_dict(), model.encoder.config)
    theirs.load_state_dict(weights, strict=True)
    return theirs.train(model.training)


def their_inputs(batch: Batch, normalise: bool) -> tuple[Tensor, Tensor]:
    """Make inputs (B, S) and attention mask (B, S), 1 = valid.

    transformers expects the caller to normalise.
    """
    valid = torch.arange(batch.inputs.shape[1]) < batch.input_lengths[:, None]
    rows = [row[own] for row, own in zip(batch.inputs, valid, strict=True)]
    if normalise:
        rows = [(row - row.mean()) / (row.var(unbiased=False) + 1e-7).sqrt() for row in rows]
    return batch_of(rows).inputs, valid.long()


def their_negatives(draws: Draws) -> Tensor:
    """Make (B, T, K) frames in the flattened (B T), as transformers takes negatives.

    Rows of frames that are not masked do not matter.
    """
    rows, width = draws.mask.shape
    found = np.zeros((rows, width, draws.negatives.shape[2]), dtype=np.int64)
    for row in range(rows):
        own = draws.valid[row]
        frames = draws.frames[row]
        places = draws.negatives[row][own]
        found[row, frames[own]] = frames[places] + row * width
    return torch.from_numpy(found)


def their_softmax_with(noise: Tensor) -> Callable[..., Tensor]:
    """Make their Gumbel-softmax use our noise."""

    def gumbel_softmax(logits: Tensor, tau: float, hard: bool) -> Tensor:
        soft = ((logits + noise.view_as(logits)) / tau).softmax(-1)
        choice = torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0)
        return choice - soft.detach() + soft

    return gumbel_softmax


def their_training(
    model: Contrastive, batch: Batch, step: int
) -> tuple[Wav2Vec2ForPreTraining, Any]:
    """Make a twin and work out its losses in training.

    It gets the masks, negatives and noise that ``model`` draws.
    """
    draws, _ = drawn(model, batch, step)
    mask = torch.from_numpy(draws.mask)

    # We draw noise for masked frames only, they for all.
    assert draws.noise is not None
    everywhere = torch.zeros(mask.numel(), *draws.noise.shape[1:])
    everywhere[mask.flatten()] = torch.from_numpy(draws.noise)

    theirs = objective_twin(model)
    theirs.set_gumbel_temperature(model.quantizer.temperature(step))
    inputs, attention = their_inputs(batch, model.encoder.config.normalise_input)
    with patch.object(torch.nn.functional, "gumbel_softmax", their_softmax_with(everywhere)):
        result = theirs(
            inputs,
            attention_mask=attention,
            mask_time_indices=mask,
            sampled_negative_indices=their_negatives(draws),
        )
    return theirs, result
