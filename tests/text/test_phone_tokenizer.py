"""The tokenizer over phones: words to phones, phones to text, and the lexicon that goes with it."""

import math
from pathlib import Path

import pytest

from speechssl.decoding.align import TokenSpan, words_of
from speechssl.errors import CheckpointError
from speechssl.scoring.calibration import Scaling
from speechssl.text.character_tokenizer import CharTokenizer
from speechssl.text.phone_tokenizer import PhoneTokenizer
from speechssl.text.possessives import is_english_arpabet
from speechssl.text.tokenizer import Spelling
from speechssl.text.tokenizers import load_tokenizer, train_tokenizer

LEXICON = """\
the 1.0 DH AH0
the 0.5 DH IY0
dog 1.0 D AO1 G
boss 1.0 B AO1 S
cat 1.0 K AE1 T
is 1.0 IH1 Z
"""


@pytest.fixture
def tokenizer(tmp_path: Path) -> PhoneTokenizer:
    path = tmp_path / "lexicon.txt"
    path.write_text(LEXICON)
    made = train_tokenizer(f"phones:{path}", [])
    assert isinstance(made, PhoneTokenizer)
    return made


def test_phones_are_sorted_behind_the_blank_and_the_unknown(tokenizer: PhoneTokenizer) -> None:
    phones = ["AE", "AH", "AO", "B", "D", "DH", "G", "IH", "IY", "K", "S", "T", "Z"]
    assert tokenizer.texts == ("<pad>", "⁇", *(f" {phone}" for phone in phones))
    assert tokenizer.size == 15


def test_words_become_their_most_probable_phones(tokenizer: PhoneTokenizer) -> None:
    ids = tokenizer.encode(" the  dog")
    assert tokenizer.decode([0, *ids, 0]) == "DH AH D AO G"
    assert tokenizer.encode("the cow") == [*tokenizer.encode("the"), 1]
    assert tokenizer.unknown("the cow is blue") == {"cow", "blue"}
    assert tokenizer.has_unknown("cow")
    assert not tokenizer.has_unknown("the dog")
    assert tokenizer.unknown_kind == "words"


def test_all_spellings(tokenizer: PhoneTokenizer) -> None:
    spellings = tokenizer.spellings("the")
    assert [tokenizer.decode(one.ids) for one in spellings] == ["DH AH", "DH IY"]
    assert [one.log_prob for one in spellings] == [0.0, pytest.approx(math.log(0.5))]
    assert tokenizer.spellings("cow") == []


@pytest.mark.parametrize(
    ("word", "phones"),
    [("dog's", "D AO G Z"), ("boss's", "B AO S IH Z"), ("cat's", "K AE T S")],
)
def test_an_english_lexicon_has_possessives(
    tokenizer: PhoneTokenizer, word: str, phones: str
) -> None:
    assert tokenizer.decode(tokenizer.encode(word)) == phones
    assert tokenizer.unknown("cow's 's") == {"cow's", "'s"}


def test_another_lexicon_has_none(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_text("hund h ʊ n t\n", encoding="utf-8")
    assert train_tokenizer(f"phones:{path}", []).unknown("hund's") == {"hund's"}
    assert not is_english_arpabet({"S", "Z", "IH", "X"})


def test_each_phone_is_a_word_of_its_own_without_a_search(tokenizer: PhoneTokenizer) -> None:
    ids = tokenizer.encode("dog")
    spans = [TokenSpan(i, 2 * k, 2 * k + 1, 0.5) for k, i in enumerate(ids)]
    words = words_of(spans, tokenizer, Scaling())
    assert [word.text for word in words] == ["D", "AO", "G"]
    assert [word.start for word in words] == [0, 2, 4]


def test_it_is_saved_and_loaded(tokenizer: PhoneTokenizer, tmp_path: Path) -> None:
    for name, content in tokenizer.files().items():
        (tmp_path / name).write_bytes(content)
    loaded = load_tokenizer(tmp_path)
    assert isinstance(loaded, PhoneTokenizer)
    assert loaded.lexicon == tokenizer.lexicon
    assert loaded.files() == tokenizer.files()

    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text(lexicon.read_text().replace("DH", "D"))
    with pytest.raises(CheckpointError, match=r"does not have the phones that .* lists"):
        load_tokenizer(tmp_path)
    lexicon.write_text("something else\n")
    with pytest.raises(CheckpointError, match="is damaged"):
        load_tokenizer(tmp_path)
    lexicon.unlink()
    with pytest.raises(CheckpointError, match=r"lexicon\.txt is missing"):
        load_tokenizer(tmp_path)


def test_letters_spell_a_word_in_one_way() -> None:
    tokenizer = CharTokenizer("ab ")
    assert tokenizer.spellings("ab") == [Spelling((2, 3), 0.0)]
    assert tokenizer.spellings("ac") == []
    assert tokenizer.spellings(" ") == []
