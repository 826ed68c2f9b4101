"""``english-2``: symbols in further spellings, and what must not be lost with them."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechssl.text.english import cardinal
from speechssl.text.normalise import normalise


def english(text: str) -> str:
    return normalise(text, "english-2")


def wide(text: str) -> str:
    """The same in the full width of East Asian fonts."""
    return "".join(chr(ord(character) + 0xFEE0) for character in text)


@pytest.mark.parametrize("seed", range(20))
def test_one_reading_has_one_spelling(seed: int) -> None:
    draw = random.Random(seed)
    number = draw.randrange(2, 100)
    told = cardinal(number)
    sign, name = draw.choice([("$", "dollar"), ("€", "euro"), ("£", "pound"), ("₹", "rupee")])
    place, dollars = draw.choice([("US", "us"), ("C", "canadian"), ("NZ", "new zealand")])
    space = draw.choice("\u00a0\u2009\u202f")
    group = draw.randrange(100, 1000)
    spellings = [
        [f"{sign} {number}", f"{sign}{number}", f"{number}{sign}", f"{told} {name}s"],
        [f"{sign}-{number}", f"-{sign}{number}", f"minus {told} {name}s"],
        [f"{sign}{number}½ million", f"{told} and a half million {name}s"],
        [f"{place}${number}", f"{place}$ {number}", f"{told} {dollars} dollars"],
        [f"{place}${number}.50", f"{told} {dollars} dollars and fifty cents"],
        [f"£{number}.20p", f"£{number}.20"],
        [f"Rs. {number}", f"Rs {number}", f"{told} rupees"],
        [f"{number}℃", f"{number} º C", f"{number}˚C", f"{told} degrees celsius"],
        [f"{number}℉", f"{number}°F", f"{told} degrees fahrenheit"],
        [wide(f"${number}%"), f"${number}%"],
        [f"{number}{space}{group}", f"{number},{group}", f"{number}{group}"],
        [f"{number} 000 000", f"{told} million"],
        [f"{number},00,000", f"{number}00000"],
        [f"Nº {number}", f"N° {number}", f"no. {number}", f"number {told}"],
        [f"{number} km/h", f"{number}kmh", f"{told} kilometres per hour"],
        [f"{number} m²", f"{number} m2", f"{number} sq. m", f"{told} square metres"],
        [f"{number}³", f"{told} cubed"],
        [f"§ {number}", f"section {told}"],
        [f"CO₂ {number}", f"CO2 {number}"],
        [f"{number}.com", f"{told} dot com"],
        ["5'11\"", "5’11”", "5′11″", "five foot eleven"],
    ]
    for alike in spellings:
        sentences = {english(f"so {spelling} then") for spelling in alike}
        assert len(sentences) == 1, alike


@pytest.mark.parametrize("seed", range(20))
def test_no_symbol_that_is_said_is_lost(seed: int) -> None:
    draw = random.Random(seed)
    number, other = draw.sample(range(1, 100), 2)
    for symbol in "<>≤≥≈~√§$€":
        assert english(f"so {symbol}{number}") != english(f"so {number}"), symbol
    for symbol in "*^≠=":
        assert english(f"{number}{symbol}{other}") != english(f"{number} {other}"), symbol
    assert english("#home at home.com") != english("home at home com")
    # Markup and the quotation of a mail are no comparisons.
    assert english(f"<b>{number}</b> -> x") == english(f"b {number} b x")


PIECES = "$ € £ rs. us$ c$ ° º ℃ km/h m² sq. ' \" 2 5 0 00 000 . , - / ½ ² ₂ < > ~ * ^ # § √ p pm m"


@given(st.lists(st.sampled_from([*PIECES.split(), " ", " ", " ", "\u2009"])).map("".join))
def test_applying_it_twice_changes_nothing(text: str) -> None:
    once = english(text)
    assert english(once) == once
    assert normalise(once, "basic-2") == once
