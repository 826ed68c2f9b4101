"""How well models predict a text that they were not made from."""

from collections.abc import Iterable, Sequence

import numpy as np

from speechssl.decoding.ngram import BEGIN, END, SPECIAL, UNKNOWN, NgramModel, Ngrams
from speechssl.ngrams.arpa_text import Block, Floats
from speechssl.ngrams.counting import windows
from speechssl.ngrams.rows import Rows
from speechssl.ngrams.table import find_rows, unique_rows

Sentences = Sequence[Sequence[str]]

_UNKNOWN_ID = SPECIAL.index(UNKNOWN)


def model_for(
    sentences: Sentences, words: Sequence[str], orders: Iterable[Iterable[Block]]
) -> NgramModel:
    """Keep of a large model what it takes to score some sentences, with the same scores.

    Args:
        words: of the model, by id.
        orders: its n-grams by length, from 1 on.
    """
    ids = {word: number for number, word in enumerate(words)}
    marked: list[int] = []
    for sentence in sentences:
        marked.append(ids[BEGIN])
        marked.extend(ids.get(word, _UNKNOWN_ID) for word in sentence)
        marked.append(ids[END])
    text = np.array(marked, np.uint32)

    kept: list[Ngrams] = []
    for length, blocks in enumerate(orders, start=1):
        in_text = unique_rows(windows(text, length)[:, :length])

        ngrams: Ngrams = {}
        for block in blocks:
            # All unigrams: they tell which words the model has.
            if length > 1:
                block = _selected(block, find_rows(in_text, block.ids) >= 0)
            ngrams.update(_entries(block, words))
        kept.append(ngrams)

    return NgramModel(kept)


def word_probabilities(model: NgramModel, sentences: Sentences) -> Floats:
    """Give the probability of each word and sentence end; that of a word it does not have is 0."""
    found: list[float] = []
    for sentence in sentences:
        predicted = (*sentence, END)
        for word, score in zip(predicted, model.score(sentence), strict=True):
            found.append(10**score if word in model.words else 0.0)
    return np.array(found)


def _selected(block: Block, is_kept: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Block:
    return Block(block.ids[is_kept], block.log10_prob[is_kept], block.log10_backoff[is_kept])


def _entries(block: Block, words: Sequence[str]) -> Ngrams:
    first_word_first: Rows = block.ids[:, ::-1]
    texts = [tuple(words[word] for word in row) for row in first_word_first.tolist()]
    weights = zip(block.log10_prob.tolist(), block.log10_backoff.tolist(), strict=True)
    return dict(zip(texts, weights, strict=True))
