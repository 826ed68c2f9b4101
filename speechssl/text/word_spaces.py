"""Whether texts have spaces between words; where not, word error rates say little."""

import unicodedata
from collections.abc import Iterable

from speechssl.text.unicode_words import part_unspaced

# Of scripts without spaces between words: words have about so many letters, as in Chinese.
_LETTERS_OF_A_WORD = 2


def are_without_word_spaces(texts: Iterable[str]) -> bool:
    """Whether more than half of the words are of scripts that put no spaces between words.

    Thai has spaces between phrases, so that to look for spaces would not do. In Chinese with some
    English words most letters are English, though most words are Chinese.
    """
    num_with = 0
    num_unspaced_letters = 0

    for text in texts:
        others, unspaced = part_unspaced(text)
        num_with += sum(any(map(str.isalpha, word)) for word in others.split())
        # Without the signs among them that are no letters of their own, such as vowels above one.
        num_unspaced_letters += sum(unicodedata.category(sign)[0] == "L" for sign in unspaced)

    return num_unspaced_letters > _LETTERS_OF_A_WORD * num_with
