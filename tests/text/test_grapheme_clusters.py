"""Grapheme clusters, against those of another library."""

import random
import unicodedata
from itertools import accumulate

import pytest
import regex

from speechssl.text.grapheme_clusters import belongs_to

# Letters, marks and signs of scripts whose clusters have several code points.
PARTS: list[str | list[str]] = [
    "กขงดนเแำาะิ้ํ",  # Thai
    "ກຂດນເຳິ້ົ",  # Lao
    "កខញស្រុំ់ា",  # Khmer
    "कषतर्िी\u200d\u200c़",  # Devanagari
    "কতর্য\u200dি",  # Bengali
    "ക്ഷന\u200dി",  # Malayalam
    ["한", "\u1100\u119e\u11a8", "가", "\ua960\u1161", "\u1112\ud7b0\u11ab"],  # Hangul
    "かはﾊｶ\u3099\u309aﾞﾟ",  # kana
    "aeo\u0301\u0323\u0308",
    ["👨\u200d👩\u200d👧", "👍🏽", "🇩🇪", "🇫🇷", "❤\ufe0f\u200d🔥", "a"],
    "גבְ\u05bcכَّ",  # Hebrew and Arabic marks
]


def clusters(text: str) -> list[str]:
    found: list[str] = []
    for character in text:
        if found and belongs_to(found[-1], character):
            found[-1] += character
        else:
            found.append(character)
    return found


def ends(parts: list[str]) -> set[int]:
    return set(accumulate(map(len, parts)))


@pytest.mark.parametrize("seed", range(20))
def test_clusters_are_those_of_another_library(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(100):
        text = "".join(draw.choices(draw.choice(PARTS), k=draw.randint(1, 12)))
        assert clusters(text) == regex.findall(r"\X", text), ascii(text)


@pytest.mark.parametrize("seed", range(20))
def test_no_cluster_of_any_script_is_parted(seed: int) -> None:
    """But for the signs that Arabic and Indic scripts write over the numbers behind them."""
    draw = random.Random(seed)
    characters = map(chr, range(0x110000))
    assigned = [c for c in characters if unicodedata.category(c) not in ("Cc", "Cn", "Co", "Cs")]
    known = regex.findall(r"\P{GCB=Prepend}", "".join(assigned))
    marks = [character for character in known if unicodedata.category(character)[0] == "M"]
    for _ in range(2000):
        text = "".join(draw.choice(draw.choice([known, marks])) for _ in range(draw.randint(1, 6)))
        assert ends(clusters(text)) <= ends(regex.findall(r"\X", text)), ascii(text)


def test_burmese_syllables_end_behind_the_asat_and_keep_their_vowels() -> None:
    assert clusters("ကျွန်တော်") == ["ကျွ", "န်", "တော်"]
    assert clusters("သန္တ") == ["သ", "န္တ"]
