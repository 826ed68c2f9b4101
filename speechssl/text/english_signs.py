"""``english-2``: what ``english-1`` leaves of English signs, as it is spoken.

So -1 is not 1 and 1/2 is not 1 2, while "p.m." and "pm", "½" and "1/2" are one reading each.
"""

import re
import unicodedata
from itertools import product

from speechssl.text.english import (
    NUMBER_2,
    WORDS,
    cardinal,
    numbers_as_words,
    ordinal,
    plain_words,
)
from speechssl.text.english_measures import measures_written, units_written_out
from speechssl.text.english_number_words import NUMBER_NAMES, numbers_alike
from speechssl.text.english_symbols import (
    CURRENCY,
    currencies_in_front,
    one_symbol,
    symbols_as_words,
)

# A hyphen or a dash before a number, with nothing before it that the number could go on from.
_MINUS = re.compile(rf"(?<![\w.,)\]%°'\-–—])[-–﹣－](?={CURRENCY}?\.?[0-9])")
_NUMBER_SIGN = re.compile(r"# ?(?=[0-9])")
_DEGREES = re.compile(r"(?P<one>(?<![\w.,])1 ?)?°(?: ?(?P<scale>[cf])(?![a-z]))?")
_SCALES = {"c": " celsius", "f": " fahrenheit"}

_NO_WHOLE = re.compile(r"(?<![\w.)\]])\.(?=[0-9])")
_FRACTION = re.compile(
    r"(?<![\w./,])"
    r"(?:(?P<whole>[0-9]{1,3})[\s-])?"
    r"(?P<over>[0-9]{1,3})/(?P<under>[0-9]{1,3})"
    r"(?![0-9/]|[.,][0-9])"
    r"(?:(?:st|nd|rd|th)s?(?![a-z]))?"
)
# What looks like a fraction, and is read as two numbers.
_TWO_NUMBERS = {(24, 7), (9, 11)}

# "p.m.", "U.S", "Ph.D.": letters between full stops.
_DOTTED = re.compile(r"(?<![\w.'])(?:ph|[a-z])(?:\.[a-z])+\.?(?!\w)")
_DOCTORATE = re.compile(r"(?<![\w.'])ph\.? d(?!\w)")

# Hesitations however long they are drawn; "mm" and "er" are words too.
_HESITATION = re.compile("u+h+m*|u+m+|h+m+|m+h+m+|mmm+|erm+|u+h+h?u+h+")
# Two words that are one sound, and are left out as "mhm" is.
_BACKCHANNELS = {
    *product(("m", "mm", "hm", "hmm", "mhm"), ("hm", "hmm", "mm")),
    *product(("uh", "unh", "um", "mm"), ("huh", "hum")),
}
# "Oops", and one way to say no.
_KEPT_TOGETHER = {("uh", "oh"), ("nuh", "uh")}

# Words whose beginning is left out; without the apostrophe they are others.
_CLIPPED = {"cause": "because", "em": "them", "til": "until", "tis": "it is", "twas": "it was"}
_CLIPPED_WORD = re.compile(rf"(?<![\w'])'(?P<word>{'|'.join(_CLIPPED)})(?![\w'])")
_AND = re.compile(r"(?<=\w)(?:'n'| 'n'? | n' )(?=\w)")

# What has one reading only, beside what english-1 knows.
_MORE_WORDS = {
    "etc": "et cetera",
    "jr": "junior",
    "capt": "captain",
    "sgt": "sergeant",
    "fourths": "quarters",
    "lt": "lieutenant",
    "cpl": "corporal",
    "dept": "department",
    "approx": "approximately",
    "blvd": "boulevard",
    "feb": "february",
    "sept": "september",
    "c'mon": "come on",
    "d'you": "do you",
    "dunno": "do not know",
    "lemme": "let me",
    "gimme": "give me",
    "kinda": "kind of",
    "sorta": "sort of",
    "coulda": "could have",
    "shoulda": "should have",
    "woulda": "would have",
}


def spoken_words(text: str) -> str:
    """Write the signs and numbers of folded lower-case text as words."""
    text = one_symbol(_plain_numbers(text))
    text = _CLIPPED_WORD.sub(lambda found: _CLIPPED[found["word"]], text)
    text = _AND.sub(" and ", text)
    text = _DOTTED.sub(_without_full_stops, text)
    text = _DOCTORATE.sub("phd", text)
    text = currencies_in_front(text)
    text = _MINUS.sub(" minus ", text)
    text = _FRACTION.sub(_spoken_fraction, text)
    text = _NO_WHOLE.sub("0.", text)
    text = _NUMBER_SIGN.sub(" number ", text)
    text = measures_written(text)
    text = _DEGREES.sub(_spoken_degrees, text)

    return numbers_as_words(symbols_as_words(text), NUMBER_2)


def one_spelling(words: list[str]) -> list[str]:
    """Give words of one reading one spelling, and leave out hesitations."""
    words = _without_hesitations(words)
    words = plain_words(words, hesitations=frozenset())
    words = _letters_joined(words)
    words = numbers_alike(words)
    words = units_written_out(words)
    return _with_more_words(words)


def _plain_numbers(text: str) -> str:
    """Write digits of any script and size as 0 to 9, and fractions in one sign as two numbers."""
    written: list[str] = []
    for character in text:
        decomposition = unicodedata.decomposition(character)
        if unicodedata.category(character) == "Nd":
            written.append(str(unicodedata.digit(character)))
        elif decomposition.startswith(("<wide>", "<sub>")):
            written.append(unicodedata.normalize("NFKC", character))
        elif decomposition.startswith("<fraction>"):
            follows_number = bool(written) and written[-1][-1].isdigit()
            parts = unicodedata.normalize("NFKC", character)
            written.append(f" {parts}" if follows_number else parts)
        else:
            written.append(character)

    return "".join(written).replace("\N{FRACTION SLASH}", "/").replace("\N{DIVISION SLASH}", "/")


def _without_full_stops(found: re.Match[str]) -> str:
    together = found[0].replace(".", "")
    if _is_other_word(together):
        return found[0].replace(".", " ")
    return together


def _spoken_fraction(found: re.Match[str]) -> str:
    """Read ``3/4`` as three quarters, ``2 1/2`` as two and one half."""
    over = int(found["over"])
    under = int(found["under"])
    whole = found["whole"]

    is_fraction = under > 1 and over != under and (over, under) not in _TWO_NUMBERS
    if whole is not None:
        is_fraction = is_fraction and 0 < over < under
    if not is_fraction:
        return found[0]

    names = {2: "half", 4: "quarter"}
    name = names.get(under) or ordinal(cardinal(under))
    if over != 1:
        name = "halves" if under == 2 else f"{name}s"

    words = f"{cardinal(over)} {name}"
    if whole is not None:
        words = f"{cardinal(int(whole))} and {words}"
    return f" {words} "


def _spoken_degrees(found: re.Match[str]) -> str:
    scale = _SCALES.get(found["scale"], "")
    if found["one"]:
        return f" one degree{scale} "
    return f" degrees{scale} "


def _without_hesitations(words: list[str]) -> list[str]:
    kept: list[str] = []
    place = 0
    while place < len(words):
        pair = tuple(words[place : place + 2])
        if pair in _BACKCHANNELS:
            place += 2
        elif pair in _KEPT_TOGETHER:
            kept += pair
            place += 2
        else:
            if not _HESITATION.fullmatch(words[place]):
                kept.append(words[place])
            place += 1

    return kept


def _with_more_words(words: list[str]) -> list[str]:
    """Write out abbreviations of one reading, and "per cent" as one word."""
    written: list[str] = []
    for word in words:
        if word == "cent" and written[-1:] == ["per"]:
            written[-1] = "percent"
        else:
            written += _MORE_WORDS.get(word, word).split()
    return written


def _letters_joined(words: list[str]) -> list[str]:
    """Join letters that are spelled out: ``u s`` and ``us``, ``p m`` and ``pm`` are one reading.

    A recogniser may write them apart. "a" and "i" are words too: two letters of which one is such a
    word stay apart, but for "a m" behind a number.
    """
    joined: list[str] = []
    place = 0
    while place < len(words):
        end = place
        while end < len(words) and len(words[end]) == 1 and "a" <= words[end] <= "z":
            end += 1

        letters = words[place:end]
        num_words = sum(letter in "ai" for letter in letters)
        is_morning = letters == ["a", "m"] and place > 0 and words[place - 1] in NUMBER_NAMES
        is_spelled = len(letters) >= 3 and num_words < len(letters)
        is_pair = len(letters) == 2 and num_words == 0

        together = "".join(letters)
        if (is_morning or is_spelled or is_pair) and not _is_other_word(together):
            joined.append(together)
        elif letters:
            joined += letters
        else:
            joined.append(words[place])
            end = place + 1
        place = end

    return joined


def _is_other_word(together: str) -> bool:
    """Whether letters would become a word with a rule of its own: ``d r`` is no doctor."""
    return (
        together in WORDS or together in _MORE_WORDS or _HESITATION.fullmatch(together) is not None
    )
