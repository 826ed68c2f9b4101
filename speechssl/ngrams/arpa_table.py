"""Reading an ARPA file as a table."""

from itertools import islice
from pathlib import Path

import numpy as np

from speechssl.decoding.arpa import read_ngrams
from speechssl.decoding.ngram import SPECIAL
from speechssl.ngrams.arpa_text import Block
from speechssl.ngrams.table import NgramTable, make_table
from speechssl.storage.text_files import open_text

# Lines in which an ARPA file begins, behind comments.
_COMMENT_LINES = 100


def is_arpa(path: Path) -> bool:
    """Whether a text file is an ARPA file: it has the title of its data near the beginning."""
    with open_text(path) as file:
        return any(line.strip() == "\\data\\" for line in islice(file, _COMMENT_LINES))


def read_table(path: Path) -> NgramTable:
    """Read an ARPA file; what stands before ``\\data\\`` or after ``\\end\\`` is a comment.

    Raises:
        ConfigError: as ``read_ngrams``.
    """
    found = read_ngrams(path)

    # A table has the marks before all other words.
    words = tuple(dict.fromkeys([*SPECIAL, *found.words]))
    place = {word: number for number, word in enumerate(words)}
    new_ids = np.array([place[word] for word in found.words], np.uint32)

    blocks: list[Block] = []
    for ids, probs, backoffs in zip(
        found.word_ids, found.log10_prob, found.log10_backoff, strict=True
    ):
        last_word_first = new_ids[ids][:, ::-1]
        blocks.append(Block(last_word_first, probs, backoffs))
    return make_table(words, blocks)
