"""Translate our names of weights to those of transformers, torchaudio and fairseq, and back.

Shapes: D width of the encoder, G codebooks, V codes in each, E width of a code's vector.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from speechssl.encoder.config import EncoderConfig
from speechssl.errors import CheckpointError

Dialect = Literal["transformers", "torchaudio", "fairseq"]

# Our module -> theirs. transformers and torchaudio agree on these and differ in what stands before.
_ALIKE = {
    "norm": "feature_projection.layer_norm",
    "projection": "feature_projection.projection",
    "context.norm": "layer_norm",
    "attention_out": "attention.out_proj",
    "attention_norm": "layer_norm",
    "ffn_in": "feed_forward.intermediate_dense",
    "ffn_out": "feed_forward.output_dense",
    "ffn_norm": "final_layer_norm",
    "adapter.norm": "adapter_layer.norm",
    "adapter.down": "adapter_layer.linear_1",
    "adapter.up": "adapter_layer.linear_2",
    "qkv": "attention.{}_proj",
}
_FAIRSEQ = {
    "norm": "layer_norm",
    "projection": "post_extract_proj",
    "context.norm": "encoder.layer_norm",
    "attention_out": "self_attn.out_proj",
    "attention_norm": "self_attn_layer_norm",
    "ffn_in": "fc1",
    "ffn_out": "fc2",
    "ffn_norm": "final_layer_norm",
    "qkv": "self_attn.{}_proj",
}
_MODULES = {"transformers": _ALIKE, "torchaudio": _ALIKE, "fairseq": _FAIRSEQ}

# Which of these stand in every Transformer layer, and which in one with an adapter.
_LAYER_PARTS = ("attention_out", "attention_norm", "ffn_in", "ffn_out", "ffn_norm", "qkv")
_ADAPTER_PARTS = ("adapter.norm", "adapter.down", "adapter.up")

# What stands before the names of the context network.
_CONTEXT = {
    "transformers": "encoder.",
    "torchaudio": "encoder.transformer.",
    "fairseq": "encoder.",
}

# Parts of a convolution of the front end. fairseq numbers them: they are in an nn.Sequential.
_NAMED = {"weights": "conv", "layer norm": "layer_norm", "group norm": "layer_norm"}
_NUMBERED = {"weights": "0", "layer norm": "2.1", "group norm": "2"}
_CONVOLUTION = {"transformers": _NAMED, "torchaudio": _NAMED, "fairseq": _NUMBERED}

# The position convolution.
_POSITION = {
    "transformers": "encoder.pos_conv_embed.conv",
    "torchaudio": "encoder.transformer.pos_conv_embed.conv",
    "fairseq": "encoder.pos_conv.0",
}

# The mask vector. torchaudio has none.
_MASK_VECTOR = {"transformers": "masked_spec_embed", "fairseq": "mask_emb"}

# Modules of the contrastive task. torchaudio has no such task.
_OBJECTIVE = {
    "transformers": {
        "quantizer.logits": "quantizer.weight_proj",
        "target_projection": "project_q",
        "context_projection": "project_hid",
    },
    "fairseq": {
        "quantizer.logits": "quantizer.weight_proj",
        "target_projection": "project_q",
        "context_projection": "final_proj",
    },
}
_CODEBOOK = {"transformers": "quantizer.codevectors", "fairseq": "quantizer.vars"}

# The CTC head.
_HEAD = {"transformers": "lm_head", "torchaudio": "aux", "fairseq": "proj"}

# What stands before the encoder's names in a model that has more than an encoder.
_ENCODER_PREFIX = {"transformers": "wav2vec2.", "torchaudio": "", "fairseq": ""}

# Weight norm's two tensors: their names before torch 2.1 -> since then. Files have either.
_WEIGHT_NORM = {
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
}

_ENDS = ("weight", "bias")

# Names that an error lists before it only counts the rest.
_MAX_LISTED = 8


def encoder_names(config: EncoderConfig, dialect: Dialect) -> dict[str, str]:
    """Map the names of our encoder's parameters to theirs.

    Our ``qkv`` is three tensors there: its name of theirs has ``{}`` where q, k or v stands. Weight
    norm has the names that torch gives it since 2.1. transformers' names are those of
    ``Wav2Vec2Model``.
    """
    names: dict[str, str] = {}
    if dialect in _MASK_VECTOR:
        names["mask_embedding"] = _MASK_VECTOR[dialect]

    names |= _convolution_names(config, dialect)

    for end in ("bias", *_WEIGHT_NORM.values()):
        names[f"context.pos_conv.{end}"] = f"{_POSITION[dialect]}.{end}"

    modules = _modules_before_layers(dialect)
    modules |= _convolution_norms(config, dialect)
    modules |= _layer_modules(config, dialect)
    return names | _with_ends(modules)


def to_dialect(
    tensors: Mapping[str, Tensor], config: EncoderConfig, dialect: Dialect
) -> dict[str, Tensor]:
    """Give our model's tensors (or their gradients) the names of another library.

    Args:
        tensors: of an ``Encoder``, a ``CtcModel`` or a ``Contrastive``; the latter two have
            ``encoder.`` before the encoder's names. torchaudio has no mask vector and no
            contrastive task: the vector is left out.
        config: of the encoder.
    """
    has_more_than_encoder = any(name.startswith("encoder.") for name in tensors)
    if has_more_than_encoder:
        own = {
            n.removeprefix("encoder."): t for n, t in tensors.items() if n.startswith("encoder.")
        }
        prefix = _ENCODER_PREFIX[dialect]
    else:
        own = dict(tensors)
        prefix = ""

    theirs: dict[str, Tensor] = {}
    for ours, name in encoder_names(config, dialect).items():
        # Where gradients are given, a parameter may have none.
        if ours not in own:
            continue
        parts = _split_names(name)
        if len(parts) == 1:
            theirs[prefix + name] = own[ours]
            continue
        for part, piece in zip(parts, own[ours].chunk(len(parts)), strict=True):
            theirs[prefix + part] = piece

    if "head.weight" in tensors:
        for ours, name in _with_ends({"head": _HEAD[dialect]}).items():
            theirs[name] = tensors[ours]

    if "quantizer.codebook" in tensors:
        for ours, name in _with_ends(_OBJECTIVE[dialect]).items():
            theirs[name] = tensors[ours]
        # (G, V, E) here, (1, G V, E) there.
        theirs[_CODEBOOK[dialect]] = tensors["quantizer.codebook"].flatten(0, 1)[None]

    return theirs


def from_dialect(
    tensors: Mapping[str, Tensor], config: EncoderConfig, dialect: Dialect, num_codebooks: int = 0
) -> dict[str, Tensor]:
    """Give another library's tensors our names, in float32.

    A name that is missing or unknown is an error, so that no weight stays random. Weight norm may
    have either naming. Models that never mask have no mask vector: then ours is zero.

    Args:
        tensors: names without a prefix before the encoder's.
        num_codebooks: of the quantiser, where ``tensors`` hold one.

    Returns:
        An encoder's tensors with ``encoder.`` before their names, and those of the head or of the
        contrastive task beside them.

    Raises:
        CheckpointError: lists the names.
    """
    left = {_current_name(name): tensor.float() for name, tensor in tensors.items()}
    ours: dict[str, Tensor] = {}

    names = {f"encoder.{own}": name for own, name in encoder_names(config, dialect).items()}
    if names.get("encoder.mask_embedding") not in left:
        names.pop("encoder.mask_embedding", None)
        ours["encoder.mask_embedding"] = torch.zeros(config.width)

    if f"{_HEAD[dialect]}.weight" in left:
        names |= _with_ends({"head": _HEAD[dialect]})
    if num_codebooks:
        names |= _with_ends(_OBJECTIVE[dialect])
        names["quantizer.codebook"] = _CODEBOOK[dialect]

    missing: list[str] = []
    for own, name in names.items():
        wanted = _split_names(name)
        missing += [part for part in wanted if part not in left]
        found = [left.pop(part) for part in wanted if part in left]
        if len(found) == len(wanted):
            ours[own] = torch.cat(found)

    if num_codebooks and "quantizer.codebook" in ours:
        codebook = ours["quantizer.codebook"]  # (1, G V, E)
        ours["quantizer.codebook"] = codebook.reshape(num_codebooks, -1, codebook.shape[-1])

    _refuse_misfits(missing, unexpected=list(left))
    return ours


def _convolution_names(config: EncoderConfig, dialect: Dialect) -> dict[str, str]:
    """Name the weights and biases of the front end's convolutions."""
    convolution = _CONVOLUTION[dialect]["weights"]
    names: dict[str, str] = {}

    for index in range(len(config.conv_layers)):
        ours = f"front_end.convs.{index}"
        theirs = f"feature_extractor.conv_layers.{index}.{convolution}"
        names[f"{ours}.weight"] = f"{theirs}.weight"
        if config.conv_bias:
            names[f"{ours}.bias"] = f"{theirs}.bias"

    return names


def _modules_before_layers(dialect: Dialect) -> dict[str, str]:
    """Name the modules between the front end and the layers of the context network."""
    names = ("norm", "projection", "context.norm")
    if dialect == "fairseq":
        # Its table has whole names.
        return {name: _FAIRSEQ[name] for name in names}

    before = dict.fromkeys(names, "")
    if dialect == "torchaudio":
        before = dict.fromkeys(names, "encoder.")
    before["context.norm"] = _CONTEXT[dialect]
    return {name: before[name] + _ALIKE[name] for name in names}


def _convolution_norms(config: EncoderConfig, dialect: Dialect) -> dict[str, str]:
    """Name the LayerNorm of every convolution, or the GroupNorm of the first one."""
    modules: dict[str, str] = {}

    if config.conv_norm == "layer":
        norm = _CONVOLUTION[dialect]["layer norm"]
        for index in range(len(config.conv_layers)):
            theirs = f"feature_extractor.conv_layers.{index}"
            modules[f"front_end.layer_norms.{index}"] = f"{theirs}.{norm}"

    if config.conv_norm == "group":
        norm = _CONVOLUTION[dialect]["group norm"]
        modules["front_end.group_norm"] = f"feature_extractor.conv_layers.0.{norm}"

    return modules


def _layer_modules(config: EncoderConfig, dialect: Dialect) -> dict[str, str]:
    """Name the modules of every Transformer layer."""
    table = _MODULES[dialect]
    parts = list(_LAYER_PARTS)
    if config.adapter_width:
        parts += _ADAPTER_PARTS

    modules: dict[str, str] = {}
    for index in range(config.num_layers):
        theirs = f"{_CONTEXT[dialect]}layers.{index}"
        for part in parts:
            modules[f"context.layers.{index}.{part}"] = f"{theirs}.{table[part]}"
    return modules


def _with_ends(modules: Mapping[str, str]) -> dict[str, str]:
    """Name the weight and the bias of each module."""
    names: dict[str, str] = {}
    for ours, theirs in modules.items():
        for end in _ENDS:
            names[f"{ours}.{end}"] = f"{theirs}.{end}"
    return names


def _split_names(name: str) -> list[str]:
    """Name the tensors that one of ours is there: three where ``{}`` stands for q, k and v."""
    if "{}" in name:
        return [name.format(part) for part in "qkv"]
    return [name]


def _current_name(name: str) -> str:
    """Replace a name that weight norm had before torch 2.1."""
    stem, _, end = name.rpartition(".")
    if end in _WEIGHT_NORM:
        return f"{stem}.{_WEIGHT_NORM[end]}"
    return name


def _refuse_misfits(missing: list[str], unexpected: list[str]) -> None:
    """Raise an error that lists names, if there are any."""
    problems = [f"missing {name}" for name in missing]
    problems += [f"unexpected {name}" for name in unexpected]
    if not problems:
        return

    listed = "; ".join(problems[:_MAX_LISTED])
    if len(problems) > _MAX_LISTED:
        listed += f"; and {len(problems) - _MAX_LISTED} more"
    raise CheckpointError(f"weights do not fit a wav2vec 2.0 of these settings: {listed}")
