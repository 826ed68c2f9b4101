"""Normalisers of transcripts, named and versioned: what is compared when words are counted."""

import re
import unicodedata
from collections.abc import Callable
from functools import partial

from speechssl.errors import ConfigError
from speechssl.text.english import numbers_as_words, plain_words
from speechssl.text.english_signs import one_spelling, spoken_words
from speechssl.text.unicode_words import basic_2

# What is done to transcripts where nobody says: for new recognisers. A model keeps its own.
DEFAULT_NORMALISER = "basic-2"

_AS_APOSTROPHE = dict.fromkeys("’‘‛ʼ＇`´", "'")
_APOSTROPHES = str.maketrans(_AS_APOSTROPHE)
# Zero-width joiner and non-joiner are spelling in Persian and in Indic scripts: like the apostrophe
# they stay inside words.
_INNER = "'\u200c\u200d"
_ZERO_WIDTH_SPACE = "\u200b"


def normalise(text: str, name: str) -> str:
    """Return ``text`` under the normaliser called ``name``: a key of ``NORMALISERS``.

    A name ends in a version. What a name does never changes, so scores stay comparable; a better
    rule gets a new name.

    Raises:
        ConfigError: no such normaliser.
    """
    if name not in NORMALISERS:
        known = ", ".join(NORMALISERS)
        raise ConfigError(f"unknown normaliser {name!r}: choose one of {known}")

    normaliser = NORMALISERS[name]
    return normaliser(text)


def _none_1(text: str) -> str:
    return text


def _basic_1(text: str) -> str:
    """Keep lower-case words: letters, marks, numbers and inner apostrophes, single spaces between.

    Punctuation and symbols separate words. Applying it twice changes nothing.
    """
    text = _folded(text)
    text = "".join(map(_basic_1_character, text))
    text = re.sub("''+", " ", text)  # quotation marks

    words = []
    for stretch in text.split():
        word = stretch.strip(_INNER)
        # What is left of a lone emoji or symbol can be marks only: invisible, and yet a word that
        # would count as an error.
        if _has_letter_or_number(word):
            words.append(word)

    return unicodedata.normalize("NFC", " ".join(words))


def _folded(text: str) -> str:
    """Give text one form for one spelling: lower case, one apostrophe, Unicode NFC.

    Lower case and not case folding, which would respell words (``ß`` to ``ss``).
    """
    composed = unicodedata.normalize("NFC", text)
    return composed.lower().translate(_APOSTROPHES)


def _basic_1_character(character: str) -> str:
    """Return what becomes of one character: itself, nothing, or a space."""
    category = unicodedata.category(character)

    # Variation selectors choose a picture, though Unicode calls them marks.
    if "\ufe00" <= character <= "\ufe0f":
        return ""

    if category[0] in "LMN" or character in _INNER:
        return character

    # Soft hyphen, byte order mark, direction: none of these is a boundary.
    if category == "Cf" and character != _ZERO_WIDTH_SPACE:
        return ""

    return " "


def _has_letter_or_number(word: str) -> bool:
    return any(unicodedata.category(character)[0] in "LN" for character in word)


def _english_1(text: str) -> str:
    """``basic-1`` of English, with one spelling for one reading.

    Numbers, contractions and titles are written out, and hesitations are left out. It is for
    measuring where the transcripts' spelling of numbers and the like is nobody's error. British and
    American spellings stay as they are. Applying it twice changes nothing.
    """

    def once(text: str) -> str:
        spoken = numbers_as_words(_folded(text))
        words = _basic_1(spoken).split()
        return " ".join(plain_words(words))

    return _until_settled(once, text)


def _english_2(text: str) -> str:
    """``basic-2`` of English, with one spelling for one reading.

    As ``english-1``, and signs that are spoken count: minus, fractions, decimals, currencies behind
    a number, degrees. Abbreviations are one word with full stops and without. Sounds of assent are
    left out whole, as hesitations are. Applying it twice changes nothing.
    """

    def once(text: str) -> str:
        spoken = spoken_words(_folded(text))
        words = basic_2(spoken).split()
        return " ".join(one_spelling(words))

    return _until_settled(once, text)


def _until_settled(once: Callable[[str], str], text: str) -> str:
    """Apply rules until they change nothing.

    What is written out or left out can bring words together that have a rule of their own.
    """
    before = None
    while text != before:
        before = text
        text = once(text)

    return text


NORMALISERS: dict[str, Callable[[str], str]] = {
    "none-1": _none_1,
    "basic-1": _basic_1,
    "basic-2": basic_2,
    # Where the small letter of I is ı.
    "basic-2:tr": partial(basic_2, language="tr"),
    "basic-2:az": partial(basic_2, language="az"),
    "english-1": _english_1,
    "english-2": _english_2,
}
