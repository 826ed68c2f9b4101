"""Lexicons in the forms that people have, and what is made of them."""

import math
import random
from pathlib import Path

import pytest

from speechssl.errors import ConfigError
from speechssl.text.pronunciations import (
    Pronunciation,
    Pronunciations,
    fold,
    parse_own,
    read_lexicon,
)

CMUDICT = """\
;;; # a comment
'CAUSE  K AH0 Z
CAUSE  K AO1 Z
DOG  D AO1 G
READ  R EH1 D
READ(1)  R IY1 D
read(2) R EH0 D # the same without stress
X-RAY  EH1 K S R EY2
"""


def read(
    folder: Path, text: str | bytes, folding: str | None = None
) -> dict[str, list[tuple[str, float]]]:
    """Read a lexicon of a file; the pronunciations as texts."""
    path = folder / "lexicon.dict"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    found = read_lexicon(path, folding=folding)
    return {
        word: [(" ".join(one.phones), one.probability) for one in ones]
        for word, ones in found.words.items()
    }


def test_cmudict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read(tmp_path, CMUDICT) == {
        "cause": [("K AO Z", 1.0), ("K AH Z", 1.0)],  # its own spelling first
        "dog": [("D AO G", 1.0)],
        "read": [("R EH D", 1.0), ("R IY D", 1.0)],
    }
    said = capsys.readouterr().err
    assert "CMUdict's form, 5 pronunciations of 3 words in 9 phones (folding: stress)" in said
    assert "1 entries left out" in said
    assert "(first: X-RAY)" in said


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("a b c\na d\n", "Kaldi's lexicon.txt"),
        ("a 0.5 b c\na 0.25 d\n", "Kaldi's lexiconp.txt"),
        ("a\t0.5\tb c\na\t0.25\td\n", "Kaldi's lexiconp.txt"),
        ("a\t0.5 b c\na\t0.25 d\n", "Kaldi's lexiconp.txt"),
        ("a\t0.5\t0.1\t1.2\t.9\tb c\na\t0.25\t0.1\t1\t2.\td\n", "MFA's form with 4 columns"),
        ("a 0.5 0.1 1.2 0.9 b c\na 0.25 0.1 1 2 d\n", "MFA's form with 4 columns"),
    ],
)
def test_other_forms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, form: str
) -> None:
    second = 0.5 if "0.5" in text else 1.0
    assert read(tmp_path, text) == {"a": [("b c", 1.0), ("d", second)]}
    assert form in capsys.readouterr().err


def test_a_line_that_mfa_writes_without_numbers(tmp_path: Path) -> None:
    found = read(tmp_path, "a\t0.5\t0.1\t1.2\t0.9\tb c\ne\tf\n")
    assert found == {"a": [("b c", 1.0)], "e": [("f", 1.0)]}


def test_a_number_is_a_phone_where_not_every_line_has_one(tmp_path: Path) -> None:
    # The vowels of "böse" and "hört" in X-SAMPA are 2: and 9.
    assert read(tmp_path, "köln k 9 l n\nöl 2 l\n") == {
        "köln": [("k 9 l n", 1.0)],
        "öl": [("2 l", 1.0)],
    }


def test_what_is_no_word_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "!SIL SIL\n<unk> SPN\n[noise] NSN\nMr. m i\nempty\nUS-Dollar d\nnaïve n a\n"
    assert read(tmp_path, text) == {"mr": [("m i", 1.0)], "naïve": [("n a", 1.0)]}
    assert "5 entries left out" in capsys.readouterr().err


def test_probabilities_are_scaled_to_one(tmp_path: Path) -> None:
    found = read(tmp_path, "a 0.1 b\na 0.4 c\na 0.2 c1\na 0.0000001 d\n", "tones")
    assert found == {"a": [("c", 1.0), ("b", 0.25), ("d", 0.0001)]}


def test_latin_1_is_read_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = read(tmp_path, "DÉJÀ  D EY2 ZH\n".encode("latin-1"))
    assert found == {"déjà": [("D EY ZH", 1.0)]}
    assert "in Latin-1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a 0.5 b\na 1.5 c\n", "line 2: 'a' has the probability 1.5: write one above 0"),
        ("a 0 b\n", "line 1: 'a' has the probability 0"),
        ("\n;;; nothing\n", "is no pronunciation lexicon: of 0 lines 0 are one word"),
        (b"a\0b", "is not text"),
    ],
)
def test_what_is_no_lexicon_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no lexicon .*here: give a file"):
        read_lexicon(tmp_path / "here")


@pytest.mark.parametrize(
    ("phone", "folding", "folded"),
    [
        ("AH0", "stress", "AH"),
        ("AXR1", "stress", "AXR"),
        ("AH0", "none", "AH0"),
        ("T1", "stress", "T1"),
        ("ˈaː", "stress", "aː"),
        ("ˈaː", "stress+length", "a"),
        ("a:", "length", "a"),
        ("ɑ˥˩", "tones", "ɑ"),
        ("ɔ̃́", "tones", "ɔ̃"),  # nasal it stays
        ("ang1", "tones", "ang"),
        ("2", "tones", "2"),
        ("ˈ", "stress", ""),
        ("c\u0327", "none", "ç"),
    ],
)
def test_folding(phone: str, folding: str, folded: str) -> None:
    assert fold(phone, folding) == folded


def test_an_unknown_folding_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'stress\+tone': choose none, or some of stress, len"):
        fold("a", "stress+tone")


def test_our_form_is_read_back_as_it_was(tmp_path: Path) -> None:
    entries = [
        ("dog", Pronunciation(("D", "AO1", "G"), 0.3)),
        ("dog", Pronunciation(("D", "AA1", "G"), 0.9)),
        ("it's", Pronunciation(("IH1", "T", "S"), 1.0, "g2p")),
    ]
    lexicon = Pronunciations.of_entries(entries, "none", "a test")
    text = lexicon.as_text()

    assert parse_own(text) == lexicon
    path = tmp_path / "own.txt"
    path.write_text(text, encoding="utf-8")
    assert read_lexicon(path) == lexicon
    assert read_lexicon(path, folding="stress").phones == ("AA", "AO", "D", "G", "IH", "S", "T")
    assert lexicon.words["dog"][1].probability == pytest.approx(1 / 3, abs=1e-4)
    assert math.log(lexicon.words["dog"][0].probability) == 0


@pytest.mark.parametrize("text", ["", "a\t1\tb\n", ";;; speechssl lexicon 1\na b\n"])
def test_another_form_is_not_taken_for_ours(text: str) -> None:
    with pytest.raises(ConfigError, match="lexicon"):
        parse_own(text)


@pytest.mark.parametrize("seed", range(3))
def test_what_stands_behind_a_comment_sign_is_said_to_be_left_out(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A phone of this name took the rest of its word with it, and nothing was said."""
    rng = random.Random(seed)
    lines: list[str] = []
    num_cut = 0
    for number in range(30):
        phones = rng.choices(["A", "B", "K", "S", "#"], weights=[3, 3, 3, 3, 1], k=5)
        num_cut += "#" in phones
        lines.append(f"word{'abcdefghij'[number % 10] * (1 + number // 10)} A {' '.join(phones)}")
    path = tmp_path / "lexicon.txt"
    path.write_text("".join(f"{line}\n" for line in lines))

    read_lexicon(path)
    first = next(line for line in lines if "#" in line)
    said = capsys.readouterr().err
    assert f"what stands behind # in {num_cut} lines is left out as a comment" in said
    assert f"(first: {first})" in said

    path.write_text("".join(f"{line.replace('#', 'T')}\n" for line in lines))
    read_lexicon(path)
    assert "comment" not in capsys.readouterr().err
