"""Moves whole groups between splits until each split has the share of the audio asked for."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from pathlib import Path

from speechssl.corpus.manifest import Record

# Up to this many groups, every way to divide them is tried: 20,000 for three splits.
_MOST_TRIED = 9

# Up to this many groups, pairs of them are moved too. Of more, one alone comes close enough.
_MOST_PAIRED = 40

# Sizes of parts are whole microseconds, so that their sums are exact.
_MICROSECONDS = 1_000_000

# Groups, each with the split that it goes to.
_Change = Sequence[tuple[str, str]]


def sizes_of(root: Path, records: Sequence[Record]) -> list[int]:
    """Return how much audio each record is, at least 1, in a unit that is the same for all.

    It is the duration where all records have one. Else it is the size of the file in bytes, divided
    among its records: nothing is decoded yet.
    """
    durations = [record.duration_s for record in records]
    known = [duration for duration in durations if duration is not None]
    if len(known) == len(durations):
        return [max(1, round(duration * _MICROSECONDS)) for duration in known]

    uses = Counter(record.audio for record in records)
    bytes_of = {audio: _file_bytes(root / audio) for audio in uses}
    return [max(1, bytes_of[record.audio] // uses[record.audio]) for record in records]


def come_closer(
    split_of: Mapping[str, str],
    sizes: Mapping[str, int],
    wanted: Mapping[str, float],
    may_be_empty: set[str | None],
) -> dict[str, str]:
    """Change the splits of groups so that the splits have the wanted sizes as closely as they can.

    As few groups as that takes are moved; of equally good ones, those that come first in
    ``split_of``.

    Args:
        split_of: a split of each group, to begin with.
        sizes: of the groups, in any unit.
        wanted: size of each split, in the same unit.
        may_be_empty: splits that need no group. Each of the others keeps one where it has one.
    """
    if len(split_of) <= _MOST_TRIED:
        return _closest(split_of, sizes, wanted, may_be_empty)

    deal = _Deal(split_of, sizes, wanted, may_be_empty)
    improved = True
    while improved:
        improved = False
        for change in deal.changes():
            if deal.gain(change) > 0:
                deal.apply(change)
                improved = True
    return deal.split_of


def _closest(
    split_of: Mapping[str, str],
    sizes: Mapping[str, int],
    wanted: Mapping[str, float],
    may_be_empty: set[str | None],
) -> dict[str, str]:
    """Try all ways to divide a few groups."""
    needed = wanted.keys() - may_be_empty

    def badness(splits: Sequence[str]) -> tuple[int, float, int]:
        reached = dict.fromkeys(wanted, 0)
        num_moved = 0
        for (name, before), split in zip(split_of.items(), splits, strict=True):
            reached[split] += sizes[name]
            num_moved += split != before

        num_empty = len(needed - set(splits))
        distance = sum(abs(reached[split] - wanted[split]) for split in wanted)
        # Sums of the same sizes in another order are equal only when rounded.
        return num_empty, round(distance, 3), num_moved

    best = min(product(wanted, repeat=len(split_of)), key=badness)
    return dict(zip(split_of, best, strict=True))


class _Deal:
    """A split of every group, which can be changed a little."""

    def __init__(
        self,
        split_of: Mapping[str, str],
        sizes: Mapping[str, int],
        wanted: Mapping[str, float],
        may_be_empty: set[str | None],
    ) -> None:
        self.split_of = dict(split_of)
        self._sizes = sizes
        self._wanted = wanted
        self._needed = wanted.keys() - may_be_empty
        self._num_groups = Counter(split_of.values())
        self._reached = dict.fromkeys(wanted, 0)
        for name, split in split_of.items():
            self._reached[split] += sizes[name]

    def changes(self) -> Iterator[_Change]:
        """Yield every move of a group to another split and, where there are few, of two."""
        for name in self.split_of:
            for split in self._wanted:
                yield [(name, split)]

        if len(self.split_of) > _MOST_PAIRED:
            return
        for first, second in combinations(self.split_of, 2):
            for splits in product(self._wanted, repeat=2):
                yield list(zip((first, second), splits, strict=True))

    def gain(self, change: _Change) -> float:
        """Return by how much closer a change comes; negative where it leaves a split empty."""
        differences: Counter[str] = Counter()
        num_groups = Counter(self._num_groups)
        for name, split in change:
            before = self.split_of[name]
            differences[before] -= self._sizes[name]
            differences[split] += self._sizes[name]
            num_groups[before] -= 1
            num_groups[split] += 1

        if any(self._num_groups[split] and not num_groups[split] for split in self._needed):
            return -1.0

        gain = 0.0
        for split, difference in differences.items():
            missing = self._wanted[split] - self._reached[split]
            gain += abs(missing) - abs(missing - difference)
        # What is left of a difference of zero by rounding is no gain: it could be had for ever.
        return round(gain, 3)

    def apply(self, change: _Change) -> None:
        """Make a change."""
        for name, split in change:
            before = self.split_of[name]
            self.split_of[name] = split
            self._reached[before] -= self._sizes[name]
            self._reached[split] += self._sizes[name]
            self._num_groups[before] -= 1
            self._num_groups[split] += 1


def _file_bytes(path: Path) -> int:
    """Return a file's size; 0 where it is missing, which shows when it is read."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0
