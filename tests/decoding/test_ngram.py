"""N-gram models: scores as KenLM gives them, perplexity."""

import math
import time
from pathlib import Path

import pytest
from support.language_models import toy_sentences, write_lm

from speechssl.decoding.arpa import read_arpa
from speechssl.decoding.ngram import END, NgramModel, perplexity
from speechssl.errors import ConfigError


def test_kenlm_reads_it_and_gives_the_same_scores(tmp_path: Path) -> None:
    """KenLM, as it comes with flashlight-text, on 1,000 sentences with known and unknown words."""
    decoder = pytest.importorskip("flashlight.lib.text.decoder.kenlm")
    dictionary = pytest.importorskip("flashlight.lib.text.dictionary")

    path = tmp_path / "lm.arpa"
    write_lm(path, toy_sentences(), 4)
    model = read_arpa(path)

    texts = toy_sentences(1000, seed=3, vocabulary=36)
    assert any(word not in model.words for text in texts for word in text)

    entries = dictionary.Dictionary(sorted({w for text in texts for w in text}))
    kenlm = decoder.KenLM(str(path), entries)

    for text in texts:
        state, total = kenlm.start(False), 0.0
        for word in text:
            state, value = kenlm.score(state, entries.get_index(word))
            total += value
        total += kenlm.finish(state)[1]
        assert sum(model.score(text)) == pytest.approx(total, abs=1e-4)


def test_a_better_fitting_text_is_less_perplexing(tmp_path: Path) -> None:
    write_lm(tmp_path / "lm.arpa", toy_sentences(), 3)
    model = read_arpa(tmp_path / "lm.arpa")
    texts = toy_sentences(100, seed=5)
    turned = [sentence[::-1] for sentence in texts]
    fitting = perplexity(model, texts).including_unknown
    assert fitting < perplexity(model, turned).including_unknown
    assert fitting < len(model.words)


def test_perplexity_worked_by_hand() -> None:
    """A unigram model: a has 1/10, the end of a sentence 1/100, an unknown word 1/1000."""
    model = NgramModel([{("a",): (-1, 0), (END,): (-2, 0), ("<unk>",): (-3, 0)}])
    found = perplexity(model, [["a"], [], ["a", "b"]])
    assert (found.num_words, found.num_unknown) == (5, 1)
    assert found.including_unknown == pytest.approx(10 ** (9 / 5))
    assert found.excluding_unknown == pytest.approx(10 ** (6 / 4))
    with pytest.raises(ConfigError, match="the texts are empty"):
        perplexity(model, [[]])


def test_a_model_that_knows_no_word_of_a_text_has_no_perplexity_without_unknown_words() -> None:
    """Not even the end of the sentence."""
    found = perplexity(NgramModel([{("a",): (-1, 0), ("<unk>",): (-2, 0)}]), [["b", "c"]])
    assert math.isnan(found.excluding_unknown)
    assert found.including_unknown == pytest.approx(100)
    assert found.num_unknown == found.num_words == 3


def test_a_hundred_thousand_words_take_seconds(tmp_path: Path) -> None:
    """Also of one sentence: no word costs more the more stand before it."""
    write_lm(tmp_path / "lm.arpa", toy_sentences(), 4)
    model = read_arpa(tmp_path / "lm.arpa")
    started = time.process_time()
    assert perplexity(model, [["w1", "w2"] * 50_000]).num_words == 100_001
    assert time.process_time() - started < 10
