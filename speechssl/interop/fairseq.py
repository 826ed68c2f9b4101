"""Read fairseq's checkpoints of wav2vec 2.0 (``.pt``) as our models.

Only tensors and settings are loaded from a file.

Shapes: S samples, T frames, D width, V codes or tokens, G codebooks, P width of the projections.
"""

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
from speechssl.errors import CheckpointError, ConfigError
from speechssl.interop.foreign_model import Foreign, our_token_order, with_rows
from speechssl.interop.safe_loading import load_torch
from speechssl.interop.torchaudio import runner, their_input, their_model
from speechssl.interop.weight_names import from_dialect
from speechssl.storage.text_files import read_text

# The file of tokens beside a fine-tuned checkpoint.
DICTIONARY = "dict.ltr.txt"

# Bound on the convolutions of a front end, so that a short text cannot ask for a giant list.
MAX_CONVS = 64

# Bound on a number in the text of the convolutions: channels, kernel, stride or factor.
_NUMBERS_BELOW = 100_000

# Characters of a text that an error quotes, where the text may be long.
_QUOTED = 80

# The first rows of every head; <s> is the blank.
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")

# fairseq's default, as the text that its settings hold.
_DEFAULT_CONVS = repr(list(WAV2VEC2_CONVS))

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
    """Load the content of a torch file.

    Of Python objects only ``argparse.Namespace`` is allowed, which older settings are.

    Raises:
        CheckpointError: damaged, or any other object in it.
    """
    return load_torch(path, (argparse.Namespace,))


def is_fairseq(loaded: object) -> bool:
    """Tell whether the content of a torch file is a fairseq checkpoint."""
    if not isinstance(loaded, dict) or not isinstance(loaded.get("model"), dict):
        return False
    return "args" in loaded or "cfg" in loaded


def read_fairseq(path: Path, loaded: Mapping[str, Any]) -> Foreign:
    """Read a pretrained wav2vec 2.0, or one fine-tuned with CTC.

    A fine-tuned one needs ``dict.ltr.txt`` beside it. fairseq itself does not install beside
    today's torch. So our model is compared with torchaudio's, which is filled by torchaudio's own
    table of names and gets its settings from fairseq's directly.

    Args:
        path: for messages, and where the dictionary lies.
        loaded: its content.

    Raises:
        CheckpointError: another model, or settings that our encoder does not have.
    """
    # The one function of torchaudio's import that needs no fairseq.
    from torchaudio.models.wav2vec2.utils.import_fairseq import _convert_state_dict

    settings = _flat_settings(path, loaded)
    config = _encoder_config(path, settings)

    tensors: dict[str, Tensor] = {}
    for name, value in loaded["model"].items():
        if isinstance(value, Tensor):
            # A fine-tuned model holds the pretrained one, which is named w2v_model in it.
            own = str(name).removeprefix("w2v_encoder.").removeprefix("w2v_model.")
            tensors[own] = value

    is_objective = "quantizer.vars" in tensors
    num_codebooks = int(settings.get("latent_groups", 2))
    ours = from_dialect(tensors, config, "fairseq", num_codebooks if is_objective else 0)

    their_settings = _torchaudio_settings(settings)
    their_tensors = _convert_state_dict(tensors)

    if is_objective:
        run = _objective_runner(their_settings, their_tensors, tensors, num_codebooks)
        width = len(ours["target_projection.bias"])
        tables = _our_objective(settings, ours["quantizer.codebook"], width)
        return Foreign(config, ours, run, settings=tables)

    if "head.weight" not in ours:
        return Foreign(config, ours, runner(their_settings, their_tensors))

    dictionary = path.parent / DICTIONARY
    names = _read_dictionary(dictionary)
    num_rows = len(ours["head.weight"])
    if len(names) != num_rows:
        raise CheckpointError(f"{dictionary} makes {len(names)} tokens, the head has {num_rows}")

    blank = _SPECIAL.index("<s>")
    unknown = _SPECIAL.index("<unk>")
    tokens, rows = our_token_order(names, blank, unknown)
    run = runner(their_settings, their_tensors, rows)
    return Foreign(config, with_rows(ours, rows), run, tokens)


def conv_layers(text: str) -> list[tuple[int, ...]]:
    """Read a text such as ``[(512, 10, 5)] + [(512, 3, 2)] * 4`` as a list.

    fairseq leaves it to ``eval``; here it is only parsed, and no code in it is run.

    Returns:
        (channels, kernel, stride) of each convolution.

    Raises:
        CheckpointError: anything but lists of triples, sums and multiples of them.
    """
    try:
        parsed = _value(ast.parse(text, mode="eval").body, text)
    except (SyntaxError, RecursionError, TypeError) as error:
        raise CheckpointError(f"conv_feature_layers {text!r} cannot be read: {error}") from error

    if not isinstance(parsed, list):
        raise _not_convolutions(text)
    return parsed


# ---- settings ---------------------------------------------------------------------------------


def _flat_settings(path: Path, loaded: Mapping[str, Any]) -> Table:
    """Gather the encoder's settings and ``normalize``, wherever fairseq keeps them."""
    top = _table(loaded.get("cfg") or loaded.get("args"))
    task = _table(top.get("task")) or top
    model = _table(top.get("model")) or top

    # A fine-tuned checkpoint carries the pretrained one's settings, which are whole or flat again.
    if model.get("w2v_args") is not None:
        pretrained = _table(model["w2v_args"])
        model = _table(pretrained.get("model")) or pretrained

    if "encoder_layers" not in model:
        raise CheckpointError(f"{path} has no settings of a wav2vec 2.0: encoder_layers is missing")
    return {**model, "normalize": bool(task.get("normalize", False))}


def _table(value: object) -> Table:
    """Turn settings of either form into a table; anything else becomes an empty one."""
    if isinstance(value, argparse.Namespace):
        return dict(vars(value))
    if isinstance(value, Mapping):
        return dict(value)
    return {}


def _encoder_config(path: Path, settings: Table) -> EncoderConfig:
    """Translate fairseq's settings into those of our encoder."""
    for name, only in _FIXED.items():
        given = settings.get(name, only)
        if given != only:
            raise CheckpointError(
                f"{path} has {name} = {given!r}, and only {only!r} can be imported"
            )

    get = settings.get
    layered = get("extractor_mode", "default") == "layer_norm"

    table = {
        "features": {"kind": "waveform"},
        "conv_layers": conv_layers(get("conv_feature_layers", _DEFAULT_CONVS)),
        "conv_norm": "layer" if layered else "group",
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


def _our_objective(settings: Table, codebook: Tensor, width: int) -> Table:
    """Translate fairseq's settings into those of our contrastive task.

    Args:
        codebook: (G, V, width of a vector).
        width: of the space in which context and target are compared.
    """
    num_codebooks, num_codes, vector_width = codebook.shape
    get = settings.get

    return {
        "quantizer": {
            "num_codebooks": num_codebooks,
            "num_codes": num_codes,
            "width": num_codebooks * vector_width,
        },
        "contrastive": {
            "num_negatives": get("num_negatives", 100),
            "logit_temp": get("logit_temp", 0.1),
            "width": width,
            "front_end_gradient": get("feature_grad_mult", 1.0),
        },
        "mask": {"prob": get("mask_prob", 0.65), "length": get("mask_length", 10)},
    }


def _torchaudio_settings(settings: Table) -> Table:
    """Translate fairseq's settings into arguments of torchaudio's ``wav2vec2_model``.

    They do not come from our settings, so that what we misread shows in the outputs. Names and
    defaults are those of torchaudio's documentation.
    """
    get = settings.get
    mode = get("extractor_mode", "default")
    if mode == "default":
        mode = "group_norm"

    return {
        "extractor_mode": mode,
        "extractor_conv_layer_config": conv_layers(get("conv_feature_layers", _DEFAULT_CONVS)),
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


# ---- the text of the convolutions -------------------------------------------------------------


def _value(node: ast.expr, text: str) -> Any:
    """Compute a part of the text, and refuse a list as soon as it is too long."""
    found = _unbounded_value(node, text)
    if isinstance(found, list) and len(found) > MAX_CONVS:
        raise CheckpointError(
            f"conv_feature_layers {text[:_QUOTED]!r} has more than {MAX_CONVS} convolutions"
        )
    return found


def _unbounded_value(node: ast.expr, text: str) -> Any:
    """Compute a number, a triple, a list, or the sum or multiple of lists."""
    if isinstance(node, ast.Constant):
        # bool is a kind of int, and no number here.
        if type(node.value) is int and 0 < node.value < _NUMBERS_BELOW:
            return node.value

    elif isinstance(node, ast.Tuple):
        if len(node.elts) == 3:
            return tuple(_value(item, text) for item in node.elts)

    elif isinstance(node, ast.List):
        return [_value(item, text) for item in node.elts]

    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mult):
        left = _value(node.left, text)
        right = _value(node.right, text)

        if isinstance(node.op, ast.Add):
            if isinstance(left, list) and isinstance(right, list):
                return left + right
        elif isinstance(left, list) and isinstance(right, int) and right <= MAX_CONVS:
            return left * right

    raise _not_convolutions(text)


def _not_convolutions(text: str) -> CheckpointError:
    return CheckpointError(
        f"conv_feature_layers {text!r} is not a sum of lists of (channels, kernel, stride)"
    )


# ---- what torchaudio does not have ------------------------------------------------------------


def _objective_runner(
    settings: Table,
    their_tensors: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    num_codebooks: int,
) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Make a function that runs a pretrained model on one utterance, its contrastive task included.

    Args:
        settings: of torchaudio's model.
        their_tensors: of the encoder, under torchaudio's names.
        tensors: of everything, under fairseq's names.

    Returns:
        (S,) float32 samples -> what ``convert.outputs`` lists for a contrastive task.
    """
    own = {name: tensor.float() for name, tensor in tensors.items()}

    # Built at the first use, when our model is known to fit, as in torchaudio's runner.
    @cache
    def model() -> Any:
        return their_model(settings, their_tensors)

    def linear(inputs: Tensor, name: str) -> Tensor:
        return F.linear(inputs, own[f"{name}.weight"], own[f"{name}.bias"])

    @torch.no_grad()
    def run(samples: Tensor) -> tuple[Tensor, ...]:
        inputs = their_input(samples, settings)
        context = model()(inputs)[0][0]  # (T, D)

        frames = model().feature_extractor(inputs, None)[0][0]
        norm_weight = own["layer_norm.weight"]
        norm_bias = own["layer_norm.bias"]
        normed = F.layer_norm(frames, frames.shape[-1:], norm_weight, norm_bias)

        # Code v of every codebook side by side, for each v.
        codebooks = own["quantizer.vars"][0].chunk(num_codebooks)
        vectors = torch.cat(codebooks, dim=1)

        return (
            linear(context, "final_proj"),
            linear(normed, "quantizer.weight_proj"),
            linear(vectors, "project_q"),
        )

    return run


def _read_dictionary(path: Path) -> Sequence[str]:
    """Read the texts of the head's rows: the four special ones, then the first column of the file.

    ``|`` stands for the space.
    """
    try:
        lines = read_text(path).splitlines()
    except ConfigError as error:
        raise CheckpointError(
            f"a fine-tuned fairseq model needs its dictionary: cannot read {path}: {error}"
        ) from error

    symbols = [line.rsplit(" ", 1)[0] for line in lines if line.strip()]
    letters = [" " if symbol == "|" else symbol for symbol in symbols]
    return [*_SPECIAL, *letters]
