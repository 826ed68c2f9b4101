"""Writing ARPA files: numbers and words become text in compiled code."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from speechssl.ngrams.kneser_ney import FileModel, OrderFile
from speechssl.ngrams.rows import Rows, floats

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]

# log10 probability of <s>, by custom of ARPA files: nothing predicts it.
NEVER = -99.0

# Rows that become text at once.
_BLOCK_ROWS = 1 << 14
# Characters of a number at most: a sign, digits before the point, the point, 7 behind it; a tab.
_NUMBER_CHARS = 24


@dataclass(frozen=True)
class Block:
    """Some n-grams of one length: (N, k) ids, the last word first, and (N,) log10 values."""

    ids: Rows
    log10_prob: Floats
    log10_backoff: Floats


class Words:
    """Words by id, as one array of UTF-8 and the place at which each begins."""

    def __init__(self, words: Sequence[str]) -> None:
        encoded = [word.encode() for word in words]
        lengths = [len(word) for word in encoded]

        self.text: Bytes = np.frombuffer(b"".join(encoded), np.uint8)
        self.starts = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        self.longest = max(lengths)


def arpa_lines(
    words: Sequence[str], counts: Sequence[int], orders: Iterable[Iterable[Block]]
) -> Iterator[str]:
    """Write a model as parts of an ARPA file; log10 values have 7 digits after the point.

    Args:
        words: by id.
        counts: n-grams of each length.
        orders: by length, blocks of n-grams.
    """
    yield "\\data\\\n"
    for length, count in enumerate(counts, start=1):
        yield f"ngram {length}={count}\n"

    numbered_words = Words(words)
    for length, blocks in enumerate(orders, start=1):
        yield f"\n\\{length}-grams:\n"

        has_backoff = length < len(counts)
        for block in blocks:
            yield _lines(block, numbered_words, has_backoff)

    yield "\n\\end\\\n"


def file_model_lines(model: FileModel) -> Iterator[str]:
    """Write an estimated model as parts of an ARPA file, in suffix order."""
    counts = [order.rows.num_rows for order in model.orders]
    return arpa_lines(model.words, counts, map(blocks_of_file, model.orders))


def blocks_of_file(order: OrderFile) -> Iterator[Block]:
    """Read n-grams of an estimated model, some at once."""
    length = order.rows.width - 2
    for rows in order.rows.blocks(_BLOCK_ROWS):
        probability = floats(rows, length).astype(np.float64)
        backoff = floats(rows, length + 1).astype(np.float64)

        with np.errstate(divide="ignore"):
            log10_prob = np.log10(probability)
        log10_prob[probability == 0] = NEVER
        yield Block(rows[:, :length], log10_prob, np.log10(backoff))


def _lines(block: Block, words: Words, has_backoff: bool) -> str:
    num_rows, length = block.ids.shape
    row_chars = 2 * _NUMBER_CHARS + length * (words.longest + 1)
    out = np.empty(num_rows * row_chars, np.uint8)

    num_chars = _format(
        np.ascontiguousarray(block.ids),
        block.log10_prob,
        block.log10_backoff,
        words.text,
        words.starts,
        has_backoff,
        out,
    )
    return out[:num_chars].tobytes().decode()


@njit(cache=True)
def _format(
    ids: Rows,
    log10_prob: Floats,
    log10_backoff: Floats,
    text: Bytes,
    starts: NDArray[np.int64],
    has_backoff: bool,
    out: Bytes,
) -> int:
    """Write one line for each n-gram; the number of bytes is returned."""
    place = 0
    for row in range(len(ids)):
        place = _format_number(log10_prob[row], out, place)
        separator = 9  # a tab

        for column in range(ids.shape[1] - 1, -1, -1):
            out[place] = separator
            place += 1
            word = ids[row, column]
            for i in range(starts[word], starts[word + 1]):
                out[place] = text[i]
                place += 1
            separator = 32  # a space

        if has_backoff:
            out[place] = 9
            place = _format_number(log10_backoff[row], out, place + 1)
        out[place] = 10  # the end of the line
        place += 1

    return place


@njit(cache=True)
def _format_number(value: float, out: Bytes, place: int) -> int:
    """Write a number of absolute value below 10 ** 11 with 7 digits after the point."""
    units = np.int64(round(abs(value) * 1e7))
    if value < 0 and units > 0:
        out[place] = 45  # a minus
        place += 1

    num_digits = 8
    power = np.int64(100000000)
    while units >= power:
        power *= 10
        num_digits += 1

    end = place + num_digits + 1
    point = end - 8
    for at in range(end - 1, place - 1, -1):
        if at == point:
            out[at] = 46  # the point
        else:
            out[at] = 48 + units % 10
            units //= 10
    return end
