"""The language model in a recogniser's model folder: kept there by ``tune-lm``, used from there."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from speechssl.config import as_table, build
from speechssl.decoding.arpa import is_binary
from speechssl.decoding.beam import BeamSearch
from speechssl.decoding.hypothesis import BeamConfig
from speechssl.decoding.lexicon import spellings
from speechssl.errors import CheckpointError
from speechssl.storage.checkpoint import load_folder, save_folder, stored_folder
from speechssl.text.tokenizers import Tokenizer

# The folder inside a model folder, and the name of the prior among its tensors.
LM_FOLDER = "lm"
LOG_PRIOR = "log_prior"


def save_lm(
    model: Path,
    lm: Path,
    words: Sequence[str] | None,
    config: BeamConfig,
    about: Mapping[str, Any],
    log_prior: Tensor | None = None,
) -> None:
    """Put a language model, its words and its weights into a model folder, where ``load_lm`` looks.

    Args:
        model: the model folder.
        lm: ARPA file, or a binary file of KenLM.
        words: what can be recognised; None for a language model over tokens.
        config: weights and width of the search.
        about: JSON values to keep, such as where the weights were found.
        log_prior: (V,) natural log of the share that each token has of all outputs.
    """
    name = "lm.bin" if is_binary(lm) else "lm.arpa"
    files = {name: lm.read_bytes()}
    if words is not None:
        lines = [f"{word}\n" for word in words]
        files["words.txt"] = "".join(lines).encode()

    tensors = {}
    if log_prior is not None:
        tensors[LOG_PRIOR] = log_prior

    record = {"kind": "lm", "file": name, "beam": as_table(config), "about": dict(about)}
    save_folder(model / LM_FOLDER, tensors, record, files)


def load_lm(model: Path, tokenizer: Tokenizer) -> BeamSearch | None:
    """Give the beam search of a model folder, or None if it has no language model.

    Raises:
        CheckpointError: the language model's folder is damaged.
        ConfigError: it is a binary file of KenLM, and flashlight-text is not installed.
    """
    folder = stored_folder(model / LM_FOLDER)
    if not folder.exists():
        return None

    tensors, record = load_folder(folder)
    config = build(BeamConfig, record["beam"])
    path = _lm_file(folder, record)
    prior = tensors.get(LOG_PRIOR)
    _check_prior(folder, prior, config, tokenizer)

    lexicon = None
    if config.unit == "words":
        words = (folder / "words.txt").read_text(encoding="utf-8").split("\n")[:-1]
        lexicon = spellings(tokenizer, words)
    return BeamSearch(tokenizer, path, lexicon, config, log_prior=prior)


def _lm_file(folder: Path, record: Mapping[str, Any]) -> Path:
    """Give the file that a record names: one whose checksum was verified, inside the folder."""
    name: str = record["file"]
    if name not in record["files"]:
        raise CheckpointError(
            f"{folder} names the language model {name!r}, which is not a file of it"
        )
    return folder / name


def _check_prior(
    folder: Path, prior: Tensor | None, config: BeamConfig, tokenizer: Tokenizer
) -> None:
    """See that the prior is there if it is used, and that it fits the recogniser's tokens."""
    missing = prior is None and config.prior_scale != 0
    misfit = prior is not None and prior.shape != (tokenizer.size,)

    if missing or misfit:
        raise CheckpointError(
            f"{folder} does not hold {LOG_PRIOR} of the {tokenizer.size} tokens of its recogniser"
        )
