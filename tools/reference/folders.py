"""Random models, saved as transformers and fairseq save theirs."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from speechssl.encoder.config import EncoderConfig
from speechssl.encoder.encoder import Encoder
from speechssl.interop.weight_names import to_dialect
from speechssl.pretraining.contrastive import Contrastive
from speechssl.recognition.model import CtcModel

SMALL: dict[str, Any] = {
    "conv_dim": [8, 8, 8],
    "conv_kernel": [10, 3, 2],
    "conv_stride": [5, 2, 2],
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "num_codevectors_per_group": 5,
    "codevector_dim": 8,
    "proj_codevector_dim": 6,
}
LAYERED = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
STYLES: dict[str, dict[str, Any]] = {
    "base": {},
    "large": LAYERED,
    "large-post-norm": {"feat_extract_norm": "layer"},
    "adapters": LAYERED | {"adapter_attn_dim": 4},
}
# Markers, an upper-case alphabet, the blank neither first nor alone with its kind: as in fine-tuned
# models on the hub.
VOCABULARY = {"<s>": 0, "</s>": 1, "|": 2, "A": 3, "B": 4, "'": 5, "<unk>": 6, "<pad>": 7}


def randomise(model: nn.Module, seed: int = 0) -> Any:
    """Make all weights random, those of the norms too, so that no two can be confused.

    They are added to the model's own, so who makes the model seeds it too.
    """
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def save_transformers(
    folder: Path, kind: str = "Wav2Vec2ForCTC", style: str = "base", **settings: Any
) -> Any:
    """Save a random model with its processor, and a vocabulary where it has a head.

    It is the same in each run: in one of a hundred random models rounding differs by 1e-5.

    Returns:
        The model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = {"vocab_size": len(VOCABULARY), "pad_token_id": VOCABULARY["<pad>"]}
    config = transformers.Wav2Vec2Config(**SMALL | STYLES[style] | size | settings)
    torch.manual_seed(0)
    model = randomise(getattr(transformers, kind)(config))
    model.save_pretrained(folder)

    extractor = transformers.Wav2Vec2FeatureExtractor(
        do_normalize=style != "base", return_attention_mask=False
    )
    if kind != "Wav2Vec2ForCTC":
        extractor.save_pretrained(folder)
        return model

    save_tokenizer(folder, VOCABULARY)
    tokenizer = transformers.Wav2Vec2CTCTokenizer.from_pretrained(folder)
    transformers.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(folder)
    return model


def save_tokenizer(folder: Path, vocabulary: dict[str, Any], **settings: Any) -> None:
    """Write ``vocab.json`` and ``tokenizer_config.json``."""
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    settings = {"tokenizer_class": "Wav2Vec2CTCTokenizer"} | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def old_weight_norm(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the names that weight norm gave before torch 2.1, as most published files have them."""
    ends = {
        "parametrizations.weight.original0": "weight_g",
        "parametrizations.weight.original1": "weight_v",
    }
    renamed = {}
    for name, tensor in tensors.items():
        for new, old in ends.items():
            name = name.replace(new, old)
        renamed[name] = tensor
    return renamed


def fairseq_settings(config: EncoderConfig) -> dict[str, Any]:
    """Write the settings of an encoder as fairseq's wav2vec2 model has them."""
    return {
        "extractor_mode": "layer_norm" if config.conv_norm == "layer" else "default",
        "conv_feature_layers": " + ".join(f"[{tuple(layer)}]" for layer in config.conv_layers),
        "conv_bias": config.conv_bias,
        "encoder_layers": config.num_layers,
        "encoder_embed_dim": config.width,
        "encoder_ffn_embed_dim": config.ffn_width,
        "encoder_attention_heads": config.num_heads,
        "layer_norm_first": config.norm == "pre",
        "conv_pos": config.pos_kernel,
        "conv_pos_groups": config.pos_groups,
        "activation_fn": "gelu",
        "latent_groups": 2,
        "num_negatives": 10,
        "mask_length": 7,
    }


def save_fairseq(
    path: Path, model: Encoder | Contrastive | CtcModel, normalize: bool, flat: bool = True
) -> None:
    """Save a model as fairseq does.

    Args:
        flat: as ``args`` of flat namespaces (older fairseq) rather than ``cfg`` of nested tables.
    """
    encoder = model if isinstance(model, Encoder) else model.encoder
    settings = fairseq_settings(encoder.config)
    tensors = old_weight_norm(to_dialect(model.state_dict(), encoder.config, "fairseq"))

    is_tuned = isinstance(model, CtcModel)
    if is_tuned:
        tensors = _below_tuned_model(tensors)

    loaded: dict[str, Any] = {"model": tensors, "optimizer_history": [{"num_updates": 3}]}
    if flat:
        own = {"w2v_args": Namespace(**settings)} if is_tuned else settings
        loaded["args"] = Namespace(normalize=normalize, **own)
    else:
        own = {"w2v_args": {"model": settings, "task": {}}} if is_tuned else settings
        loaded["args"] = None
        loaded["cfg"] = {"task": {"normalize": normalize}, "model": own}

    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(loaded, path)


def _below_tuned_model(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name weights as in fairseq's fine-tuned model, which holds the pretrained one."""
    renamed = {}
    for name, tensor in tensors.items():
        is_head = name.startswith("proj.")
        prefix = "w2v_encoder." if is_head else "w2v_encoder.w2v_model."
        renamed[prefix + name] = tensor
    return renamed
