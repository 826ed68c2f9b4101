"""Mixed models beside the sum that they stand for; weights beside a search for them."""

import math
from pathlib import Path

import numpy as np
import pytest
from support.language_models import toy_sentences, write_lm

from speechssl.decoding.arpa import read_arpa
from speechssl.decoding.ngram import BEGIN, END, UNKNOWN, perplexity
from speechssl.errors import ConfigError
from speechssl.ngrams.arpa_table import is_arpa, read_table
from speechssl.ngrams.held_out import model_for, word_probabilities
from speechssl.ngrams.mixture import best_weights, mix
from speechssl.ngrams.table import blocks_of_table

FEW = toy_sentences(80, seed=1, vocabulary=12)
MANY = toy_sentences(300, seed=2, vocabulary=20)


def test_each_ngram_has_the_weighted_sum_and_every_context_sums_to_one(tmp_path: Path) -> None:
    """A 2-gram and a 3-gram of texts with words that the other does not have."""
    write_lm(tmp_path / "a.arpa", [*FEW, ["only", "here"]], 2)
    write_lm(tmp_path / "b.arpa", MANY, 3)
    tables = [read_table(tmp_path / name) for name in ("a.arpa", "b.arpa")]
    parts = [read_arpa(tmp_path / name) for name in ("a.arpa", "b.arpa")]

    mixed = mix(tables, np.array([0.3, 0.7]))
    (tmp_path / "mixed.arpa").write_text("".join(mixed.lines()))
    model = read_arpa(tmp_path / "mixed.arpa")

    assert model.order == 3
    assert model.words == parts[0].words | parts[1].words
    assert "only" not in parts[1].words

    num_checked = 0
    for order in mixed.orders:
        for row in order.ids[:, ::-1].tolist():
            *context, word = (mixed.words[word_id] for word_id in row)
            if word == BEGIN:
                continue

            # A model without the words of a context backs off to what it has of it.
            expected = 0.0
            for weight, part in zip((0.3, 0.7), parts, strict=True):
                if word in part.words:
                    known = context
                    while any(w not in part.words | {BEGIN} for w in known):
                        known = known[1:]
                    expected += weight * 10 ** part.log10_prob(word, known)

            assert 10 ** model.log10_prob(word, context) == pytest.approx(expected, rel=3e-6)
            num_checked += 1

    assert num_checked > 500

    said = [(BEGIN, *sentence) for sentence in (*FEW[:20], *MANY[:20])]
    contexts = {s[i : i + k] for s in said for k in (0, 1, 2) for i in range(len(s) - k + 1)}
    for context in contexts | {("only",), ("only", "w1"), ("elsewhere",)}:
        total = math.fsum(10 ** model.log10_prob(word, context) for word in model.words)
        assert total == pytest.approx(1, abs=1e-5)


def test_weights_are_those_of_a_search_and_the_mixture_is_the_best(tmp_path: Path) -> None:
    write_lm(tmp_path / "a.arpa", FEW, 3)
    write_lm(tmp_path / "b.arpa", MANY, 3)
    held_out = toy_sentences(60, seed=9, vocabulary=14)
    tables = [read_table(tmp_path / name) for name in ("a.arpa", "b.arpa")]
    models = [model_for(held_out, t.words, map(blocks_of_table, t.orders)) for t in tables]

    probabilities = np.stack([word_probabilities(model, held_out) for model in models])
    probabilities = probabilities[:, probabilities.any(axis=0)]
    weights = best_weights(probabilities)
    assert weights.sum() == pytest.approx(1)

    grid = np.linspace(0, 1, 1001)[1:-1]
    scores = [np.log(w * probabilities[0] + (1 - w) * probabilities[1]).sum() for w in grid]
    assert weights[0] == pytest.approx(grid[np.argmax(scores)], abs=2e-3)


def test_what_is_kept_for_a_text_scores_it_the_same(tmp_path: Path) -> None:
    write_lm(tmp_path / "lm.arpa", MANY, 4)
    table = read_table(tmp_path / "lm.arpa")
    held_out = [*toy_sentences(30, seed=4, vocabulary=24), ["nowhere", "w1"]]
    kept = model_for(held_out, table.words, map(blocks_of_table, table.orders))
    whole = read_arpa(tmp_path / "lm.arpa")
    assert kept.num_ngrams < whole.num_ngrams / 2
    assert kept.words == whole.words
    assert perplexity(kept, held_out) == perplexity(whole, held_out)
    unknown = word_probabilities(whole, [["nowhere", "w1"]])
    assert unknown[0] == 0
    assert unknown[1] == 10 ** whole.log10_prob("w1", [BEGIN, UNKNOWN])


def test_a_model_that_lacks_parts_of_its_ngrams_gets_them(tmp_path: Path) -> None:
    """As SRILM writes them after pruning: "a b c" without "b c", no <unk>, no <s>."""
    path = tmp_path / "lm.arpa"
    path.write_text(
        "a comment\n\\data\\\nngram 1=4\nngram 2=1\nngram 3=1\n\n\\1-grams:\n-0.5\ta\t-0.1\n"
        "-0.6\tb\t-0.2\n-0.7\tc\n-0.8\t</s>\n\n\\2-grams:\n-0.3\ta b\t-0.4\n\n"
        "\\3-grams:\n-0.2\ta b c\n\n\\end\\\n"
    )

    assert is_arpa(path)
    table = read_table(path)
    (tmp_path / "again.arpa").write_text("".join(table.lines()))
    model, again = read_arpa(path), read_arpa(tmp_path / "again.arpa")
    assert [len(order.ids) for order in table.orders] == [6, 2, 1]

    for context in ([], ["a"], ["b"], ["a", "b"], ["c", "b"]):
        for word in ("a", "b", "c", END):
            expected = model.log10_prob(word, context)
            assert again.log10_prob(word, context) == pytest.approx(expected)


def test_an_ngram_of_words_without_unigrams_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa"
    path.write_text(
        "\\data\\\nngram 1=1\nngram 2=1\n\n\\1-grams:\n-1\ta\n\n\\2-grams:\n-1\ta b\n\n\\end\\\n"
    )
    with pytest.raises(ConfigError, match="line 9: the word 'b' is not among the 1-grams"):
        read_table(path)
    text = tmp_path / "text"
    text.write_text("a b\n")
    assert not is_arpa(text)
