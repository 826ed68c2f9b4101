"""A whole n-gram model in memory, as arrays: for what changes or mixes models."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from speechssl.decoding.ngram import SPECIAL
from speechssl.ngrams.arpa_text import NEVER, Block, Floats, arpa_lines, blocks_of_file
from speechssl.ngrams.kneser_ney import FileModel
from speechssl.ngrams.rows import Rows, compare, sort_rows, suffix_order

Ints = NDArray[np.int64]

# Rows that become text at once.
_BLOCK_ROWS = 1 << 14
# Below this a sum of probabilities is taken for 1: they are written with 7 digits.
_ROUNDING = 1e-9


@dataclass
class TableOrder:
    """All n-grams of one length k, in suffix order; ids are places in these arrays.

    Attributes:
        ids: (N, k) ids of the words, the last word first.
        context: (N,) id of the first k-1 words among the n-grams of length k-1; of unigrams, 0.
        suffix: (N,) id of the last k-1 words; of unigrams, 0.
        log10_prob: (N,) of the last word after the others.
        log10_backoff: (N,) log10 weight of shorter contexts after this n-gram.
    """

    ids: Rows
    context: Ints
    suffix: Ints
    log10_prob: Floats
    log10_backoff: Floats


@dataclass
class NgramTable:
    """An n-gram model. What an n-gram has of shorter ones, in front and at its end, is there, too.

    Attributes:
        words: by id.
        orders: by length, from 1 on. The unigrams have all three marks.
    """

    words: tuple[str, ...]
    orders: list[TableOrder]

    def lines(self) -> Iterator[str]:
        """Write the model as parts of an ARPA file."""
        counts = [len(order.ids) for order in self.orders]
        return arpa_lines(self.words, counts, map(blocks_of_table, self.orders))


def table_of_files(model: FileModel) -> NgramTable:
    """Read an estimated model into memory."""
    found: list[Block] = []
    for length, order in enumerate(model.orders, start=1):
        blocks = list(blocks_of_file(order))
        found.append(joined(blocks, length))
    return make_table(model.words, found)


def joined(blocks: Sequence[Block], length: int) -> Block:
    """Put blocks of n-grams of one length together."""
    nothing = Block(np.empty((0, length), np.uint32), np.empty(0), np.empty(0))
    parts = [nothing, *blocks]
    return Block(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.log10_prob for part in parts]),
        np.concatenate([part.log10_backoff for part in parts]),
    )


def make_table(words: tuple[str, ...], found: Sequence[Block]) -> NgramTable:
    """Make a table of n-grams in any order.

    Shorter n-grams that are missing in front of longer ones or at their end are added, with the
    probabilities that backing off gives them. Models that others have pruned can lack some.

    Args:
        words: by id; the marks have the ids 0 to 2.
        found: by length, n-grams that differ from each other.
    """
    complete = [_with_marks(found[0]), *found[1:]]
    for length in range(len(complete), 1, -1):
        longer = complete[length - 1]
        needed = np.concatenate((longer.ids[:, 1:], longer.ids[:, :-1]))
        complete[length - 2] = _with_rows(complete[length - 2], needed)

    orders: list[TableOrder] = []
    for block in complete:
        order = _order(block, orders[-1] if orders else None)
        orders.append(order)
    return NgramTable(words, orders)


def find_rows(rows: Rows, wanted: Rows) -> Ints:
    """Find n-grams among rows in suffix order: their places, and -1 for those that are not there.

    Args:
        rows: (N, k).
        wanted: (M, k) in any order.
    """
    places = np.empty(len(wanted), np.int64)
    columns = suffix_order(rows.shape[1])
    _search(np.ascontiguousarray(rows), np.ascontiguousarray(wanted), columns, places)
    return places


def sorting_places(ids: Rows) -> Ints:
    """Give the places of rows in suffix order: ``ids[sorting_places(ids)]`` is sorted."""
    places = np.arange(len(ids), dtype=np.uint32)
    rows = np.column_stack((ids, places))
    ordered = sort_rows(rows, np.empty_like(rows), suffix_order(ids.shape[1]))
    return ordered[:, -1].astype(np.int64)


def unique_rows(rows: Rows) -> Rows:
    """Sort rows into suffix order, each once."""
    ordered = rows[sorting_places(rows)]
    is_new = np.ones(len(ordered), bool)
    is_new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return ordered[is_new]


def renormalise(orders: Sequence[TableOrder], length: int) -> None:
    """Set the backoff weights of contexts of one length so that probabilities sum to 1.

    The weight of a context is what its own n-grams leave over, divided by what shorter n-grams
    leave over to the other words.
    """
    contexts = orders[length - 1]
    left, left_by_shorter = left_over(orders, length)

    # A context without n-grams of its own leaves all to the shorter one.
    has_others = left_by_shorter > _ROUNDING
    weight = np.divide(left, left_by_shorter, out=np.ones(len(left)), where=has_others)
    contexts.log10_backoff = np.maximum(_log10(weight), NEVER)


def left_over(orders: Sequence[TableOrder], length: int) -> tuple[Floats, Floats]:
    """Sum up what the n-grams after each context leave over.

    Args:
        length: of the contexts.

    Returns:
        (C,) 1 minus the sum of p(w | h) over the n-grams h w, at least 0; (C,) the same of
        p(w | h without its first word), for the same w.
    """
    num_contexts = len(orders[length - 1].ids)
    longer = orders[length]
    prob = 10**longer.log10_prob
    shorter_prob = 10 ** orders[length - 1].log10_prob[longer.suffix]

    taken = np.bincount(longer.context, prob, num_contexts).astype(np.float64)
    taken_by_shorter = np.bincount(longer.context, shorter_prob, num_contexts).astype(np.float64)
    return np.maximum(1 - taken, 0), 1 - taken_by_shorter


def _log10(values: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.log10(values)


def blocks_of_table(order: TableOrder) -> Iterator[Block]:
    """Give the n-grams of one length, some at once."""
    for start in range(0, len(order.ids), _BLOCK_ROWS):
        part = slice(start, start + _BLOCK_ROWS)
        yield Block(order.ids[part], order.log10_prob[part], order.log10_backoff[part])


def _with_marks(unigrams: Block) -> Block:
    """Add the marks that a model does not have: nothing predicts them."""
    marks = np.arange(len(SPECIAL), dtype=np.uint32)
    missing = np.setdiff1d(marks, unigrams.ids[:, 0])
    values = np.full(len(missing), NEVER)
    added = Block(missing.reshape(-1, 1), values, np.zeros(len(missing)))
    return joined([unigrams, added], length=1)


def _with_rows(block: Block, needed: Rows) -> Block:
    """Add n-grams that are missing, without a probability."""
    length = block.ids.shape[1]
    ordered = block.ids[sorting_places(block.ids)]
    is_missing = find_rows(ordered, needed) < 0
    missing = unique_rows(needed[is_missing])
    unknown = np.full(len(missing), np.nan)
    return joined([block, Block(missing, unknown, np.zeros(len(missing)))], length)


def _order(block: Block, shorter: TableOrder | None) -> TableOrder:
    """Sort n-grams of one length and find their parts among the shorter ones."""
    permutation = sorting_places(block.ids)
    ids = block.ids[permutation]
    log10_prob = block.log10_prob[permutation]
    log10_backoff = block.log10_backoff[permutation]

    if shorter is None:
        nothing = np.zeros(len(ids), np.int64)
        return TableOrder(ids, nothing, nothing, log10_prob, log10_backoff)

    context = find_rows(shorter.ids, ids[:, 1:])
    suffix = find_rows(shorter.ids, ids[:, :-1])
    backed_off = shorter.log10_backoff[context] + shorter.log10_prob[suffix]
    log10_prob = np.where(np.isnan(log10_prob), backed_off, log10_prob)
    return TableOrder(ids, context, suffix, log10_prob, log10_backoff)


@njit(cache=True)
def _search(rows: Rows, wanted: Rows, columns: Ints, places: Ints) -> None:
    """Find each wanted row by halving."""
    for i in range(len(wanted)):
        low, high = 0, len(rows)
        while low < high:
            middle = (low + high) // 2
            if compare(rows, middle, wanted, i, columns) < 0:
                low = middle + 1
            else:
                high = middle

        is_there = low < len(rows) and compare(rows, low, wanted, i, columns) == 0
        places[i] = low if is_there else -1
