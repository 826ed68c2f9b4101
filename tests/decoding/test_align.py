"""Word times: the best of all alignments by brute force, the greedy path itself, and words of every kind of token."""

import math
from itertools import groupby, pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from speechssl.decoding.align import align, words_of
from speechssl.decoding.greedy import TokenSpan, greedy_with_frames
from speechssl.scoring.calibration import Scaling
from speechssl.text.tokenizers import (
    CharTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    VocabularyTokenizer,
)

TEXTS = ["ab a ba", "b aab", "a"]


def emissions(frames: int, size: int, seed: int) -> Tensor:
    return (
        2 * torch.randn(frames, size, generator=torch.Generator().manual_seed(seed))
    ).log_softmax(-1)


@pytest.mark.parametrize("tokens", [[1], [1, 2], [2, 2], [1, 2, 1]])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_alignment_is_the_best_of_all(tokens: list[int], seed: int) -> None:
    rows = emissions(6, 4, seed)
    paths = [p for p in product(range(4), repeat=6) if [i for i, _ in groupby(p) if i] == tokens]
    best = max(paths, key=lambda path: sum(float(rows[t, i]) for t, i in enumerate(path)))
    found = align(rows, tokens)
    assert [i for span in found for i in [span.token] * (span.end - span.start)] == [
        i for i in best if i
    ]
    for span in found:
        assert best[span.start : span.end] == (span.token,) * (span.end - span.start)
        mean = rows[span.start : span.end, span.token].exp().mean()
        assert span.probability == pytest.approx(float(mean), abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), frames=st.integers(1, 40))
def test_greedy_tokens_are_placed_where_greedy_heard_them(seed: int, frames: int) -> None:
    rows = emissions(frames, 5, seed)
    (expected,) = greedy_with_frames(rows[None], torch.tensor([frames]))
    found = align(rows, [span.token for span in expected])
    assert [span[:3] for span in found] == [span[:3] for span in expected]
    assert [s.probability for s in found] == pytest.approx(
        [s.probability for s in expected], abs=1e-6
    )
    assert all(left.end <= right.start for left, right in pairwise(found))


@pytest.mark.parametrize(
    "tokenizer",
    [
        CharTokenizer.train(TEXTS),
        SentencePieceTokenizer.train(TEXTS * 9, 9, "bpe"),
        VocabularyTokenizer(["<pad>", "<unk>", " ", "a", "b", "ab"]),
    ],
    ids=["characters", "pieces", "vocabulary"],
)
@given(draws=st.lists(st.integers(0, 99), max_size=12))
def test_words_are_those_of_the_text(tokenizer: Tokenizer, draws: list[int]) -> None:
    ids = [2 + i % (tokenizer.size - 2) for i in draws]
    spans = [TokenSpan(i, 2 * k, 2 * k + 1, 0.5) for k, i in enumerate(ids)]
    words = words_of(spans, tokenizer, Scaling())
    assert " ".join(word.text for word in words) == tokenizer.decode(ids)
    assert all(word.start < word.end for word in words)
    assert all(left.end <= right.start for left, right in pairwise(words))


def test_a_word_spans_its_tokens_and_is_as_sure_as_all_of_them() -> None:
    tokenizer = CharTokenizer.train(["ab"])
    a, b, space = (tokenizer.encode(f"a{c}a")[1] for c in "ab ")
    spans = [
        TokenSpan(a, 1, 2, 0.5),
        TokenSpan(b, 3, 5, 1.0),
        TokenSpan(space, 6, 7, 0.1),
        TokenSpan(a, 9, 10, 0.25),
    ]
    assert words_of(spans, tokenizer, Scaling()) == [("ab", 1, 5, 0.5), ("a", 9, 10, 0.25)]
    scaled = words_of(
        spans, tokenizer, Scaling(0.5, 1.0)
    )  # logit 0 -> 1, logit ln 1/3 -> 1 - ln 3 / 2
    assert [w.probability for w in scaled] == pytest.approx(
        [1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-1) * 3**0.5)]
    )


def test_nothing_said_has_no_words() -> None:
    assert align(emissions(4, 3, 0), []) == []
    assert words_of([], CharTokenizer.train(["a"]), Scaling()) == []
