"""One n-gram model of several: linear interpolation, with weights that suit a text."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from speechssl.decoding.ngram import SPECIAL
from speechssl.ngrams.arpa_text import NEVER, Block, Floats
from speechssl.ngrams.rows import Rows
from speechssl.ngrams.table import (
    NgramTable,
    TableOrder,
    find_rows,
    renormalise,
    sorting_places,
    unique_rows,
)

# Weights are found when none changes by more than this from one turn to the next.
_TOLERANCE = 1e-5
_MAX_TURNS = 1000


def best_weights(probabilities: Floats) -> Floats:
    """Find the weights of models whose mixture gives a text the highest probability (EM).

    Args:
        probabilities: (M, W) of each of W words under each of M models, some model's above 0.

    Returns:
        (M,) weights that sum to 1.

    Source: Jelinek and Mercer 1980, "Interpolated estimation of Markov source parameters from
    sparse data".
    """
    num_models = len(probabilities)
    weights = np.full(num_models, 1 / num_models)

    for _ in range(_MAX_TURNS):
        shares = weights[:, None] * probabilities
        # How probable it is that each model has said each word.
        responsibilities = shares / shares.sum(axis=0)
        new_weights = responsibilities.mean(axis=1)

        change = np.abs(new_weights - weights).max()
        weights = new_weights
        if change < _TOLERANCE:
            break

    return weights


def mix(tables: Sequence[NgramTable], weights: Floats) -> NgramTable:
    """Interpolate models linearly into one static model.

    It has the n-grams of all models, with p(w | h) = sum over m of weight m times p_m(w | h), where
    a model backs off as usual. Backoff weights are computed anew, so other words after a context
    get a near value only. A word that a model does not have has no probability under it.

    Source: Stolcke 2002, "SRILM - an extensible language modeling toolkit", section 4
    (``ngram -mix-lm``).
    """
    words = _united_words(tables)
    num_lengths = max(len(table.orders) for table in tables)
    models = [_renumbered(table, words) for table in tables]

    orders: list[TableOrder] = []
    # Of each model, by the ids of the united n-grams one word shorter.
    shorter_probs = [np.ones(1) for _ in tables]
    shorter_weights = [np.ones(1) for _ in tables]

    for length in range(1, num_lengths + 1):
        found = [model[length - 1].ids for model in models if len(model) >= length]
        ids = unique_rows(np.concatenate(found))
        context, suffix = _parts(ids, orders)

        mixed = np.zeros(len(ids))
        for number, model in enumerate(models):
            # A unigram that a model does not have is impossible; longer ones it backs off to.
            if length == 1:
                prob = np.zeros(len(ids))
            else:
                prob = shorter_weights[number][context] * shorter_probs[number][suffix]
            weight = np.ones(len(ids))

            if length <= len(model):
                own = model[length - 1]
                places = find_rows(own.ids, ids)
                has = places >= 0
                prob[has] = 10 ** own.log10_prob[places[has]]
                weight[has] = 10 ** own.log10_backoff[places[has]]

            shorter_probs[number] = prob
            shorter_weights[number] = weight
            mixed += weights[number] * prob

        with np.errstate(divide="ignore"):
            log10_prob = np.maximum(np.log10(mixed), NEVER)
        orders.append(TableOrder(ids, context, suffix, log10_prob, np.zeros(len(ids))))

    for length in range(1, num_lengths):
        renormalise(orders, length)
    return NgramTable(tuple(words), orders)


def _united_words(tables: Sequence[NgramTable]) -> dict[str, int]:
    """Number the words of all models; the marks keep their ids."""
    words = {mark: number for number, mark in enumerate(SPECIAL)}
    for table in tables:
        unigrams = table.orders[0].ids[:, 0]
        for word_id in unigrams.tolist():
            words.setdefault(table.words[word_id], len(words))
    return words


def _renumbered(table: NgramTable, words: dict[str, int]) -> list[Block]:
    """Give a model's n-grams with the united ids, in suffix order again."""
    # Words without a unigram stand in no n-gram: any id will do.
    united = [words.get(word, 0) for word in table.words]
    new_ids = np.array(united, np.uint32)

    found: list[Block] = []
    for order in table.orders:
        ids = new_ids[order.ids]
        places = sorting_places(ids)
        block = Block(ids[places], order.log10_prob[places], order.log10_backoff[places])
        found.append(block)
    return found


def _parts(ids: Rows, orders: Sequence[TableOrder]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the contexts and suffixes of n-grams among the shorter ones."""
    if not orders:
        nothing = np.zeros(len(ids), np.int64)
        return nothing, nothing

    shorter = orders[-1].ids
    return find_rows(shorter, ids[:, 1:]), find_rows(shorter, ids[:, :-1])
