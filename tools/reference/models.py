"""Very small encoders, batches of noise, and the same weights in transformers' wav2vec 2.0."""

import numpy as np
import torch
from torch import Tensor
from transformers import Wav2Vec2Config

from speechssl.config import build
from speechssl.data.collate import Batch, utterance_key
from speechssl.encoder.config import EncoderConfig
from speechssl.encoder.encoder import Encoder
from speechssl.interop.huggingface import their_settings
from speechssl.interop.weight_names import to_dialect
from speechssl.pretraining.contrastive import Contrastive
from speechssl.recognition.model import CtcModel

TINY = {
    "conv_layers": ((8, 10, 5), (8, 3, 2), (8, 2, 2)),  # 20 samples a frame
    "channels": 8,
    "width": 16,
    "num_layers": 2,
    "num_heads": 2,
    "ffn_width": 24,
    "pos_kernel": 8,
    "pos_groups": 4,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "layer_drop": 0.0,
}
KINDS = {
    "base": {"features": {"kind": "waveform"}},
    "large": {
        "features": {"kind": "waveform"},
        "conv_norm": "layer",
        "conv_bias": True,
        "norm": "pre",
        "normalise_input": True,
    },
    "base-pre": {"features": {"kind": "waveform"}, "norm": "pre"},
    "logmel-2": {"features": {"kind": "logmel", "num_mels": 6}, "subsampling": 2, "norm": "post"},
    "logmel-4": {
        "features": {"kind": "logmel", "num_mels": 6},
        "subsampling": 4,
        "norm": "pre",
        "conv_kernel": 3,
    },
    "convolutions": {
        "features": {"kind": "logmel", "num_mels": 6},
        "front_end": "conv2d",
        "subsampling": 3,
        "context": "convolution",
        "dilations": (1, 2),
    },
}
KINDS["batch-norm"] = KINDS["convolutions"] | {"mel_norm": "corpus", "batch_norm": True}
KINDS["speech-norm"] = KINDS["batch-norm"] | {"mel_norm": "speech"}


def tiny_config(kind: str, **changes: object) -> EncoderConfig:
    """Make the settings of a very small encoder of one of KINDS."""
    return build(EncoderConfig, TINY | KINDS[kind] | changes)


def tiny_encoder(kind: str, seed: int = 0, **changes: object) -> Encoder:
    """Make an encoder with all weights and statistics random, those of the norms too.

    So no two weights can be confused.
    """
    torch.manual_seed(seed)
    encoder = Encoder(tiny_config(kind, **changes))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        for buffer in encoder.buffers():
            if buffer.is_floating_point():
                buffer.add_(0.2 * torch.rand_like(buffer))
    return encoder.eval()


def noise(config: EncoderConfig, input_lengths: list[int], seed: int = 0) -> list[Tensor]:
    """Make an utterance of noise for each length: (S,) samples or (U, F) mel frames."""
    random = np.random.default_rng(seed)
    width = () if config.features.kind == "waveform" else (config.features.num_mels,)

    utterances = []
    for length in input_lengths:
        values = random.standard_normal((length, *width), dtype=np.float32)
        utterances.append(torch.from_numpy(values))
    return utterances


def batch_of(
    utterances: list[Tensor],
    ids: list[str] | None = None,
    texts: list[str] | None = None,
    more_padding: int = 0,
    fill: float = 0.0,
) -> Batch:
    """Make a batch, padded with ``fill`` to the longest and ``more_padding`` beyond."""
    ids = ids or [f"utterance {i}" for i in range(len(utterances))]
    keys = tuple(map(utterance_key, ids))
    all_texts = tuple(texts or [None] * len(ids))

    longest = max(map(len, utterances)) + more_padding
    inputs = torch.full((len(utterances), longest, *utterances[0].shape[1:]), fill)
    for row, utterance in zip(inputs, utterances, strict=True):
        row[: len(utterance)] = utterance

    lengths = torch.tensor([len(utterance) for utterance in utterances])
    return Batch(tuple(ids), keys, inputs, lengths, all_texts, int(lengths.sum()))


def gradients(model: Contrastive | CtcModel | Encoder) -> dict[str, Tensor]:
    """Take the gradients by name, and leave none behind."""
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def their_config(config: EncoderConfig, **more: object) -> Wav2Vec2Config:
    """Make transformers' settings without any dropout, whatever ``config`` says."""
    names = (
        "hidden_dropout",
        "attention_dropout",
        "activation_dropout",
        "feat_proj_dropout",
        "feat_quantizer_dropout",
        "final_dropout",
        "layerdrop",
    )
    still = dict.fromkeys(names, 0.0)
    return Wav2Vec2Config(**their_settings(config) | still | more)


def as_theirs(
    values: dict[str, Tensor], config: EncoderConfig, prefix: str = ""
) -> dict[str, Tensor]:
    """Name weights (or gradients) of our encoder as transformers does."""
    renamed = to_dialect(values, config, "transformers")
    return {prefix + name: value for name, value in renamed.items()}


def objective_as_theirs(values: dict[str, Tensor], config: EncoderConfig) -> dict[str, Tensor]:
    """Name weights (or gradients) of our pretraining model as ``Wav2Vec2ForPreTraining`` does."""
    return to_dialect(values, config, "transformers")
