"""Sequences with the same beginning share it: a trie as flat arrays, its nodes level by level."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]

# What fills a row behind its last label.
PADDING = -1


class Trie(NamedTuple):
    """A trie of N nodes, of which node 0 is the empty sequence.

    Nodes come level by level, those of one parent beside each other and sorted by label.

    Attributes:
        label: (N,) int32, last label of each node's sequence; of node 0, ``PADDING``.
        parent: (N,) int32, the node one label shorter; of node 0, itself.
        first_child: (N + 1,) int32; the children of node i are ``first_child[i]`` up to, not
            including, ``first_child[i + 1]``.
        levels: first node of each level, and N behind the last one.
    """

    label: Ints
    parent: Ints
    first_child: Ints
    levels: tuple[int, ...]


def build_trie(rows: Ints) -> tuple[Trie, Ints]:
    """Arrange sequences as a trie.

    Args:
        rows: (R, L) int32, labels from 0 on, shorter sequences filled up with ``PADDING``.

    Returns:
        the trie, and (R,) the node at which each row ends.
    """
    num_rows, longest = rows.shape
    # The last key of lexsort is the first to sort by.
    order = np.lexsort(rows.T[::-1])
    ordered = rows[order]

    labels = [np.full(1, PADDING, np.int32)]
    parents = [np.zeros(1, np.int32)]
    levels = [0, 1]

    node_of_row = np.zeros(num_rows, np.int32)
    differs = np.zeros(num_rows, bool)  # from the row before, at this place or an earlier one
    differs[:1] = True

    for place in range(longest):
        column = ordered[:, place]
        differs[1:] |= column[1:] != column[:-1]

        goes_on = column != PADDING
        is_new = differs & goes_on
        labels.append(column[is_new])
        parents.append(node_of_row[is_new])

        # A row that goes on as the one before is at the node that was counted last.
        num_before = levels[-1]
        counted = num_before - 1 + np.cumsum(is_new, dtype=np.int32)
        node_of_row = np.where(goes_on, counted, node_of_row).astype(np.int32)
        levels.append(num_before + int(is_new.sum()))

    label = np.concatenate(labels)
    parent = np.concatenate(parents)
    num_nodes = len(label)

    # Parents never decrease, so the children of a node are one run. Node 0 is nobody's child.
    first_child = 1 + np.searchsorted(parent[1:], np.arange(num_nodes + 1))

    ends = np.empty(num_rows, np.int32)
    ends[order] = node_of_row
    return Trie(label, parent, first_child.astype(np.int32), tuple(levels)), ends
