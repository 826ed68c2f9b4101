"""One token per character."""

from collections.abc import Iterable, Sequence

from speechssl.errors import ConfigError
from speechssl.storage.json_text import json_line
from speechssl.text.tokenizer import (
    BLANK_TEXT,
    TOKENIZER_FILE,
    UNK_ID,
    UNK_TEXT,
    Tokenizer,
    single_spaced,
    training_lines,
)


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
        lines = training_lines(texts)
        characters = {" "}.union(*lines)
        return cls(sorted(characters))

    def encode(self, text: str) -> list[int]:
        return [self._ids.get(character, UNK_ID) for character in single_spaced(text)]

    def decode(self, ids: Sequence[int]) -> str:
        characters = [self.texts[i] for i in self.without_blanks(ids)]
        return single_spaced("".join(characters))

    def files(self) -> dict[str, bytes]:
        table = {"kind": "chars", "characters": list(self.characters)}
        return {TOKENIZER_FILE: json_line(table).encode()}
