"""Times of characters where a text has no spaces, and of words elsewhere."""

import random

import pytest
import torch
from torch import Tensor

from speechssl.decoding.align import find_words
from speechssl.decoding.hypothesis import Decoded
from speechssl.decoding.spoken_units import SpokenUnit, find_units
from speechssl.scoring.calibration import Scaling
from speechssl.text.character_tokenizer import CharTokenizer
from speechssl.text.tokenizer import Tokenizer
from speechssl.text.vocabulary_tokenizer import VocabularyTokenizer
from speechssl.text.words_or_characters import words_or_characters


def spoken(tokenizer: Tokenizer, text: str, frames_each: int = 2) -> tuple[Tensor, Decoded]:
    """Log-probabilities that say each token over so many frames, with a blank behind each."""
    ids = tokenizer.encode(text)
    path = [i for token in ids for i in [token] * frames_each + [tokenizer.blank_id]]
    probabilities = torch.full((len(path), tokenizer.size), 0.1 / (tokenizer.size - 1))
    probabilities[range(len(path)), path] = 0.9
    return probabilities.log(), Decoded(tuple(ids))


def joined(units: list[SpokenUnit]) -> str:
    text = ""
    for unit in units:
        text += ("" if unit.follows or not text else " ") + unit.text
    return text


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("中国人", ["中", "国", "人"]),
        ("用iphone打 电话", ["用", "iphone", "打", "电", "话"]),
        ("กินข้าว", ["กิ", "น", "ข้", "า", "ว"]),
        ("かか\u3099", ["か", "か\u3099"]),
        ("hello wörld", ["hello", "wörld"]),
        ("한국어 말", ["한국어", "말"]),  # Korean has spaces
    ],
)
def test_each_character_has_its_time(text: str, units: list[str]) -> None:
    tokenizer = CharTokenizer("".join(sorted({" ", *text})))
    log_probs, decoded = spoken(tokenizer, text)
    found = find_units(log_probs, decoded, tokenizer, Scaling())
    assert [unit.text for unit in found] == units
    assert joined(found) == text

    # Each token lasts two frames, behind which a blank stands.
    place = 0
    for unit in found:
        place += text[place] == " "
        last = place + len(unit.text) - 1
        assert (unit.start, unit.end) == (3 * place, 3 * last + 2)
        assert unit.probability == pytest.approx(0.9 ** len(unit.text), rel=1e-4)
        place = last + 1


# What is one character to a reader, of several code points in most cases.
CLUSTERS = ["น้ำ", "ກຳ", "ខ្ញុំ", "ស្រ", "ကျွ", "န်", "တော်", "が", "か\u3099", "ｶﾞ", "々", "国"]


@pytest.mark.parametrize("seed", range(20))
def test_what_a_reader_sees_as_one_has_one_time(seed: int) -> None:
    draw = random.Random(seed)
    units = draw.choices(CLUSTERS, k=10)
    # Punctuation stays where it stands, and words of other scripts stay whole.
    units[2] += draw.choice("，。」！\u200b")
    units[5] = draw.choice("「（") + units[5]
    units[7] = draw.choice(["ok", "don't", "5.5%"]) + draw.choice(["", "，", "。"])
    text = "".join(units)

    tokenizer = CharTokenizer(sorted({" ", *text}))
    found = find_units(*spoken(tokenizer, text), tokenizer, Scaling())
    assert [unit.text for unit in found] == units
    assert joined(found) == text
    # The same of a text alone, as references are parted.
    assert words_or_characters(f"{text} ok {text}") == [*units, "ok", *units]


@pytest.mark.parametrize("seed", range(10))
def test_a_recogniser_without_a_space_writes_characters(seed: int) -> None:
    text = "".join(random.Random(seed).choices("abcdé", k=12))
    tokenizer = CharTokenizer("abcdé")
    log_probs, decoded = spoken(tokenizer, text)
    found = find_units(log_probs, decoded, tokenizer, Scaling())
    assert [unit.text for unit in found] == list(text)
    assert all(unit.follows for unit in found)
    (whole,) = find_words(log_probs, decoded, tokenizer, Scaling())
    assert whole.text == text


def test_a_token_of_several_characters_shares_its_frames() -> None:
    tokenizer = VocabularyTokenizer(["<pad>", "<unk>", " ", "中国", "人"])
    log_probs, decoded = spoken(tokenizer, "中国人", frames_each=4)
    found = find_units(log_probs, decoded, tokenizer, Scaling())
    assert [(unit.text, unit.start, unit.end) for unit in found] == [
        ("中", 0, 2),
        ("国", 2, 4),
        ("人", 5, 9),
    ]
    assert [unit.probability for unit in found] == pytest.approx([0.9] * 3, rel=1e-4)
