"""Clock times, dates, amounts with cents, and units behind a number, as English says them.

It is part of ``english-2``. What is said in several ways is left as it stands: phone numbers, roman
numerals, "St.", and "five fifty" for an amount.
"""

import re

from speechssl.text.english import GROUPS, MAGNITUDE, ONES, TENS

_CLOCK = re.compile(
    r"(?<![\w.,:/\-])(?P<hour>1[0-2]|0?[1-9]):(?P<minute>0[0-9])(?![\w:/\-]|[.,][0-9])"
    r"(?P<half>\s?[ap]\.?\s?m\b)?"
)
# "3.30 pm", as the British write it.
_CLOCK_WITH_STOP = re.compile(
    r"(?<![\w.,:/\-])(?P<hour>1[0-2]|0?[1-9])\.(?P<minute>[0-5][0-9])(?=\s?[ap]\s?m(?!\w))"
)

_CENTS = re.compile(
    r"(?P<currency>[$€£])(?P<whole>[0-9][0-9,]*)\.(?P<cents>[0-9]{2})"
    rf"(?![0-9]|\.[0-9]|\s*(?:{MAGNITUDE})(?![a-z]))"
)

# "No. 5", "Nos. 5 and 6", "№ 5". Without its full stop "no 5" is an answer.
_NUMBER_ABBREVIATION = re.compile(r"(?<![\w.'])(?:no(?P<plural>s)?\. ?|№ ?|no?° ?)(?=[0-9])")

# "May 5, 2020", and "on May 5": the day is said as an ordinal. Without either, "may 5" can be other
# words.
_MONTHS = (
    "january|february|march|april|may|june|july|august|september|october|november|december"
    "|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec"
)
_DATE = re.compile(
    rf"(?<!\w)(?P<month>(?P<on>on )?(?:{_MONTHS})\.?) (?P<day>[12][0-9]|3[01]|[1-9])"
    r"(?(on)(?![\w:%/]|[.,][0-9])|(?=,? (?:1[0-9]|20)[0-9]{2}(?![\w:%/]|[.,][0-9])))"
)

# "6'2"": feet and inches.
_HEIGHT = re.compile(r"(?<![\w.,'])(?P<feet>[1-9])' ?(?P<inches>1[01]|[0-9])(?:\"|'')(?!\w)")

# Behind a number: "km/h" is "kph" below, and "km²", "sq. km" and "km2" are square kilometers.
_PER_TIME = {"km/h": "kph", "km/hr": "kph", "kmh": "kph", "mi/h": "mph", "m/s": "mps"}
_SPEED = re.compile(rf"(?<=[0-9])\s?(?P<unit>{'|'.join(_PER_TIME)})(?!\w)")
_LENGTHS = {
    "km": "kilometer",
    "m": "meter",
    "cm": "centimeter",
    "mm": "millimeter",
    "mi": "mile",
    "ft": "foot",
    "in": "inch",
}
_LENGTH = "|".join(_LENGTHS)
_AREA = re.compile(
    r"(?<![\w.,])(?P<number>[0-9][0-9,]*(?:\.[0-9]+)?)\s?"
    rf"(?:(?P<behind>{_LENGTH})(?P<power>[23²³])|(?P<name>sq|cu)\.? (?P<before>{_LENGTH}))(?!\w)"
)
_POWERS = {"2": "square", "²": "square", "sq": "square", "3": "cubic", "³": "cubic", "cu": "cubic"}

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
    "mps": "meter per second",
    "sec": "second",
    "secs": "second",
    "min": "minute",
    "mins": "minute",
    "hr": "hour",
    "hrs": "hour",
    "yd": "yard",
    "yds": "yard",
    "gal": "gallon",
    "kcal": "kilocalorie",
    "kwh": "kilowatt hour",
    "mwh": "megawatt hour",
    "mw": "megawatt",
    "gw": "gigawatt",
    "mcg": "microgram",
}
_PLURALS = {"foot": "feet", "inch": "inches"}
_BRITISH_ENDINGS = {
    "metre": "meter",
    "metres": "meters",
    "litre": "liter",
    "litres": "liters",
    "gramme": "gram",
    "grammes": "grams",
}

_NUMBER_ENDS = frozenset({*ONES, *TENS, *GROUPS})
# Behind these "one" is the end of a longer number.
_INSIDE_NUMBERS = _NUMBER_ENDS | {"point", "oh"}


def measures_written(text: str) -> str:
    """Write clock times, dates, amounts with cents and "No." so that their numbers can be read."""
    text = _DATE.sub(r"\g<month> \g<day>th", text)
    text = _CLOCK_WITH_STOP.sub(r"\g<hour>:\g<minute>", text)
    text = _CLOCK.sub(_spoken_clock, text)
    text = _HEIGHT.sub(r"\g<feet> foot \g<inches>", text)
    text = _AREA.sub(_spoken_area, text)
    text = _SPEED.sub(lambda found: f" {_PER_TIME[found['unit']]}", text)
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


def _spoken_area(found: re.Match[str]) -> str:
    """Read ``5 km²`` as five square kilometers."""
    unit = _LENGTHS[found["behind"] or found["before"]]
    power = _POWERS[found["power"] or found["name"]]
    words = " ".join(_unit(unit, is_one=found["number"] == "1"))
    return f"{found['number']} {power} {words}"


def _spoken_abbreviation(found: re.Match[str]) -> str:
    return " numbers " if found["plural"] else " number "


def _unit(name: str, is_one: bool) -> list[str]:
    before, per, behind = name.partition(" per ")
    *others, last = before.split()
    if not is_one and not last.endswith("hertz"):
        last = _PLURALS.get(last, f"{last}s")
    return [*others, last, *(per + behind).split()]


def _american(word: str) -> str:
    for ending, american in _BRITISH_ENDINGS.items():
        if word.endswith(ending):
            return word.removesuffix(ending) + american
    return word
