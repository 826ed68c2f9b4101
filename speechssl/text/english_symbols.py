"""Symbols of English texts in one spelling each, and those between words that are spoken.

It is part of ``english-2``, before numbers are read: "€ 5" and "€5" are one amount, "20 ℃" and
"20 °C" one temperature, and ">5" is not 5.
"""

import re

from speechssl.text.english import (
    CURRENCIES,
    MAGNITUDE,
    MAGNITUDES,
    MORE_CURRENCIES,
    SAME_IN_PLURAL,
)

CURRENCY = "[" + "".join([*CURRENCIES, *MORE_CURRENCIES]) + "]"

_ONE_SYMBOL = str.maketrans(
    {
        "º": "°",
        "˚": "°",
        "℃": "°c",
        "℉": "°f",
        "٪": "%",
        "٫": ".",
        "٬": ",",
        "′": "'",
        "″": '"',
        "”": '"',
    }
)

# What is said for a symbol, wherever it stands.
_SPOKEN = {
    "+": "plus",
    "=": "equals",
    "×": "times",
    "÷": "divided by",
    "±": "plus or minus",
    "@": "at",
    "\N{MINUS SIGN}": "minus",
    "≤": "less than or equal to",
    "≥": "greater than or equal to",
    "≠": "not equal to",
    "≈": "approximately",
    "√": "square root of",
    "∞": "infinity",
    "‰": "per mille",
    "§": "section",
    "²": "squared",
    "³": "cubed",
}

# What is said for a symbol where it stands so; elsewhere it is a bracket, a star of a list or so.
_SPOKEN_BETWEEN = [
    (re.compile(rf"<(?=\s?-?{CURRENCY}?\.?[0-9])"), " less than "),
    (re.compile(rf"(?:(?<!\S)|(?<=[0-9(]))>(?=\s?-?{CURRENCY}?\.?[0-9])"), " greater than "),
    (re.compile(rf"[~∼](?={CURRENCY}?\.?[0-9])"), " approximately "),
    (re.compile(r"(?<=[0-9])\s?\*\s?(?=[0-9])"), " times "),
    (re.compile(r"(?<=\w)\^(?=\w)"), " to the "),
    (re.compile(r"(?<![\w#])#(?=[a-z])"), " hashtag "),
    (re.compile(r"(?<!\w)www\.(?=\w)"), " www dot "),
    (re.compile(r"(?<=\w)\.(?=(?:com|org|net|edu|gov|io|co\.uk)(?!\w))"), " dot "),
]

# Digits in groups: with spaces that do not part words, and in thousands, lakhs and crores. Of plain
# spaces only those before 000 are taken, as two numbers can stand side by side.
_SPACED_GROUPS = re.compile(
    r"(?<![\w.,])[0-9]{1,3}(?:(?:[\u00a0\u2009\u202f][0-9]{3})+|(?: 000)+)(?![0-9])"
)
_LAKHS = re.compile(r"(?<![\w.,])[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}(?![0-9]|,[0-9])")

# "20 €" as "€20", "5 million €" as "€5 million", "€ 5" as "€5", "€-5" as "-€5".
_CURRENCY_BEHIND = re.compile(
    r"(?<![\w.,])"
    rf"(?<!{CURRENCY})"
    rf"(?P<number>[0-9][0-9,]*(?:\.[0-9]+)?(?:\s?(?:{MAGNITUDE}))?)"
    rf"\s?(?P<currency>{CURRENCY})"
    r"(?!\.?[0-9])"
)
_CURRENCY_APART = re.compile(rf"(?<![0-9.])(?<![0-9]\s)(?P<currency>{CURRENCY})\s(?=\.?[0-9])")
_CURRENCY_BEFORE_MINUS = re.compile(
    rf"(?P<currency>{CURRENCY})[-–﹣－\N{{MINUS SIGN}}](?=\.?[0-9])"
)
_PENCE_TWICE = re.compile(r"(?P<amount>£[0-9][0-9,]*\.[0-9]{2})p(?!\w)")
_RUPEES = re.compile(r"(?<!\w)rs\.?\s?(?=[0-9])")
# An amount with a fraction, such as "$2 1/2 million".
_AMOUNT_WITH_FRACTION = re.compile(
    rf"(?P<currency>{CURRENCY})(?P<number>(?:[0-9]{{1,3}}[ -])?[0-9]{{1,3}}/[0-9]{{1,3}})(?![0-9/])"
    rf"(?P<magnitude>\s(?:{MAGNITUDE})(?![a-z]))?"
)
_DOLLARS = {
    "us": "us",
    "c": "canadian",
    "ca": "canadian",
    "a": "australian",
    "au": "australian",
    "nz": "new zealand",
    "hk": "hong kong",
}
_DOLLARS_OF = re.compile(
    rf"(?<!\w)(?P<place>{'|'.join(_DOLLARS)})\$\s?(?P<whole>[0-9][0-9,]*)(?P<decimals>\.[0-9]+)?"
    rf"(?P<magnitude>\s?(?:{MAGNITUDE})(?![a-z]))?"
)


def one_symbol(text: str) -> str:
    """Write symbols that look alike as one, and digits in groups without what stands between."""
    text = text.translate(_ONE_SYMBOL)
    text = _SPACED_GROUPS.sub(lambda found: re.sub(r"\s", "", found[0]), text)
    return _LAKHS.sub(lambda found: found[0].replace(",", ""), text)


def currencies_in_front(text: str) -> str:
    """Put the sign of a currency right before its number, behind a minus; name other dollars."""
    text = _DOLLARS_OF.sub(_spoken_dollars, text)
    text = _RUPEES.sub("₹", text)
    text = _CURRENCY_BEHIND.sub(r"\g<currency>\g<number>", text)
    text = _CURRENCY_APART.sub(r"\g<currency>", text)
    text = _CURRENCY_BEFORE_MINUS.sub(r"-\g<currency>", text)
    text = _PENCE_TWICE.sub(r"\g<amount>", text)
    return _AMOUNT_WITH_FRACTION.sub(_currency_last, text)


def symbols_as_words(text: str) -> str:
    """Write what is said for the symbols that are left."""
    for pattern, words in _SPOKEN_BETWEEN:
        text = pattern.sub(words, text)
    for symbol, name in _SPOKEN.items():
        text = text.replace(symbol, f" {name} ")
    return text


def _spoken_dollars(found: re.Match[str]) -> str:
    """Read ``US$5`` as five US dollars, and ``US$5.50`` with its cents."""
    whole = found["whole"]
    decimals = found["decimals"] or ""
    magnitude = found["magnitude"] or ""
    place = _DOLLARS[found["place"]]

    is_one = whole == "1" and not decimals.strip(".0") and not magnitude
    name = f" {place} dollar" if is_one else f" {place} dollars"
    has_cents = len(decimals) == len(".00") and not magnitude
    if not has_cents:
        return f"{whole}{decimals}{_magnitude_name(magnitude)}{name}"

    cents = int(decimals[1:])
    return f"{whole}{name} and ¢{cents}" if cents else f"{whole}{name}"


def _currency_last(found: re.Match[str]) -> str:
    name = (CURRENCIES | MORE_CURRENCIES)[found["currency"]]
    plural = name if name in SAME_IN_PLURAL else f"{name}s"
    magnitude = _magnitude_name(found["magnitude"] or "")
    return f"{found['number']}{magnitude} {plural}"


def _magnitude_name(magnitude: str) -> str:
    short = magnitude.strip()
    return f" {MAGNITUDES.get(short, short)}" if short else ""
