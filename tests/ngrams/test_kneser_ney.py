"""Estimated models beside the formulas read plainly, beside lmplz, and summed to one."""

import math
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.kneser_ney import KneserNey
from support.language_models import toy_sentences, write_lm

from speechssl.decoding.arpa import read_arpa
from speechssl.decoding.ngram import BEGIN, END, UNKNOWN, NgramModel, perplexity
from speechssl.errors import ConfigError
from speechssl.ngrams import counting, external_sort, kneser_ney
from speechssl.ngrams.kneser_ney import EVERYTHING, Selection
from speechssl.ngrams.vocabulary import Vocabulary

Sentences = list[list[str]]


def built(
    path: Path, sentences: Sentences, order: int, selection: Selection = EVERYTHING
) -> NgramModel:
    write_lm(path, sentences, order, selection)
    return read_arpa(path)


def assert_same_probabilities(model: NgramModel, plain: KneserNey) -> None:
    """In contexts that the model has, and in others."""
    draws = random.Random(1)
    for sentence in toy_sentences(40, seed=7):
        said = (BEGIN, *sentence)
        at = draws.randrange(1, len(said) + 1)
        context = said[max(0, at - plain.order + 1) : at]
        for word in draws.sample(sorted(plain.words), 6):
            expected = plain.prob(word, context)
            assert 10 ** model.log10_prob(word, context) == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize("order", [2, 3, 4, 5])
def test_probabilities_are_those_of_the_formulas(tmp_path: Path, order: int) -> None:
    sentences = toy_sentences()
    model = built(tmp_path / "lm.arpa", sentences, order)
    assert_same_probabilities(model, KneserNey(sentences, order))


@pytest.mark.parametrize("cutoffs", [(0, 0, 1), (0, 1, 2), (5,)])
def test_cut_offs_are_those_of_the_formulas(tmp_path: Path, cutoffs: tuple[int, ...]) -> None:
    sentences = toy_sentences()
    model = built(tmp_path / "lm.arpa", sentences, 3, Selection(cutoffs=cutoffs))
    plain = KneserNey(sentences, 3, (*cutoffs, cutoffs[-1], cutoffs[-1])[:3])
    assert_same_probabilities(model, plain)
    whole = built(tmp_path / "whole.arpa", sentences, 3)
    assert model.num_ngrams < whole.num_ngrams
    assert model.num_ngrams == len(plain.ngrams) + 2  # <s> and <unk>


@pytest.mark.parametrize(
    "vocabulary",
    [
        Vocabulary(listed=frozenset({"w1", "w2", "w5", "w9", "elsewhere"})),
        Vocabulary(min_count=40),
        Vocabulary(max_words=7),
    ],
)
def test_a_vocabulary_is_that_of_the_formulas(tmp_path: Path, vocabulary: Vocabulary) -> None:
    sentences = toy_sentences()
    model = built(tmp_path / "lm.arpa", sentences, 3, Selection(vocabulary))
    kept = model.words - {END, UNKNOWN}
    assert_same_probabilities(model, KneserNey(sentences, 3, vocabulary=kept))

    counts: dict[str, int] = {}
    for sentence in sentences:
        for word in sentence:
            counts[word] = counts.get(word, 0) + 1
    if vocabulary.listed:
        expected = vocabulary.listed & counts.keys()
    elif vocabulary.max_words:
        expected = frozenset(sorted(counts, key=lambda word: -counts[word])[:7])
    else:
        expected = frozenset(word for word, count in counts.items() if count >= 40)
    assert kept == expected
    assert 2 < len(kept) < len(counts)


def test_a_bigram_model_worked_by_hand(tmp_path: Path) -> None:
    """Two sentences, "a b" and "a".

    The counts are too few for discounts of their own, which fall back to 0.5, 1 and 1.5.
    Continuation counts of unigrams: a follows <s> alone, b follows a, </s> follows b and a, which
    makes 1, 1 and 2 of 4. The four words (<unk> too) share (0.5 + 0.5 + 1) / 4 = 1/2 equally.
    Bigrams: after <s> stands a twice, after a stand b and </s>, after b stands </s>.
    """
    model = built(tmp_path / "lm.arpa", [["a", "b"], [], ["a"]], 2)

    unigrams = {"a": 0.5 / 4 + 1 / 8, "b": 0.5 / 4 + 1 / 8, END: 1 / 4 + 1 / 8, UNKNOWN: 1 / 8}
    for word, value in unigrams.items():
        assert 10 ** model.log10_prob(word, ()) == pytest.approx(value, abs=1e-6)

    assert 10 ** model.log10_prob("a", (BEGIN,)) == pytest.approx(
        (2 - 1) / 2 + 1 / 2 * 1 / 4, abs=1e-6
    )
    assert 10 ** model.log10_prob("b", ("a",)) == pytest.approx(0.5 / 2 + 1 / 2 * 1 / 4, abs=1e-6)
    assert 10 ** model.log10_prob("a", ("b",)) == pytest.approx(0.5 * 1 / 4, abs=1e-6)
    assert 10 ** model.log10_prob("other", ("b",)) == pytest.approx(0.5 * 1 / 8, abs=1e-6)

    said = 10 ** sum(model.score(["a", "b"]))
    assert said == pytest.approx(0.625 * 0.375 * (0.5 + 0.5 * 0.375), abs=1e-6)

    found = perplexity(model, [["a", "b"]])
    assert found.excluding_unknown == pytest.approx(said ** (-1 / 3), rel=1e-5)


words = st.text("abcde", min_size=1, max_size=2)


@settings(max_examples=30, deadline=None)
@given(
    sentences=st.lists(st.lists(words, max_size=7), min_size=1, max_size=40),
    order=st.integers(2, 5),
    cutoff=st.integers(0, 2),
    max_words=st.integers(1, 40),
)
def test_every_context_sums_to_one(
    sentences: Sentences,
    order: int,
    cutoff: int,
    max_words: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    if not any(sentences):
        sentences = [["a"]]
    selection = Selection(Vocabulary(max_words=max_words), (0, cutoff))
    model = built(tmp_path_factory.mktemp("lm") / "lm.arpa", sentences, order, selection)
    padded = [(BEGIN, *s, END) for s in sentences if s]
    contexts = {s[i : i + k] for s in padded for k in range(order) for i in range(len(s) - k + 1)}
    for context in contexts | {("unseen",), ("a", "unseen", "b")}:
        total = math.fsum(10 ** model.log10_prob(word, context) for word in model.words)
        assert total == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("buffer_bytes", [4000, 30_000])
def test_small_memory_changes_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, buffer_bytes: int
) -> None:
    """Rows that wait to be sorted, blocks that are read and contexts that are longer than these."""
    sentences = toy_sentences()
    write_lm(tmp_path / "whole.arpa", sentences, 3)
    monkeypatch.setattr(counting, "BUFFER_BYTES", buffer_bytes)
    monkeypatch.setattr(counting, "_TEXT_WORDS", 50)
    monkeypatch.setattr(counting, "_SLICE_ROWS", 7)
    monkeypatch.setattr(kneser_ney, "_SORT_BYTES", buffer_bytes)
    monkeypatch.setattr(kneser_ney, "_BLOCK_ROWS", 5)
    monkeypatch.setattr("speechssl.ngrams.lookup._BLOCK_ROWS", 3)
    monkeypatch.setattr(external_sort, "_MIN_BLOCK_ROWS", 2)
    write_lm(tmp_path / "parts.arpa", sentences, 3)
    assert (tmp_path / "parts.arpa").read_bytes() == (tmp_path / "whole.arpa").read_bytes()


@pytest.mark.parametrize(
    ("sentences", "order", "selection", "message"),
    [
        ([["a"]], 1, EVERYTHING, "allowed are 2 to 6"),
        ([["a"]], 7, EVERYTHING, "allowed are 2 to 6"),
        ([], 3, EVERYTHING, "no sentence"),
        ([[]], 3, EVERYTHING, "no sentence"),
        ([["a", "<s>"]], 3, EVERYTHING, "'<s>' cannot be a word"),
        ([["a b"]], 3, EVERYTHING, "'a b' cannot be a word"),
        ([[""]], 3, EVERYTHING, "'' cannot be a word"),
        ([["a"]], 2, Selection(cutoffs=(1, 0)), "none below 0 or below the one before it"),
        ([["a"]], 2, Selection(cutoffs=(0, 0, 0)), "at most 2"),
        ([["a"]], 2, Selection(cutoffs=(-1,)), "none below 0"),
        ([["a"]], 2, Selection(Vocabulary(min_count=2)), "keeps no word"),
    ],
)
def test_what_cannot_be_estimated_is_refused(
    sentences: Sentences, order: int, selection: Selection, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        write_lm(tmp_path / "lm.arpa", sentences, order, selection)


def entries(path: Path) -> dict[str, tuple[float, ...]]:
    """The numbers of each n-gram of an ARPA file; <s> has a custom of its own."""
    found = {}
    for line in path.read_text().splitlines():
        prob, _, rest = line.partition("\t")
        if rest:
            ngram, _, backoff = rest.partition("\t")
            found[ngram] = (float(prob), float(backoff or 0))
    del found["<s>"]
    return found


@pytest.mark.parametrize(
    ("order", "selection", "options"),
    [
        (2, EVERYTHING, []),
        (3, EVERYTHING, []),
        (4, EVERYTHING, []),
        (5, EVERYTHING, []),
        (4, Selection(cutoffs=(0, 1, 2)), ["--prune", "0", "1", "2"]),
        (3, Selection(Vocabulary(frozenset({"w1", "w2", "w5"}))), ["--limit_vocab_file", "WORDS"]),
    ],
)
def test_lmplz_writes_the_same(
    tmp_path: Path, order: int, selection: Selection, options: list[str]
) -> None:
    """The last word of the text is new: lmplz counts the last word's n-grams without adjusting."""
    lmplz = shutil.which("lmplz")
    if lmplz is None:
        pytest.skip("KenLM's lmplz is not on PATH: nothing was compared with it")

    sentences = [*toy_sentences(), ["w1", "last"]]
    text = "".join(" ".join(sentence) + "\n" for sentence in sentences)
    (tmp_path / "words").write_text("w1 w2 w5\n")
    options = [option.replace("WORDS", str(tmp_path / "words")) for option in options]
    command = [lmplz, "-o", str(order), "-S", "50M", "-T", str(tmp_path), "--discount_fallback"]
    theirs = tmp_path / "theirs.arpa"
    with theirs.open("w") as out:
        subprocess.run([*command, *options], input=text, text=True, stdout=out, check=True)
    write_lm(tmp_path / "ours.arpa", sentences, order, selection)

    ours = entries(tmp_path / "ours.arpa")
    expected = entries(theirs)
    assert ours.keys() == expected.keys()
    for ngram, values in ours.items():
        assert values == pytest.approx(expected[ngram], abs=1e-4), ngram
