"""Whether scripts put spaces between words; where not, word error rates say little."""

import unicodedata
from collections.abc import Iterable

# How the Unicode names of letters begin whose scripts write words without spaces between them: the
# ideographs and syllables of Chinese and Japanese, and the scripts of line breaking class SA.
# Thai has spaces between phrases, so that to look for spaces would not do.
SCRIPTS_WITHOUT_SPACES = (
    "CJK ",
    "HIRAGANA ",
    "KATAKANA",
    "HALFWIDTH KATAKANA",
    "BOPOMOFO ",
    "TANGUT ",
    "NUSHU ",
    "THAI ",
    "LAO ",
    "KHMER ",
    "MYANMAR ",
    "TIBETAN ",
    "TAI LE ",
    "NEW TAI LUE ",
    "TAI THAM ",
    "TAI VIET ",
    "AHOM ",
)


def are_without_word_spaces(texts: Iterable[str]) -> bool:
    """Whether more than half of the letters are of scripts that put no spaces between words.

    Source: Unicode Standard Annex 14, table 1 (classes ID, CJ and SA), by the names of the letters.
    """
    num_letters = 0
    num_without = 0

    for text in texts:
        for character in text:
            if not unicodedata.category(character).startswith("L"):
                continue

            num_letters += 1
            name = unicodedata.name(character, "")
            num_without += name.startswith(SCRIPTS_WITHOUT_SPACES)

    return 2 * num_without > num_letters
