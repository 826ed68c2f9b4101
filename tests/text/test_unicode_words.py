"""``basic-2`` against Unicode's own tables, as another library has them, and on words."""

import random
import unicodedata

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from speechssl.text.normalise import normalise
from speechssl.text.unicode_words import basic_2

JOINERS = "\u200c\u200d"
SPACE_WITHOUT_WIDTH = "\u200b"
APOSTROPHES = "'’‘‛ʼ＇`´"


def having(pattern: str) -> list[str]:
    """All characters that Python and the other library know and that have a property."""
    characters = map(chr, range(0x110000))
    known = [c for c in characters if unicodedata.category(c) not in ("Cn", "Cs")]
    return regex.findall(f"(?V1){pattern}", "".join(known))


def test_the_table_of_marks_inside_words_is_unicodes() -> None:
    """Between letters they stay, and after one they go; the signs of one form are made one."""
    for mark in having(r"\p{WB=MidLetter}"):
        words = basic_2(f"a{mark}b").split()
        assert len(words) == 1, hex(ord(mark))
        assert len(words[0]) == 3
        assert basic_2(f"a{mark} b") == basic_2(f"a {mark}b") == "a b"
        assert basic_2(f"1{mark}2") == "1 2"
        assert basic_2(f"中{mark}国") == "中 国"


def test_what_is_a_letter_by_unicode_is_part_of_a_word() -> None:
    """All that is no symbol: circled letters are pictures."""
    for sign in having(r"[[\p{WB=ALetter}\p{WB=Hebrew_Letter}]--\p{So}--\p{Cf}]"):
        word = basic_2(f"a{sign}b")
        expected = "ab" if regex.match(r"\p{Default_Ignorable_Code_Point}|[ـߺ]", sign) else 1
        assert word == expected or len(word.split()) == expected, hex(ord(sign))


def test_letters_of_scripts_without_spaces_are_joined_by_no_mark() -> None:
    letters = having(r"[\p{L}--\p{WB=ALetter}--\p{WB=Hebrew_Letter}--\p{DI}]")
    for letter in random.Random(1).sample(letters, 5000):
        for mark in ":'·":
            assert len(basic_2(f"{letter}{mark}{letter}").split()) == 2, hex(ord(letter))


def test_nothing_invisible_is_left() -> None:
    for character in having(r"\p{Default_Ignorable_Code_Point}"):
        if character not in JOINERS + SPACE_WITHOUT_WIDTH:
            assert basic_2(f"a{character}b") == "ab", hex(ord(character))
            assert basic_2(f"a {character} b") == "a b", hex(ord(character))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("Ի՞նչ ինչո՞ւ", "ի՞նչ ինչո՞ւ"),  # Armenian
        ('צה״ל צה"ל סנדוויץ\' צ\'ק "שלום"', "צה״ל צה״ל סנדוויץ׳ צ׳ק שלום"),  # Hebrew
        ("Col·lecció paraŀlel", "col·lecció paral·lel"),  # Catalan
        ("EU:n: S:t", "eu:n s:t"),  # Finnish, Swedish
        ("İstanbul ISI", "istanbul isi"),
        ("അവന്‍ പാല്‍", "അവന്\u200d പാല്\u200d"),  # Malayalam
        ("می\u200cخواهم\u200c", "می\u200cخواهم"),  # Persian
        ("كتـــاب ߺ", "كتاب"),  # tatweel
        ("葛\U000e0100城 ᠠ᠋ᠡ a\u034fb", "葛城 ᠠᠡ ab"),
        ("mo‘’tabar toʻgʻri", "mo''tabar toʻgʻri"),  # Uzbek
        ("ʼya fʼb '''x'''", "ʼya f'b x"),  # Hausa
        ("他说：‘你好’吧", "他说 你好 吧"),
        ("end.Next 3.5 5:30 1,000", "end next 3 5 5 30 1 000"),
        ("اچو ۽ وڃو! သူ၏", "اچو ۽ وڃو သူ၏"),  # Sindhi, Burmese
        ("ＡＢＣ　１２３ ｶﾞｷﾞｭﾝ", "abc 123 ガギュン"),
        ("ﬁnd oﬃce ﬓ", "find office մն"),
        ("ﻻ ﺍﻟﻜﺘﺎﺏ", "لا الكتاب"),
        ("i̇stanbul diyarbaki̇r", "istanbul diyarbakir"),
        ("می\u200c\u200cخواهم", "می\u200cخواهم"),
        ("צה”ל דו“ח", "צה״ל דו״ח"),
        ("col‧lecció", "col·lecció"),
        ("", ""),
    ],
)
def test_words(raw: str, expected: str) -> None:
    assert normalise(raw, "basic-2") == expected


@pytest.mark.parametrize("language", ["tr", "az"])
def test_two_letters_i(language: str) -> None:
    assert normalise("IĞDIR İğdır I\u0307", f"basic-2:{language}") == "ığdır iğdır i"
    assert normalise("Col·lecció", f"basic-2:{language}") == "col·lecció"


ALPHABET = [
    *APOSTROPHES,
    *JOINERS,
    *'aAİIßΣςé\u0301\u0327\u0345-.:·״׳"_ \t\u200b\xad\ufe0f❤1½אב中ก՞ക്ŀﬁｶﾞﻼＩ\u0307\u3099',
]


@pytest.mark.parametrize("seed", range(10))
def test_vowels_of_thai_and_lao_that_are_typed_in_parts_are_one(seed: int) -> None:
    draw = random.Random(seed)
    for consonants, nikhahit, aa, am, e, ae, tones in (
        ("กขคดทน", "\u0e4d", "\u0e32", "\u0e33", "เ", "แ", "\u0e48\u0e49"),
        ("ກຂຄດທນ", "\u0ecd", "\u0eb2", "\u0eb3", "ເ", "ແ", "\u0ec8\u0ec9"),
    ):
        consonant, tone = draw.choice(consonants), draw.choice(["", *tones])
        word = f"{ae}{consonant}{consonant}{tone}{am}"
        for parts in (tone + nikhahit, nikhahit + tone):
            typed = f"{e}{e}{consonant}{consonant}{parts}{aa}"
            assert normalise(typed, "basic-2") == normalise(word, "basic-2") == word


@pytest.mark.parametrize("seed", range(10))
def test_inside_a_word_all_apostrophes_are_one(seed: int) -> None:
    """Also in scripts where it parts words, or is a letter: ʼ is one at the edges of words only."""
    draw = random.Random(seed)
    for letters in ("abc", "абв", "אבג", "กขค", "中国", "അവ"):
        first, second = draw.choice(letters), draw.choice([*letters, "x"])
        words = {basic_2(f"{first}{apostrophe}{second}") for apostrophe in APOSTROPHES}
        assert len(words) == 1, words


@pytest.mark.parametrize("seed", range(10))
def test_width_and_place_make_no_other_word(seed: int) -> None:
    """Words of half and full width, and of Arabic letters in the forms that they are drawn in."""
    draw = random.Random(seed)
    latin = "".join(draw.choices("abcxyz0189", k=8))
    full_width = "".join(chr(ord(character) + 0xFEE0) for character in latin)
    forms = having(r"[ﺀ-ﻼｦ-ﾝ]")
    drawn = "".join(draw.choices(forms, k=8))
    usual = unicodedata.normalize("NFKC", drawn)
    for name in ("basic-2", "english-2"):
        assert normalise(full_width.upper(), name) == normalise(latin, name)
        assert normalise(drawn, name) == normalise(usual, name)
        # Lower case as Python has it.
        assert normalise("İ" + latin, name) == normalise(("İ" + latin).lower(), name)


@given(st.text(st.sampled_from(ALPHABET) | st.characters()), st.sampled_from(["", ":tr", ":az"]))
@settings(max_examples=500)
def test_it_holds_what_it_says(text: str, language: str) -> None:
    name = f"basic-2{language}"
    result = normalise(text, name)
    assert normalise(result, name) == result
    assert result == " ".join(result.split()) == unicodedata.normalize("NFC", result)
    for word in result.split():
        assert word.strip("'" + "\u200c") == word
        assert regex.search(r"[\p{L}\p{N}۽۾၌၍၎၏৺]", word)


@pytest.mark.parametrize("seed", range(10))
def test_plain_text_is_as_basic_1_has_it(seed: int) -> None:
    """Words of letters and marks of one script, with the signs that stand around words."""
    draw = random.Random(seed)
    alphabets = [
        "abcdefghijklmnopqrstuvwxyzäöüßéñABCDEFGH",
        "абвгдежзийклмнопрстуфхцчшщъыьэюя",
        "αβγδεζηθικλμνξοπρστυφχψωάέ",
        "कखगघङचछजझञटठडढणतथदधनपफबभमा",
    ]
    alphabet = draw.choice(alphabets)
    sentence = ""
    for _ in range(30):
        word = "".join(draw.choices(alphabet, k=draw.randrange(1, 9)))
        apostrophe = draw.choice(["", "", "'" + draw.choice(alphabet)])
        sentence += (
            word + apostrophe + draw.choice([" ", ", ", ". ", "-", "; ", '" ', " (", ": ", "'"])
        )
    assert normalise(sentence, "basic-2") == normalise(sentence, "basic-1")
