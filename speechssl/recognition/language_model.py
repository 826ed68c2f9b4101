"""The language model in a recogniser's model folder: kept there by ``tune-lm``, used from there."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechssl.config import as_table, build
from speechssl.decoding.arpa import is_binary
from speechssl.decoding.beam import BeamSearch
from speechssl.decoding.hypothesis import BeamConfig
from speechssl.decoding.lexicon import spellings
from speechssl.decoding.ngram_table import SearchTable, from_tensors, read_search_table
from speechssl.decoding.word_model import word_model
from speechssl.errors import CheckpointError
from speechssl.storage.checkpoint import load_folder, load_record, save_folder
from speechssl.storage.saved_folders import RECORD, stored_folder
from speechssl.storage.text_files import read_text
from speechssl.text.tokenizer import Tokenizer

# The folder inside a model folder, and the name of the prior among its tensors.
LM_FOLDER = "lm"
LOG_PRIOR = "log_prior"
# The words that can be recognised, and those of the language model by id.
WORDS_FILE = "words.txt"
LM_WORDS_FILE = "lm_words.txt"


def save_lm(
    model: Path,
    lm: Path | SearchTable,
    words: Sequence[str] | None,
    config: BeamConfig,
    about: Mapping[str, Any],
    log_prior: Tensor | None = None,
) -> None:
    """Put a language model, its words and its weights into a model folder, where ``load_lm`` looks.

    One over words is kept as the arrays of the search, which are read much faster than ARPA.

    Args:
        model: the model folder.
        lm: over words, an ARPA file or what was read from it; over tokens, an ARPA file, or a
            binary file of KenLM.
        words: what can be recognised; None for a language model over tokens.
        config: weights and width of the search.
        about: JSON values to keep, such as where the weights were found.
        log_prior: (V,) natural log of the share that each token has of all outputs.
    """
    record: dict[str, Any] = {"kind": "lm", "beam": as_table(config), "about": dict(about)}
    files: dict[str, bytes] = {}
    tensors: dict[str, Tensor] = {}

    if words is not None:
        table = read_search_table(lm) if isinstance(lm, Path) else lm
        files[WORDS_FILE] = _as_lines(words)
        files[LM_WORDS_FILE] = _as_lines(table.words)

        for name, array in table.as_tensors().items():
            tensors[name] = torch.from_numpy(array)
    else:
        assert isinstance(lm, Path), "a language model over tokens is a file"

        if is_binary(lm):
            record["file"] = "lm.bin"
            files["lm.bin"] = lm.read_bytes()
        else:
            # Its name does not say that it is compressed, if it was.
            record["file"] = "lm.arpa"
            files["lm.arpa"] = read_text(lm, "an ARPA file").encode()

    if log_prior is not None:
        tensors[LOG_PRIOR] = log_prior
    save_folder(model / LM_FOLDER, tensors, record, files)


def lm_digest(lm: Path) -> dict[str, str]:
    """Give what tells the file of a language model from others, for ``about`` of ``save_lm``."""
    with lm.open("rb") as file:
        return {"lm_sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def holds_lm(model: Path, lm: Path) -> bool:
    """Whether a model folder holds the language model of this file, whatever it is called."""
    folder = stored_folder(model / LM_FOLDER)
    if not folder.exists():
        return False

    about: dict[str, Any] = load_record(folder)["about"]
    return lm_digest(lm).items() <= about.items()


def name_of_another_lm(model: Path, lm: Path) -> str | None:
    """Say what file the language model of a model folder was made of; None if of ``lm``, or none.

    Args:
        model: the model folder.
        lm: a file, which may be missing.
    """
    folder = stored_folder(model / LM_FOLDER)
    if not folder.exists() or not lm.is_file() or holds_lm(model, lm):
        return None

    about: dict[str, Any] = load_record(folder)["about"]
    return str(about.get("lm", "an earlier version"))


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
    config = build(BeamConfig, record["beam"], folder / RECORD)
    prior = tensors.get(LOG_PRIOR)
    _check_prior(folder, prior, config, tokenizer)

    if config.unit == "tokens":
        return BeamSearch(tokenizer, _lm_file(folder, record), config, log_prior=prior)

    # A folder of an older version has the language model as a file.
    is_file = "file" in record
    table = read_search_table(_lm_file(folder, record)) if is_file else _table(folder, tensors)
    lexicon = spellings(tokenizer, _lines(folder / WORDS_FILE))
    words = word_model(tokenizer, table, lexicon, config.unknown_words)
    return BeamSearch(tokenizer, words, config, log_prior=prior)


def lm_words(model: Path) -> list[str] | None:
    """Read the words that a model folder's language model lets the recogniser write.

    Returns:
        None where any text can be written: there is no language model, or it is over tokens.
    """
    path = stored_folder(model / LM_FOLDER) / WORDS_FILE
    return _lines(path) if path.exists() else None


def _table(folder: Path, tensors: Mapping[str, Tensor]) -> SearchTable:
    """Take the arrays of a language model over words, which anyone may have written."""
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    try:
        return from_tensors(_lines(folder / LM_WORDS_FILE), arrays)
    except ValueError as error:
        raise CheckpointError(
            f"{folder} holds no language model: {error}; make it again with speechssl tune-lm"
        ) from error


def _as_lines(words: Sequence[str]) -> bytes:
    lines = [f"{word}\n" for word in words]
    return "".join(lines).encode()


def _lines(path: Path) -> list[str]:
    """Read the words of a list, of a file whose checksum was verified."""
    try:
        # Only a newline ends a line: other marks of line ends could stand within a word.
        return path.read_bytes().decode().split("\n")[:-1]
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read as a list of words: {error}") from error


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
