"""Making the tokenizer that a setting names, and loading the one of a model folder."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from speechssl.errors import CheckpointError, ConfigError
from speechssl.text.character_tokenizer import CharTokenizer
from speechssl.text.normalise import DEFAULT_NORMALISER
from speechssl.text.phone_tokenizer import LEXICON_FILE, PhoneTokenizer
from speechssl.text.pronunciations import parse_own, read_lexicon
from speechssl.text.sentencepiece_tokenizer import SENTENCEPIECE_FILE, SentencePieceTokenizer
from speechssl.text.tokenizer import TOKENIZER_FILE, Tokenizer
from speechssl.text.vocabulary_tokenizer import VocabularyTokenizer

PHONES = "phones:"  # what the name of a tokenizer with a lexicon begins with


def train_tokenizer(
    spec: str, texts: Iterable[str], normaliser: str = DEFAULT_NORMALISER
) -> Tokenizer:
    """Train a tokenizer for ``texts``, which are normalised already.

    Args:
        spec: "chars", a SentencePiece type with its number of pieces ("bpe:500", "unigram:500"), or
            the path of a pronunciation lexicon ("phones:cmudict.dict"), for which no text is looked
            at.
        normaliser: of ``texts``, for the words of a lexicon.

    Raises:
        ConfigError: another ``spec``, or one that does not suit the texts.
    """
    if spec == "chars":
        return CharTokenizer.train(texts)

    path = spec.removeprefix(PHONES)
    if path and path != spec:
        return PhoneTokenizer(read_lexicon(Path(path), normaliser))

    match = re.fullmatch(r"(bpe|unigram):([1-9][0-9]{0,6})", spec)
    if match is None:
        meant = f"; did you mean {PHONES}{spec}?" if Path(spec).is_file() else ""
        raise ConfigError(
            f"unknown tokenizer {spec!r}: "
            f"choose chars, bpe:SIZE or unigram:SIZE, for example bpe:500, or phones:LEXICON{meant}"
        )

    model_type, vocab_size = match.groups()
    return SentencePieceTokenizer.train(texts, int(vocab_size), model_type)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load the tokenizer whose ``files()`` lie in ``folder``.

    Raises:
        CheckpointError: a file is missing or damaged, or the kind is unknown.
    """
    path = Path(folder) / TOKENIZER_FILE
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return _tokenizer(path, table)
    except FileNotFoundError as error:
        raise CheckpointError(f"no tokenizer: {error.filename} is missing") from error
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        # Not UTF-8, not JSON, or JSON of another shape.
        raise CheckpointError(f"{path} is damaged: {error}") from error


def _tokenizer(path: Path, table: Any) -> Tokenizer:
    """Make the tokenizer that a file's table describes."""
    kind = table["kind"]
    if kind == "chars":
        return CharTokenizer(table["characters"])
    if kind == "vocabulary":
        return VocabularyTokenizer(table["tokens"])

    if kind == "sentencepiece":
        model = path.with_name(SENTENCEPIECE_FILE).read_bytes()
        tokenizer = SentencePieceTokenizer(model)
        if tokenizer.size != table["size"]:
            raise CheckpointError(
                f"{SENTENCEPIECE_FILE} has {tokenizer.size} ids, {path} says {table['size']}"
            )
        return tokenizer

    if kind == "phones":
        return _phone_tokenizer(path, table["phones"])

    raise CheckpointError(
        f"{path} has kind {kind!r}: this version reads chars, sentencepiece, vocabulary and phones"
    )


def _phone_tokenizer(path: Path, phones: list[str]) -> PhoneTokenizer:
    """Read the lexicon beside a tokenizer's file, whose phones tell that they belong together."""
    lexicon_path = path.with_name(LEXICON_FILE)
    try:
        lexicon = parse_own(lexicon_path.read_text(encoding="utf-8"))
    except ConfigError as error:
        raise CheckpointError(f"{lexicon_path} is damaged: {error}") from error

    if list(lexicon.phones) != phones:
        raise CheckpointError(f"{lexicon_path} does not have the phones that {path} lists")
    return PhoneTokenizer(lexicon)
