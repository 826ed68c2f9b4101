"""Very small encoders, batches of noise, and the same weights in transformers' wav2vec 2.0."""

import numpy as np
import torch
from torch import Tensor
from transformers import Wav2Vec2Config

from speechssl.batching import Batch, utterance_key
from speechssl.config import build
from speechssl.ctc import CtcModel
from speechssl.encoder import Encoder, EncoderConfig
from speechssl.pretraining import Contrastive

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
    "large": {"features": {"kind": "waveform"}, "conv_norm": "layer", "norm": "pre", "normalise_input": True},
    "base-pre": {"features": {"kind": "waveform"}, "norm": "pre"},
    "logmel-2": {"features": {"kind": "logmel", "num_mels": 6}, "subsampling": 2, "norm": "post"},
    "logmel-4": {"features": {"kind": "logmel", "num_mels": 6}, "subsampling": 4, "norm": "pre"},
}


def tiny_config(kind: str, **changes: object) -> EncoderConfig:
    return build(EncoderConfig, TINY | KINDS[kind] | changes)


def tiny_encoder(kind: str, seed: int = 0, **changes: object) -> Encoder:
    """All weights random, those of the norms too, so that no two can be confused."""
    torch.manual_seed(seed)
    encoder = Encoder(tiny_config(kind, **changes))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return encoder.eval()


def noise(config: EncoderConfig, num_units: list[int], seed: int = 0) -> list[Tensor]:
    """An utterance of noise for each length: (S,) samples or (U, F) mel frames."""
    random = np.random.default_rng(seed)
    width = () if config.features.kind == "waveform" else (config.features.num_mels,)
    return [torch.from_numpy(random.standard_normal((n, *width), dtype=np.float32)) for n in num_units]


def batch_of(
    utterances: list[Tensor],
    ids: list[str] | None = None,
    texts: list[str] | None = None,
    more_padding: int = 0,
    fill: float = 0.0,
) -> Batch:
    """Padded with ``fill`` to the longest and ``more_padding`` beyond."""
    ids = ids or [f"utterance {i}" for i in range(len(utterances))]
    longest = max(map(len, utterances)) + more_padding
    inputs = torch.full((len(utterances), longest, *utterances[0].shape[1:]), fill)
    for row, utterance in zip(inputs, utterances, strict=True):
        row[: len(utterance)] = utterance
    lengths = torch.tensor([len(u) for u in utterances])
    keys = tuple(map(utterance_key, ids))
    return Batch(tuple(ids), keys, inputs, lengths, tuple(texts or [None] * len(ids)), int(lengths.sum()))


def gradients(model: Contrastive | CtcModel | Encoder) -> dict[str, Tensor]:
    """Gradients by name, and none left behind."""
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def their_config(config: EncoderConfig, **more: object) -> Wav2Vec2Config:
    channels, kernels, strides = zip(*config.conv_layers, strict=True)
    return Wav2Vec2Config(
        hidden_size=config.width,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        intermediate_size=config.ffn_width,
        conv_dim=list(channels),
        conv_kernel=list(kernels),
        conv_stride=list(strides),
        conv_bias=config.conv_norm == "layer",
        feat_extract_norm=config.conv_norm,
        do_stable_layer_norm=config.norm == "pre",
        num_conv_pos_embeddings=config.pos_kernel,
        num_conv_pos_embedding_groups=config.pos_groups,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        feat_proj_dropout=0.0,
        feat_quantizer_dropout=0.0,
        final_dropout=0.0,
        layerdrop=0.0,
        **more,
    )


def their_names(config: EncoderConfig) -> dict[str, str]:
    """Our parameter -> theirs, but for ``qkv``, which is three of theirs."""
    names = {"mask_embedding": "masked_spec_embed"}
    modules = {
        "norm": "feature_projection.layer_norm",
        "projection": "feature_projection.projection",
        "context.norm": "encoder.layer_norm",
    }
    for i in range(len(config.conv_layers)):
        theirs = f"feature_extractor.conv_layers.{i}"
        names[f"front_end.convs.{i}.weight"] = f"{theirs}.conv.weight"
        if config.conv_norm == "layer":
            names[f"front_end.convs.{i}.bias"] = f"{theirs}.conv.bias"
            modules[f"front_end.layer_norms.{i}"] = f"{theirs}.layer_norm"
    if config.conv_norm == "group":
        modules["front_end.group_norm"] = "feature_extractor.conv_layers.0.layer_norm"
    for end in ("bias", "parametrizations.weight.original0", "parametrizations.weight.original1"):
        names[f"context.pos_conv.{end}"] = f"encoder.pos_conv_embed.conv.{end}"
    for i in range(config.num_layers):
        parts = {
            "attention_out": "attention.out_proj",
            "attention_norm": "layer_norm",
            "ffn_in": "feed_forward.intermediate_dense",
            "ffn_out": "feed_forward.output_dense",
            "ffn_norm": "final_layer_norm",
        }
        modules |= {f"context.layers.{i}.{ours}": f"encoder.layers.{i}.{theirs}" for ours, theirs in parts.items()}
    return names | {f"{o}.{end}": f"{t}.{end}" for o, t in modules.items() for end in ("weight", "bias")}


def as_theirs(values: dict[str, Tensor], config: EncoderConfig, prefix: str = "") -> dict[str, Tensor]:
    """Weights (or gradients) of our encoder under transformers' names."""
    names, theirs = their_names(config), {}
    for name, value in values.items():
        if ".qkv." in name:
            layer, end = name.split(".")[2], name.split(".")[-1]
            for part, piece in zip("qkv", value.chunk(3), strict=True):
                theirs[f"{prefix}encoder.layers.{layer}.attention.{part}_proj.{end}"] = piece
        else:
            theirs[prefix + names[name]] = value
    return theirs


def objective_as_theirs(values: dict[str, Tensor], config: EncoderConfig) -> dict[str, Tensor]:
    """Weights (or gradients) of our whole pretraining model under the names of ``Wav2Vec2ForPreTraining``."""
    encoder = {n.removeprefix("encoder."): v for n, v in values.items() if n.startswith("encoder.")}
    theirs = as_theirs(encoder, config, "wav2vec2.")
    for end in ("weight", "bias"):
        theirs[f"quantizer.weight_proj.{end}"] = values[f"quantizer.logits.{end}"]
        theirs[f"project_q.{end}"] = values[f"target_projection.{end}"]
        theirs[f"project_hid.{end}"] = values[f"context_projection.{end}"]
    theirs["quantizer.codevectors"] = values["quantizer.codebook"].flatten(0, 1)[None]
    return theirs
