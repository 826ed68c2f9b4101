"""fairseq's checkpoints of wav2vec 2.0 (``.pt``), read as one of our models; only tensors and settings are loaded."""

import argparse
import ast
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from speechssl.config import Table, build
from speechssl.encoder.config import WAV2VEC2_CONVS, EncoderConfig
from speechssl.errors import CheckpointError
from speechssl.interop.foreign_model import Foreign, our_token_order, with_rows
from speechssl.interop.safe_loading import load_torch
from speechssl.interop.torchaudio import peer, their_input, their_model
from speechssl.interop.weight_names import from_dialect

DICTIONARY = "dict.ltr.txt"
MAX_CONVS = 64
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # the first rows of every head; <s> is the blank
# Settings that we do not have, and the only value under which the model is one of ours.
_FIXED = {
    "activation_fn": "gelu",
    "quantize_input": False,
    "negatives_from_everywhere": False,
    "same_quantizer": False,
    "target_glu": False,
    "codebook_negatives": 0,
    "cross_sample_negatives": 0,
    "quantizer_depth": 1,
    "pos_conv_depth": 1,
    "layer_type": "transformer",
}


def load_fairseq(path: Path) -> Any:
    """Content of a torch file. Of Python objects only ``argparse.Namespace`` is allowed, which older settings are.

    Raises:
        CheckpointError: damaged, or any other object in it.
    """
    return load_torch(path, (argparse.Namespace,))


def is_fairseq(loaded: object) -> bool:
    """Whether the content of a torch file is a fairseq checkpoint."""
    return (
        isinstance(loaded, dict)
        and isinstance(loaded.get("model"), dict)
        and not {"args", "cfg"}.isdisjoint(loaded)
    )


def read_fairseq(path: Path, loaded: Mapping[str, Any]) -> Foreign:
    """A pretrained wav2vec 2.0, or one fine-tuned with CTC, which needs ``dict.ltr.txt`` beside it.

    As fairseq itself does not install beside today's torch, the model that ours is compared with is torchaudio's,
    filled by torchaudio's own table of names, with settings that go from fairseq's to torchaudio's directly.

    Args:
        path: for messages, and where the dictionary lies.
        loaded: its content.

    Raises:
        CheckpointError: another model, or settings that our encoder does not have.
    """
    # The one function of torchaudio's import that needs no fairseq.
    from torchaudio.models.wav2vec2.utils.import_fairseq import _convert_state_dict

    settings = _settings(path, loaded)
    config = _encoder_config(path, settings)
    theirs = {
        str(n).removeprefix("w2v_encoder."): t
        for n, t in loaded["model"].items()
        if isinstance(t, Tensor)
    }
    tensors = {name.removeprefix("w2v_model."): tensor for name, tensor in theirs.items()}
    objective = "quantizer.vars" in tensors
    groups = int(settings.get("latent_groups", 2))
    ours = from_dialect(tensors, config, "fairseq", groups if objective else 0)
    arguments, converted = _torchaudio_settings(settings), _convert_state_dict(tensors)
    if objective:
        tables = _objective(
            settings, ours["quantizer.codebook"], len(ours["target_projection.bias"])
        )
        return Foreign(
            config, ours, _objective_peer(arguments, converted, tensors, groups), settings=tables
        )
    if "head.weight" not in ours:
        return Foreign(config, ours, peer(arguments, converted))
    names = _dictionary(path.parent / DICTIONARY)
    if len(names) != len(ours["head.weight"]):
        raise CheckpointError(
            f"{path.parent / DICTIONARY} makes {len(names)} tokens, the head has {len(ours['head.bias'])}"
        )
    tokens, rows = our_token_order(names, 0, _SPECIAL.index("<unk>"))
    return Foreign(config, with_rows(ours, rows), peer(arguments, converted, rows), tokens)


def _settings(path: Path, loaded: Mapping[str, Any]) -> Table:
    """Settings of the encoder in one flat table, wherever its fairseq kept them; ``normalize`` among them."""
    whole = loaded.get("cfg") or loaded.get("args")
    top = _table(whole)
    task, model = _table(top.get("task")) or top, _table(top.get("model")) or top
    # A fine-tuned checkpoint carries the pretrained one's settings, which are themselves whole or flat.
    if model.get("w2v_args") is not None:
        inner = _table(model["w2v_args"])
        model = _table(inner.get("model")) or inner
    if "encoder_layers" not in model:
        raise CheckpointError(f"{path} has no settings of a wav2vec 2.0: encoder_layers is missing")
    return {**model, "normalize": bool(task.get("normalize", False))}


def _table(value: object) -> Table:
    if isinstance(value, argparse.Namespace):
        return dict(vars(value))
    return dict(value) if isinstance(value, Mapping) else {}


def _encoder_config(path: Path, settings: Table) -> EncoderConfig:
    for name, only in _FIXED.items():
        if (given := settings.get(name, only)) != only:
            raise CheckpointError(
                f"{path} has {name} = {given!r}, and only {only!r} can be imported"
            )
    get = settings.get
    table = {
        "features": {"kind": "waveform"},
        "conv_layers": conv_layers(get("conv_feature_layers", repr(list(WAV2VEC2_CONVS)))),
        "conv_norm": "layer" if get("extractor_mode", "default") == "layer_norm" else "group",
        "conv_bias": get("conv_bias", False),
        "normalise_input": settings["normalize"],
        "width": get("encoder_embed_dim", 768),
        "num_layers": settings["encoder_layers"],
        "num_heads": get("encoder_attention_heads", 12),
        "ffn_width": get("encoder_ffn_embed_dim", 3072),
        "norm": "pre" if get("layer_norm_first", False) else "post",
        "pos_kernel": get("conv_pos", 128),
        "pos_groups": get("conv_pos_groups", 16),
        "dropout": get("dropout", 0.1),
        "attention_dropout": get("attention_dropout", 0.1),
        "activation_dropout": get("activation_dropout", 0.0),
        "layer_drop": get("encoder_layerdrop", 0.0),
    }
    return build(EncoderConfig, table)


def conv_layers(text: str) -> list[tuple[int, ...]]:
    """``[(512, 10, 5)] + [(512, 3, 2)] * 4`` as a list, which fairseq leaves to ``eval``; nothing is evaluated here.

    Raises:
        CheckpointError: anything but lists of triples, sums and multiples of them.
    """

    def value(node: ast.expr) -> Any:
        found = part(node)
        if isinstance(found, list) and len(found) > MAX_CONVS:
            raise CheckpointError(
                f"conv_feature_layers {text[:80]!r} has more than {MAX_CONVS} convolutions"
            )
        return found

    def part(node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and type(node.value) is int and 0 < node.value < 100_000:
            return node.value
        if isinstance(node, ast.Tuple) and len(node.elts) == 3:
            return tuple(value(item) for item in node.elts)
        if isinstance(node, ast.List):
            return [value(item) for item in node.elts]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mult):
            left, right = value(node.left), value(node.right)
            if isinstance(node.op, ast.Add) and isinstance(left, list) and isinstance(right, list):
                return left + right
            if (
                isinstance(node.op, ast.Mult)
                and isinstance(left, list)
                and isinstance(right, int)
                and right <= MAX_CONVS
            ):
                return left * right
        raise CheckpointError(
            f"conv_feature_layers {text!r} is not a sum of lists of (channels, kernel, stride)"
        )

    try:
        parsed = value(ast.parse(text, mode="eval").body)
    except (SyntaxError, RecursionError, TypeError) as error:
        raise CheckpointError(f"conv_feature_layers {text!r} cannot be read: {error}") from error
    if not isinstance(parsed, list):
        raise CheckpointError(
            f"conv_feature_layers {text!r} is not a sum of lists of (channels, kernel, stride)"
        )
    return parsed


def _objective(settings: Table, codebook: Tensor, width: int) -> Table:
    get, (groups, codes, entry_width) = settings.get, codebook.shape
    return {
        "quantizer": {"num_codebooks": groups, "num_codes": codes, "width": groups * entry_width},
        "contrastive": {
            "num_negatives": get("num_negatives", 100),
            "logit_temp": get("logit_temp", 0.1),
            "width": width,
            "front_end_gradient": get("feature_grad_mult", 1.0),
        },
        "mask": {"prob": get("mask_prob", 0.65), "length": get("mask_length", 10)},
    }


def _torchaudio_settings(settings: Table) -> Table:
    """Arguments of torchaudio's ``wav2vec2_model``: not by way of ours, so that what we misread shows.

    Names and defaults as torchaudio's documentation gives them.
    """
    get = settings.get
    return {
        "extractor_mode": {"default": "group_norm"}.get(
            name := get("extractor_mode", "default"), name
        ),
        "extractor_conv_layer_config": conv_layers(
            get("conv_feature_layers", repr(list(WAV2VEC2_CONVS)))
        ),
        "extractor_conv_bias": get("conv_bias", False),
        "encoder_embed_dim": get("encoder_embed_dim", 768),
        "encoder_projection_dropout": 0.0,
        "encoder_pos_conv_kernel": get("conv_pos", 128),
        "encoder_pos_conv_groups": get("conv_pos_groups", 16),
        "encoder_num_layers": settings["encoder_layers"],
        "encoder_num_heads": get("encoder_attention_heads", 12),
        "encoder_attention_dropout": 0.0,
        "encoder_ff_interm_features": get("encoder_ffn_embed_dim", 3072),
        "encoder_ff_interm_dropout": 0.0,
        "encoder_dropout": 0.0,
        "encoder_layer_norm_first": get("layer_norm_first", False),
        "encoder_layer_drop": 0.0,
        "normalize_waveform": settings["normalize"],
    }


def _objective_peer(
    settings: Table, converted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], groups: int
) -> Callable[[Tensor], tuple[Tensor, ...]]:
    own = {name: tensor.float() for name, tensor in tensors.items()}

    def linear(inputs: Tensor, name: str) -> Tensor:
        return F.linear(inputs, own[f"{name}.weight"], own[f"{name}.bias"])

    @cache
    def model() -> Any:  # when ours is known to fit, as in ``peer``
        return their_model(settings, converted)

    @torch.no_grad()
    def run(samples: Tensor) -> tuple[Tensor, ...]:
        inputs = their_input(samples, settings)
        context, frames = model()(inputs)[0][0], model().feature_extractor(inputs, None)[0][0]
        normed = F.layer_norm(
            frames, frames.shape[-1:], own["layer_norm.weight"], own["layer_norm.bias"]
        )
        vectors = torch.cat(own["quantizer.vars"][0].chunk(groups), dim=1)
        return (
            linear(context, "final_proj"),
            linear(normed, "quantizer.weight_proj"),
            linear(vectors, "project_q"),
        )

    return run


def _dictionary(path: Path) -> Sequence[str]:
    """Texts of the head's rows: the four special ones, then the first column of the file, ``|`` as the space."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"a fine-tuned fairseq model needs its dictionary: cannot read {path}: {error}"
        ) from error
    symbols = [line.rsplit(" ", 1)[0] for line in lines if line.strip()]
    return [*_SPECIAL, *(" " if symbol == "|" else symbol for symbol in symbols)]
