"""Normalisers of transcripts, named and versioned: what is compared when words are counted."""

import re
import unicodedata
from collections.abc import Callable

from speechssl.errors import ConfigError
from speechssl.text.english import numbers_as_words, plain_words

_APOSTROPHES = str.maketrans(dict.fromkeys("’‘‛ʼ＇`´", "'"))
# Zero-width joiner and non-joiner are spelling in Persian and in Indic scripts: like the apostrophe they stay inside
# words.
_INNER = "'\u200c\u200d"
_ZERO_WIDTH_SPACE = "\u200b"


def normalise(text: str, name: str) -> str:
    """``text`` under the normaliser called ``name``: a key of ``NORMALISERS``.

    A name ends in a version. What a name does never changes, so scores stay comparable; a better rule gets a new name.

    Raises:
        ConfigError: no such normaliser.
    """
    if name not in NORMALISERS:
        raise ConfigError(f"unknown normaliser {name!r}: choose one of {', '.join(NORMALISERS)}")
    return NORMALISERS[name](text)


def _none_1(text: str) -> str:
    return text


def _basic_1(text: str) -> str:
    """Lower-case words separated by single spaces; letters, marks, numbers and inner apostrophes stay.

    Lower case and not case folding, which would respell words (``ß`` to ``ss``). Unicode NFC, so that one spelling has
    one form. Punctuation and symbols separate words. Applying it twice changes nothing.
    """
    text = unicodedata.normalize("NFC", text).lower().translate(_APOSTROPHES)
    text = re.sub("''+", " ", "".join(map(_basic_1_character, text)))
    words = (word.strip(_INNER) for word in text.split())
    # What is left of a lone emoji or symbol can be marks only: invisible, and yet a word that would count as an error.
    return unicodedata.normalize(
        "NFC", " ".join(w for w in words if any(unicodedata.category(c)[0] in "LN" for c in w))
    )


def _basic_1_character(character: str) -> str:
    category = unicodedata.category(character)
    if (
        "\ufe00" <= character <= "\ufe0f"
    ):  # variation selectors choose a picture, though Unicode calls them marks
        return ""
    if category[0] in "LMN" or character in _INNER:
        return character
    if (
        category == "Cf" and character != _ZERO_WIDTH_SPACE
    ):  # soft hyphen, byte order mark, direction: not a boundary
        return ""
    return " "


def _english_1(text: str) -> str:
    """``basic-1`` of English with one spelling for one reading: numbers, contractions, titles; no hesitations.

    For measuring, where the transcripts' spelling of numbers and the like is nobody's error. British and American
    spellings stay as they are. Applying it twice changes nothing.
    """
    before = None
    while text != before:  # what is written out or left out can bring words together
        before = text
        text = unicodedata.normalize("NFC", text).lower().translate(_APOSTROPHES)
        text = " ".join(plain_words(_basic_1(numbers_as_words(text)).split()))
    return text


NORMALISERS: dict[str, Callable[[str], str]] = {
    "none-1": _none_1,
    "basic-1": _basic_1,
    "english-1": _english_1,
}
