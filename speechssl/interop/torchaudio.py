"""torchaudio's wav2vec 2.0 models: a file of weights read as one of our models, a folder written from one."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torchaudio
from torch import Tensor

from speechssl.config import Table, build
from speechssl.encoder.config import WAV2VEC2_CONVS, EncoderConfig
from speechssl.encoder.encoder import Encoder
from speechssl.errors import CheckpointError, ConfigError
from speechssl.interop.foreign_model import NEVER, Foreign, our_token_order, take_rows, with_rows
from speechssl.interop.safe_loading import read_json, read_weights
from speechssl.interop.weight_names import check_portable, from_dialect, to_dialect
from speechssl.pretraining.contrastive import Contrastive
from speechssl.recognition.model import CtcModel
from speechssl.storage.json_text import as_json

WEIGHTS, SETTINGS, LABELS = "model.safetensors", "config.json", "labels.json"
# Heads of the models in torchaudio.pipelines, by width, layers and feed-forward width: no shape tells them.
_PUBLISHED_HEADS = {
    (768, 12, 3072): 12,
    (1024, 24, 4096): 16,
    (1280, 48, 5120): 16,
    (1920, 48, 7680): 16,
}
BLANK, UNKNOWN, SPACE = "-", "<unk>", "|"  # as torchaudio's own labels have them


def read_torchaudio(path: Path) -> Foreign:
    """A ``state_dict`` of ``torchaudio.models.Wav2Vec2Model``: safetensors or torch file, or a folder that we wrote.

    Beside it may lie ``config.json``, the keyword arguments of ``torchaudio.models.wav2vec2_model`` (and
    ``normalize_waveform``); without it the shape must be one of the published models'. A model with a CTC head needs
    ``labels.json``: the text of each of its outputs, the blank first, ``|`` for the space.

    Raises:
        CheckpointError: weights or labels are missing or do not fit.
    """
    path = path / WEIGHTS if path.is_dir() else path
    # The models in torchaudio.pipelines that normalise are wrapped, and so are their names.
    tensors = {name.removeprefix("model."): tensor for name, tensor in read_weights(path).items()}
    settings = (
        read_json(path.parent / SETTINGS, dict)
        if (path.parent / SETTINGS).exists()
        else _published(path, tensors)
    )
    config = encoder_config(settings)
    ours = from_dialect(tensors, config, "torchaudio")
    if "head.weight" not in ours:
        return Foreign(config, ours, peer(settings, tensors))
    if not (path.parent / LABELS).exists():
        raise CheckpointError(
            f"{path} has a CTC head: give the text of its outputs in {LABELS} beside it, blank first"
        )
    labels = read_json(path.parent / LABELS, list)
    if not all(isinstance(label, str) and label for label in labels) or len(set(labels)) < len(
        labels
    ):
        raise CheckpointError(
            f"{path.parent / LABELS} is no list of different texts, one for each output, blank first"
        )
    labels = [" " if label == SPACE else label for label in labels]
    if len(labels) != len(ours["head.weight"]):
        raise CheckpointError(
            f"{LABELS} has {len(labels)} labels, the CTC head of {path} {len(ours['head.weight'])}"
        )
    tokens, rows = our_token_order(labels, 0, labels.index(UNKNOWN) if UNKNOWN in labels else -1)
    return Foreign(config, with_rows(ours, rows), peer(settings, tensors, rows), tokens)


def encoder_config(settings: Table) -> EncoderConfig:
    """Our settings for keyword arguments of ``torchaudio.models.wav2vec2_model``.

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


def their_settings(config: EncoderConfig) -> Table:
    """Keyword arguments of ``torchaudio.models.wav2vec2_model`` for an encoder of ours, but for ``aux_num_out``."""
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
    """torchaudio's own model of its own ``settings``, filled with its ``tensors``."""
    own = {
        name: value
        for name, value in settings.items()
        if name not in ("normalize_waveform", "aux_num_out")
    }
    head = tensors.get("aux.weight")
    model = torchaudio.models.wav2vec2_model(**own, aux_num_out=None if head is None else len(head))
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return model.eval()


def their_input(samples: Tensor, settings: Table) -> Tensor:
    """(S,) -> (1, S) as the model wants it, which takes what it gets.

    torchaudio's pipelines normalise with an eps of 1e-5, as fairseq does, where transformers and we have 1e-7.
    """
    if not settings.get("normalize_waveform", settings["extractor_mode"] == "layer_norm"):
        return samples[None]
    centred = samples.double() - samples.double().mean()
    return (centred / (centred.square().mean() + 1e-7).sqrt()).float()[None]


def peer(
    settings: Table, tensors: Mapping[str, Tensor], rows: Sequence[int] = ()
) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """``their_model`` on one utterance: context or, with a head, logits in the order of ``rows``.

    It gets its settings as the file has them, not as we understood them: what we misread must show.
    """

    @cache
    def model() -> (
        torchaudio.models.Wav2Vec2Model
    ):  # built when ours is known to fit, whose errors are clearer
        return their_model(settings, tensors)

    @torch.no_grad()
    def run(samples: Tensor) -> tuple[Tensor, ...]:
        found = model()(their_input(samples, settings))[0][0]
        return (take_rows(found, rows, NEVER) if rows else found,)

    return run


def _published(path: Path, tensors: Mapping[str, Tensor]) -> Table:
    """Settings of a published model, which the shapes of its weights are those of; strides and heads have no shape."""
    try:
        convs = [
            tensors[f"feature_extractor.conv_layers.{i}.conv.weight"].shape
            for i in range(len(WAV2VEC2_CONVS))
        ]
        width = len(tensors["encoder.feature_projection.projection.bias"])
        place = "encoder.transformer.pos_conv_embed.conv."
        kernel = tensors[
            place
            + ("weight_v" if place + "weight_v" in tensors else "parametrizations.weight.original1")
        ]
        ffn = len(tensors["encoder.transformer.layers.0.feed_forward.intermediate_dense.bias"])
        num_layers = len(
            {n.split(".")[3] for n in tensors if n.startswith("encoder.transformer.layers.")}
        )
    except KeyError as error:
        raise CheckpointError(
            f"{path} holds no weights of torchaudio's wav2vec 2.0: there is no {error}"
        ) from error
    known = [(shape[0], *shape[2:]) for shape in convs] == [(c, k) for c, k, _ in WAV2VEC2_CONVS]
    num_heads = _PUBLISHED_HEADS.get((width, num_layers, ffn))
    if not known or num_heads is None or kernel.shape[2:] != (128,):
        raise CheckpointError(
            f"{path} has no published shape: write its wav2vec2_model arguments into {SETTINGS} beside"
        )
    layered = "feature_extractor.conv_layers.1.layer_norm.weight" in tensors
    return {
        "extractor_mode": "layer_norm" if layered else "group_norm",
        "extractor_conv_layer_config": None,
        "extractor_conv_bias": "feature_extractor.conv_layers.0.conv.bias" in tensors,
        "encoder_embed_dim": width,
        "encoder_projection_dropout": 0.1,
        "encoder_pos_conv_kernel": 128,
        "encoder_pos_conv_groups": 16,
        "encoder_num_layers": num_layers,
        "encoder_num_heads": num_heads,
        "encoder_attention_dropout": 0.0 if layered else 0.1,
        "encoder_ff_interm_features": ffn,
        "encoder_ff_interm_dropout": 0.0,
        "encoder_dropout": 0.0 if layered else 0.1,
        "encoder_layer_norm_first": layered,
        "encoder_layer_drop": 0.0 if layered else 0.05,
    }


def write_torchaudio(
    model: CtcModel | Contrastive | Encoder, folder: Path
) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Write a model into the empty ``folder`` as ``read_torchaudio`` reads it.

    ``torchaudio.models.wav2vec2_model(**config, aux_num_out=...)`` of ``config.json`` (less ``normalize_waveform``)
    takes ``model.safetensors`` as its ``state_dict``. torchaudio has no mask vector: it is left out.

    Returns:
        torchaudio's model with the weights as they were written, as ``Foreign.run``.

    Raises:
        ConfigError: torchaudio has no such front end, adapter or objective.
    """
    config = (model if isinstance(model, Encoder) else model.encoder).config
    check_portable(config, model.config.tokens_per_frame if isinstance(model, CtcModel) else 1)
    if config.adapter_width or isinstance(model, Contrastive):
        raise ConfigError("torchaudio has neither adapters nor this objective: export --to hf")
    tensors = to_dialect(model.state_dict(), config, "torchaudio")
    settings: dict[str, Any] = their_settings(config) | {
        "normalize_waveform": config.normalise_input
    }
    safetensors.torch.save_file(
        {name: t.clone().contiguous() for name, t in tensors.items()}, folder / WEIGHTS
    )
    (folder / SETTINGS).write_text(as_json(settings), encoding="utf-8")
    if not isinstance(model, CtcModel):
        return peer(settings, read_weights(folder / WEIGHTS))
    if SPACE in model.tokenizer.texts:
        raise ConfigError(
            f"torchaudio's labels have {SPACE!r} for the space, and this vocabulary has it as a letter"
        )
    labels = [
        BLANK,
        UNKNOWN,
        *(SPACE if text == " " else text for text in model.tokenizer.texts[2:]),
    ]
    (folder / LABELS).write_text(as_json(labels), encoding="utf-8")
    return peer(settings, read_weights(folder / WEIGHTS), list(range(len(labels))))
