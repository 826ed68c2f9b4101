"""Tokens that another library made."""

import re
from collections.abc import Sequence

from speechssl.errors import ConfigError
from speechssl.storage.json_text import json_line
from speechssl.text.tokenizer import (
    TOKENIZER_FILE,
    UNK_ID,
    Tokenizer,
    single_characters,
    single_spaced,
)


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
        self.alphabet = single_characters(self._ids)

        # At each place the longest token, or else any character.
        longest_first = sorted(self._ids, key=len, reverse=True)
        choices = [*map(re.escape, longest_first), "."]
        pattern = "|".join(choices)
        self._pattern = re.compile(pattern, re.DOTALL)

    def encode(self, text: str) -> list[int]:
        found = self._pattern.findall(single_spaced(text))
        return [self._ids.get(token, UNK_ID) for token in found]

    def decode(self, ids: Sequence[int]) -> str:
        tokens = [self.texts[i] for i in self.without_blanks(ids)]
        return single_spaced("".join(tokens))

    def files(self) -> dict[str, bytes]:
        table = {"kind": "vocabulary", "tokens": list(self.texts)}
        return {TOKENIZER_FILE: json_line(table).encode()}


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
