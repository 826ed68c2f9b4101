"""One token per phone, with a pronunciation lexicon."""

import math
from collections.abc import Sequence

from speechssl.storage.json_text import json_line
from speechssl.text.possessives import is_english_arpabet, possessive
from speechssl.text.pronunciations import Pronunciation, Pronunciations
from speechssl.text.tokenizer import (
    BLANK_TEXT,
    TOKENIZER_FILE,
    UNK_ID,
    UNK_TEXT,
    Spelling,
    Tokenizer,
    single_spaced,
)

LEXICON_FILE = "lexicon.txt"


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
        phones = [self.texts[i] for i in self.without_blanks(ids)]
        return single_spaced(" ".join(phones))

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
