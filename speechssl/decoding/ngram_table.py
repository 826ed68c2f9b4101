"""An n-gram model as flat arrays, in which a compiled search looks up words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from speechssl.decoding.arpa import is_binary, read_ngrams
from speechssl.decoding.ngram import BEGIN, END
from speechssl.decoding.trie import PADDING, Ints, Trie, build_trie
from speechssl.errors import ConfigError

Floats = NDArray[np.float32]

_LN_10 = math.log(10)
# What the names of its arrays begin with in a file.
_PREFIX = "ngram."


class NgramArrays(NamedTuple):
    """The n-grams of a model as a trie over word ids; node 0 is the empty context.

    Attributes:
        word: (N,) int32, id of the last word.
        log_prob: (N,) float32, ln probability of the last word after the others.
        backoff: (N,) float32, ln weight of shorter contexts after this n-gram.
        first_child: (N + 1,) int32; the n-grams that are this one and a word more are
            ``first_child[i]`` up to, not including, ``first_child[i + 1]``, sorted by word.
        shorter: (N,) int32, the longest n-gram that this one ends with and that matters as a
            context: one that is longer somewhere, or has a backoff weight.
    """

    word: Ints
    log_prob: Floats
    backoff: Floats
    first_child: Ints
    shorter: Ints


@dataclass(frozen=True)
class SearchTable:
    """An n-gram model for search.

    Attributes:
        words: by id, the marks among them.
        arrays: the n-grams.
    """

    words: tuple[str, ...]
    arrays: NgramArrays

    def ids(self) -> dict[str, int]:
        """Give the id of each word."""
        return {word: word_id for word_id, word in enumerate(self.words)}

    def as_tensors(self) -> dict[str, NDArray[np.int32] | Floats]:
        """Name the arrays for a file; the words are not among them."""
        return {_PREFIX + name: array for name, array in self.arrays._asdict().items()}


def from_tensors(words: Sequence[str], tensors: Mapping[str, NDArray[Any]]) -> SearchTable:
    """Take a table from a file that has the arrays of ``SearchTable.as_tensors`` and others.

    Compiled code trusts the arrays, so all that could lead it out of them is checked.

    Raises:
        ValueError: an array is missing or is not as it must be. The message says how.
    """
    missing = [name for name in NgramArrays._fields if _PREFIX + name not in tensors]
    if missing:
        raise ValueError(f"it has no {_PREFIX}{missing[0]}")

    arrays = NgramArrays(*[tensors[_PREFIX + name] for name in NgramArrays._fields])
    _check(arrays, len(words))
    if not {BEGIN, END} <= set(words):
        raise ValueError(f"its words lack {BEGIN} or {END}")
    return SearchTable(tuple(words), arrays)


def _check(arrays: NgramArrays, num_words: int) -> None:
    """See that arrays are n-grams of so many words."""
    num_nodes = len(arrays.word)
    for name, array in arrays._asdict().items():
        kind = np.float32 if name in ("log_prob", "backoff") else np.int32
        length = num_nodes + 1 if name == "first_child" else num_nodes
        if array.dtype != kind or array.shape != (length,):
            raise ValueError(f"{name} has {array.shape} values of {array.dtype}")

    has_all_words = num_nodes > num_words > 0
    if not has_all_words or not np.array_equal(arrays.word[1 : num_words + 1], range(num_words)):
        raise ValueError("its unigrams are not its words")

    # Node 0 has the unigrams; every node stands behind its parent, and what it ends with before it.
    first = arrays.first_child
    nodes = np.arange(num_nodes)
    is_tree = first[0] == 1 and first[1] == num_words + 1 and first[-1] == num_nodes
    if not is_tree or (np.diff(first) < 0).any() or (first[1:-1] <= nodes[1:]).any():
        raise ValueError("its n-grams make no tree")
    if (arrays.shorter < 0).any() or (arrays.shorter[1:] >= nodes[1:]).any():
        raise ValueError("an n-gram ends with a longer one")

    has_numbers = (arrays.log_prob <= 0).all() and np.isfinite(arrays.backoff).all()
    if not has_numbers:
        raise ValueError("a probability is above 1 or no number")


def read_search_table(path: Path) -> SearchTable:
    """Read an ARPA file.

    Raises:
        ConfigError: as ``read_arpa``; or the file is a binary one of KenLM, has an n-gram with a
            word that is none of its unigrams, or lacks the end of the sentence.
    """
    if is_binary(path):
        raise ConfigError(
            f"{path} is a KenLM binary, and the search over words reads ARPA only: give the ARPA "
            "file that it was made from"
        )
    found = read_ngrams(path)

    words = tuple(found.words)
    for mark in (BEGIN, END):
        if mark not in words:
            raise ConfigError(
                f"{path} has no {mark}: estimate the language model from sentences (speechssl lm)"
            )

    longest = len(found.word_ids)
    rows = []
    for length, ids in enumerate(found.word_ids, 1):
        padding = ((0, 0), (0, longest - length))
        rows.append(np.pad(ids, padding, constant_values=PADDING))

    trie, ends = build_trie(np.concatenate(rows))
    if np.bincount(ends).max() > 1:
        raise ConfigError(f"{path} has an n-gram twice: write the language model again")

    log10_prob = np.concatenate(found.log10_prob)
    log10_backoff = np.concatenate(found.log10_backoff)
    return SearchTable(words, ngram_arrays(trie, ends, log10_prob, log10_backoff))


def ngram_arrays(
    trie: Trie, ends: Ints, log10_prob: NDArray[np.float64], log10_backoff: NDArray[np.float64]
) -> NgramArrays:
    """Arrange n-grams for search.

    A context that only longer n-grams have (some programs prune it) becomes an n-gram with the
    probability that backing off gives it, which changes no probability of the model.

    Args:
        trie: the n-grams by their word ids; a unigram of each word is among them.
        ends: (R,) the node of each n-gram.
        log10_prob, log10_backoff: (R,) of each n-gram.
    """
    num_nodes = len(trie.label)

    log_prob = np.full(num_nodes, np.nan)
    log_prob[ends] = log10_prob * _LN_10
    log_prob[0] = 0.0
    backoff = np.zeros(num_nodes)
    backoff[ends] = log10_backoff * _LN_10
    # The longest n-grams are no context, whatever a file says.
    backoff[trie.levels[-2] :] = 0.0

    lookup = _Lookup.of(trie)
    ending = _endings(trie, lookup)
    _fill_missing(trie, lookup, ending, log_prob, backoff)

    has_children = np.diff(trie.first_child) > 0
    matters = has_children | (backoff != 0)
    matters[0] = True
    shorter = _shorten(trie, ending, matters)

    return NgramArrays(
        trie.label,
        log_prob.astype(np.float32),
        backoff.astype(np.float32),
        trie.first_child,
        shorter,
    )


class _Lookup(NamedTuple):
    """Where the children of nodes stand.

    Attributes:
        keys: (N - 1,) a number for each node but the first, from its parent and its label. In the
            order of the nodes, they increase.
        num_labels: labels are smaller.
    """

    keys: NDArray[np.int64]
    num_labels: int

    @classmethod
    def of(cls, trie: Trie) -> "_Lookup":
        num_labels = int(trie.label.max()) + 1
        keys = trie.parent[1:].astype(np.int64) * num_labels + trie.label[1:]
        return cls(keys, num_labels)

    def child(self, parent: Ints, label: Ints) -> Ints:
        """(M,) the child that each parent has with a label, or -1."""
        wanted = parent.astype(np.int64) * self.num_labels + label
        place = np.searchsorted(self.keys, wanted)
        there = np.minimum(place, len(self.keys) - 1)
        is_there = self.keys[there] == wanted
        return np.where(is_there, there + 1, -1).astype(np.int32)


def _endings(trie: Trie, lookup: _Lookup) -> Ints:
    """(N,) the longest node that each node's sequence ends with, itself excepted."""
    # A single word ends with nothing shorter but the empty sequence.
    ending = np.zeros(len(trie.label), np.int32)

    for start, stop in _longer_levels(trie):
        # An ending of the node is an ending of its parent and the same last word. The search for
        # the longest one ends at the unigram, which every word has.
        nodes = np.arange(start, stop)
        context = ending[trie.parent[nodes]]
        while len(nodes):
            found = lookup.child(context, trie.label[nodes])
            is_missing = found < 0
            ending[nodes[~is_missing]] = found[~is_missing]

            nodes = nodes[is_missing]
            context = ending[context[is_missing]]

    return ending


def _fill_missing(
    trie: Trie,
    lookup: _Lookup,
    ending: Ints,
    log_prob: NDArray[np.float64],
    backoff: NDArray[np.float64],
) -> None:
    """Give nodes without a probability the one that backing off gives them, in place."""
    for start, stop in _longer_levels(trie):
        nodes = start + np.flatnonzero(np.isnan(log_prob[start:stop]))
        context = trie.parent[nodes]
        weight = np.zeros(len(nodes))
        while len(nodes):
            weight = weight + backoff[context]
            context = ending[context]
            found = lookup.child(context, trie.label[nodes])

            is_found = found >= 0
            log_prob[nodes[is_found]] = weight[is_found] + log_prob[found[is_found]]
            nodes, context, weight = nodes[~is_found], context[~is_found], weight[~is_found]


def _shorten(trie: Trie, ending: Ints, matters: NDArray[np.bool_]) -> Ints:
    """(N,) the longest ending of each node that matters as a context."""
    shorter = np.zeros(len(ending), np.int32)
    for start, stop in _longer_levels(trie):
        own = ending[start:stop]
        # Endings are shorter, so they are done.
        shorter[start:stop] = np.where(matters[own], own, shorter[own])
    return shorter


def _longer_levels(trie: Trie) -> list[tuple[int, int]]:
    """Give first node, and the one behind the last, of each level from two labels on."""
    return list(pairwise(trie.levels[2:]))
