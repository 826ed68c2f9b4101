"""Counting n-grams of a text, however long: the longest are sorted, the shorter ones follow."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import njit

from speechssl.decoding.ngram import BEGIN, END, SPECIAL
from speechssl.errors import ConfigError
from speechssl.ngrams.external_sort import RowSorter
from speechssl.ngrams.rows import Rows, context_order, suffix_order
from speechssl.ngrams.vocabulary import WordIds

_BEGIN_ID = SPECIAL.index(BEGIN)
_END_ID = SPECIAL.index(END)

# Memory of all rows that wait to be sorted, bytes. Sorting takes as much again.
BUFFER_BYTES = 1 << 25
# Words of text that become rows at once.
_TEXT_WORDS = 1 << 17
# Rows of which the shorter n-grams are counted at once.
_SLICE_ROWS = 1 << 15


@dataclass(frozen=True)
class Counts:
    """N-grams of a text with two counts each.

    Attributes:
        words: by id.
        num_words: of the text, without the ends of sentences.
        sorters: by length, from 1 on: rows of n-grams in context order, each with its adjusted
            count, then with the times that it stands in the text. The adjusted count is the number
            of different words before the n-gram. It is the plain count of the longest n-grams, and
            of those that begin with ``<s>``, which nothing precedes.
    """

    words: tuple[str, ...]
    num_words: int
    sorters: tuple[RowSorter, ...]


def count_ngrams(sentences: Iterable[Sequence[str]], order: int, folder: Path) -> Counts:
    """Count the n-grams of 1 to ``order`` words; empty sentences are skipped.

    Memory is that of the vocabulary and of ``BUFFER_BYTES`` some times, however long the text is.

    Args:
        folder: for temporary files.

    Raises:
        ConfigError: there is no sentence, or a word is one of the marks or holds white space.

    Source: Heafield et al. 2013, "Scalable modified Kneser-Ney language model estimation",
    sections 3.1 and 3.2.
    """
    ids = WordIds()
    capacity = _capacity(order + 1, BUFFER_BYTES)
    # Ids are not known before the text is read: the bits are those of the rows.
    longest = RowSorter(folder, "text", suffix_order(order), order + 1, capacity)

    num_marked = 0
    num_sentences = 0
    for text, num_in_text in _numbered(sentences, ids):
        num_marked += len(text)
        num_sentences += num_in_text
        longest.add(windows(text, order))

    if not num_sentences:
        raise ConfigError("no sentence to estimate a language model from: the texts are empty")

    sorters = _shorter_ngrams(longest, order, folder)
    return Counts(ids.texts(), num_marked - 2 * num_sentences, sorters)


def _capacity(width: int, num_bytes: int) -> int:
    """Rows of ``width`` columns that fit in a number of bytes."""
    row_bytes = width * np.dtype(np.uint32).itemsize
    return max(1, num_bytes // row_bytes)


def _numbered(
    sentences: Iterable[Sequence[str]], ids: WordIds
) -> Iterator[tuple[np.ndarray[tuple[int], np.dtype[np.uint32]], int]]:
    """Replace words by ids, whole sentences at once, each between ``<s>`` and ``</s>``.

    Yields:
        the ids, and how many sentences they are.
    """
    text = array("I")
    num_sentences = 0

    for sentence in sentences:
        if not sentence:
            continue

        text.append(_BEGIN_ID)
        text.extend(map(ids.__getitem__, sentence))
        text.append(_END_ID)
        num_sentences += 1

        if len(text) >= _TEXT_WORDS:
            yield np.array(text, np.uint32), num_sentences
            text = array("I")
            num_sentences = 0

    if num_sentences:
        yield np.array(text, np.uint32), num_sentences


@njit(cache=True)
def windows(text: Rows, length: int) -> Rows:
    """Make a row of each word of a text and those before it, with a count of 1.

    What would stand before the beginning of a sentence is ``<s>`` again.
    """
    rows = np.empty((len(text), length + 1), np.uint32)
    num_rows = 0

    for position in range(len(text)):
        if text[position] == _BEGIN_ID:
            continue

        at = position
        for column in range(length):
            rows[num_rows, column] = text[at]
            if text[at] != _BEGIN_ID:
                at -= 1
        rows[num_rows, length] = 1
        num_rows += 1

    return rows[:num_rows]


def _shorter_ngrams(longest: RowSorter, order: int, folder: Path) -> tuple[RowSorter, ...]:
    """Count n-grams of all lengths, given rows of the longest ones with their counts."""
    share = BUFFER_BYTES // order
    sorters: list[RowSorter] = []
    for length in range(1, order + 1):
        width = length + 2
        capacity = _capacity(width, share)
        name = f"counts-{length}"
        sorters.append(RowSorter(folder, name, context_order(length), width, capacity))

    # No n-gram has this number for a word: the first row is unlike the one before it.
    before = np.full((1, order + 1), np.iinfo(np.uint32).max, np.uint32)
    for block in longest.blocks():
        for start in range(0, len(block), _SLICE_ROWS):
            rows = block[start : start + _SLICE_ROWS]
            for length, sorter in enumerate(sorters, start=1):
                sorter.add(_beginnings(rows, before, length))
            before = rows[-1:].copy()

    return tuple(sorters)


@njit(cache=True)
def _beginnings(rows: Rows, before: Rows, length: int) -> Rows:
    """Count n-grams of ``length`` words among rows of longer ones in suffix order.

    The n-gram at the end of one call can be that at the beginning of the next; the two rows are to
    be added up.

    Args:
        rows: (N, K + 1) n-grams of K words, padded with ``<s>``, with their counts.
        before: (1, K + 1) the row before them.

    Returns:
        (M, length + 2) n-grams, adjusted counts, counts.
    """
    longest = rows.shape[1] - 1
    found = np.empty((len(rows), length + 2), np.uint32)
    last = -1

    for i in range(len(rows)):
        # Up to the <s> of its own sentence.
        num_own = longest
        for column in range(longest):
            if rows[i, column] == _BEGIN_ID:
                num_own = column + 1
                break
        if num_own < length:
            continue

        is_open = last >= 0
        if is_open:
            for column in range(length):
                if rows[i, column] != found[last, column]:
                    is_open = False
                    break
        if not is_open:
            last += 1
            found[last, :length] = rows[i, :length]
            found[last, length:] = 0

        count = rows[i, longest]
        found[last, length + 1] += count

        if num_own == length:
            # The longest, or it begins with <s>.
            found[last, length] += count
        else:
            # Another word before it, unless the row above has the same.
            above = before[0] if i == 0 else rows[i - 1]
            for column in range(length + 1):
                if rows[i, column] != above[column]:
                    found[last, length] += 1
                    break

    return found[: last + 1]
