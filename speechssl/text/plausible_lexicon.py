"""Whether a file can be a pronunciation lexicon: lines of text begin with a word too.

Phones are few, and each is in many words. The words of a text are many, most of them rare, and its
lines begin with words that stand inside of other lines as well. The limits were chosen on CMUdict,
espeak-ng's lexicons of seven languages, lexicons of syllables and of single characters, and their
parts from 5 words on, beside texts of 5 to 10,000 lines. No lexicon is refused, and no text of
sentences is taken without a word.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from speechssl.errors import ConfigError

# Of fewer different phones than this nothing is said, and of few only what is plain.
_VERY_FEW = 20
_FEW = 40
# More than this only lexicons have whose phones know their place in the word, their tone or both.
_MANY = 100
# More than there are syllables with tones, the finest units but for the letters of the words.
_TOO_MANY = 1500

# A file of fewer lines is taken for what its reader expects.
_FEWEST_LINES = 10
# Characters of the longest name of a phone, such as "OW1_B".
_LONGEST_PHONE = 6
_NUMBER = re.compile(r"[0-9.]+([eE]-[0-9]+)?")
_VARIANT = re.compile(r"(?<=.)\([0-9]+\)$")  # word(2)


@dataclass(frozen=True)
class Inventory:
    """What tells phones from the words of a text.

    Attributes:
        num_phones: different phones.
        once: share of them that are in one word only.
        overlap: share of all phones, counted as often as they stand, that are words themselves.
        spelled: share of the entries whose phones are the letters of the word.
        words_per_entry: different words over entries; a text begins many lines with one word.
    """

    num_phones: int
    once: float
    overlap: float
    spelled: float
    words_per_entry: float

    @classmethod
    def of(cls, entries: Iterable[tuple[str, Sequence[str]]]) -> "Inventory":
        """Count the phones of entries, each a word and its phones; there is at least one."""
        words: Counter[str] = Counter()
        running: Counter[str] = Counter()
        first_word: dict[str, str] = {}
        in_several: set[str] = set()
        num_spelled = 0

        for word, phones in entries:
            words[word] += 1
            running.update(phones)
            num_spelled += "".join(phones).casefold() == word.casefold()
            for phone in phones:
                if first_word.setdefault(phone, word) != word:
                    in_several.add(phone)

        num_as_words = sum(count for phone, count in running.items() if phone.casefold() in words)
        return cls(
            num_phones=len(running),
            once=1 - len(in_several) / len(running),
            overlap=num_as_words / running.total(),
            spelled=num_spelled / words.total(),
            words_per_entry=len(words) / words.total(),
        )

    @property
    def is_of_text(self) -> bool:
        """Whether these are the words of a text for sure."""
        if self.spelled >= 0.5:
            return False

        is_spread_like_words = self.once >= 0.25 or self.words_per_entry <= 0.3
        begins_like_text = self.num_phones > _MANY and self.overlap >= 0.05
        return is_spread_like_words and (begins_like_text or self.num_phones > _TOO_MANY)

    @property
    def is_doubtful(self) -> bool:
        """Whether these may be the words of a text; a small lexicon can look so too."""
        if self.spelled >= 0.5 or self.num_phones <= _VERY_FEW:
            return False

        return self.once >= (0.5 if self.num_phones > _FEW else 0.8)


def check_inventory(name: str, entries: Iterable[tuple[str, Sequence[str]]]) -> str:
    """See that entries are words and their phones, and not the lines of a text.

    Args:
        name: of the file, for the message.
        entries: each a word and its phones; at least one.

    Returns:
        what to say where it is not sure; empty otherwise.

    Raises:
        ConfigError: they are the lines of a text.
    """
    found = Inventory.of(entries)
    if found.is_of_text:
        raise ConfigError(
            f"{name} is no pronunciation lexicon but looks like text: it would have "
            f"{found.num_phones} different phones, {found.once:.0%} of them in one word only. Give "
            "a lexicon of one word and its phones a line, as CMUdict, Kaldi and MFA write it"
        )
    if found.is_doubtful:
        return (
            f"{found.once:.0%} of the {found.num_phones} phones are in one word only: is it a "
            "lexicon, and no text?"
        )
    return ""


def are_lexicon(lines: Iterable[str]) -> bool:
    """Whether lines that should be texts are entries of a pronunciation lexicon.

    Each begins with a word that no other line begins with, unless it stands beside them, and few
    short phones follow, each in many lines. Sentences share their first words, and their others
    are many and long.
    """
    entries: list[tuple[str, list[str]]] = []
    num_without_phones = 0
    for line in lines:
        if line.startswith(";;;"):  # a comment of CMUdict's form
            continue
        word, *rest = line.split("#")[0].split() or [""]
        phones = [field for field in rest if not _NUMBER.fullmatch(field)]
        if phones:
            entries.append((_VARIANT.sub("", word), phones))
        elif word:
            num_without_phones += 1

    if len(entries) < max(_FEWEST_LINES, 9 * num_without_phones):
        return False

    words = [word for word, _ in entries]
    stand_together = 1 + sum(one != other for one, other in pairwise(words)) == len(set(words))
    longest = max(len(phone) for _, phones in entries for phone in phones)
    found = Inventory.of(entries)
    return (
        stand_together
        and longest <= _LONGEST_PHONE
        and found.words_per_entry > 0.3
        and found.once < 0.25
        and found.num_phones <= _TOO_MANY
        and found.overlap < 0.5
    )
