"""``english-2``: clock times, amounts, units and abbreviations, against names of numbers that are
put together here. Different numbers stay different in each of them."""

import random

import pytest

from speechssl.text.normalise import normalise

# fmt: off
SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen",
)
TENS = (
    "", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
)
# fmt: on
GROUPS = ["", " thousand", " million", " billion"]
UNITS = {
    "km": "kilometer",
    "cm": "centimeter",
    "kg": "kilogram",
    "ml": "milliliter",
    "lb": "pound",
    "oz": "ounce",
    "GB": "gigabyte",
}


def english(text: str) -> str:
    return normalise(text, "english-2")


def name_of(number: int) -> str:
    """The British name of a number, built group by group from its digits."""
    digits = f"{number:,}".split(",")
    names = []
    for group, name in zip(reversed(digits), GROUPS, strict=False):
        if int(group):
            names.insert(0, _below_thousand(int(group)) + name)
    return " ".join(names) or "zero"


def _below_thousand(number: int) -> str:
    hundreds, rest = divmod(number, 100)
    parts = [f"{SMALL[hundreds]} hundred"] if hundreds else []
    if rest:
        tens, ones = divmod(rest, 10)
        name = SMALL[rest] if rest < 20 else TENS[tens] + (f"-{SMALL[ones]}" if ones else "")
        parts.append(name)
    return " and ".join(parts)


def some_number(draw: random.Random, digits: int = 9) -> int:
    return draw.randrange(2, 10 ** draw.randint(1, digits))


def spellings(draw: random.Random) -> list[list[str]]:
    """Lists of what is one reading: a number as digits and in words, and what is behind it."""
    number = some_number(draw)
    told = name_of(number)
    unit, unit_name = draw.choice(list(UNITS.items()))
    british = unit_name.replace("meter", "metre").replace("liter", "litre")
    hour, minute, late = draw.randint(1, 12), draw.randint(1, 9), draw.randint(10, 59)
    cents = draw.randint(2, 99)
    sign, whole_name, cent_name = draw.choice(
        [("$", "dollars", "cents"), ("€", "euros", "cents"), ("£", "pounds", "pence")]
    )
    return [
        [f"{number:,}", told],
        [f"{number:,}%", f"{told} per cent", f"{number:,} percent", f"{number:,} per cent"],
        [f"No. {number:,}", f"number {told}", f"№ {number:,}", f"# {number:,}"],
        [f"{number:,} {unit}", f"{number:,}{unit}", f"{told} {unit_name}s", f"{told} {british}s"],
        [f"1 {unit}", f"one {unit_name}", f"one {british}"],
        [f"{hour}:0{minute}", f"{name_of(hour)} oh {name_of(minute)}"],
        [f"{hour}:{late}", f"{name_of(hour)} {name_of(late)}"],
        [f"{hour}:00", f"{hour} o'clock", f"{name_of(hour)} o'clock"],
        [f"{hour}:00 p.m.", f"{hour}pm", f"{name_of(hour)} p m"],
        [f"{sign}{number:,}.{cents:02}", f"{told} {whole_name} and {name_of(cents)} {cent_name}"],
        [f"{sign}0.{cents:02}", f"{sign}.{cents:02}", f"{name_of(cents)} {cent_name}"],
        [f"{sign}{number:,}.00", f"{sign}{number:,}", f"{told} {whole_name}"],
        ["3/4", "three quarters", "three fourths"],
        ["etc.", "et cetera"],
    ]


@pytest.mark.parametrize("seed", range(30))
def test_one_reading_has_one_spelling(seed: int) -> None:
    draw = random.Random(seed)
    for alike in spellings(draw):
        sentences = {english(f"so {spelling} then") for spelling in alike}
        assert len(sentences) == 1, alike


@pytest.mark.parametrize("seed", range(30))
def test_different_numbers_stay_different(seed: int) -> None:
    draw = random.Random(seed)
    number = some_number(draw)
    digits = list(str(number))
    draw.shuffle(digits)
    others = {number + 1, number * 10, number + 100, int("".join(digits)), some_number(draw)}
    for other in others - {number}:
        for form in ("{:,}", "{}", "{}%", "No. {}", "{} km", "{}lb", "${}", "${}.05", "${:,}.50"):
            one, another = form.format(number), form.format(other)
            assert english(one) != english(another), (one, another)
            assert english(one) != english(name_of(other)), (one, another)

    first, second = draw.sample(range(1, 60), 2)
    hour = draw.randint(1, 12)
    different = [
        (f"{hour}:{first:02}", f"{hour}:{second:02}"),
        # Behind ten the four digits are a year, which is said as the time is.
        (f"{min(hour, 9)}:{first:02}", f"{min(hour, 9)}{first:02}"),
        (f"{hour}:00", f"{hour}"),
        (f"{hour}:00 am", f"{hour}:00 pm"),
        (f"${hour}.{first:02}", f"${hour}.{second:02}"),
        (f"${hour}.{first:02}", f"€{hour}.{first:02}"),
        (f"${hour}.{first:02}", f"{hour}.{first:02}"),
        (f"{hour} km", f"{hour} cm"),
    ]
    for one, another in different:
        assert english(one) != english(another), (one, another)


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("No, 5 of them. no 5", "no five of them no five"),
        ("Nos. 5 and 6", "numbers five and six"),
        ("$1.01, £2.01, $1.5 and $2.25 million", "one dollar and one cent"
         " two pounds and one penny one point five dollars and two point two five million dollars"),
        ("1 ft, 2 ft, 21 ft, 0.1 km", "one foot two feet twenty one feet point one kilometers"),
        ("60 mph, 10 kHz, 5 mm-hmm", "sixty miles per hour ten kilohertz five"),
        ("km by km, ft.", "km by km ft"),
        ("12:00:05, 10:5, 13:05", "twelve zero zero zero five ten five thirteen zero five"),
        ("Sammy Davis Jr. and J.R. Ewing", "sammy davis junior and j r ewing"),
    ],
)  # fmt: skip
def test_what_is_read_and_what_is_left(written: str, spoken: str) -> None:
    assert english(written) == spoken
