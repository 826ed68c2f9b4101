"""Edit distance: by recursion, and by a table that keeps every best alignment."""

from collections.abc import Sequence
from typing import NamedTuple


class Edits(NamedTuple):
    """What turns the reference into the hypothesis."""

    hits: int
    substitutions: int
    insertions: int
    deletions: int


def distance(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Count the fewest edits, by recursion; only for a handful of units."""
    if not reference or not hypothesis:
        return len(reference) + len(hypothesis)

    different = reference[-1] != hypothesis[-1]
    replaced = distance(reference[:-1], hypothesis[:-1]) + different
    deleted = distance(reference[:-1], hypothesis) + 1
    inserted = distance(reference, hypothesis[:-1]) + 1
    return min(replaced, deleted, inserted)


def best_alignments(reference: Sequence[str], hypothesis: Sequence[str]) -> set[Edits]:
    """Count the edits of every alignment with the fewest of them, by dynamic programming.

    Two substitutions may be as good as an insertion, a hit and a deletion: a scorer's counts can
    only be one of these.
    """
    row = {j: {Edits(0, 0, j, 0)} for j in range(len(hypothesis) + 1)}
    for i, said in enumerate(reference, 1):
        above = row
        row = {0: {Edits(0, 0, 0, i)}}

        for j, heard in enumerate(hypothesis, 1):
            options = {e._replace(deletions=e.deletions + 1) for e in above[j]}
            options |= {e._replace(insertions=e.insertions + 1) for e in row[j - 1]}
            for e in above[j - 1]:
                if said == heard:
                    options.add(e._replace(hits=e.hits + 1))
                else:
                    options.add(e._replace(substitutions=e.substitutions + 1))

            fewest = min(_num_edits(e) for e in options)
            row[j] = {e for e in options if _num_edits(e) == fewest}

    return row[len(hypothesis)]


def _num_edits(edits: Edits) -> int:
    """Add up all but the hits."""
    return edits.substitutions + edits.insertions + edits.deletions
