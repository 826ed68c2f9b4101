"""Tokenizers: text to token ids and back, where id 0 is the CTC blank."""

import io
import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from speechssl.errors import CheckpointError, ConfigError
from speechssl.storage.json_text import json_line
from speechssl.text.possessives import is_english_arpabet, possessive
from speechssl.text.pronunciations import (
    DEFAULT_NORMALISER,
    Pronunciation,
    Pronunciations,
    parse_own,
    read_lexicon,
)

BLANK_ID = 0
UNK_ID = 1
BLANK_TEXT = "<pad>"  # its name in lists of tokens; it decodes to nothing
UNK_TEXT = "⁇"  # what an unknown token decodes to: visible, and never part of normalised text

TOKENIZER_FILE = "tokenizer.json"
SENTENCEPIECE_FILE = "tokenizer.model"
LEXICON_FILE = "lexicon.txt"

PHONES = "phones:"  # what the name of a tokenizer with a lexicon begins with


class Spelling(NamedTuple):
    """One way in which tokens make a word.

    Attributes:
        ids: at least one, without blanks and without a token for the space around the word.
        log_prob: natural log of its probability; 0 for the most probable spelling of a word.
    """

    ids: tuple[int, ...]
    log_prob: float


class Tokenizer(ABC):
    """Text to token ids and back. Id 0 is the CTC blank, id 1 the unknown token.

    Runs of white space count as one space, and there is none at either end, before encoding and
    after decoding.

    Attributes:
        size: number of ids, blank and unknown included: the width of the CTC head.
        alphabet: the characters that can be encoded without the unknown token; of a tokenizer with
            a lexicon, those of its words.
        unknown_kind: what ``unknown`` returns: "characters" or "words".
        texts: by id, what each token stands for; the blank has a name.
    """

    blank_id: ClassVar[int] = BLANK_ID
    unk_id: ClassVar[int] = UNK_ID
    unknown_kind: ClassVar[str] = "characters"
    size: int
    alphabet: frozenset[str]
    texts: tuple[str, ...]

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``, never the blank.

        What lies outside the alphabet becomes ``unk_id``.
        """

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``, each in 0..size-1.

        Repeats are taken as meant (collapse them first), blanks are ignored.
        """

    @abstractmethod
    def files(self) -> dict[str, bytes]:
        """Return names and contents of what ``load_tokenizer`` needs in a model folder."""

    def unknown(self, text: str) -> set[str]:
        """Return the characters, or the words, of ``text`` that no token can spell."""
        return set(_one_line(text)) - self.alphabet

    def has_unknown(self, text: str) -> bool:
        """Whether encoding ``text`` loses something of it."""
        return bool(self.unknown(text))

    def spellings(self, word: str) -> list[Spelling]:
        """Return all ways to spell a word, the most probable first; none if it has an unknown."""
        if self.has_unknown(word):
            return []

        # White space alone has no tokens, and some libraries split a word at an unknown piece.
        ids = tuple(self.encode(word))
        is_spelled = ids and UNK_ID not in ids
        return [Spelling(ids, 0.0)] if is_spelled else []

    def _without_blanks(self, ids: Sequence[int]) -> list[int]:
        kept = []
        for i in ids:
            assert 0 <= i < self.size, f"token ids must be in 0..{self.size - 1}"
            if i != BLANK_ID:
                kept.append(i)

        return kept


class CharTokenizer(Tokenizer):
    """One token per character (Unicode code point); the space is the word boundary."""

    def __init__(self, characters: Sequence[str]) -> None:
        """``characters``: distinct single characters in the order of their ids, from id 2 on."""
        are_distinct = len(set(characters)) == len(characters)
        if not are_distinct or any(len(c) != 1 for c in characters):
            raise ConfigError("a character tokenizer takes distinct single characters")

        self.characters = tuple(characters)
        self.alphabet = frozenset(characters)
        self.texts = (BLANK_TEXT, UNK_TEXT, *self.characters)
        self.size = len(self.texts)

        own_ids = range(UNK_ID + 1, self.size)
        self._ids = dict(zip(self.characters, own_ids, strict=True))

    @classmethod
    def train(cls, texts: Iterable[str]) -> "CharTokenizer":
        """Take the characters of ``texts``, sorted, and always the space.

        Raises:
            ConfigError: the texts hold no character.
        """
        lines = _training_lines(texts)
        characters = {" "}.union(*lines)
        return cls(sorted(characters))

    def encode(self, text: str) -> list[int]:
        return [self._ids.get(character, UNK_ID) for character in _one_line(text)]

    def decode(self, ids: Sequence[int]) -> str:
        characters = [self.texts[i] for i in self._without_blanks(ids)]
        return _one_line("".join(characters))

    def files(self) -> dict[str, bytes]:
        table = {"kind": "chars", "characters": list(self.characters)}
        return {TOKENIZER_FILE: json_line(table).encode()}


class SentencePieceTokenizer(Tokenizer):
    """Subword pieces of a SentencePiece model, shifted by one id to make room for the blank."""

    def __init__(self, model: bytes) -> None:
        """``model``: a serialised SentencePiece model whose unknown piece has id 0.

        Raises:
            CheckpointError: not such a model.
        """
        from sentencepiece import SentencePieceProcessor

        try:
            self._processor = SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise CheckpointError("not a SentencePiece model: write the tokenizer again") from error

        num_pieces = self._processor.get_piece_size()
        unknown_piece = self._processor.unk_id()
        if unknown_piece != UNK_ID - 1:
            raise CheckpointError(
                f"the SentencePiece model has its unknown piece at {unknown_piece}, not 0"
            )

        pieces = []
        for i in range(UNK_ID, num_pieces):
            piece = self._processor.id_to_piece(i)
            pieces.append(piece.replace("▁", " "))

        self.model = model
        self.size = num_pieces + 1
        self.texts = (BLANK_TEXT, UNK_TEXT, *pieces)
        self.alphabet = _single_characters(pieces)

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int, model_type: str
    ) -> "SentencePieceTokenizer":
        """Train a model of the words in ``texts``; the same texts give the same bytes.

        Args:
            vocab_size: number of pieces, the unknown piece included and the blank not (``size`` is
                one more).
            model_type: "bpe" or "unigram".

        Raises:
            ConfigError: ``vocab_size`` is too small or too large for these texts (the limit is
                named), the texts are empty, or they hold a character that SentencePiece reserves.
        """
        from sentencepiece import SentencePieceTrainer

        if model_type not in ("bpe", "unigram"):
            raise ConfigError(
                f"unknown SentencePiece model type {model_type!r}: choose bpe or unigram"
            )

        lines = _training_lines(texts)
        longest = max(len(line.encode()) for line in lines)  # bytes of UTF-8
        # Longer lines it drops silently; below 10 it refuses to train.
        max_line_bytes = max(10, longest + 1)

        model = io.BytesIO()
        try:
            SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=model,
                model_type=model_type,
                vocab_size=vocab_size,
                character_coverage=1.0,
                # Normalising is the work of ``normalise``, and is done once only.
                normalization_rule_name="identity",
                max_sentence_length=max_line_bytes,
                # The sums of unigram training depend on the number of threads.
                num_threads=1,
                unk_id=UNK_ID - 1,
                bos_id=-1,
                eos_id=-1,
                pad_id=-1,
                minloglevel=2,
            )
        except RuntimeError as error:
            advice = _vocabulary_advice(str(error), f"{model_type}:{vocab_size}")
            raise ConfigError(advice) from error

        tokenizer = cls(model.getvalue())
        lost: set[str] = set()
        for line in lines:
            lost |= tokenizer.unknown(line)

        if lost:
            first_few = sorted(lost)[:3]
            raise ConfigError(
                f"SentencePiece cannot spell {first_few}: "
                "remove these characters, or use basic-1 or chars"
            )

        return tokenizer

    def encode(self, text: str) -> list[int]:
        pieces = self._processor.encode(_one_line(text))
        return [piece + 1 for piece in pieces]

    def decode(self, ids: Sequence[int]) -> str:
        pieces = [i - 1 for i in self._without_blanks(ids)]
        return _one_line(self._processor.decode(pieces))

    def files(self) -> dict[str, bytes]:
        table = {"kind": "sentencepiece", "size": self.size}
        return {TOKENIZER_FILE: json_line(table).encode(), SENTENCEPIECE_FILE: self.model}


class VocabularyTokenizer(Tokenizer):
    """A list of tokens that another library made: letters of either case, digraphs, markers
    (``<s>``).

    A token decodes to what it is, markers and the unknown token too, as transformers' pipeline
    prints them.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        """``tokens``: by id, first the blank, then the unknown token; a space where words meet."""
        is_large_enough = len(tokens) >= 3
        have_texts = all(isinstance(token, str) and token for token in tokens)
        if not is_large_enough or not have_texts:
            raise ConfigError(
                "a vocabulary holds the blank, the unknown token and at least one more, "
                "each with a text"
            )

        self.texts = tuple(tokens)
        self.size = len(self.texts)
        self._ids = _ids_in_both_cases(self.texts)
        self.alphabet = _single_characters(self._ids)

        # At each place the longest token, or else any character.
        longest_first = sorted(self._ids, key=len, reverse=True)
        choices = [*map(re.escape, longest_first), "."]
        pattern = "|".join(choices)
        self._pattern = re.compile(pattern, re.DOTALL)

    def encode(self, text: str) -> list[int]:
        found = self._pattern.findall(_one_line(text))
        return [self._ids.get(token, UNK_ID) for token in found]

    def decode(self, ids: Sequence[int]) -> str:
        tokens = [self.texts[i] for i in self._without_blanks(ids)]
        return _one_line("".join(tokens))

    def files(self) -> dict[str, bytes]:
        table = {"kind": "vocabulary", "tokens": list(self.texts)}
        return {TOKENIZER_FILE: json_line(table).encode()}


class PhoneTokenizer(Tokenizer):
    """One token per phone, with the pronunciation lexicon that turns words into phones.

    There is no token between words: which words the phones are is for a search with the lexicon to
    find. Without one, every phone is a word of its own.
    """

    unknown_kind = "words"

    def __init__(self, lexicon: Pronunciations) -> None:
        """``lexicon``: its phones get the ids from 2 on, sorted.

        Where these are English ARPAbet, the lexicon's words have possessives too ("dog's"), see
        ``text.possessives``.
        """
        self.lexicon = lexicon
        # Each phone has a space before it, as a subword that begins a word has.
        own_texts = [f" {phone}" for phone in lexicon.phones]
        self.texts = (BLANK_TEXT, UNK_TEXT, *own_texts)
        self.size = len(self.texts)
        self.alphabet = frozenset().union(*lexicon.words)

        own_ids = range(UNK_ID + 1, self.size)
        self._ids = dict(zip(lexicon.phones, own_ids, strict=True))
        self._has_possessives = is_english_arpabet(set(lexicon.phones))

    def pronunciations(self, word: str) -> tuple[Pronunciation, ...]:
        """Return a word's pronunciations in the lexicon, or those as a possessive; may be none."""
        found = self.lexicon.words.get(word, ())
        if not found and self._has_possessives:
            found = possessive(self.lexicon, word)
        return found

    def encode(self, text: str) -> list[int]:
        """Return the ids of each word's most probable pronunciation.

        A word without one becomes ``unk_id``.
        """
        ids: list[int] = []
        for word in text.split():
            of_word = self.pronunciations(word)
            ids += self._ids_of(of_word[0]) if of_word else (UNK_ID,)

        return ids

    def decode(self, ids: Sequence[int]) -> str:
        phones = [self.texts[i] for i in self._without_blanks(ids)]
        return _one_line(" ".join(phones))

    def unknown(self, text: str) -> set[str]:
        return {word for word in text.split() if not self.pronunciations(word)}

    def spellings(self, word: str) -> list[Spelling]:
        """Return all pronunciations of a word, the most probable first."""
        return [
            Spelling(self._ids_of(one), math.log(one.probability))
            for one in self.pronunciations(word)
        ]

    def files(self) -> dict[str, bytes]:
        table = {"kind": "phones", "phones": list(self.lexicon.phones)}
        lexicon = self.lexicon.as_text()
        return {TOKENIZER_FILE: json_line(table).encode(), LEXICON_FILE: lexicon.encode()}

    def _ids_of(self, one: Pronunciation) -> tuple[int, ...]:
        return tuple(self._ids[phone] for phone in one.phones)


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
        raise ConfigError(
            f"unknown tokenizer {spec!r}: "
            "choose chars, bpe:SIZE or unigram:SIZE, for example bpe:500, or phones:LEXICON"
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


def _one_line(text: str) -> str:
    words = text.split()
    return " ".join(words)


def _single_characters(tokens: Iterable[str]) -> frozenset[str]:
    """Return the tokens that are one character long."""
    return frozenset(token for token in tokens if len(token) == 1)


def _training_lines(texts: Iterable[str]) -> list[str]:
    lines = list(filter(None, map(_one_line, texts)))
    if not lines:
        raise ConfigError("no text to make a tokenizer from: every transcript is empty")

    return lines


def _vocabulary_advice(message: str, spec: str) -> str:
    """Turn SentencePiece's reason, which is prose with its source line, into one line of ours."""
    largest = re.search(r"too high.*<= (\d+)", message)
    if largest:
        return (
            f"tokenizer {spec} has more pieces than these texts support: "
            f"use at most {largest[1]}, or chars"
        )

    smallest = re.search(r"required_chars\. \d+ vs (\d+)", message)
    if smallest:
        return (
            f"tokenizer {spec} has fewer pieces than these texts have characters: "
            f"use at least {smallest[1]}, or chars"
        )

    return f"tokenizer {spec} cannot be trained on these texts: {message}"


def _ids_in_both_cases(tokens: Sequence[str]) -> dict[str, int]:
    """Return the id of each token but the blank and the unknown token.

    A transcript in the other case is meant, where a letter is there in one case only.
    """
    ids: dict[str, int] = {}
    # Backwards, so that of equal tokens the first one counts.
    for i in range(len(tokens) - 1, UNK_ID, -1):
        token = tokens[i]
        ids[token] = i

    for token, i in list(ids.items()):
        for other_case in (token.lower(), token.upper()):
            is_as_long = len(other_case) == len(token)  # not SS for ß
            if is_as_long:
                ids.setdefault(other_case, i)

    return ids
