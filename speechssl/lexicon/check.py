"""Whether a lexicon has the words that are wanted, and which of its entries look wrong."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from speechssl.text.phone_tokenizer import PhoneTokenizer
from speechssl.text.pronunciations import Pronunciation, Pronunciations

# A pronunciation has an odd length if it has this many times more, or fewer, phones a letter than
# half of the lexicon has.
_ODD = 3.0


@dataclass(frozen=True)
class Coverage:
    """How much of some texts a lexicon can say.

    Attributes:
        num_words: different words in the texts.
        num_running: all words of the texts.
        missing: the words without a pronunciation and how often each occurs, most frequent first.
    """

    num_words: int
    num_running: int
    missing: list[tuple[str, int]]

    @property
    def share(self) -> float:
        """Share of the running words that have a pronunciation."""
        num_missing = sum(count for _, count in self.missing)
        return 1 - num_missing / max(1, self.num_running)


def coverage(lexicon: Pronunciations, counts: Mapping[str, int]) -> Coverage:
    """Find the words that a recogniser with this lexicon could not say.

    Args:
        counts: how often each word occurs.
    """
    tokenizer = PhoneTokenizer(lexicon)
    missing = [(word, count) for word, count in counts.items() if tokenizer.has_unknown(word)]
    missing.sort(key=lambda pair: (-pair[1], pair[0]))
    return Coverage(len(counts), sum(counts.values()), missing)


def lonely_phones(lexicon: Pronunciations) -> list[tuple[str, str]]:
    """List the phones that only one word has, each with that word: often a slip of the pen."""
    words_of: dict[str, set[str]] = {}
    for word, one in lexicon.entries():
        for phone in one.phones:
            words_of.setdefault(phone, set()).add(word)

    return sorted((phone, min(words)) for phone, words in words_of.items() if len(words) == 1)


def odd_lengths(lexicon: Pronunciations) -> list[tuple[str, Pronunciation]]:
    """List the pronunciations that are far too long or too short for their word."""
    entries = list(lexicon.entries())
    phones_a_letter = [len(one.phones) / len(word) for word, one in entries]
    usual = median(phones_a_letter)

    return [
        entry
        for entry, ratio in zip(entries, phones_a_letter, strict=True)
        if not usual / _ODD <= ratio <= usual * _ODD
    ]


def sources(lexicon: Pronunciations) -> Counter[str]:
    """Count the pronunciations by who guessed them; those of the lexicon itself have no name."""
    return Counter(one.source for _, one in lexicon.entries())
