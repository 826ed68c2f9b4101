"""Tokenizers: what goes in comes out, saved and loaded the same, limits named and true."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechssl.errors import CheckpointError, ConfigError
from speechssl.text.character_tokenizer import CharTokenizer
from speechssl.text.normalise import normalise
from speechssl.text.sentencepiece_tokenizer import SentencePieceTokenizer
from speechssl.text.tokenizer import Tokenizer
from speechssl.text.tokenizers import load_tokenizer, train_tokenizer
from speechssl.text.vocabulary_tokenizer import VocabularyTokenizer

TEXTS = [
    "the cat sat on the mat",
    "a dog's life is the best",
    "hello world again",
    "the quick brown fox jumps over the lazy dog",
    "naïve café",
    "हिन्दी में",
] * 3
SPECS = ("chars", "bpe:60", "unigram:44")
# Characters that normalisers get wrong, each likely enough to meet another of its kind.
TRICKY = st.text(
    alphabet=st.one_of(
        st.sampled_from("aAİßΣςé\u0301\u0327\u0345'’`-.,_ \t\n\u200b\u200c\u200d\xad\ufe0f❤1½"),
        st.characters(),
    )
)


@pytest.fixture(scope="module", params=SPECS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return train_tokenizer(request.param, TEXTS)


@given(data=st.data())
def test_round_trip_over_the_alphabet(tokenizer: Tokenizer, data: st.DataObject) -> None:
    text = normalise(data.draw(st.text(alphabet=sorted(tokenizer.alphabet))), "basic-1")
    # NFC may compose two characters of the alphabet into one outside it.
    if tokenizer.has_unknown(text):
        return
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(2 <= i < tokenizer.size for i in ids)
    assert tokenizer.decode([0, *(x for i in ids for x in (i, 0))]) == text  # blanks are ignored


@given(text=st.text())
def test_unknown_agrees_with_encode(tokenizer: Tokenizer, text: str) -> None:
    text = normalise(text, "basic-1")
    ids = tokenizer.encode(text)
    assert tokenizer.has_unknown(text) == (1 in ids) == bool(tokenizer.unknown(text))
    assert tokenizer.unknown(text) <= set(text)
    assert 0 not in ids


@given(data=st.data())
def test_any_ids_decode_to_one_line(tokenizer: Tokenizer, data: st.DataObject) -> None:
    text = tokenizer.decode(data.draw(st.lists(st.integers(0, tokenizer.size - 1))))
    assert text == " ".join(text.split())


def test_training_texts_round_trip_and_shared_facts(tokenizer: Tokenizer) -> None:
    assert [tokenizer.decode(tokenizer.encode(t)) for t in TEXTS] == TEXTS
    assert (tokenizer.blank_id, tokenizer.unk_id) == (0, 1)
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""
    assert tokenizer.unknown("thé Cat%") == {"C", "%"}
    assert "⁇" in tokenizer.decode([1])
    with pytest.raises(AssertionError):
        tokenizer.decode([tokenizer.size])


def test_saved_and_loaded_is_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for name, content in tokenizer.files().items():
        (tmp_path / name).write_bytes(content)
    loaded = load_tokenizer(tmp_path)
    assert type(loaded) is type(tokenizer)
    assert (loaded.size, loaded.alphabet, loaded.files()) == (
        tokenizer.size,
        tokenizer.alphabet,
        tokenizer.files(),
    )
    assert all(loaded.encode(t) == tokenizer.encode(t) for t in TEXTS)


@pytest.mark.parametrize("spec", SPECS)
def test_training_is_deterministic(spec: str) -> None:
    assert train_tokenizer(spec, TEXTS).files() == train_tokenizer(spec, iter(TEXTS)).files()


# --- vocabularies made elsewhere ------------------------------------------------------------------

FOREIGN = ("<pad>", "<unk>", "<s>", " ", "A", "C", "CH", "É", "ß", "<unk>")


def test_a_foreign_vocabulary_decodes_to_its_own_texts() -> None:
    tokenizer = VocabularyTokenizer(FOREIGN)
    assert tokenizer.decode([2, 3, 3, 4, 0, 6, 1, 9]) == "<s> ACH<unk><unk>"
    assert (tokenizer.size, tokenizer.texts) == (10, FOREIGN)


def test_a_foreign_vocabulary_encodes_digraphs_whole_and_either_case() -> None:
    tokenizer = VocabularyTokenizer(FOREIGN)
    assert tokenizer.encode(" cache  É") == [5, 4, 6, 1, 3, 7]
    assert tokenizer.encode("ß SS") == [8, 3, 1, 1]  # a ß is no SS
    both = VocabularyTokenizer(["<pad>", "<unk>", "a", "A"])
    assert both.encode("aA") == [2, 3]


@given(text=st.text(alphabet="aAcChHéÉß x<s>"))
def test_unknown_letters_of_a_foreign_vocabulary_are_named(text: str) -> None:
    tokenizer = VocabularyTokenizer(("<pad>", "<unk>", " ", "A", "C", "É", "ß"))
    assert tokenizer.has_unknown(text) == (1 in tokenizer.encode(text))


def test_a_foreign_vocabulary_is_saved_and_loaded(tmp_path: Path) -> None:
    tokenizer = VocabularyTokenizer(FOREIGN)
    for name, content in tokenizer.files().items():
        (tmp_path / name).write_bytes(content)
    loaded = load_tokenizer(tmp_path)
    assert isinstance(loaded, VocabularyTokenizer)
    assert loaded.texts == FOREIGN


@pytest.mark.parametrize("tokens", [[], ["<pad>", "<unk>"], ["<pad>", "<unk>", ""]])
def test_a_foreign_vocabulary_needs_three_tokens_with_texts(tokens: list[str]) -> None:
    with pytest.raises(ConfigError, match="the blank, the unknown token and at least one more"):
        VocabularyTokenizer(tokens)


def test_every_tokenizer_lists_its_texts(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.texts) == tokenizer.size
    assert tokenizer.texts[:2] == ("<pad>", "⁇")
    assert all(
        tokenizer.decode([i]) == " ".join(tokenizer.texts[i].split())
        for i in range(2, tokenizer.size)
    )


def test_characters_are_sorted_and_the_space_is_always_there() -> None:
    tokenizer = CharTokenizer.train(["ba", "c"])
    assert tokenizer.characters == (" ", "a", "b", "c")
    assert tokenizer.encode(" b\ta x") == [4, 2, 3, 2, 1]
    assert tokenizer.size == 6


def test_sentencepiece_size_is_pieces_and_blank() -> None:
    assert train_tokenizer("bpe:60", TEXTS).size == 61


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_vocabulary_limits_are_named_and_true(kind: str) -> None:
    with pytest.raises(ConfigError, match="use at most") as too_large:
        train_tokenizer(f"{kind}:5000", TEXTS)
    largest = int(str(too_large.value).split("at most ")[1].split(",")[0])
    assert train_tokenizer(f"{kind}:{largest}", TEXTS).size == largest + 1
    with pytest.raises(ConfigError, match="at most"):
        train_tokenizer(f"{kind}:{largest + 1}", TEXTS)
    with pytest.raises(ConfigError, match="use at least") as too_small:
        train_tokenizer(f"{kind}:3", TEXTS)
    smallest = int(str(too_small.value).split("at least ")[1].split(",")[0])
    assert train_tokenizer(f"{kind}:{smallest}", TEXTS).size == smallest + 1


def test_sentencepiece_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    train_tokenizer("bpe:60", TEXTS)
    assert capfd.readouterr() == ("", "")


def test_long_transcripts_are_not_dropped() -> None:
    # SentencePiece would skip a sentence beyond 4192 bytes, and then not know its characters.
    assert not train_tokenizer("bpe:40", [*TEXTS[:3], "z " * 5000]).has_unknown("zz")


def test_characters_reserved_by_sentencepiece_are_refused() -> None:
    with pytest.raises(ConfigError, match="▅"):
        train_tokenizer("bpe:60", [*TEXTS, "a ▅ b"])


@pytest.mark.parametrize(
    "spec", ["", "char", "bpe", "bpe:", "bpe:0", "bpe:-5", "word:100", "bpe:5e2"]
)
def test_unknown_spec_is_refused(spec: str) -> None:
    with pytest.raises(ConfigError, match="choose chars"):
        train_tokenizer(spec, TEXTS)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("texts", [[], ["", " \n"]])
def test_no_text_is_refused(spec: str, texts: list[str]) -> None:
    with pytest.raises(ConfigError, match="empty"):
        train_tokenizer(spec, texts)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ConfigError):
        SentencePieceTokenizer.train(TEXTS, 50, "word")
    with pytest.raises(ConfigError):
        CharTokenizer(["a", "a"])
    with pytest.raises(ConfigError):
        CharTokenizer(["ab"])


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"{", b"[]", b"{}", b'{"kind": "words"}', b'{"kind": "chars"}',
     b'{"kind": "chars", "characters": 3}', b'{"kind": "chars", "characters": [1]}',
     b'{"kind": "chars", "characters": ["ab"]}'],
)  # fmt: skip
def test_damaged_table_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_missing_or_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        load_tokenizer(tmp_path)
    files = train_tokenizer("bpe:60", TEXTS).files()
    (tmp_path / "tokenizer.json").write_bytes(files["tokenizer.json"])
    with pytest.raises(CheckpointError, match=r"tokenizer\.model is missing"):
        load_tokenizer(tmp_path)
    for damaged in (b"", b"nonsense", files["tokenizer.model"][:100]):
        (tmp_path / "tokenizer.model").write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"tokenizer|SentencePiece"):
            load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(
        train_tokenizer("bpe:50", TEXTS).files()["tokenizer.model"]
    )
    with pytest.raises(CheckpointError, match="51 ids"):
        load_tokenizer(tmp_path)


def test_table_is_readable() -> None:
    assert json.loads(CharTokenizer.train(["ñ"]).files()["tokenizer.json"]) == {
        "kind": "chars",
        "characters": [" ", "ñ"],
    }
