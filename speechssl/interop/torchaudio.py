"""Read torchaudio's wav2vec 2.0 models as ours, and write folders of ours that torchaudio can load.

``settings`` are always the keyword arguments of ``torchaudio.models.wav2vec2_model``, and
``normalize_waveform`` beside them.

Shapes: S samples, T frames, D width, V tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import safetensors.torch
import torch
import torchaudio
from torch import Tensor

from speechssl.config import Table, build
from speechssl.encoder.config import WAV2VEC2_CONVS, EncoderConfig
from speechssl.errors import CheckpointError, ConfigError
from speechssl.interop.foreign_model import NEVER, Foreign, our_token_order, take_rows, with_rows
from speechssl.interop.our_models import Model, check_portable, encoder_of
from speechssl.interop.safe_loading import read_json, read_weights
from speechssl.interop.weight_names import from_dialect, to_dialect
from speechssl.pretraining.contrastive import Contrastive
from speechssl.recognition.model import CtcModel
from speechssl.storage.json_text import as_json

# Files of a folder that we wrote.
WEIGHTS = "model.safetensors"
SETTINGS = "config.json"
LABELS = "labels.json"

# Texts of special outputs, as torchaudio's own labels have them.
BLANK = "-"
UNKNOWN = "<unk>"
SPACE = "|"

# Added inside the square root when a waveform is normalised, as transformers and we do.
# torchaudio's pipelines have 1e-5 there, as fairseq does.
_NORMALISE_EPS = 1e-7

# Attention heads of the models in torchaudio.pipelines, by width, number of layers and feed-forward
# width. No shape of a weight tells the number of heads.
_PUBLISHED_HEADS = {
    (768, 12, 3072): 12,
    (1024, 24, 4096): 16,
    (1280, 48, 5120): 16,
    (1920, 48, 7680): 16,
}

# Kernel of the position convolution in every published model, frames.
_PUBLISHED_POS_KERNEL = 128

# Names in torchaudio's models.
_CONV = "feature_extractor.conv_layers"
_POS_CONV = "encoder.transformer.pos_conv_embed.conv"
_LAYERS = "encoder.transformer.layers"


def read_torchaudio(path: Path) -> Foreign:
    """Read a ``state_dict`` of ``torchaudio.models.Wav2Vec2Model``.

    Beside it may lie ``config.json``, the keyword arguments of ``torchaudio.models.wav2vec2_model``
    (and ``normalize_waveform``). Without it the shape must be one of the published models'. A model
    with a CTC head needs ``labels.json``: the text of each of its outputs, the blank first, ``|``
    for the space.

    Args:
        path: a safetensors or torch file, or a folder that we wrote.

    Raises:
        CheckpointError: weights or labels are missing or do not fit.
    """
    if path.is_dir():
        path = path / WEIGHTS

    # The models in torchaudio.pipelines that normalise are wrapped, and so are their names.
    tensors = {name.removeprefix("model."): tensor for name, tensor in read_weights(path).items()}

    settings_file = path.parent / SETTINGS
    if settings_file.exists():
        settings = read_json(settings_file, dict)
    else:
        settings = _published(path, tensors)

    config = encoder_config(settings)
    ours = from_dialect(tensors, config, "torchaudio")
    if "head.weight" not in ours:
        return Foreign(config, ours, runner(settings, tensors))

    labels = _read_labels(path, len(ours["head.weight"]))
    unknown = labels.index(UNKNOWN) if UNKNOWN in labels else -1
    tokens, rows = our_token_order(labels, 0, unknown)
    return Foreign(config, with_rows(ours, rows), runner(settings, tensors, rows), tokens)


def encoder_config(settings: Table) -> EncoderConfig:
    """Translate torchaudio's settings into those of our encoder.

    Raises:
        CheckpointError: one is missing.
    """
    try:
        norm = settings["extractor_mode"].removesuffix("_norm")

        table = {
            "features": {"kind": "waveform"},
            "conv_layers": settings["extractor_conv_layer_config"] or WAV2VEC2_CONVS,
            "conv_norm": norm,
            "conv_bias": settings["extractor_conv_bias"],
            "normalise_input": settings.get("normalize_waveform", norm == "layer"),
            "width": settings["encoder_embed_dim"],
            "num_layers": settings["encoder_num_layers"],
            "num_heads": settings["encoder_num_heads"],
            "ffn_width": settings["encoder_ff_interm_features"],
            "norm": "pre" if settings["encoder_layer_norm_first"] else "post",
            "pos_kernel": settings["encoder_pos_conv_kernel"],
            "pos_groups": settings["encoder_pos_conv_groups"],
            "dropout": settings["encoder_dropout"],
            "attention_dropout": settings["encoder_attention_dropout"],
            "activation_dropout": settings["encoder_ff_interm_dropout"],
            "layer_drop": settings["encoder_layer_drop"],
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{SETTINGS} is not the arguments of torchaudio.models.wav2vec2_model: {error}"
        ) from error

    return build(EncoderConfig, table)


def write_torchaudio(model: Model, folder: Path) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Write a model into the empty ``folder`` as ``read_torchaudio`` reads it.

    ``torchaudio.models.wav2vec2_model(**config, aux_num_out=...)`` of ``config.json`` (less
    ``normalize_waveform``) takes ``model.safetensors`` as its ``state_dict``. torchaudio has no
    mask vector: it is left out.

    Returns:
        torchaudio's model with the weights as they were written, as ``Foreign.run``.

    Raises:
        ConfigError: torchaudio has no such front end, adapter or objective.
    """
    check_portable(model)
    config = encoder_of(model).config
    if config.adapter_width or isinstance(model, Contrastive):
        raise ConfigError("torchaudio has neither adapters nor this objective: export --to hf")

    tensors = to_dialect(model.state_dict(), config, "torchaudio")
    # Copies: the file format takes no two tensors that share memory, such as the parts of qkv.
    copies = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(copies, folder / WEIGHTS)

    settings = their_settings(config)
    settings["normalize_waveform"] = config.normalise_input
    (folder / SETTINGS).write_text(as_json(settings), encoding="utf-8")

    if not isinstance(model, CtcModel):
        return runner(settings, read_weights(folder / WEIGHTS))

    if SPACE in model.tokenizer.texts:
        raise ConfigError(
            f"torchaudio's labels have {SPACE!r} for the space, "
            "and this vocabulary has it as a letter"
        )
    letters = [SPACE if text == " " else text for text in model.tokenizer.texts[2:]]
    labels = [BLANK, UNKNOWN, *letters]
    (folder / LABELS).write_text(as_json(labels), encoding="utf-8")

    all_rows = list(range(len(labels)))
    return runner(settings, read_weights(folder / WEIGHTS), all_rows)


def their_settings(config: EncoderConfig) -> Table:
    """Translate our encoder's settings into torchaudio's.

    All are there but ``aux_num_out``, the number of tokens.
    """
    return {
        "extractor_mode": f"{config.conv_norm}_norm",
        "extractor_conv_layer_config": [list(layer) for layer in config.conv_layers],
        "extractor_conv_bias": config.conv_bias,
        "encoder_embed_dim": config.width,
        "encoder_projection_dropout": config.dropout,
        "encoder_pos_conv_kernel": config.pos_kernel,
        "encoder_pos_conv_groups": config.pos_groups,
        "encoder_num_layers": config.num_layers,
        "encoder_num_heads": config.num_heads,
        "encoder_attention_dropout": config.attention_dropout,
        "encoder_ff_interm_features": config.ffn_width,
        "encoder_ff_interm_dropout": config.activation_dropout,
        "encoder_dropout": config.dropout,
        "encoder_layer_norm_first": config.norm == "pre",
        "encoder_layer_drop": config.layer_drop,
    }


def their_model(settings: Table, tensors: Mapping[str, Tensor]) -> torchaudio.models.Wav2Vec2Model:
    """Build torchaudio's own model from its ``settings`` and fill it with its ``tensors``."""
    not_for_the_encoder = ("normalize_waveform", "aux_num_out")
    own = {name: value for name, value in settings.items() if name not in not_for_the_encoder}
    num_tokens = len(tensors["aux.weight"]) if "aux.weight" in tensors else None

    model = torchaudio.models.wav2vec2_model(**own, aux_num_out=num_tokens)
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return model.eval()


def their_input(samples: Tensor, settings: Table) -> Tensor:
    """Prepare samples as torchaudio's model wants them, which does not normalise by itself.

    Args:
        samples: (S,) float32.

    Returns:
        (1, S) float32.
    """
    layered = settings["extractor_mode"] == "layer_norm"
    if not settings.get("normalize_waveform", layered):
        return samples[None]

    centred = samples.double() - samples.double().mean()
    variance = centred.square().mean()
    normalised = centred / (variance + _NORMALISE_EPS).sqrt()
    return normalised.float()[None]


def runner(
    settings: Table, tensors: Mapping[str, Tensor], rows: Sequence[int] = ()
) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Make a function that runs ``their_model`` on one utterance.

    The model gets its settings as the file has them, not as we understood them: what we misread
    must show in the outputs.

    Args:
        rows: of the head, in our order; none = the model has no head.

    Returns:
        (S,) float32 samples -> its context (T, D), or its logits (T, V) in the order of ``rows``.
    """

    # Built at the first use, when our model is known to fit: the errors of ours are clearer.
    @cache
    def model() -> torchaudio.models.Wav2Vec2Model:
        return their_model(settings, tensors)

    @torch.no_grad()
    def run(samples: Tensor) -> tuple[Tensor, ...]:
        outputs, _ = model()(their_input(samples, settings))
        found = outputs[0]
        if rows:
            found = take_rows(found, rows, NEVER)
        return (found,)

    return run


def _published(path: Path, tensors: Mapping[str, Tensor]) -> Table:
    """Find the settings of a published model from the shapes of its weights.

    Strides and attention heads show in no shape: they are those of the published model that has
    all other shapes.
    """
    try:
        kernels = [
            tensors[f"{_CONV}.{index}.conv.weight"].shape for index in range(len(WAV2VEC2_CONVS))
        ]
        width = len(tensors["encoder.feature_projection.projection.bias"])

        # Weight norm has had two names.
        old_name = f"{_POS_CONV}.weight_v"
        new_name = f"{_POS_CONV}.parametrizations.weight.original1"
        position_kernel = tensors[old_name] if old_name in tensors else tensors[new_name]

        ffn_width = len(tensors[f"{_LAYERS}.0.feed_forward.intermediate_dense.bias"])
    except KeyError as error:
        raise CheckpointError(
            f"{path} holds no weights of torchaudio's wav2vec 2.0: there is no {error}"
        ) from error

    layers = {name.split(".")[3] for name in tensors if name.startswith(f"{_LAYERS}.")}
    num_heads = _PUBLISHED_HEADS.get((width, len(layers), ffn_width))

    found_convs = [(shape[0], *shape[2:]) for shape in kernels]
    published_convs = [(channels, kernel) for channels, kernel, _ in WAV2VEC2_CONVS]
    is_published = (
        num_heads is not None
        and found_convs == published_convs
        and position_kernel.shape[2:] == (_PUBLISHED_POS_KERNEL,)
    )
    if not is_published:
        raise CheckpointError(
            f"{path} has no published shape: "
            f"write its wav2vec2_model arguments into {SETTINGS} beside"
        )

    settings: Table = {
        "extractor_conv_layer_config": None,
        "extractor_conv_bias": f"{_CONV}.0.conv.bias" in tensors,
        "encoder_embed_dim": width,
        "encoder_projection_dropout": 0.1,
        "encoder_pos_conv_kernel": _PUBLISHED_POS_KERNEL,
        "encoder_pos_conv_groups": 16,
        "encoder_num_layers": len(layers),
        "encoder_num_heads": num_heads,
        "encoder_ff_interm_features": ffn_width,
        "encoder_ff_interm_dropout": 0.0,
    }

    # LARGE and later models have LayerNorm in every convolution, and more differs with it.
    if f"{_CONV}.1.layer_norm.weight" in tensors:
        return settings | {
            "extractor_mode": "layer_norm",
            "encoder_layer_norm_first": True,
            "encoder_attention_dropout": 0.0,
            "encoder_dropout": 0.0,
            "encoder_layer_drop": 0.0,
        }

    return settings | {
        "extractor_mode": "group_norm",
        "encoder_layer_norm_first": False,
        "encoder_attention_dropout": 0.1,
        "encoder_dropout": 0.1,
        "encoder_layer_drop": 0.05,
    }


def _read_labels(path: Path, num_outputs: int) -> list[str]:
    """Read the texts of the head's outputs beside the weights in ``path``.

    Raises:
        CheckpointError: there are none, or not one different text for each output.
    """
    labels_file = path.parent / LABELS
    if not labels_file.exists():
        raise CheckpointError(
            f"{path} has a CTC head: give the text of its outputs in {LABELS} beside it, "
            "blank first"
        )

    labels = read_json(labels_file, list)
    are_texts = all(isinstance(label, str) and label for label in labels)
    if not are_texts or len(set(labels)) < len(labels):
        raise CheckpointError(
            f"{labels_file} is no list of different texts, one for each output, blank first"
        )
    if len(labels) != num_outputs:
        raise CheckpointError(
            f"{LABELS} has {len(labels)} labels, the CTC head of {path} {num_outputs}"
        )
    return [" " if label == SPACE else label for label in labels]
