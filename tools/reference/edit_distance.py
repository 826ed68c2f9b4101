"""Edit distance: by recursion over everything that can be done, and by a table that keeps every best alignment."""

from collections.abc import Sequence
from typing import NamedTuple


class Edits(NamedTuple):
    """What turns the reference into the hypothesis."""

    hits: int
    substitutions: int
    insertions: int
    deletions: int


def distance(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Fewest edits, by recursion; only for a handful of units."""
    if not reference or not hypothesis:
        return len(reference) + len(hypothesis)
    replaced = distance(reference[:-1], hypothesis[:-1]) + (reference[-1] != hypothesis[-1])
    return min(
        replaced, distance(reference[:-1], hypothesis) + 1, distance(reference, hypothesis[:-1]) + 1
    )


def best_alignments(reference: Sequence[str], hypothesis: Sequence[str]) -> set[Edits]:
    """Counts of every alignment with the fewest edits, by dynamic programming.

    Two substitutions may be as good as an insertion, a hit and a deletion: a scorer's counts can only be one of these.
    """
    row = {j: {Edits(0, 0, j, 0)} for j in range(len(hypothesis) + 1)}
    for i, said in enumerate(reference, 1):
        above, row = row, {0: {Edits(0, 0, 0, i)}}
        for j, heard in enumerate(hypothesis, 1):
            options = {e._replace(deletions=e.deletions + 1) for e in above[j]}
            options |= {e._replace(insertions=e.insertions + 1) for e in row[j - 1]}
            for e in above[j - 1]:
                same = said == heard
                options.add(
                    e._replace(hits=e.hits + same, substitutions=e.substitutions + (not same))
                )
            fewest = min(sum(e[1:]) for e in options)
            row[j] = {e for e in options if sum(e[1:]) == fewest}
    return row[len(hypothesis)]
