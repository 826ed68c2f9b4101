"""The words that can be recognised, as a tree of their spellings that share their beginnings."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from speechssl.decoding.lexicon import Lexicon
from speechssl.decoding.ngram import UNKNOWN
from speechssl.decoding.ngram_table import SearchTable
from speechssl.decoding.trie import PADDING, Ints, Trie, build_trie
from speechssl.errors import ConfigError

Floats = NDArray[np.float32]

# ln probability of what a language model rules out: finite, so that differences are numbers.
_IMPOSSIBLE = -1e4


class TreeArrays(NamedTuple):
    """A tree of N nodes over S spellings, in the form that a compiled search reads.

    Node 0 is the place between words. The spellings stand in the order of the nodes they end at.

    Attributes:
        token: (N,) int32, the token that leads to each node; of node 0, the separator or -1.
        first_child: (N + 1,) int32; the children of node i are ``first_child[i]`` up to, not
            including, ``first_child[i + 1]``.
        ahead: (N,) float32, ln of the best unigram probability, times the spelling's, of all that
            end at the node or below it; of node 0, 0.
        first_spelling: (N + 1,) int32; the spellings that end at node i, likewise.
        word_id: (S,) int32, id of each spelling's word in the language model.
        log_prob: (S,) float32, ln of the share of the word that is spelled this way.
    """

    token: Ints
    first_child: Ints
    ahead: Floats
    first_spelling: Ints
    word_id: Ints
    log_prob: Floats


@dataclass(frozen=True)
class PrefixTree:
    """The spellings of words, and the tree that they make.

    Attributes:
        words: (S,) word of each spelling.
        ids: (S,) tokens of each spelling.
        arrays: the tree.
    """

    words: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    arrays: TreeArrays


def prefix_tree(
    lexicon: Lexicon, table: SearchTable, separator: tuple[int, ...], unknown_words: bool
) -> PrefixTree:
    """Arrange the spellings of all words of a lexicon as a tree.

    A word may have many spellings, and a spelling many words.

    Args:
        separator: id of the token between words, if there is one.
        unknown_words: whether words that the language model lacks can be recognised, with the
            probability of ``<unk>``; else they are left out.

    Raises:
        ConfigError: no word is left.
    """
    id_of = table.ids()
    unknown_id = id_of.get(UNKNOWN) if unknown_words else None

    words: list[str] = []
    word_ids: list[int] = []
    ids: list[tuple[int, ...]] = []
    log_probs: list[float] = []
    for word, spellings in lexicon.items():
        known_id = id_of.get(word, unknown_id)
        if known_id is None:
            continue
        for spelling in spellings:
            words.append(word)
            word_ids.append(known_id)
            ids.append(spelling.ids)
            log_probs.append(spelling.log_prob)

    if not words:
        raise ConfigError(
            "the language model has none of the words that the recogniser can spell: "
            "estimate it from text like the transcripts (speechssl lm)"
        )

    trie, ends = build_trie(_as_rows(ids))
    order = np.argsort(ends, kind="stable")
    places = ends[order]
    word_id = np.array(word_ids, np.int32)[order]
    log_prob = np.array(log_probs, np.float32)[order]

    # The unigrams are the first nodes behind the empty context, in the order of the ids.
    unigrams = np.maximum(table.arrays.log_prob[1 + word_id], _IMPOSSIBLE)
    num_nodes = len(trie.label)
    first_spelling = np.searchsorted(places, np.arange(num_nodes + 1)).astype(np.int32)

    token = trie.label.copy()
    token[0] = separator[0] if separator else PADDING
    ahead = _best_below(trie, places, unigrams + log_prob)
    arrays = TreeArrays(token, trie.first_child, ahead, first_spelling, word_id, log_prob)

    ordered_words = tuple(words[place] for place in order)
    ordered_ids = tuple(ids[place] for place in order)
    return PrefixTree(ordered_words, ordered_ids, arrays)


def _as_rows(sequences: list[tuple[int, ...]]) -> Ints:
    """(S, L) tokens of each spelling, filled up."""
    longest = max(len(sequence) for sequence in sequences)
    rows = np.full((len(sequences), longest), PADDING, np.int32)
    for row, sequence in zip(rows, sequences, strict=True):
        row[: len(sequence)] = sequence
    return rows


def _best_below(trie: Trie, places: Ints, values: Floats) -> Floats:
    """(N,) the best of the values at each node and below it; of node 0, 0."""
    best = np.full(len(trie.label), -np.inf, np.float32)
    np.maximum.at(best, places, values)

    # From the longest spellings upwards: each level tells the one above.
    for level in range(len(trie.levels) - 2, 0, -1):
        nodes = slice(trie.levels[level], trie.levels[level + 1])
        np.maximum.at(best, trie.parent[nodes], best[nodes])

    best[0] = 0.0
    return best
