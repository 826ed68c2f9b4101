"""Reading an ARPA file as a table."""

from array import array
from itertools import islice
from pathlib import Path

import numpy as np

from speechssl.decoding.arpa import ArpaReader, opened
from speechssl.decoding.ngram import SPECIAL
from speechssl.errors import ConfigError
from speechssl.ngrams.arpa_text import Block
from speechssl.ngrams.table import NgramTable, make_table

# Lines in which an ARPA file begins, behind comments.
_COMMENT_LINES = 100


def is_arpa(path: Path) -> bool:
    """Whether a text file is an ARPA file: it has the title of its data near the beginning."""
    with opened(path, "text") as file:
        return any(line.strip() == "\\data\\" for line in islice(file, _COMMENT_LINES))


def read_table(path: Path) -> NgramTable:
    """Read an ARPA file; what stands before ``\\data\\`` or after ``\\end\\`` is a comment.

    Raises:
        ConfigError: the file cannot be read, is no ARPA file, has more or fewer n-grams than it
            says, or one of its n-grams has a word that no unigram has.
    """
    ids = {mark: number for number, mark in enumerate(SPECIAL)}
    found: list[Block] = []

    with opened(path) as file:
        reader = ArpaReader(path, file)
        counts = reader.header()

        for length, count in enumerate(counts, start=1):
            block = _section(reader, length, count, ids)
            found.append(block)
            reader.end_section(length, longest=len(counts))

    return make_table(tuple(ids), found)


def _section(reader: ArpaReader, length: int, count: int, ids: dict[str, int]) -> Block:
    """Read the n-grams of one length. Unigrams give ids to new words."""
    numbers = array("I")
    values = array("d")

    for words, weights in reader.entries(length, count):
        try:
            if length == 1:
                numbers.append(ids.setdefault(words[0], len(ids)))
            else:
                numbers.extend(ids[word] for word in words)
        except KeyError as error:
            raise ConfigError(
                f"{reader.path} line {reader.line_number}: the word {error} is not among the "
                "1-grams; give a whole ARPA file"
            ) from None
        values.extend(weights)

    rows = np.array(numbers, np.uint32).reshape(-1, length)
    both = np.array(values).reshape(-1, 2)
    # Last words first.
    return Block(rows[:, ::-1], both[:, 0].copy(), both[:, 1].copy())
