"""Clock times, amounts with cents, and units behind a number, as English says them.

It is part of ``english-2``. What is said in several ways is left as it stands: phone numbers, roman
numerals, "St.", and "five fifty" for an amount.
"""

import re

from speechssl.text.english import GROUPS, MAGNITUDE, ONES, TENS

_CLOCK = re.compile(
    r"(?<![\w.,:/\-])(?P<hour>1[0-2]|0?[1-9]):(?P<minute>0[0-9])(?![\w:/\-]|[.,][0-9])"
    r"(?P<half>\s?[ap]\.?\s?m\b)?"
)

_CENTS = re.compile(
    r"(?P<currency>[$€£])(?P<whole>[0-9][0-9,]*)\.(?P<cents>[0-9]{2})"
    rf"(?![0-9]|\.[0-9]|\s*(?:{MAGNITUDE})(?![a-z]))"
)

# "No. 5", "Nos. 5 and 6", "№ 5". Without its full stop "no 5" is an answer.
_NUMBER_ABBREVIATION = re.compile(r"(?<![\w.'])(?:no(?P<plural>s)?\. ?|№ ?)(?=[0-9])")

# Behind a number they have one reading. "m" and "in" have several there too.
_UNITS = {
    "km": "kilometer",
    "cm": "centimeter",
    "mm": "millimeter",
    "kg": "kilogram",
    "mg": "milligram",
    "ml": "milliliter",
    "lb": "pound",
    "lbs": "pound",
    "oz": "ounce",
    "ft": "foot",
    "kb": "kilobyte",
    "mb": "megabyte",
    "gb": "gigabyte",
    "tb": "terabyte",
    "kw": "kilowatt",
    "hz": "hertz",
    "khz": "kilohertz",
    "mhz": "megahertz",
    "ghz": "gigahertz",
    "mph": "mile per hour",
    "kph": "kilometer per hour",
}
_PLURALS = {"foot": "feet"}
_BRITISH_ENDINGS = {"metre": "meter", "metres": "meters", "litre": "liter", "litres": "liters"}

_NUMBER_ENDS = frozenset({*ONES, *TENS, *GROUPS})
# Behind these "one" is the end of a longer number.
_INSIDE_NUMBERS = _NUMBER_ENDS | {"point", "oh"}


def measures_written(text: str) -> str:
    """Write clock times, amounts with cents and "No." so that their numbers can be read."""
    text = _CLOCK.sub(_spoken_clock, text)
    text = _CENTS.sub(_spoken_cents, text)
    return _NUMBER_ABBREVIATION.sub(_spoken_abbreviation, text)


def units_written_out(words: list[str]) -> list[str]:
    """Write out units behind a number, and give those of both sides of the ocean one spelling."""
    written: list[str] = []
    two_before = ""
    before = ""

    for word in words:
        if word in _UNITS and before in _NUMBER_ENDS:
            is_one = before == "one" and two_before not in _INSIDE_NUMBERS
            written += _unit(_UNITS[word], is_one)
        else:
            written.append(_american(word))
        two_before, before = before, word

    return written


def _spoken_clock(found: re.Match[str]) -> str:
    """Read ``5:05`` as five oh five, ``5:00`` as five o'clock, and ``5:00 pm`` as five pm."""
    hour = int(found["hour"])
    minute = int(found["minute"])
    half = found["half"] or ""
    if minute:
        return f"{hour} oh {minute}{half}"
    return f"{hour}{half}" if half else f"{hour} o'clock"


def _spoken_cents(found: re.Match[str]) -> str:
    """Read ``$5.50`` as five dollars and fifty cents, and ``£0.50`` as fifty pence."""
    whole = found["whole"].replace(",", "").lstrip("0")
    cents = int(found["cents"])
    amount = f"{found['currency']}{found['whole']}"
    if not cents:
        return amount

    if found["currency"] == "£":
        small = "1 penny" if cents == 1 else f"{cents} pence"
    else:
        small = f"¢{cents}"
    return f"{amount} and {small}" if whole else small


def _spoken_abbreviation(found: re.Match[str]) -> str:
    return " numbers " if found["plural"] else " number "


def _unit(name: str, is_one: bool) -> list[str]:
    first, *others = name.split()
    if not is_one and not first.endswith("hertz"):
        first = _PLURALS.get(first, f"{first}s")
    return [first, *others]


def _american(word: str) -> str:
    for ending, american in _BRITISH_ENDINGS.items():
        if word.endswith(ending):
            return word.removesuffix(ending) + american
    return word
