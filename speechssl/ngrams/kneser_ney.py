"""Modified Kneser-Ney smoothing: from counted n-grams to probabilities and backoff weights."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import njit
from numpy.typing import NDArray

from speechssl.decoding.ngram import BEGIN, MAX_ORDER, SPECIAL
from speechssl.errors import ConfigError
from speechssl.ngrams.counting import count_ngrams
from speechssl.ngrams.external_sort import RowFile, RowSorter
from speechssl.ngrams.lookup import SortedLookup
from speechssl.ngrams.rows import Float32s, Rows, floats, suffix_order
from speechssl.ngrams.vocabulary import WHOLE_VOCABULARY, Vocabulary
from speechssl.runtime.log import log

# Subtracted from counts of 1, 2, and 3 or more where a text is too small or too regular to
# estimate discounts. KenLM's lmplz takes the same.
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)

_BEGIN_ID = SPECIAL.index(BEGIN)
# Rows that are smoothed at once, and more where a context has more.
_BLOCK_ROWS = 1 << 16
# Bytes of rows of one length that wait to be sorted back.
_SORT_BYTES = 1 << 24

# What is subtracted from counts of 1, 2, and 3 or more.
Discounts = tuple[float, float, float]


@dataclass(frozen=True)
class OrderFile:
    """All n-grams of one length.

    Attributes:
        rows: a file of n-grams in suffix order, each with the float32 probability of its last word
            after the others, then its backoff weight: 1 where nothing longer begins with it.
            ``<s>``, which nothing predicts, has the probability 0.
        discounts: what was subtracted from counts.
    """

    rows: RowFile
    discounts: Discounts


@dataclass(frozen=True)
class FileModel:
    """An estimated model whose n-grams are on the disk.

    Attributes:
        words: by id; of those that the vocabulary does not keep there is no n-gram.
        num_words: of the text.
        orders: by length, from 1 on.
    """

    words: tuple[str, ...]
    num_words: int
    orders: tuple[OrderFile, ...]


@dataclass(frozen=True)
class Selection:
    """What an estimated model holds of the n-grams of its text.

    Attributes:
        vocabulary: the words.
        cutoffs: by length, from 1 on: n-grams that the text has no more often are left out. The
            last one counts for all longer n-grams, too.
    """

    vocabulary: Vocabulary = WHOLE_VOCABULARY
    cutoffs: Sequence[int] = (0,)

    def of_length(self, length: int) -> int:
        """The cut-off of n-grams of one length."""
        place = min(length, len(self.cutoffs)) - 1
        return self.cutoffs[place]


EVERYTHING = Selection()


def estimate(
    sentences: Iterable[Sequence[str]],
    order: int,
    folder: Path,
    selection: Selection = EVERYTHING,
) -> FileModel:
    """Estimate an interpolated ``order``-gram model with modified Kneser-Ney smoothing.

    A sentence is a sequence of words, without marks of its ends; empty sentences are skipped. An
    unknown word gets the share that the unigrams' discounts leave to one more word. Memory does not
    grow with the text, only with its vocabulary.

    Args:
        folder: for the model's files and temporary ones.

    Raises:
        ConfigError: ``order`` is not 2..6, there is no sentence, a word is one of the marks or
            holds white space, a cut-off is above that of longer n-grams, or there are more of them
            than lengths.

    Source: Chen and Goodman 1998, "An empirical study of smoothing techniques", section 3. The
    rest follows Heafield et al. 2013, "Scalable modified Kneser-Ney language model estimation"
    (lmplz): n-grams that begin with ``<s>`` keep their own counts, as nothing precedes them,
    unigrams are interpolated with equal shares, and discounts are estimated before n-grams are left
    out, whose share goes to the shorter context. Where the counts of a length allow no discounts,
    these are 0.5, 1 and 1.5, and a line is logged.
    """
    _check(order, selection)
    counts = count_ngrams(sentences, order, folder)
    num_ids = len(counts.words)

    # Any word stands in a vocabulary until the unigrams' counts are known.
    keeps_word = np.ones(num_ids, bool)
    # Of each length: n-grams without the share of shorter ones, and backoff weights of contexts.
    unfinished: list[RowSorter] = []
    backoffs: list[RowFile] = []
    all_discounts: list[Discounts] = []

    for length, sorter in enumerate(counts.sorters, start=1):
        if length == 1:
            # Neither stands behind any word of the text.
            unseen = [[SPECIAL.index(mark), 0, 0] for mark in SPECIAL]
            sorter.add(np.array(unseen, np.uint32))

        counted, occurrences = _in_context_order(sorter, length, folder)
        if length == 1:
            keeps_word = _kept_words(counted, counts.words, selection.vocabulary)

        discounts = _discounts(occurrences, length)
        cutoff = selection.of_length(length)
        parts, weights = _smoothed(counted, length, discounts, cutoff, keeps_word, folder)
        counted.delete()

        unfinished.append(parts)
        backoffs.append(weights)
        all_discounts.append(discounts)

    files = _interpolated(unfinished, backoffs, folder)
    pairs = zip(files, all_discounts, strict=True)
    orders = tuple(OrderFile(rows, discounts) for rows, discounts in pairs)
    return FileModel(counts.words, counts.num_words, orders)


def _check(order: int, selection: Selection) -> None:
    """Refuse an order or cut-offs that cannot be."""
    if not 2 <= order <= MAX_ORDER:
        raise ConfigError(f"order is {order}: allowed are 2 to {MAX_ORDER}")

    cutoffs = list(selection.cutoffs)
    is_allowed = 1 <= len(cutoffs) <= order and cutoffs == sorted(cutoffs) and cutoffs[0] >= 0
    if not is_allowed:
        raise ConfigError(
            f"cut-offs are {cutoffs}: give one number for each length from 1 on, at most {order}, "
            "none below 0 or below the one before it, such as 0,0,1"
        )


def _in_context_order(
    sorter: RowSorter, length: int, folder: Path
) -> tuple[RowFile, NDArray[np.int64]]:
    """Write sorted counts to a file, and find how many n-grams have adjusted counts of 0 to 4."""
    counted = RowFile(folder / f"context-{length}", length + 2)
    occurrences = np.zeros(6, np.int64)

    for rows in sorter.blocks():
        counted.write(rows)
        # Counts above 4 share the last place.
        adjusted = np.minimum(rows[:, length], 5)
        occurrences += np.bincount(adjusted, minlength=6)

    return counted, occurrences


def _kept_words(
    unigrams: RowFile, words: tuple[str, ...], vocabulary: Vocabulary
) -> NDArray[np.bool_]:
    """Decide by the counts of the unigrams which words are kept."""
    counts = np.zeros(len(words), np.int64)
    for rows in unigrams.blocks(_BLOCK_ROWS):
        counts[rows[:, 0]] = rows[:, 2]
    return vocabulary.keeps(words, counts)


def _discounts(occurrences: NDArray[np.int64], length: int) -> Discounts:
    """Estimate what to subtract from counts of 1, 2, and 3 or more.

    With n1 to n4 n-grams of counts 1 to 4 and Y = n1 / (n1 + 2 n2), the discounts are
    1 - 2 Y n2 / n1, 2 - 3 Y n3 / n2 and 3 - 4 Y n4 / n3 (Chen and Goodman 1998, equation 26).
    """
    _, n1, n2, n3, n4, _ = occurrences.tolist()

    if min(n1, n2, n3) > 0:
        y = n1 / (n1 + 2 * n2)
        one = 1 - 2 * y * n2 / n1
        two = 2 - 3 * y * n3 / n2
        three = 3 - 4 * y * n4 / n3

        # An irregular text can ask for discounts that are negative or above the count itself.
        are_valid = 0 < one <= 1 and 0 < two <= 2 and 0 < three <= 3
        if are_valid:
            return one, two, three

    log(
        f"{length}-grams: too few occur 1 to 4 times to estimate their discounts; 0.5, 1 and 1.5 "
        "are taken"
    )
    return FALLBACK_DISCOUNTS


def _smoothed(
    counted: RowFile,
    length: int,
    discounts: Discounts,
    cutoff: int,
    keeps_word: NDArray[np.bool_],
    folder: Path,
) -> tuple[RowSorter, RowFile]:
    """Discount counts, and give what is left over to the shorter context.

    Returns:
        n-grams that are kept, each with its own share and the weight of the shorter one; contexts
        in suffix order, each with its backoff weight.
    """
    row_bytes = 4 * (length + 2)
    kept = RowSorter(
        folder, f"kept-{length}", suffix_order(length), length + 2, _SORT_BYTES // row_bytes
    )
    backoffs = RowFile(folder / f"backoffs-{length}", length)
    discount_of_count = np.array((0.0, *discounts))

    for rows in _whole_contexts(counted, length):
        is_kept = keeps_word[rows[:, :length]].all(axis=1)
        is_kept &= (rows[:, length + 1] > cutoff) | _are_marks(rows, length)

        shares = np.empty((len(rows), 2), np.float32)
        contexts = np.empty((len(rows), length), np.uint32)
        num_contexts = _share_out(
            rows, length, discount_of_count, is_kept, shares, contexts, floats(contexts, length - 1)
        )
        backoffs.write(contexts[:num_contexts])

        finished = np.column_stack((rows[:, :length], shares.view(np.uint32)))
        kept.add(finished[is_kept])

    return kept, backoffs


def _are_marks(rows: Rows, length: int) -> NDArray[np.bool_]:
    """Find the unigrams of the marks, which a model always has."""
    if length > 1:
        return np.zeros(len(rows), bool)
    return rows[:, 0] < len(SPECIAL)


def _whole_contexts(counted: RowFile, length: int) -> Iterator[Rows]:
    """Read rows in context order, all those of a context at once."""
    rest = np.empty((0, length + 2), np.uint32)
    for block in counted.blocks(_BLOCK_ROWS):
        rows = np.concatenate((rest, block))

        # The last context can go on in the next block.
        is_last = (rows[:, 1:length] == rows[-1, 1:length]).all(axis=1)
        num_complete = len(rows) - int(is_last.sum())
        rest = rows[num_complete:]
        if num_complete:
            yield rows[:num_complete]

    yield rest


@njit(cache=True)
def _share_out(
    rows: Rows,
    length: int,
    discount_of_count: NDArray[np.float64],
    is_kept: NDArray[np.bool_],
    shares: Float32s,
    contexts: Rows,
    backoffs: Float32s,
) -> int:
    """Share out the probability of each context among n-grams and shorter context.

        p(w | h) = (a(h w) - d(a(h w))) / a(h) + b(h) p(w | h without its first word)

    where a is the adjusted count, a(h) its sum over all words w, d the discount of a count, and
    b(h) what is left over: the discounts of the n-grams that are kept, and the whole counts of the
    others, divided by a(h).

    Args:
        rows: (N, length + 2) whole contexts in context order.
        is_kept: (N,) True = the model has the n-gram.
        shares: (N, 2) gets the first summand, and b(h).
        contexts: (N, length) gets a row for each context: its words.
        backoffs: (N,) gets b(h) of each context.

    Returns:
        How many contexts there are.
    """
    num_contexts = 0
    first = 0
    while first < len(rows):
        total = 0.0
        left_over = 0.0
        end = first

        while end < len(rows):
            is_same = True
            for column in range(1, length):
                if rows[end, column] != rows[first, column]:
                    is_same = False
                    break

            if not is_same:
                break

            count = rows[end, length]
            total += count
            if is_kept[end]:
                left_over += discount_of_count[min(count, 3)]
            else:
                left_over += count
            end += 1

        backoff = left_over / total
        contexts[num_contexts, : length - 1] = rows[first, 1:length]
        backoffs[num_contexts] = backoff
        num_contexts += 1

        for i in range(first, end):
            count = rows[i, length]
            shares[i, 0] = (count - discount_of_count[min(count, 3)]) / total
            shares[i, 1] = backoff
        first = end

    return num_contexts


def _interpolated(
    unfinished: Sequence[RowSorter], backoffs: Sequence[RowFile], folder: Path
) -> list[RowFile]:
    """Add the share of the shorter n-grams, from the unigrams on, and look up backoff weights.

    The rows of ``unfinished`` and ``backoffs`` are used up.
    """
    finished: list[RowFile] = []
    for length, sorter in enumerate(unfinished, start=1):
        result = RowFile(folder / f"ngrams-{length}", length + 2)
        is_longest = length == len(unfinished)

        if length == 1:
            # The unigrams of a vocabulary fit in memory: their number is in their shares.
            _finish_unigrams(sorter, backoffs[1], result)
        else:
            shorter = SortedLookup(finished[-1], length - 1)
            weights = None if is_longest else SortedLookup(backoffs[length], length)

            for rows in sorter.blocks():
                lower = shorter.values(rows, missing=np.nan)
                own_share = floats(rows, length)
                weight = floats(rows, length + 1)
                own_share += weight * lower
                weight[:] = 1 if weights is None else weights.values(rows, missing=1)
                result.write(rows)

        finished.append(result)

    for file in backoffs:
        file.delete()
    return finished


def _finish_unigrams(sorter: RowSorter, backoffs: RowFile, result: RowFile) -> None:
    """Add equal shares of what the discounts leave over, to all words but ``<s>``."""
    rows = np.concatenate(list(sorter.blocks()))
    equal_share = 1 / (len(rows) - 1)

    probability = floats(rows, 1)
    weight = floats(rows, 2)
    probability += weight * equal_share
    probability[rows[:, 0] == _BEGIN_ID] = 0
    weight[:] = SortedLookup(backoffs, 1).values(rows, missing=1)
    result.write(rows)
