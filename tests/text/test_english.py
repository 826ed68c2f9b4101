"""English written out: numbers as another library has them, cases read by hand, a fixed point."""

from functools import cache
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechssl.text.english import HESITATIONS, WORDS, cardinal, ordinal, year
from speechssl.text.normalise import normalise

if TYPE_CHECKING:
    import inflect


@cache
def theirs() -> "inflect.engine":
    """Another library's numbers; it takes four seconds to import."""
    import inflect

    return inflect.engine()


def english(text: str) -> str:
    return normalise(text, "english-1")


def plain(words: str) -> str:
    return words.replace("-", " ").replace(",", "")


@given(st.integers(0, 10**15 - 1))
def test_cardinals_are_those_of_inflect(number: int) -> None:
    assert cardinal(number) == plain(str(theirs().number_to_words(number, andword="")))


@given(st.integers(1, 10**6))
def test_ordinals_are_those_of_inflect(number: int) -> None:
    their_words = theirs().number_to_words(str(theirs().ordinal(number)), andword="")
    assert ordinal(cardinal(number)) == plain(str(their_words))


@pytest.mark.parametrize(
    ("number", "read"),
    [
        (1905, "nineteen oh five"),
        (1500, "fifteen hundred"),
        (1984, "nineteen eighty four"),
        (2000, "two thousand"),
        (2007, "two thousand seven"),
        (2024, "twenty twenty four"),
    ],
)
def test_years(number: int, read: str) -> None:
    assert year(number) == read


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("It’s 1,234.50!", "it's one thousand two hundred thirty four point five zero"),
        ("on the 21st of May 1984", "on the twenty first of may nineteen eighty four"),
        ("in the 1980s and the '90s", "in the nineteen eighties and the nineties"),
        ("$5, £1 and €2,000", "five dollars one pound and two thousand euros"),
        ("5% of R&D", "five percent of r and d"),
        ("call 0049 30", "call zero zero four nine thirty"),
        ("mp3s in 3D at 5pm", "mp three s in three d at five pm"),
        ("10pm, 25km, 12's", "ten pm twenty five km twelve s"),
        ("2.5km and 5,000m", "two point five km and five thousand m"),
        (
            "$1.5m, $20bn, $5 million, £3k",
            "one point five million dollars twenty billion dollars five million dollars "
            "three thousand pounds",
        ),
        ("$5 millionaires", "five dollars millionaires"),
        ("21sts", "twenty one sts"),
        ("10 mm in the ER", "ten mm in the er"),
        (
            "He won't, I can't, we're done, you'll see",
            "he will not i can not we are done you will see",
        ),
        ("they'd say Dr. Smith's cannot", "they'd say doctor smith's can not"),
        ("um, one hundred and, uh, five of them", "one hundred five of them"),
        ("two hundred and many", "two hundred and many"),
        ("Ain't we gonna go?", "ain't we going to go"),
        ("twenty-one", "twenty one"),
        ("21", "twenty one"),
        ("9" * 16, " ".join(["nine"] * 16)),
        ("3.5.2", "three point five two"),
    ],
)
def test_one_spelling_for_one_reading(written: str, spoken: str) -> None:
    assert english(written) == spoken


PIECES = [
    "and",
    "hundred",
    "five",
    "uh",
    "n't",
    "'re",
    "'ll",
    "don't",
    "can't",
    "0",
    "7",
    ",",
    ".",
    "%",
    "$",
    "s",
    "th",
]


@given(
    st.lists(st.sampled_from([*PIECES, *WORDS, *HESITATIONS, " ", " "])).map("".join) | st.text()
)
def test_applying_it_twice_changes_nothing(text: str) -> None:
    once = english(text)
    assert english(once) == once
    assert normalise(once, "basic-1") == once


@given(st.text(alphabet=st.characters(categories=["L", "M"])))
def test_words_that_are_not_english_stay_as_basic_has_them(text: str) -> None:
    basic = normalise(text, "basic-1")
    assert english(text) == ("" if basic in HESITATIONS else WORDS.get(basic, basic))
