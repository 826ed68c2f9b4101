"""The same weights under the names that transformers, torchaudio and fairseq give them."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from speechssl.encoder.config import EncoderConfig
from speechssl.errors import CheckpointError, ConfigError

Dialect = Literal["transformers", "torchaudio", "fairseq"]

# Our module -> theirs. Of transformers and torchaudio the inner names are alike, only the places differ.
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
_OBJECTIVE = {  # codes' logits, codebook, projection of targets, of context
    "transformers": ("quantizer.weight_proj", "quantizer.codevectors", "project_q", "project_hid"),
    "fairseq": ("quantizer.weight_proj", "quantizer.vars", "project_q", "final_proj"),
}
_HEAD = {"transformers": "lm_head", "torchaudio": "aux", "fairseq": "proj"}
# What weight norm called its two tensors before torch 2.1, and calls them since; both are found in files.
_WEIGHT_NORM = {
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
}


def encoder_names(config: EncoderConfig, dialect: Dialect) -> dict[str, str]:
    """Our encoder's parameters -> theirs; in the names for ``qkv`` stands ``{}`` for q, k and v, three tensors there.

    Weight norm has its present names. transformers' names are those of ``Wav2Vec2Model``.
    """
    fairseq, torchaudio = dialect == "fairseq", dialect == "torchaudio"
    table = _FAIRSEQ if fairseq else _ALIKE
    context = "encoder.transformer." if torchaudio else "encoder."
    inner = "" if fairseq else context  # fairseq's table has whole names
    modules = {
        "norm": ("encoder." if torchaudio else "") + table["norm"],
        "projection": ("encoder." if torchaudio else "") + table["projection"],
        "context.norm": inner + table["context.norm"],
    }
    names = {} if torchaudio else {"mask_embedding": "mask_emb" if fairseq else "masked_spec_embed"}
    for i in range(len(config.conv_layers)):
        theirs = f"feature_extractor.conv_layers.{i}."
        names[f"front_end.convs.{i}.weight"] = theirs + ("0.weight" if fairseq else "conv.weight")
        if config.conv_bias:
            names[f"front_end.convs.{i}.bias"] = theirs + ("0.bias" if fairseq else "conv.bias")
        if config.conv_norm == "layer":
            modules[f"front_end.layer_norms.{i}"] = theirs + ("2.1" if fairseq else "layer_norm")
    if config.conv_norm == "group":
        modules["front_end.group_norm"] = "feature_extractor.conv_layers.0." + (
            "2" if fairseq else "layer_norm"
        )
    for end in ("bias", *_WEIGHT_NORM.values()):
        place = "encoder.pos_conv.0" if fairseq else f"{context}pos_conv_embed.conv"
        names[f"context.pos_conv.{end}"] = f"{place}.{end}"
    parts = ["attention_out", "attention_norm", "ffn_in", "ffn_out", "ffn_norm", "qkv"]
    parts += ["adapter.norm", "adapter.down", "adapter.up"] if config.adapter_width else []
    for i in range(config.num_layers):
        modules |= {
            f"context.layers.{i}.{part}": f"{context}layers.{i}.{table[part]}" for part in parts
        }
    return names | {
        f"{o}.{end}": f"{t}.{end}" for o, t in modules.items() for end in ("weight", "bias")
    }


def to_dialect(
    tensors: Mapping[str, Tensor], config: EncoderConfig, dialect: Dialect
) -> dict[str, Tensor]:
    """Our model's tensors (or their gradients) under their names.

    Args:
        tensors: of an ``Encoder``, a ``CtcModel`` or a ``Contrastive``; the latter two have ``encoder.`` before the
            encoder's names. torchaudio has no mask vector, and no objective: the vector is left out.
        config: of the encoder.
    """
    whole = any(name.startswith("encoder.") for name in tensors)
    own = {
        n.removeprefix("encoder."): t
        for n, t in tensors.items()
        if n.startswith("encoder.") or not whole
    }
    prefix = (
        {"transformers": "wav2vec2.", "torchaudio": "", "fairseq": ""}[dialect] if whole else ""
    )
    theirs: dict[str, Tensor] = {}
    for ours, name in encoder_names(config, dialect).items():
        if ours not in own:  # a parameter without a gradient
            continue
        if "{}" in name:
            theirs |= {
                prefix + name.format(p): t for p, t in zip("qkv", own[ours].chunk(3), strict=True)
            }
        else:
            theirs[prefix + name] = own[ours]
    if "head.weight" in tensors:
        theirs |= {f"{_HEAD[dialect]}.{end}": tensors[f"head.{end}"] for end in ("weight", "bias")}
    if "quantizer.codebook" in tensors:
        for ours, name in _objective_names(dialect).items():
            theirs[name] = (
                tensors[ours].flatten(0, 1)[None] if ours == "quantizer.codebook" else tensors[ours]
            )
    return theirs


def check_portable(config: EncoderConfig, tokens_per_frame: int) -> None:
    """Refuse what no other library has.

    Raises:
        ConfigError: a log-mel front end, convolutions in the layers, or several outputs a frame.
    """
    if config.features.kind != "waveform":
        raise ConfigError(
            f"{config.features.kind} front ends exist in no other library; recognisers: export --to onnx"
        )
    if config.conv_kernel or tokens_per_frame > 1:
        raise ConfigError(
            "conv_kernel and tokens_per_frame exist in no other library; recognisers: export --to onnx"
        )


def from_dialect(
    tensors: Mapping[str, Tensor], config: EncoderConfig, dialect: Dialect, num_codebooks: int = 0
) -> dict[str, Tensor]:
    """Their tensors as our model's, in float32; a name that is missing or unknown is an error, so nothing stays random.

    Weight norm may have either naming. Models that never mask have no mask vector: then ours is zero.

    Args:
        tensors: names without a prefix before the encoder's.
        num_codebooks: of the quantiser, where ``tensors`` hold one.

    Returns:
        an encoder's tensors with ``encoder.`` before their names, those of the head or of the objective beside them.

    Raises:
        CheckpointError: lists the names.
    """
    left = {_present_name(name): tensor.float() for name, tensor in tensors.items()}
    names = encoder_names(config, dialect)
    ours, missing = {}, []
    if names.get("mask_embedding") not in left:
        names.pop("mask_embedding", None)
        ours["encoder.mask_embedding"] = torch.zeros(config.width)
    names = {f"encoder.{own}": name for own, name in names.items()}
    if f"{_HEAD[dialect]}.weight" in left:
        names |= {f"head.{end}": f"{_HEAD[dialect]}.{end}" for end in ("weight", "bias")}
    if num_codebooks:
        names |= _objective_names(dialect)
    for own, name in names.items():
        wanted = [name.format(part) for part in "qkv"] if "{}" in name else [name]
        missing += [name for name in wanted if name not in left]
        found = [left.pop(name) for name in wanted if name in left]
        if len(found) == len(wanted):
            ours[own] = torch.cat(found)
    if num_codebooks and "quantizer.codebook" in ours:
        codebook = ours["quantizer.codebook"]
        ours["quantizer.codebook"] = codebook.reshape(num_codebooks, -1, codebook.shape[-1])
    problems = [f"missing {name}" for name in missing] + [f"unexpected {name}" for name in left]
    if problems:
        more = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise CheckpointError(
            f"weights do not fit a wav2vec 2.0 of these settings: {'; '.join(problems[:8])}{more}"
        )
    return ours


def _objective_names(dialect: Dialect) -> dict[str, str]:
    logits, codebook, target, context = _OBJECTIVE[dialect]
    modules = {
        "quantizer.logits": logits,
        "target_projection": target,
        "context_projection": context,
    }
    names = {
        f"{own}.{end}": f"{name}.{end}"
        for own, name in modules.items()
        for end in ("weight", "bias")
    }
    return names | {"quantizer.codebook": codebook}


def _present_name(name: str) -> str:
    stem, _, end = name.rpartition(".")
    return f"{stem}.{_WEIGHT_NORM[end]}" if end in _WEIGHT_NORM else name
