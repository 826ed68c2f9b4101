"""Word times: the best of all alignments, the greedy path, and words of every kind of token."""

import math
from itertools import groupby, pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchaudio.functional import merge_tokens

from speechssl.decoding.align import TokenSpan, align, words_of
from speechssl.decoding.greedy import greedy
from speechssl.scoring.calibration import Scaling
from speechssl.text.character_tokenizer import CharTokenizer
from speechssl.text.sentencepiece_tokenizer import SentencePieceTokenizer
from speechssl.text.tokenizer import Tokenizer
from speechssl.text.vocabulary_tokenizer import VocabularyTokenizer

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


def spans_of_best_path(rows: Tensor) -> list[TokenSpan]:
    """The runs of the best token of each frame, one frame after the other, blanks left out."""
    found = []
    start = 0
    for token, run in groupby(rows.argmax(-1).tolist()):
        end = start + len(list(run))
        if token != 0:
            mean = sum(math.exp(float(rows[t, token])) for t in range(start, end)) / (end - start)
            found.append(TokenSpan(token, start, end, mean))
        start = end
    return found


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), frames=st.integers(1, 40))
def test_greedy_tokens_are_placed_where_greedy_heard_them(seed: int, frames: int) -> None:
    rows = emissions(frames, 5, seed)
    expected = spans_of_best_path(rows)
    tokens = [span.token for span in expected]
    assert greedy(rows[None], torch.tensor([frames])) == [tokens]

    found = align(rows, tokens)
    assert [span[:3] for span in found] == [span[:3] for span in expected]
    assert [s.probability for s in found] == pytest.approx(
        [s.probability for s in expected], abs=1e-6
    )
    assert all(left.end <= right.start for left, right in pairwise(found))


def test_spans_are_those_of_torchaudios_merge_tokens() -> None:
    path = torch.tensor([0, 1, 1, 0, 1, 2, 2, 2, 3, 0])
    logits = emissions(len(path), 4, 0)
    logits[torch.arange(len(path)), path] += 9.0
    rows = logits.log_softmax(-1)
    theirs = merge_tokens(path, rows.amax(-1).exp())

    found = align(rows, [1, 1, 2, 3])
    assert [span[:3] for span in found] == [(1, 1, 3), (1, 4, 5), (2, 5, 8), (3, 8, 9)]
    assert [span[:3] for span in found] == [(s.token, s.start, s.end) for s in theirs]
    assert [span.probability for span in found] == pytest.approx([s.score for s in theirs])


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
