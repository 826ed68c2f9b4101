"""Which texts have no spaces between words: by their letters, not by the spaces that they have."""

import random

import pytest

from speechssl.text.word_spaces import are_without_word_spaces

# Sentences of one meaning. Thai and Lao have spaces between phrases, Korean between words.
WITHOUT = (
    "今天天气很好",
    "今日は天気がいい",
    "ｷｮｳﾊﾃﾝｷｶﾞｲｲ",
    "วันนี้อากาศดี เราไปเดินเล่นกัน",
    "ມື້ນີ້ອາກາດດີ ພວກເຮົາໄປຍ່າງຫຼິ້ນ",
    "ថ្ងៃនេះអាកាសធាតុល្អ",
    "ဒီနေ့ရာသီဥတုကောင်းတယ်",
)
WITH = (
    "the weather is fine",
    "heute",
    "오늘 날씨가 좋다",
    "आज मौसम अच्छा है",
    "הַיּוֹם מֶזֶג הָאֲוִיר טוֹב",
    "сегодня хорошая погода",
    "hôm nay thời tiết đẹp",
    # Its syllables are parted by a mark, of which normalising makes a space.
    "དེ་རིང་གནམ་གཤིས་ཡག་པོ་འདུག",
)


@pytest.mark.parametrize("seed", range(5))
def test_more_than_half_of_the_letters_decide(seed: int) -> None:
    draws = random.Random(seed)
    without = draws.choices(WITHOUT, k=4)
    with_spaces = draws.choices(WITH, k=4)
    assert are_without_word_spaces(without)
    assert not are_without_word_spaces(with_spaces)
    # A foreign name or a number changes nothing.
    assert are_without_word_spaces([*without, "ok 2026"])
    assert not are_without_word_spaces([*with_spaces, draws.choice("東中山")])


@pytest.mark.parametrize("seed", range(10))
def test_words_of_two_languages_count_alike(seed: int) -> None:
    """A speaker of Chinese who says English words, and one of English with Chinese names."""
    draw = random.Random(seed)
    english = ["presentation", "shopping", "project", "download", "meeting"]
    chinese = ["今天", "我们", "需要", "一下", "那个", "时候"]
    sentences = [
        f"{' '.join(draw.choices(english, k=2))} ".join(["".join(draw.choices(chinese, k=3))] * 2)
        for _ in range(5)
    ]
    assert are_without_word_spaces(sentences)
    names = [f"{' '.join(draw.choices(english, k=5))} {draw.choice(chinese)}" for _ in range(5)]
    assert not are_without_word_spaces(names)


def test_texts_without_letters_have_nothing_to_part() -> None:
    assert not are_without_word_spaces([])
    assert not are_without_word_spaces(["", "12 34", "..."])
