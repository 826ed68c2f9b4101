"""N-gram models against the formulas read plainly, sums of one in every context, KenLM's scores."""

import math
import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechssl.decoding.arpa import arpa_lines, read_arpa
from speechssl.decoding.ngram import BEGIN, END, UNKNOWN, NgramModel, estimate, perplexity
from speechssl.errors import ConfigError

Sentences = list[list[str]]


def toy(n: int = 300, seed: int = 0, vocabulary: int = 30) -> Sentences:
    """Sentences of a chain whose words like some successors more than others."""
    draws = random.Random(seed)
    words = [f"w{i}" for i in range(vocabulary)]
    found = []
    for _ in range(n):
        at, sentence = draws.randrange(vocabulary), []
        for _ in range(draws.randint(1, 9)):
            sentence.append(words[at])
            at = (at * 3 + int(draws.expovariate(0.7))) % vocabulary
        found.append(sentence)
    return found


def built(path: Path, sentences: Sentences, order: int) -> NgramModel:
    path.write_text("".join(arpa_lines(estimate(sentences, order))), encoding="utf-8")
    return read_arpa(path)


class Plain:
    """The same estimate as the formulas have it: counters of tuples, worked out when asked."""

    def __init__(self, sentences: Sentences, order: int) -> None:
        self.order = order
        padded = [(BEGIN, *s, END) for s in sentences if s]
        raw = [
            Counter(s[i : i + k] for s in padded for i in range(len(s) - k + 1))
            for k in range(1, order + 1)
        ]
        self.words = {w for s in padded for w in s if w != BEGIN} | {UNKNOWN}
        self.counts: list[dict[tuple[str, ...], int]] = []
        for k in range(order):
            if k == order - 1:
                self.counts.append(dict(raw[k]))
                continue
            before: dict[tuple[str, ...], set[str]] = defaultdict(set)
            for longer in raw[k + 1]:
                before[longer[1:]].add(longer[0])
            self.counts.append(
                {g: c if g[0] == BEGIN else len(before[g]) for g, c in raw[k].items()}
            )
        self.counts[0].pop((BEGIN,))
        self.discounts = [self.of_counts(c) for c in self.counts]

    @staticmethod
    def of_counts(counts: dict[tuple[str, ...], int]) -> tuple[float, ...]:
        n = Counter(counts.values())
        if not (n[1] and n[2] and n[3]):
            return (0.0, 0.5, 1.0, 1.5)
        y = n[1] / (n[1] + 2 * n[2])
        found = tuple(c - (c + 1) * y * n[c + 1] / n[c] for c in (1, 2, 3))
        ok = all(0 < d <= c for c, d in enumerate(found, 1))
        return (0.0, *found) if ok else (0.0, 0.5, 1.0, 1.5)

    def prob(self, word: str, context: tuple[str, ...]) -> float:
        k = len(context)
        counts, discounts = self.counts[k], self.discounts[k]
        after = {g[-1]: c for g, c in counts.items() if g[:-1] == context}
        lower = self.prob(word, context[1:]) if k else 1 / len(self.words)
        total = sum(after.values())
        if not total:
            return lower
        count = after.get(word, 0)
        left = sum(discounts[min(c, 3)] for c in after.values()) / total
        return (count - discounts[min(count, 3)]) / total + left * lower


@pytest.mark.parametrize("order", [2, 3, 4])
def test_probabilities_are_those_of_the_formulas(tmp_path: Path, order: int) -> None:
    sentences = toy()
    model, plain = built(tmp_path / "lm.arpa", sentences, order), Plain(sentences, order)
    draws = random.Random(1)
    texts = [(BEGIN, *s) for s in toy(40, seed=7)]
    for said in texts:
        at = draws.randrange(1, len(said) + 1)
        context = said[max(0, at - order + 1) : at]
        for word in draws.sample(sorted(plain.words), 6):
            assert 10 ** model.log10_prob(word, context) == pytest.approx(
                plain.prob(word, context), rel=2e-6
            )


def test_a_bigram_model_worked_by_hand(tmp_path: Path) -> None:
    """Two sentences, "a b" and "a".

    The counts are too few for discounts of their own, which fall back to 0.5, 1 and 1.5.
    Continuation counts of unigrams: a follows <s> alone, b follows a, </s> follows b and a, which
    makes 1, 1 and 2 of 4. The four words (<unk> too) share (0.5 + 0.5 + 1) / 4 = 1/2 equally.
    Bigrams: after <s> stands a twice, after a stand b and </s>, after b stands </s>.
    """
    model = built(tmp_path / "lm.arpa", [["a", "b"], ["a"]], 2)
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
    assert (
        found.excluding_unknown
        == found.including_unknown
        == pytest.approx(said ** (-1 / 3), rel=1e-5)
    )
    assert perplexity(model, [[], ["a", "b"], []]) == found
    assert perplexity(model, [["a", "zebra"]]).num_unknown == 1


words = st.text("abcde", min_size=1, max_size=2)


@settings(max_examples=30, deadline=None)
@given(
    sentences=st.lists(st.lists(words, max_size=7), min_size=1, max_size=40),
    order=st.integers(2, 5),
)
def test_every_context_sums_to_one(
    sentences: Sentences, order: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if not any(sentences):
        sentences = [["a"]]
    model = built(tmp_path_factory.mktemp("lm") / "lm.arpa", sentences, order)
    padded = [(BEGIN, *s, END) for s in sentences if s]
    contexts = {s[i : i + k] for s in padded for k in range(order) for i in range(len(s) - k + 1)}
    for context in contexts | {("unseen",), ("a", "unseen", "b")}:
        total = math.fsum(10 ** model.log10_prob(word, context) for word in model.words)
        assert total == pytest.approx(1, abs=1e-6)


def test_kenlm_reads_it_and_gives_the_same_scores(tmp_path: Path) -> None:
    """KenLM, as it comes with flashlight-text, on 1,000 sentences with known and unknown words."""
    decoder = pytest.importorskip("flashlight.lib.text.decoder.kenlm")
    dictionary = pytest.importorskip("flashlight.lib.text.dictionary")
    path = tmp_path / "lm.arpa"
    model = built(path, toy(), 4)
    texts = toy(1000, seed=3, vocabulary=36)
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
    model = built(tmp_path / "lm.arpa", toy(), 3)
    draws = random.Random(2)
    shuffled = [draws.sample(s, len(s)) for s in toy(100, seed=5)]
    uniform = len(model.words)
    assert (
        perplexity(model, toy(100, seed=5)).including_unknown
        < perplexity(model, shuffled).including_unknown
    )
    assert perplexity(model, toy(100, seed=5)).including_unknown < uniform


@pytest.mark.parametrize(
    ("sentences", "order", "message"),
    [
        ([["a"]], 1, "allowed are 2 to 6"),
        ([["a"]], 7, "allowed are 2 to 6"),
        ([], 3, "no sentence"),
        ([[]], 3, "no sentence"),
        ([["a", "<s>"]], 3, "'<s>' cannot be a word"),
        ([["a b"]], 3, "'a b' cannot be a word"),
        ([[""]], 3, "'' cannot be a word"),
    ],
)
def test_what_cannot_be_estimated_is_refused(
    sentences: Sentences, order: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        estimate(sentences, order)
