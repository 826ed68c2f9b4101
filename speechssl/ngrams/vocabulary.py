"""The words of a language model: their ids, and which of them it keeps."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speechssl.decoding.ngram import SPECIAL
from speechssl.errors import ConfigError


class WordIds(dict[str, int]):
    """Ids by word: the marks first, then words in the order in which they are first asked for.

    Raises:
        ConfigError: a word is one of the marks, is empty or holds white space.
    """

    def __init__(self) -> None:
        super().__init__()
        self._marks = {mark: number for number, mark in enumerate(SPECIAL)}

    def __missing__(self, word: str) -> int:
        """Give the next id to a new word."""
        has_space = word.split() != [word]
        if has_space or word in self._marks:
            raise ConfigError(
                f"{word!r} cannot be a word of a language model: it is a mark or holds white "
                "space; leave it out of the texts, where each line is a sentence without marks"
            )

        word_id = len(self._marks) + len(self)
        self[word] = word_id
        return word_id

    def texts(self) -> tuple[str, ...]:
        """All words and marks by id."""
        return (*SPECIAL, *self)


@dataclass(frozen=True)
class Vocabulary:
    """Which words of a text a language model keeps; what is left out becomes ``<unk>``.

    Attributes:
        listed: only these words; None means all.
        min_count: only words that the text has so often.
        max_words: only so many of the most frequent words, of equally frequent ones those that
            come first in the text; None means all.
    """

    listed: frozenset[str] | None = None
    min_count: int = 1
    max_words: int | None = None

    def keeps(self, words: tuple[str, ...], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Choose words by id, given how often each is in the text; the marks are always kept.

        Raises:
            ConfigError: no word is left.
        """
        keeps = counts >= self.min_count
        num_marks = len(SPECIAL)

        if self.listed is not None:
            in_list = np.fromiter((word in self.listed for word in words), bool, len(words))
            keeps &= in_list
        keeps[:num_marks] = False

        if self.max_words is not None:
            candidates = np.flatnonzero(keeps)
            # A stable sort leaves equally frequent words in the order of the text.
            by_count = candidates[np.argsort(-counts[candidates], kind="stable")]
            too_many = by_count[self.max_words :]
            keeps[too_many] = False

        if not keeps.any():
            raise ConfigError(
                "the vocabulary keeps no word of the texts: lower --min-count, raise --max-words, "
                "or give a --vocabulary that has some"
            )

        keeps[:num_marks] = True
        return keeps


WHOLE_VOCABULARY = Vocabulary()
