"""``english-2``: numbers in words, dates and short forms in further spellings."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inflect import engine

from speechssl.text.english import year
from speechssl.text.normalise import normalise

INFLECT = engine()


def english(text: str) -> str:
    return normalise(text, "english-2")


def name_of(number: int) -> str:
    """The British name, by another library."""
    return str(INFLECT.number_to_words(number))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(30))
def test_one_reading_has_one_spelling(seed: int) -> None:
    draw = random.Random(seed)
    of_years = draw.choice([*range(1100, 2000), *range(2010, 2100)])
    hundreds = draw.randrange(101, 1000)
    digit = draw.randint(1, 9)
    day = draw.randint(1, 31)
    month = draw.choice(["January", "May", "March", "October"])
    group = draw.choice(["hundred", "thousand", "million"])
    spellings = [
        [f"{of_years:,}", f"{of_years}", name_of(of_years), year(of_years)],
        [f"{hundreds}th", str(INFLECT.ordinal(name_of(hundreds)))],
        [f"a {group} and {name_of(digit)}", f"one {group} {name_of(digit)}"],
        ["a half", "½"],
        [f"{digit}.0", f"{name_of(digit)} point oh", f"{name_of(digit)} point zero"],
        [f"190{digit}", f"nineteen o {name_of(digit)}", f"nineteen oh {name_of(digit)}"],
        [
            f"{month} {day}, 1998",
            f"{month} {day}th 1998",
            f"{month} {INFLECT.ordinal(name_of(day))} 1998",
        ],
        [f"on {month} {day}", f"on {month} {day}th"],
        [f"{digit}.30 pm", f"{digit}:30pm", f"{name_of(digit)} thirty p.m."],
        [f"{digit} mins", f"{digit} min.", f"{digit} {'minute' if digit == 1 else 'minutes'}"],
        ["rock 'n' roll", "rock & roll", "rock'n'roll", "rock n' roll", "rock 'n roll"],
        ["’cause", "because"],
        ["get 'em", "get them"],
        ["c'mon", "come on"],
        ["kinda", "kind of"],
        ["Ph. D.", "Ph.D.", "PhD"],
        [draw.choice(["m-hm", "mm hm", "hm-mm", "unh-huh", "mhm mm"]), ""],
    ]
    for alike in spellings:
        sentences = {english(f"so {spelling} then") for spelling in alike}
        assert len(sentences) == 1, alike


@pytest.mark.parametrize("seed", range(30))
def test_different_numbers_stay_different(seed: int) -> None:
    draw = random.Random(seed)
    one, other = draw.sample(range(1000, 2200), 2)
    for form in ("{:,}", "${}", "{} million", "5{}", "{:,}.5", "No. {}"):
        assert english(form.format(one)) != english(form.format(other)), (form, one, other)


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("you may 5 times, may 5%", "you may five times may five percent"),
        ("on May 5:30 or May 5.5", "on may five thirty or may five point five"),
        ("half a million, many a man", "half a million many a man"),
        ("nuh-uh, the cause 'em'", "nuh uh the cause em"),
        ("two thousand one, one thousand one", "two thousand one one thousand one"),
        ("one thousand two hundred million", "one thousand two hundred million"),
    ],
)
def test_what_is_read_and_what_is_left(written: str, spoken: str) -> None:
    assert english(written) == spoken


PIECES = (
    "one two five hundred thousand million and a half point zero oh o first tenth twenty "
    "fifteen ' n em may 5 , 1998 on m hm nuh uh"
)


@given(st.lists(st.sampled_from(PIECES.split())).map(" ".join))
def test_applying_it_twice_changes_nothing(text: str) -> None:
    once = english(text)
    assert english(once) == once
