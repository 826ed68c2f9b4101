"""Read Hugging Face folders of wav2vec 2.0 (BASE, LARGE, XLS-R, MMS), and write our models as such.

``theirs`` is always an object of transformers: a ``Wav2Vec2Config`` or a model.

Shapes: S samples, T frames, D width, V tokens, G codebooks, P width of the projections.
"""

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
from speechssl.errors import CheckpointError, ConfigError, SpeechsslError
from speechssl.interop.foreign_model import NEVER, Foreign, our_token_order, take_rows, with_rows
from speechssl.interop.our_models import Model, check_portable, encoder_of
from speechssl.interop.safe_loading import read_json, read_tensors, read_weights
from speechssl.interop.weight_names import from_dialect, to_dialect
from speechssl.pretraining.contrastive import Contrastive
from speechssl.recognition.model import CtcModel
from speechssl.storage.json_text import as_json
from speechssl.text.sentencepiece_tokenizer import SentencePieceTokenizer

# The space in an exported vocabulary: transformers 5 forgets any other sign for it when it reads
# the tokenizer back.
SPACE = "|"

# Settings of theirs that we do not have, and the only value under which the model is one of ours.
_FIXED = {
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "layer_norm_eps": 1e-5,
    "add_adapter": False,
    "use_weighted_layer_sum": False,
}

# Class of the tokenizers that can be read, and the name that this class had before.
_TOKENIZER = "Wav2Vec2CTCTokenizer"
_OLD_TOKENIZER = "Wav2Vec2Tokenizer"
# Of models over phones: no token between words, and every token is a word of its text.
_PHONE_TOKENIZER = "Wav2Vec2PhonemeCTCTokenizer"

# Languages that an error lists.
_MAX_LANGUAGES = 12


@contextmanager
def quiet_transformers() -> Iterator[Any]:
    """Give the transformers package, without its progress bars and advice while the block runs.

    Raises:
        ConfigError: it is not installed.
        CheckpointError: it fails in the block.
    """
    try:
        import transformers
        from transformers.utils import logging as transformers_logging
    except ImportError as error:
        raise ConfigError(
            "converting runs both models, and transformers is missing: "
            "pip install 'speechssl[convert]'"
        ) from error

    logs: Any = transformers_logging  # its functions have no types
    level = logs.get_verbosity()
    had_bars = logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()

    try:
        yield transformers
    except SpeechsslError:
        raise
    # On damaged files it ends in errors of many classes, its dependencies' among them.
    except Exception as error:
        raise CheckpointError(
            f"transformers fails on this model: {type(error).__name__}: {error}"
        ) from error
    finally:
        logs.set_verbosity(level)
        if had_bars:
            logs.enable_progress_bar()


def read_huggingface(folder: Path, language: str | None = None) -> Foreign:
    """Read a folder of ``Wav2Vec2Model``, ``Wav2Vec2ForPreTraining`` or ``Wav2Vec2ForCTC``.

    The weights decide which of the three it is.

    Args:
        language: of an MMS model with adapters, such as ``deu``: its adapter and vocabulary are
            taken; None = those that the folder has by default.

    Raises:
        CheckpointError: weights or files are missing, damaged, or not a wav2vec 2.0 that we can be
            equal to.
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

    if "quantizer.codevectors" in tensors:
        ours = from_dialect(tensors, config, "transformers", theirs.num_codevector_groups)
        run = _runner(folder, "Wav2Vec2ForPreTraining", extractor)
        return Foreign(config, ours, run, settings=_our_objective(theirs))

    ours = from_dialect(tensors, config, "transformers")
    if "head.weight" not in ours:
        return Foreign(config, ours, _runner(folder, "Wav2Vec2Model", extractor))

    tokens, rows = _vocabulary(folder, len(ours["head.weight"]), language)
    run = _runner(folder, "Wav2Vec2ForCTC", extractor, rows, language)
    return Foreign(config, with_rows(ours, rows), run, tokens)


def encoder_config(theirs: Any, extractor: Any) -> EncoderConfig:
    """Translate a ``Wav2Vec2Config`` and its feature extractor into settings of our encoder.

    Raises:
        CheckpointError: a setting that our encoder does not have.
    """
    for name, only in _FIXED.items():
        given = getattr(theirs, name)
        if given != only:
            raise CheckpointError(
                f"config.json has {name} = {given!r}, and only {only!r} can be imported"
            )

    pre_norm = theirs.do_stable_layer_norm
    # Their post-norm layers have no adapter, whatever the setting says.
    adapter_width = theirs.adapter_attn_dim if pre_norm else None
    convolutions = zip(theirs.conv_dim, theirs.conv_kernel, theirs.conv_stride, strict=True)

    table: Table = {
        "features": {"kind": "waveform", "sample_rate_hz": extractor.sampling_rate},
        "conv_layers": list(convolutions),
        "conv_norm": theirs.feat_extract_norm,
        "conv_bias": theirs.conv_bias,
        "normalise_input": extractor.do_normalize,
        "width": theirs.hidden_size,
        "num_layers": theirs.num_hidden_layers,
        "num_heads": theirs.num_attention_heads,
        "ffn_width": theirs.intermediate_size,
        "norm": "pre" if pre_norm else "post",
        "pos_kernel": theirs.num_conv_pos_embeddings,
        "pos_groups": theirs.num_conv_pos_embedding_groups,
        "adapter_width": adapter_width or 0,
        "dropout": theirs.hidden_dropout,
        "attention_dropout": theirs.attention_dropout,
        "activation_dropout": theirs.activation_dropout,
        "layer_drop": theirs.layerdrop,
    }

    return build(EncoderConfig, table)


def write_huggingface(model: Model, folder: Path) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Write a model, its processor and vocabulary into the empty ``folder``, as transformers does.

    Returns:
        The model as transformers reads it back, as ``Foreign.run``.

    Raises:
        ConfigError: transformers is not installed, or has no such front end, tokenizer or target.
    """
    check_portable(model)
    config = encoder_of(model).config
    rows: Sequence[int] = ()

    with quiet_transformers() as transformers:
        settings = their_settings(config)
        if isinstance(model, CtcModel):
            name = "Wav2Vec2ForCTC"
            rows = range(model.tokenizer.size)
            settings |= _write_tokenizer(transformers, model, folder)
        elif isinstance(model, Contrastive):
            name = "Wav2Vec2ForPreTraining"
            settings |= _their_objective(model)
        else:
            name = "Wav2Vec2Model"

        model_class = getattr(transformers, name)
        theirs = model_class(transformers.Wav2Vec2Config(**settings))
        theirs.load_state_dict(to_dialect(model.state_dict(), config, "transformers"))
        theirs.save_pretrained(folder)

        extractor = transformers.Wav2Vec2FeatureExtractor(
            sampling_rate=config.features.sample_rate_hz,
            do_normalize=config.normalise_input,
            return_attention_mask=config.conv_norm == "layer",
        )
        extractor.save_pretrained(folder)

    return _runner(folder, name, extractor, rows)


def their_settings(config: EncoderConfig) -> Table:
    """Translate an encoder's settings into keyword arguments of ``Wav2Vec2Config``."""
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


# ---- reading ----------------------------------------------------------------------------------


def _feature_extractor(transformers: Any, folder: Path, theirs: Any) -> Any:
    """Read the feature extractor of the folder.

    Where there is none, the rule of the published models holds: those with LayerNorm in every
    convolution normalise their input.
    """
    files = ("preprocessor_config.json", "processor_config.json")
    extractor_class = transformers.Wav2Vec2FeatureExtractor
    if any((folder / name).exists() for name in files):
        return extractor_class.from_pretrained(folder, local_files_only=True)
    return extractor_class(do_normalize=theirs.feat_extract_norm == "layer")


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove what stands before the encoder's names in models that have more than an encoder."""
    return {name.removeprefix("wav2vec2."): tensor for name, tensor in tensors.items()}


def _adapter(folder: Path, theirs: Any, language: str) -> dict[str, Tensor]:
    """Read the adapter weights and the head of one language of an MMS model."""
    file_of_language: dict[str, Path] = {}
    # A language may have files of both kinds: then safetensors is taken.
    for pattern in ("adapter.*.safetensors", "adapter.*.bin"):
        found = {path.name.split(".")[1]: path for path in sorted(folder.glob(pattern))}
        for name, path in found.items():
            file_of_language.setdefault(name, path)

    if theirs.adapter_attn_dim is None or language not in file_of_language:
        languages = list(file_of_language)[:_MAX_LANGUAGES]
        shown = ", ".join(languages) or "none: it is no MMS model with adapters"
        raise ConfigError(
            f"{folder} has no adapter for --language {language!r}; languages there: {shown}"
        )
    return read_weights(file_of_language[language])


def _vocabulary(
    folder: Path, num_rows: int, language: str | None
) -> tuple[tuple[str, ...], list[int]]:
    """Read the texts of the head's rows.

    Returns:
        As ``our_token_order``.
    """
    if not (folder / "vocab.json").exists():
        raise CheckpointError(
            f"{folder} has a CTC head and no vocab.json: save the processor beside the model"
        )

    settings_file = folder / "tokenizer_config.json"
    settings = read_json(settings_file, dict) if settings_file.exists() else {}
    kind = settings.get("tokenizer_class") or _TOKENIZER
    if kind not in (_TOKENIZER, _OLD_TOKENIZER, _PHONE_TOKENIZER):
        raise CheckpointError(
            f"{folder} has a tokenizer of class {kind}: "
            f"a {_TOKENIZER} or a {_PHONE_TOKENIZER} can be imported"
        )

    options = _language_option(folder, settings, language)
    if kind == _PHONE_TOKENIZER:
        options["do_phonemize"] = False  # it would need phonemizer, which decoding does not

    with quiet_transformers() as transformers:
        class_name = _PHONE_TOKENIZER if kind == _PHONE_TOKENIZER else _TOKENIZER
        tokenizer_class = getattr(transformers, class_name)
        tokenizer = tokenizer_class.from_pretrained(folder, local_files_only=True, **options)
        names = tokenizer.convert_ids_to_tokens(list(range(num_rows)))
        id_of_token = tokenizer.get_vocab() | tokenizer.encoder

        blank = id_of_token.get(tokenizer.pad_token, num_rows)
        # Where the folder has no padding token, transformers makes one up, behind the last id.
        in_vocabulary = tokenizer.pad_token in tokenizer.encoder
        if not in_vocabulary and not _is_added(folder, settings, tokenizer.pad_token):
            blank = num_rows
        unknown = id_of_token.get(tokenizer.unk_token, num_rows)

        text_of = _text_of_phone if kind == _PHONE_TOKENIZER else _text_of_token
        texts = [text_of(tokenizer, name) for name in names]
        rows = range(num_rows)
        blank_row = blank if blank in rows else -1
        unknown_row = unknown if unknown in rows else -1
        return our_token_order(texts, blank_row, unknown_row)


def _language_option(folder: Path, settings: Table, language: str | None) -> Table:
    """Choose the language, where the vocabulary has a table for each of several."""
    vocabulary = read_json(folder / "vocab.json", dict)
    has_languages = any(isinstance(value, dict) for value in vocabulary.values())
    if not has_languages:
        return {}

    chosen = language or settings.get("target_lang")
    if chosen not in vocabulary:
        shown = ", ".join(list(vocabulary)[:_MAX_LANGUAGES])
        raise ConfigError(
            f"{folder} has vocabularies by language: give --language, one of {shown} ..."
        )
    return {"target_lang": chosen}


def _is_added(folder: Path, settings: Table, token: str | None) -> bool:
    """Tell whether a token outside the vocabulary has an id in another file of the folder."""
    listed = settings.get("added_tokens_decoder", {}).values()
    if any(entry.get("content") == token for entry in listed):
        return True

    added = folder / "added_tokens.json"
    return added.exists() and token in read_json(added, dict)


def _text_of_token(tokenizer: Any, token: str) -> str:
    """Turn a token into what it stands for in a transcript."""
    if token == tokenizer.word_delimiter_token:
        return str(tokenizer.replace_word_delimiter_char)
    if tokenizer.do_lower_case:
        return token.lower()
    return token


def _text_of_phone(tokenizer: Any, token: str) -> str:
    """Put a space before a phone, as it decodes to a word of its own; markers stay."""
    if token == tokenizer.word_delimiter_token:
        return " "
    is_marker = token in tokenizer.all_special_tokens
    return token if is_marker else f" {token}"


def _our_objective(theirs: Any) -> Table:
    """Translate the settings of ``Wav2Vec2ForPreTraining`` into those of our contrastive task."""
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


def _runner(
    folder: Path, name: str, extractor: Any, rows: Sequence[int] = (), language: str | None = None
) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Make a function that runs the folder's model by transformers on one utterance.

    Args:
        name: of the model's class.
        rows: of the head, in our order.

    Returns:
        (S,) float32 samples -> what ``convert.outputs`` lists for a model of this kind.
    """
    options: Table = {}
    if language:
        options = {"target_lang": language, "ignore_mismatched_sizes": True}

    # Loaded at the first use, when our model is known to fit: the errors of ours are clearer.
    @cache
    def load() -> Any:
        with quiet_transformers() as transformers:
            model_class = getattr(transformers, name)
            theirs = model_class.from_pretrained(
                folder, local_files_only=True, dtype=torch.float32, **options
            )
            return theirs.eval()

    @torch.no_grad()
    def run(samples: Tensor) -> tuple[Tensor, ...]:
        theirs = load()
        batch = extractor(
            samples.numpy(), sampling_rate=extractor.sampling_rate, return_tensors="pt"
        )
        inputs = batch.input_values  # (1, S)

        if name == "Wav2Vec2ForCTC":
            return (take_rows(theirs(inputs).logits[0], rows, NEVER),)
        if name == "Wav2Vec2Model":
            return (theirs(inputs).last_hidden_state[0],)
        return _objective_outputs(theirs, inputs)

    return run


def _objective_outputs(theirs: Any, inputs: Tensor) -> tuple[Tensor, ...]:
    """Compute what ``convert.outputs`` lists for a contrastive task, by transformers' model."""
    found = theirs.wav2vec2(inputs)
    context = theirs.project_hid(found.last_hidden_state[0])  # (T, P)
    logits = theirs.quantizer.weight_proj(found.extract_features[0])  # (T, G V)

    codebooks = theirs.quantizer.codevectors[0].unflatten(0, (theirs.quantizer.num_groups, -1))
    # Code v of every codebook side by side, for each v.
    vectors = codebooks.transpose(0, 1).flatten(1)
    return context, logits, theirs.project_q(vectors)


# ---- writing ----------------------------------------------------------------------------------


def _their_objective(model: Contrastive) -> Table:
    """Translate a contrastive task's settings into keyword arguments of ``Wav2Vec2Config``."""
    config = model.config
    quantizer = model.quantizer.config

    if config.targets != "features":
        raise ConfigError(
            f"targets {config.targets!r} exist in no other library: fine-tune, and export that"
        )

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
    """Write the vocabulary as a ``Wav2Vec2CTCTokenizer``; of phones as the one for phonemes.

    A pronunciation lexicon is not part of it: it decodes to phones.

    Returns:
        Keyword arguments of ``Wav2Vec2Config`` that have to agree with it.
    """
    if isinstance(model.tokenizer, SentencePieceTokenizer):
        raise ConfigError(
            "transformers' CTC tokenizer joins letters, not pieces: "
            "fine-tune with --tokenizer chars"
        )

    texts = list(model.tokenizer.texts)
    if SPACE in texts:
        raise ConfigError(
            f"transformers has {SPACE!r} for the space, and this vocabulary has it as a letter"
        )

    # A phone has a space before it. Transcripts are not turned into phones there, for they would be
    # those of another program.
    has_phones = any(text.startswith(" ") and text != " " for text in texts)
    class_name = _PHONE_TOKENIZER if has_phones else _TOKENIZER
    options: Table = {"do_phonemize": False} if has_phones else {}

    tokens = [SPACE if text == " " else text.strip() for text in texts]
    if len(set(tokens)) < len(tokens):
        raise ConfigError(
            "transformers' CTC tokenizer takes every token once, and this vocabulary has one twice"
        )

    with TemporaryDirectory() as temporary:
        vocabulary = Path(temporary, "vocab.json")
        id_of_token = {token: number for number, token in enumerate(tokens)}
        vocabulary.write_text(as_json(id_of_token), encoding="utf-8")

        tokenizer = getattr(transformers, class_name)(
            vocabulary,
            pad_token=tokens[0],
            unk_token=tokens[1],
            bos_token=None,
            eos_token=None,
            **options,
        )
        tokenizer.save_pretrained(folder)

    return {
        "vocab_size": len(tokens),
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": None,
    }
