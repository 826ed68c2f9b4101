"""The words of a text, and where its script has no spaces between words, the characters."""

import unicodedata

from speechssl.text.grapheme_clusters import belongs_to
from speechssl.text.unicode_words import is_unspaced


def words_or_characters(text: str) -> list[str]:
    """Part a text into words, and those of scripts without spaces into characters.

    Characters are grapheme clusters: a letter with its marks. Punctuation stays with the character
    beside it. Letters of other scripts between them stay together as words.
    """
    units: list[str] = []
    for word in text.split():
        first = len(units)
        clusters: list[str] = []
        for character in word:
            if clusters and belongs_to(clusters[-1], character):
                clusters[-1] += character
            else:
                clusters.append(character)

        for place, cluster in enumerate(clusters):
            if len(units) > first and goes_on(clusters[place - 1], cluster):
                units[-1] += cluster
            else:
                units.append(cluster)

    return units


def goes_on(before: str, cluster: str, has_space: bool = True) -> bool:
    """Whether a cluster belongs to the same unit as the one before it.

    Args:
        has_space: whether words are parted by spaces, where their script has any.
    """
    last, first = before[0], cluster[0]
    if _is_opening(last) or (_is_punctuation(first) and not _is_opening(first)):
        return True
    return has_space and not _stands_alone(last) and not _stands_alone(first)


def _stands_alone(character: str) -> bool:
    """Whether this is of a script without spaces: a letter, a sign of repetition, punctuation."""
    is_wide = unicodedata.east_asian_width(character) in "FW"
    is_sign = unicodedata.category(character) == "Lm" or _is_punctuation(character)
    return is_unspaced(character) or (is_wide and is_sign)


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character)[0] == "P"


def _is_opening(character: str) -> bool:
    """Whether this is a bracket or a quotation mark before what it is of."""
    return unicodedata.category(character) in ("Ps", "Pi")
