"""Words spelled in tokens."""

from speechssl.decoding.lexicon import spellings
from speechssl.decoding.ngram import BEGIN, END
from speechssl.text.character_tokenizer import CharTokenizer
from speechssl.text.tokenizer import Spelling


def test_words_that_cannot_be_spelled_are_left_out() -> None:
    tokenizer = CharTokenizer.train(["ab c"])
    found = spellings(tokenizer, ["ab", "abd", BEGIN, END, "<unk>", "c"])
    assert found == {word: [Spelling(tuple(tokenizer.encode(word)), 0.0)] for word in ("ab", "c")}
