"""N-grams as flat arrays: the probabilities of ``NgramModel``, whatever a file lacks."""

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.language_models import lm_lines

from speechssl.decoding.arpa import read_arpa
from speechssl.decoding.ngram import BEGIN, END, UNKNOWN
from speechssl.decoding.ngram_table import SearchTable, from_tensors, read_search_table
from speechssl.decoding.search_kernel import score_word
from speechssl.errors import ConfigError

WORDS = "abcdef"


def random_arpa(rng: random.Random, path: Path, order: int, has_unknown: bool) -> Path:
    """N-grams at random, many without their beginnings and endings, as pruning may leave them."""
    vocabulary = [BEGIN, END, *WORDS] + [UNKNOWN] * has_unknown
    sections = [[(word,) for word in vocabulary]]
    for length in range(2, order + 1):
        drawn = {tuple(rng.choice(vocabulary) for _ in range(length)) for _ in range(60)}
        sections.append(sorted(drawn))

    lines = ["\\data\\"] + [f"ngram {k}={len(ngrams)}" for k, ngrams in enumerate(sections, 1)]
    for k, ngrams in enumerate(sections, 1):
        lines.append(f"\\{k}-grams:")
        for ngram in ngrams:
            backoff = rng.choice([0.0, 0.3 - 2 * rng.random()])
            lines.append(f"{-3 * rng.random():.4f}\t{' '.join(ngram)}\t{backoff:.4f}")
    path.write_text("\n".join([*lines, "\\end\\", ""]))
    return path


def scores(table: SearchTable, words: list[str]) -> list[float]:
    """log10 probability of each word of a sentence, and of its end."""
    ids = table.ids()
    _, context = score_word(table.arrays, 0, ids[BEGIN])
    found = []
    for word in [*words, END]:
        word_id = ids.get(word, ids.get(UNKNOWN, -1))
        score, context = score_word(table.arrays, context, word_id)
        found.append(score / math.log(10))
    return found


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("has_unknown", [True, False])
def test_every_probability_is_that_of_the_model(
    tmp_path: Path, order: int, has_unknown: bool
) -> None:
    rng = random.Random(order)
    path = random_arpa(rng, tmp_path / "lm.arpa", order, has_unknown)
    model, table = read_arpa(path), read_search_table(path)
    for _ in range(40):
        sentence = [rng.choice([*WORDS, "other"]) for _ in range(8)]
        assert scores(table, sentence) == pytest.approx(model.score(sentence), abs=1e-5)


def test_arrays_survive_a_file_and_tell_of_damage(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa"
    path.write_text("".join(lm_lines([list("abcab"), list("bca")], 3)))
    table = read_search_table(path)

    tensors = table.as_tensors()
    again = from_tensors(table.words, tensors)
    assert again.words == table.words
    for kept, array in zip(again.arrays, table.arrays, strict=True):
        np.testing.assert_array_equal(kept, array)

    def changed(name: str, place: int, value: float) -> dict[str, Any]:
        array = tensors[name].copy()
        array[place] = value
        return {**tensors, name: array}

    last = len(table.arrays.word) - 1
    for damaged, why in (
        ({name: tensors[name] for name in list(tensors)[1:]}, "no ngram.word"),
        (changed("ngram.word", 1, 2), "unigrams"),
        (changed("ngram.first_child", last, 10**6), "tree"),
        (changed("ngram.first_child", 2, 1), "tree"),
        (changed("ngram.shorter", last, last), "longer one"),
        (changed("ngram.shorter", 3, -1), "longer one"),
        (changed("ngram.log_prob", 1, math.nan), "number"),
        (changed("ngram.backoff", 1, math.inf), "number"),
        (tensors | {"ngram.backoff": tensors["ngram.backoff"][1:]}, "backoff has"),
        (tensors | {"ngram.word": tensors["ngram.word"].astype(np.int64)}, "int64"),
    ):
        with pytest.raises(ValueError, match=why):
            from_tensors(table.words, damaged)

    with pytest.raises(ValueError, match="unigrams"):
        from_tensors([], tensors)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ngram 1=2\n\\1-grams:\n-1\t<s>\n-1\ta\n\\end\\\n", "has no </s>"),
        ("ngram 1=4\n\\1-grams:\n-1\t<s>\n-1\t</s>\n-1\ta\n-1\ta\n\\end\\\n", "twice"),
        (
            "ngram 1=2\nngram 2=1\n\\1-grams:\n-1\t<s>\n-1\t</s>\n\\2-grams:\n-1\t<s> b\n\\end\\\n",
            "the word 'b' is not among the 1-grams",
        ),
    ],
)
def test_a_file_that_cannot_be_searched_is_refused(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "lm.arpa"
    path.write_text("\\data\\\n" + text)
    with pytest.raises(ConfigError, match=why):
        read_search_table(path)


def test_a_kenlm_binary_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lm.bin"
    path.write_bytes(b"mmap lm http://kheafield.com/code format version 5\n\0")
    with pytest.raises(ConfigError, match="give the ARPA file that it was made from"):
        read_search_table(path)
