"""Normalisers: what they keep, what they change, and that they hold what they say."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechssl.errors import ConfigError
from speechssl.text.normalise import NORMALISERS, normalise

TRICKY = st.text(
    alphabet=st.one_of(
        st.sampled_from("aAİßΣςé\u0301\u0327\u0345'’`-.,_ \t\n\u200b\u200c\u200d\xad\ufe0f❤1½"),
        st.characters(),
    )
)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("Hello,  World!", "hello world"),
        ("It’s John´s; don`t", "it's john's don't"),
        ("'quoted' dogs' rock 'n' roll", "quoted dogs rock n roll"),
        ("well-known_name e-mail@host", "well known name e mail host"),
        ("Cafe\u0301", "café"),  # composed
        ("Straße", "straße"),
        ("हिन्दी में।", "हिन्दी में"),  # marks stay
        ("x\u0323\u0302y", "x\u0323\u0302y"),  # marks without a composed form too
        ("room 101, 3.5 kg ½", "room 101 3 5 kg ½"),
        ("soft\xadhyphen \ufeffbom", "softhyphen bom"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("I ❤\ufe0f you", "i you"),
        ("a>\u0338b", "a b"),  # a symbol goes with its mark: composed before it is judged
        ("a''b --- ... ''", "a b"),
        ("", ""),
    ],
)
def test_basic_1(raw: str, expected: str) -> None:
    assert normalise(raw, "basic-1") == expected


@given(TRICKY)
@settings(max_examples=500)
def test_basic_1_holds_what_it_says(text: str) -> None:
    result = normalise(text, "basic-1")
    assert normalise(result, "basic-1") == result
    assert result == " ".join(result.split()) == unicodedata.normalize("NFC", result)
    for word in result.split():
        assert word[0] != "'"
        assert word[-1] != "'"
        assert all(unicodedata.category(c)[0] in "LMN" or c in "'\u200c\u200d" for c in word)


@given(
    st.text(
        alphabet=st.characters(
            categories=["Ll", "Lo", "Mn", "Mc"],
            exclude_characters="".join(map(chr, range(0xFE00, 0xFE10))),
        )
    )
)
def test_marks_after_a_letter_are_never_stripped(tail: str) -> None:
    def marks(text: str) -> list[str]:
        return [c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c)[0] == "M"]

    raw = "a" + tail
    assert marks(normalise(raw, "basic-1")) == marks(raw)


def test_none_1_changes_nothing() -> None:
    assert normalise(" A,\n b’", "none-1") == " A,\n b’"


def test_unknown_normaliser_names_the_known_ones() -> None:
    assert list(NORMALISERS) == [
        *["none-1", "basic-1", "basic-2", "basic-2:tr", "basic-2:az", "english-1", "english-2"]
    ]
    with pytest.raises(ConfigError, match=r"'basic'.*none-1, basic-1"):
        normalise("a", "basic")


# Characters that normalisers get wrong, each likely enough to meet another of its kind.
