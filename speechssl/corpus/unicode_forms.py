"""Names that are alike: the same letters, stored in different forms of Unicode."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping


def composed(name: str) -> str:
    """Return the form of a name in which letters and their accents are one character (NFC)."""
    return unicodedata.normalize("NFC", name)


class KnownNames:
    """Names that are found also by another form of Unicode.

    What is written "é" in one place may be "e" and an accent in another: a Mac's disk parts them.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._alike: dict[str, list[str]] = defaultdict(list)
        for name in names:
            self._alike[composed(name)].append(name)

    def __contains__(self, name: str) -> bool:
        """Whether a name is known in any form."""
        return composed(name) in self._alike

    def alike(self, name: str) -> list[str]:
        """Return the known names that have the letters of this one."""
        return self._alike.get(composed(name), [])

    def find(self, name: str) -> str:
        """Return the known name that is meant.

        A name stays as it is where it is known, where none is alike, and where several are.
        """
        alike = self.alike(name)
        if name in alike or len(alike) != 1:
            return name
        return alike[0]

    def as_keys(self, table: Mapping[str, str]) -> dict[str, str]:
        """Give the entries of a table the known names that are meant, each to one entry only."""
        found: dict[str, str] = {}
        for name, value in table.items():
            known = self.find(name)
            is_taken = known in table or known in found
            key = name if is_taken else known
            found[key] = value
        return found
