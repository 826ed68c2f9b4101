"""Hugging Face folders of wav2vec 2.0 (BASE, LARGE, XLS-R, MMS): read as one of our models, and written from one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from speechssl.config import Table, build
from speechssl.encoder.config import EncoderConfig
from speechssl.encoder.encoder import Encoder
from speechssl.errors import CheckpointError, ConfigError, SpeechsslError
from speechssl.interop.foreign_model import NEVER, Foreign, our_token_order, take_rows, with_rows
from speechssl.interop.safe_loading import read_json, read_tensors, read_weights
from speechssl.interop.weight_names import check_portable, from_dialect, to_dialect
from speechssl.pretraining.contrastive import Contrastive
from speechssl.recognition.model import CtcModel
from speechssl.storage.json_text import as_json
from speechssl.text.tokenizers import SentencePieceTokenizer

# Settings of theirs that we do not have, and the only value under which the model is one of ours.
_FIXED = {
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "layer_norm_eps": 1e-5,
    "add_adapter": False,
    "use_weighted_layer_sum": False,
}
_TOKENIZER = "Wav2Vec2CTCTokenizer"
SPACE = "|"  # in an exported vocabulary; transformers 5 forgets any other when it reads the tokenizer back


@contextmanager
def quiet_transformers() -> Iterator[Any]:
    """The transformers package, without its progress bars and advice while the block runs.

    Raises:
        ConfigError: it is not installed.
        CheckpointError: it fails in the block.
    """
    try:
        import transformers
        from transformers.utils import logging as loud
    except ImportError as error:
        raise ConfigError(
            "converting runs both models, and transformers is missing: pip install 'speechssl[convert]'"
        ) from error
    logs: Any = loud  # its functions have no types
    level, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        yield transformers
    except SpeechsslError:
        raise
    except (
        Exception
    ) as error:  # on damaged files it ends in errors of many classes, its dependencies' among them
        raise CheckpointError(
            f"transformers fails on this model: {type(error).__name__}: {error}"
        ) from error
    finally:
        logs.set_verbosity(level)
        if bars:
            logs.enable_progress_bar()


def read_huggingface(folder: Path, language: str | None = None) -> Foreign:
    """A folder of ``Wav2Vec2Model``, ``Wav2Vec2ForPreTraining`` or ``Wav2Vec2ForCTC``, whichever its weights are.

    Args:
        language: of an MMS model with adapters, such as ``deu``: its adapter and vocabulary are taken; None = those
            that the folder has by default.

    Raises:
        CheckpointError: weights or files are missing, damaged, or not a wav2vec 2.0 that we can be equal to.
        ConfigError: transformers is not installed, or there is no such language.
    """
    kind = read_json(folder / "config.json", dict).get("model_type")
    if kind != "wav2vec2":
        raise CheckpointError(
            f"{folder} holds a model of type {kind!r}: wav2vec2 (XLS-R and MMS too) can be imported"
        )
    with quiet_transformers() as transformers:
        theirs = transformers.Wav2Vec2Config.from_pretrained(folder, local_files_only=True)
        extractor = _feature_extractor(transformers, folder, theirs)
    config = encoder_config(theirs, extractor)
    tensors = _without_prefix(read_tensors(folder))
    if language is not None:
        tensors |= _without_prefix(_adapter(folder, theirs, language))
    objective = "quantizer.codevectors" in tensors
    ours = from_dialect(
        tensors, config, "transformers", theirs.num_codevector_groups if objective else 0
    )
    if objective:
        run = _peer(folder, "Wav2Vec2ForPreTraining", extractor)
        return Foreign(config, ours, run, settings=_objective_settings(theirs))
    if "head.weight" not in ours:
        return Foreign(config, ours, _peer(folder, "Wav2Vec2Model", extractor))
    tokens, rows = _vocabulary(folder, len(ours["head.weight"]), language)
    run = _peer(folder, "Wav2Vec2ForCTC", extractor, rows, language)
    return Foreign(config, with_rows(ours, rows), run, tokens)


def encoder_config(theirs: Any, extractor: Any) -> EncoderConfig:
    """Our settings of a ``Wav2Vec2Config`` and its feature extractor.

    Raises:
        CheckpointError: a setting that our encoder does not have.
    """
    for name, only in _FIXED.items():
        if (given := getattr(theirs, name)) != only:
            raise CheckpointError(
                f"config.json has {name} = {given!r}, and only {only!r} can be imported"
            )
    table: Table = {
        "features": {"kind": "waveform", "sample_rate_hz": extractor.sampling_rate},
        "conv_layers": list(
            zip(theirs.conv_dim, theirs.conv_kernel, theirs.conv_stride, strict=True)
        ),
        "conv_norm": theirs.feat_extract_norm,
        "conv_bias": theirs.conv_bias,
        "normalise_input": extractor.do_normalize,
        "width": theirs.hidden_size,
        "num_layers": theirs.num_hidden_layers,
        "num_heads": theirs.num_attention_heads,
        "ffn_width": theirs.intermediate_size,
        "norm": "pre" if theirs.do_stable_layer_norm else "post",
        "pos_kernel": theirs.num_conv_pos_embeddings,
        "pos_groups": theirs.num_conv_pos_embedding_groups,
        # Their post-norm layers have no adapter, whatever the setting says.
        "adapter_width": (theirs.adapter_attn_dim or 0) if theirs.do_stable_layer_norm else 0,
        "dropout": theirs.hidden_dropout,
        "attention_dropout": theirs.attention_dropout,
        "activation_dropout": theirs.activation_dropout,
        "layer_drop": theirs.layerdrop,
    }
    return build(EncoderConfig, table)


def _feature_extractor(transformers: Any, folder: Path, config: Any) -> Any:
    """As the folder has it; without one, the published rule: what has LayerNorm in every convolution is normalised."""
    if (folder / "preprocessor_config.json").exists() or (
        folder / "processor_config.json"
    ).exists():
        return transformers.Wav2Vec2FeatureExtractor.from_pretrained(folder, local_files_only=True)
    return transformers.Wav2Vec2FeatureExtractor(do_normalize=config.feat_extract_norm == "layer")


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("wav2vec2."): tensor for name, tensor in tensors.items()}


def _adapter(folder: Path, theirs: Any, language: str) -> dict[str, Tensor]:
    """Adapter weights and head of one language of an MMS model."""
    found = {path.name.split(".")[1]: path for path in sorted(folder.glob("adapter.*.safetensors"))}
    found |= {
        p.name.split(".")[1]: p
        for p in sorted(folder.glob("adapter.*.bin"))
        if p.name.split(".")[1] not in found
    }
    if theirs.adapter_attn_dim is None or language not in found:
        shown = ", ".join(list(found)[:12]) or "none: it is no MMS model with adapters"
        raise ConfigError(
            f"{folder} has no adapter for --language {language!r}; languages there: {shown}"
        )
    return read_weights(found[language])


def _vocabulary(
    folder: Path, num_rows: int, language: str | None
) -> tuple[tuple[str, ...], list[int]]:
    """Texts of the head's rows in our order, and the row of each."""
    if not (folder / "vocab.json").exists():
        raise CheckpointError(
            f"{folder} has a CTC head and no vocab.json: save the processor beside the model"
        )
    given = folder / "tokenizer_config.json"
    settings = read_json(given, dict) if given.exists() else {}
    if (kind := settings.get("tokenizer_class") or _TOKENIZER) not in (
        _TOKENIZER,
        "Wav2Vec2Tokenizer",
    ):  # its old name
        raise CheckpointError(
            f"{folder} has a tokenizer of class {kind}: a {_TOKENIZER} can be imported"
        )
    vocabulary, more = read_json(folder / "vocab.json", dict), {}
    if any(isinstance(value, dict) for value in vocabulary.values()):
        more["target_lang"] = language or settings.get("target_lang")
        if more["target_lang"] not in vocabulary:
            shown = ", ".join(list(vocabulary)[:12])
            raise ConfigError(
                f"{folder} has vocabularies by language: give --language, one of {shown} ..."
            )
    with quiet_transformers() as transformers:
        tokenizer = transformers.Wav2Vec2CTCTokenizer.from_pretrained(
            folder, local_files_only=True, **more
        )
        names = tokenizer.convert_ids_to_tokens(list(range(num_rows)))
        ids = tokenizer.get_vocab() | tokenizer.encoder
        blank, unknown = (
            ids.get(token, num_rows) for token in (tokenizer.pad_token, tokenizer.unk_token)
        )
        if tokenizer.pad_token not in tokenizer.encoder and not _added(
            folder, settings, tokenizer.pad_token
        ):
            blank = num_rows  # transformers makes one up, with the id behind the last
        space, given_space = tokenizer.word_delimiter_token, tokenizer.replace_word_delimiter_char
        names = [
            given_space if n == space else n.lower() if tokenizer.do_lower_case else n
            for n in names
        ]
        return our_token_order(names, *(row if row < num_rows else -1 for row in (blank, unknown)))


def _added(folder: Path, settings: Table, token: str | None) -> bool:
    """Whether a token that is not in the vocabulary has an id beside it."""
    beside = folder / "added_tokens.json"
    listed = settings.get("added_tokens_decoder", {}).values()
    return any(entry.get("content") == token for entry in listed) or (
        beside.exists() and token in read_json(beside, dict)
    )


def _objective_settings(theirs: Any) -> Table:
    return {
        "quantizer": {
            "num_codebooks": theirs.num_codevector_groups,
            "num_codes": theirs.num_codevectors_per_group,
            "width": theirs.codevector_dim,
        },
        "contrastive": {
            "num_negatives": theirs.num_negatives,
            "logit_temp": theirs.contrastive_logits_temperature,
            "width": theirs.proj_codevector_dim,
            "diversity_weight": theirs.diversity_loss_weight,
        },
    }


def _peer(
    folder: Path, name: str, extractor: Any, rows: Sequence[int] = (), language: str | None = None
) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """The folder's model as transformers runs it on one utterance; see ``convert.outputs`` for what is returned."""
    more = {"target_lang": language, "ignore_mismatched_sizes": True} if language else {}

    @cache
    def load() -> Any:  # when ours is known to fit, whose errors are clearer
        with quiet_transformers() as transformers:
            kind = getattr(transformers, name)
            return kind.from_pretrained(
                folder, local_files_only=True, dtype=torch.float32, **more
            ).eval()

    @torch.no_grad()
    def run(samples: Tensor) -> tuple[Tensor, ...]:
        model, rate = load(), extractor.sampling_rate
        inputs = extractor(samples.numpy(), sampling_rate=rate, return_tensors="pt").input_values
        if name == "Wav2Vec2ForCTC":
            return (take_rows(model(inputs).logits[0], rows, NEVER),)
        if name == "Wav2Vec2Model":
            return (model(inputs).last_hidden_state[0],)
        found = model.wav2vec2(inputs)
        quantizer = model.quantizer
        vectors = (
            quantizer.codevectors[0]
            .unflatten(0, (quantizer.num_groups, -1))
            .transpose(0, 1)
            .flatten(1)
        )
        logits = quantizer.weight_proj(found.extract_features[0])
        return model.project_hid(found.last_hidden_state[0]), logits, model.project_q(vectors)

    return run


def write_huggingface(
    model: CtcModel | Contrastive | Encoder, folder: Path
) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Write a model into the empty ``folder`` as transformers saves its own, processor and vocabulary included.

    Returns:
        the model read back by transformers, as ``Foreign.run``.

    Raises:
        ConfigError: transformers is not installed, or has no such front end, tokenizer or target.
    """
    encoder = model if isinstance(model, Encoder) else model.encoder
    config = encoder.config
    check_portable(config, model.config.tokens_per_frame if isinstance(model, CtcModel) else 1)
    name, more = "Wav2Vec2Model", {}
    with quiet_transformers() as transformers:
        if isinstance(model, CtcModel):
            name, more = "Wav2Vec2ForCTC", _write_tokenizer(transformers, model, folder)
        elif isinstance(model, Contrastive):
            name, more = "Wav2Vec2ForPreTraining", _their_objective(model)
        theirs = getattr(transformers, name)(
            transformers.Wav2Vec2Config(**their_settings(config), **more)
        )
        theirs.load_state_dict(to_dialect(model.state_dict(), config, "transformers"))
        theirs.save_pretrained(folder)
        rate, layered = config.features.sample_rate_hz, config.conv_norm == "layer"
        extractor = transformers.Wav2Vec2FeatureExtractor(
            sampling_rate=rate, do_normalize=config.normalise_input, return_attention_mask=layered
        )
        extractor.save_pretrained(folder)
    return _peer(
        folder, name, extractor, range(model.tokenizer.size) if isinstance(model, CtcModel) else ()
    )


def their_settings(config: EncoderConfig) -> Table:
    """Keyword arguments of ``Wav2Vec2Config`` for an encoder of ours."""
    channels, kernels, strides = zip(*config.conv_layers, strict=True)
    return {
        "conv_dim": list(channels),
        "conv_kernel": list(kernels),
        "conv_stride": list(strides),
        "conv_bias": config.conv_bias,
        "feat_extract_norm": config.conv_norm,
        "hidden_size": config.width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.ffn_width,
        "do_stable_layer_norm": config.norm == "pre",
        "num_conv_pos_embeddings": config.pos_kernel,
        "num_conv_pos_embedding_groups": config.pos_groups,
        "adapter_attn_dim": config.adapter_width or None,
        "hidden_dropout": config.dropout,
        "feat_proj_dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.activation_dropout,
        "layerdrop": config.layer_drop,
    }


def _their_objective(model: Contrastive) -> Table:
    if model.config.targets != "features":
        raise ConfigError(
            f"targets {model.config.targets!r} exist in no other library: fine-tune, and export that"
        )
    quantizer, config = model.quantizer.config, model.config
    return {
        "num_codevector_groups": quantizer.num_codebooks,
        "num_codevectors_per_group": quantizer.num_codes,
        "codevector_dim": quantizer.width,
        "proj_codevector_dim": config.width,
        "num_negatives": config.num_negatives,
        "contrastive_logits_temperature": config.logit_temp,
        "diversity_loss_weight": config.diversity_weight,
    }


def _write_tokenizer(transformers: Any, model: CtcModel, folder: Path) -> Table:
    """Write the vocabulary as a ``Wav2Vec2CTCTokenizer``; returns what the model's config says of it."""
    if isinstance(model.tokenizer, SentencePieceTokenizer):
        raise ConfigError(
            "transformers' CTC tokenizer joins letters, not pieces: fine-tune with --tokenizer chars"
        )
    texts = list(model.tokenizer.texts)
    if SPACE in texts:
        raise ConfigError(
            f"transformers has {SPACE!r} for the space, and this vocabulary has it as a letter"
        )
    texts = [SPACE if text == " " else text for text in texts]
    if len(set(texts)) < len(texts):
        raise ConfigError(
            "transformers' CTC tokenizer takes every token once, and this vocabulary has one twice"
        )
    with TemporaryDirectory() as temporary:
        vocabulary = Path(temporary, "vocab.json")
        vocabulary.write_text(as_json({text: i for i, text in enumerate(texts)}), encoding="utf-8")
        theirs = transformers.Wav2Vec2CTCTokenizer(
            vocabulary,
            pad_token=texts[0],
            unk_token=texts[1],
            bos_token=None,
            eos_token=None,
        )
        theirs.save_pretrained(folder)
    return {"vocab_size": len(texts), "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
