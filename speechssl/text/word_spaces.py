"""Whether texts have spaces between words; where not, word error rates say little."""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from itertools import chain

from speechssl.text.unicode_words import is_unspaced


def are_without_word_spaces(texts: Iterable[str]) -> bool:
    """Whether more than half of the letters are of scripts that put no spaces between words.

    Thai has spaces between phrases, so that to look for spaces would not do.
    """
    counts = Counter(chain.from_iterable(texts))
    num_letters = 0
    num_without = 0

    for character, count in counts.items():
        if unicodedata.category(character).startswith("L"):
            num_letters += count
            num_without += count * is_unspaced(character)

    return 2 * num_without > num_letters
