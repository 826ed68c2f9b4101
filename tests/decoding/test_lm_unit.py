"""Language models over words told from those over tokens: by their own word, or their entries."""

import random
from pathlib import Path

import pytest

from speechssl.decoding.lexicon import token_names
from speechssl.decoding.lm_unit import LmUnit, plain_unit, recorded_unit, unit_comment, unit_of
from speechssl.errors import ConfigError
from speechssl.text.character_tokenizer import CharTokenizer
from speechssl.text.sentencepiece_tokenizer import SentencePieceTokenizer
from speechssl.text.vocabulary_tokenizer import VocabularyTokenizer

HAN = [chr(0x4E00 + k) for k in range(40)]


def arpa(path: Path, entries: list[str], unit: str | None = None) -> Path:
    lines = ["\\data\\", f"ngram 1={len(entries)}", "", "\\1-grams:"]
    lines += [f"-1\t{entry}" for entry in entries]
    head = unit_comment(unit) if unit else ""
    path.write_text(head + "\n".join([*lines, "", "\\end\\", ""]), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("letters", "entries", "expected"),
    [
        (" ab", ["a", "b", "|"], "tokens"),
        (" ab", ["a", "b"], None),  # letters or words of one letter
        (" ab", ["ab", "b", "a"], "words"),
        ("ab", ["a", "b"], "tokens"),  # the same text with both
        (" 中国", ["中", "国", "|"], "tokens"),
        (" 中国", ["中", "国"], None),
        (" 中国", ["中", "国", "人"], None),  # of more characters than the recogniser has
        (" 中国", ["中国", "中国人", "国"], "words"),
        (" ab", ["ab", "|", "ba", "bb"], "words"),  # a bar in the text
    ],
)
def test_the_entries_show_the_kind_or_leave_it_open(
    letters: str, entries: list[str], expected: LmUnit | None
) -> None:
    assert plain_unit(CharTokenizer(letters), entries) == expected


def test_pieces_show_by_the_space_that_they_begin_with() -> None:
    tokenizer = SentencePieceTokenizer.train(["ab ab ba", "ba ab"], 8, "bpe")
    names = token_names(tokenizer)[2:]
    assert plain_unit(tokenizer, names) == "tokens"
    assert plain_unit(tokenizer, [name for name in names if "|" not in name]) is None


@pytest.mark.parametrize("seed", range(10))
def test_what_a_file_says_goes_before_what_it_holds(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    tokenizer = CharTokenizer(" " + "".join(HAN))
    entries = draw.sample(HAN, 20)
    path = arpa(tmp_path / "open.arpa", entries)
    assert recorded_unit(path) is None
    with pytest.raises(ConfigError, match=r"say which with --unit words or --unit tokens"):
        unit_of(tokenizer, path)

    keywords = tmp_path / "keywords.txt"
    keywords.write_text("\n".join(draw.sample(HAN, 3)), encoding="utf-8")
    for unit in ("words", "tokens"):
        assert unit_of(tokenizer, path, keywords, unit) == unit
        ours = arpa(tmp_path / "ours.arpa", entries, unit)
        # A list of words says nothing of the model.
        assert unit_of(tokenizer, ours) == unit_of(tokenizer, ours, keywords) == unit

    with pytest.raises(ConfigError, match=r"says that it is over tokens: leave --unit words out"):
        unit_of(tokenizer, arpa(tmp_path / "tokens.arpa", entries, "tokens"), None, "words")
    with pytest.raises(ConfigError, match=r"has no token of this recogniser"):
        unit_of(CharTokenizer(" ab"), arpa(tmp_path / "tokens.arpa", entries, "tokens"))


@pytest.mark.parametrize("seed", range(10))
def test_every_token_has_a_name_of_its_own(seed: int) -> None:
    draw = random.Random(seed)
    texts = [" ", "|", " a", "|a", "a", "b", "a", "<bar>", "||", " |"]
    draw.shuffle(texts)
    names = token_names(VocabularyTokenizer(["<pad>", "<unk>", *texts]))
    assert len(set(names)) == len(names)
    assert names[2 + texts.index(" ")] == "|"
    assert all(" " not in name for name in names)


def test_names_of_tokens_without_a_rival_are_as_they_were() -> None:
    tokenizer = VocabularyTokenizer(["<pad>", "<unk>", "|", "a", "b"])
    assert token_names(tokenizer) == ["<pad>", "<unk>", "|", "a", "b"]
