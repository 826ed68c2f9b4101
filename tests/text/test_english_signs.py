"""``english-2``: signs that are spoken, pairs that must agree and pairs that must not, drawn by a
seed."""

import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechssl.text.english import HESITATIONS, WORDS, cardinal
from speechssl.text.normalise import normalise


def english(text: str) -> str:
    return normalise(text, "english-2")


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        (
            "-5 °C, −1°F and 21° (-0.5)",
            "minus five degrees celsius minus one degree fahrenheit"
            " and twenty one degrees minus point five",
        ),
        ("5-10 people -- 3 of them", "five ten people three of them"),
        ("$.50 is 50¢", "fifty cents is fifty cents"),
        ("5 million € for £3k", "five million euros for three thousand pounds"),
        ("20 €50", "twenty fifty euros"),
        ("¥500, 7₹, 1₹", "five hundred yen seven rupees one rupee"),
        (
            "a 2½-inch, 2 1/2 inch or 2-1/2 inch pipe",
            "a two and one half inch two and one half inch or two and one half inch pipe",
        ),
        ("3/4 and 7/8, 22/7", "three quarters and seven eighths twenty two sevenths"),
        ("24/7, 50/50, 5/12/2020", "twenty four seven fifty fifty five twelve twenty twenty"),
        ("At 5 p.m. U.S. time, i.e. 5pm.", "at five pm us time ie five pm"),
        ("a Ph.D. of J.R.R. Tolkien", "a phd of jrr tolkien"),
        ("the end.Next v. 2.0.1", "the end next v two point zero one"),
        ("H.M. the Queen, R&D R&D", "h m the queen r and d r and d"),
        ("mm-hmm, uh-huh, mhm, ummm, uh-oh", "uh oh"),
        ("C++ and 2+2=4 @home #5", "c plus plus and two plus two equals four at home number five"),
        ("５０%", "fifty percent"),
    ],
)
def test_signs_are_read(written: str, spoken: str) -> None:
    assert english(written) == spoken


@pytest.mark.parametrize("seed", range(20))
def test_one_reading_has_one_spelling(seed: int) -> None:
    """Spellings of one thing, put between the words of a sentence; some of a recogniser's own."""
    draw = random.Random(seed)
    number = draw.randrange(2, 1000)
    digit = draw.randrange(1, 10)
    letters = draw.sample("bcdefgjklnpqtuvwxyz", 3)
    fraction = draw.choice("½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞")
    value = Fraction(*_parts(fraction))

    spellings = [
        [f"{number}€", f"{number} €", f"€{number}", f"{cardinal(number)} euros"],
        [f"-{number}", f"−{number}", f"minus {number}", f"minus {cardinal(number)}"],
        [f".{digit}", f"0.{digit}", f"point {cardinal(digit)}", f"zero point {cardinal(digit)}"],
        [fraction, f"{value.numerator}/{value.denominator}"],
        [f"{digit}{fraction}", f"{digit} {value.numerator}/{value.denominator}"],
        [".".join(letters) + ".", "".join(letters), " ".join(letters), ". ".join(letters) + "."],
        [f"{digit} a.m.", f"{digit} AM", f"{digit}am", f"{cardinal(digit)} a m"],
        ["mm-hmm", "mm hmm", "mhm", "uh-huh", ""],
    ]
    for alike in spellings:
        sentences = {english(f"so {spelling} then") for spelling in alike}
        assert len(sentences) == 1, alike


@pytest.mark.parametrize("seed", range(20))
def test_two_readings_have_two_spellings(seed: int) -> None:
    draw = random.Random(seed)
    number = draw.randrange(2, 100)
    other = draw.randrange(number + 1, 200)
    different = [
        (f"{number}", f"-{number}"),
        (f"{number}", f".{number}"),
        (f"{number}", f"{number}€"),
        (f"{number}", f"{number}°"),
        (f"{number} {other}", f"{number}/{other}"),
        (f"{number} {other}", f"{number}+{other}"),
        (f"{number}€", f"{number}¥"),
        ("oh", "uh-oh"),
    ]
    for one, another in different:
        assert english(f"so {one} then") != english(f"so {another} then"), (one, another)


PIECES = [
    *[
        "and",
        "hundred",
        "five",
        "uh",
        "oh",
        "n't",
        "mm",
        "hmm",
        "-",
        "1/2",
        "½",
        "°",
        "€",
        "u",
        "s",
    ],
    *["a", "m", "0", "7", ",", ".", "%", "$", "th", "point", "zero", "/", "half", "c", "'"],
    *["km", "mm", "no.", "№", ":", "5:05", "$5.05", "per", "cent", "litre", "jr", "etc", "one"],
]


@given(
    st.lists(st.sampled_from([*PIECES, *WORDS, *HESITATIONS, " ", " ", " "])).map("".join)
    | st.text()
)
def test_applying_it_twice_changes_nothing(text: str) -> None:
    once = english(text)
    assert english(once) == once
    assert normalise(once, "basic-2") == once


@given(st.lists(st.sampled_from(["so", "it", "was", "can't", "Mr.", "21st", "5%", "R&D", "um,"])))
def test_what_english_1_reads_right_stays(pieces: list[str]) -> None:
    text = " ".join(pieces)
    assert english(text) == normalise(text, "english-1")


def _parts(fraction: str) -> tuple[int, int]:
    """Numerator and denominator by Python's own value of the character."""
    import unicodedata

    value = Fraction(unicodedata.numeric(fraction)).limit_denominator(100)
    return value.numerator, value.denominator
