"""Texts are not taken for lexicons, and no lexicon for a text, whatever its phones are like."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import call, one_line
from support.language_models import toy_sentences, write_lm
from support.places import ROOT

from speechssl.errors import ConfigError
from speechssl.text.plausible_lexicon import Inventory
from speechssl.text.pronunciations import read_lexicon

Entries = list[tuple[str, tuple[str, ...]]]

ARPABET = [f"{a}{b}" for a in "ABDEFGHIK" for b in "AHLR"]
IPA = [*"abdefɡhijklmnoprstuvxzɐɔəɛɪŋʃʊʏʒœøː", "tʃ", "dʒ", "aɪ", "aʊ", "ɔʏ"]
TONED = [f"{vowel}{tone}" for vowel in "aeiouyəɛɔɯɤ" for tone in "˥˦˧˨˩"] + [*"bcdghklmnpqrstvxŋ"]
SYLLABLES = [
    f"{a}{b}{t}" for a in "bpmfdtnlgkhjqx" for b in ("a", "ai", "ang", "i", "u") for t in "1234"
]
CHARACTERS = [chr(0x4E00 + n) for n in range(3000)]


def positioned(phones: tuple[str, ...]) -> tuple[str, ...]:
    """The phones of Kaldi that know their place in the word."""
    places = ["_B", *["_I"] * (len(phones) - 2), "_E"][: len(phones)]
    return tuple(map(str.__add__, phones, places))


def lexicons(seed: int, num_words: int) -> Iterator[tuple[str, Entries]]:
    """Lexicons of every kind. Phones are drawn as unevenly as those of languages are."""
    draws = random.Random(seed)

    def phones(kind: list[str], least: int, most: int) -> tuple[str, ...]:
        weights = [1 / (place + 2) for place in range(len(kind))]
        return tuple(draws.choices(kind, weights, k=draws.randint(least, most)))

    words = ["".join(draws.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(num_words)]
    kinds = {"ARPAbet": ARPABET, "IPA": IPA, "tones": TONED}
    for name, kind in kinds.items():
        yield name, [(word, phones(kind, 3, 9)) for word in words]

    yield "positions", [(word, positioned(phones(ARPABET, 2, 9))) for word in words]
    yield "syllables", [(word, phones(SYLLABLES, 1, 4)) for word in words]

    characters = [phones(CHARACTERS, 1, 3) for _ in words]
    yield "characters", [("".join(one), one) for one in characters]
    yield "letters", [(word, tuple(word)) for word in words]

    # Guessed pronunciations: several of a word.
    yield "variants", [(word, phones(IPA, 3, 9)) for word in words for _ in range(5)]


def text(seed: int, num_lines: int, num_words: int) -> list[list[str]]:
    """Lines of words, of which few are frequent and most are rare, as Zipf found."""
    draws = random.Random(seed)
    words = [
        "".join(draws.choices("abcdefghijklmnop", k=draws.randint(1, 9))) for _ in range(num_words)
    ]
    weights = [1 / place for place in range(1, num_words + 1)]
    return [draws.choices(words, weights, k=draws.randint(3, 15)) for _ in range(num_lines)]


@pytest.mark.parametrize("num_words", [1, 10, 60, 400, 1500])
@pytest.mark.parametrize("seed", range(2))
def test_no_lexicon_is_taken_for_a_text(seed: int, num_words: int) -> None:
    for name, entries in lexicons(seed, num_words):
        assert not Inventory.of(entries).is_of_text, name
        # Of small ones of very many phones nobody can tell.
        if num_words == 1500:
            assert not Inventory.of(entries).is_doubtful, name


@pytest.mark.parametrize("seed", range(3))
def test_no_text_is_taken_for_a_lexicon(seed: int) -> None:
    for num_lines, num_words in ((60, 5000), (1000, 300), (1000, 6000)):
        entries = [(first, tuple(rest)) for first, *rest in text(seed, num_lines, num_words)]
        assert Inventory.of(entries).is_of_text, num_lines

    # Where there is too little to be sure.
    few = [(first, tuple(rest)) for first, *rest in text(seed, 8, 5000)]
    assert Inventory.of(few).is_doubtful


def test_pages_are_no_lexicons(tmp_path: Path) -> None:
    """Real texts: our own pages, and the file of a language model."""
    arpa = tmp_path / "toy.arpa"
    write_lm(arpa, toy_sentences(), 3)
    pages = sorted((ROOT / "docs/guides").glob("*.md"))
    assert len(pages) > 5

    for path in (arpa, *pages):
        with pytest.raises(ConfigError, match=f"{path.name} is no pronunciation lexicon"):
            read_lexicon(path)


def test_commands_refuse_a_text_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(" ".join(line) + "\n" for line in text(0, 100, 3000)))
    out = tmp_path / "out.txt"

    for command in (
        ("lexicon", "extend", texts, texts, "--out", out),
        ("lexicon", "make", texts, "--from", texts, "--out", out),
        ("lexicon", "check", texts, texts),
        ("lexicon", "show", texts, "a"),
    ):
        said = one_line(monkeypatch, capsys, *command)
        assert "texts.txt is no pronunciation lexicon but looks like text" in said
    assert not out.exists()

    few = tmp_path / "few.txt"
    few.write_text("".join(" ".join(line) + "\n" for line in text(0, 8, 3000)))
    done = call("lexicon", "show", few, "a")
    assert done.exit_code == 0
    assert "is it a lexicon, and no text?" in done.stderr
