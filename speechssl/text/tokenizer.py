"""What every tokenizer does: text to token ids and back, where id 0 is the CTC blank."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple

from speechssl.errors import ConfigError

BLANK_ID = 0
UNK_ID = 1
BLANK_TEXT = "<pad>"  # its name in lists of tokens; it decodes to nothing
UNK_TEXT = "⁇"  # what an unknown token decodes to: visible, and never part of normalised text

TOKENIZER_FILE = "tokenizer.json"


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
        return set(single_spaced(text)) - self.alphabet

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

    def without_blanks(self, ids: Sequence[int]) -> list[int]:
        """Return the ids that are not the blank, each checked to be one of the tokenizer's."""
        kept = []
        for i in ids:
            assert 0 <= i < self.size, f"token ids must be in 0..{self.size - 1}"
            if i != BLANK_ID:
                kept.append(i)

        return kept


def single_spaced(text: str) -> str:
    """Join the words of a text by single spaces."""
    words = text.split()
    return " ".join(words)


def single_characters(tokens: Iterable[str]) -> frozenset[str]:
    """Return the tokens that are one character long."""
    return frozenset(token for token in tokens if len(token) == 1)


def training_lines(texts: Iterable[str]) -> list[str]:
    """Return the texts that hold anything, each as one line.

    Raises:
        ConfigError: none does.
    """
    lines = list(filter(None, map(single_spaced, texts)))
    if not lines:
        raise ConfigError("no text to make a tokenizer from: every transcript is empty")

    return lines
