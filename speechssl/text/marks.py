"""Marks in texts of what is no word, such as [noise] and (laughter): left out, and counted."""

import re
from collections import Counter

# A mark in a text: [laughter], <unk>, (coughs), {breath}, *sighs*, ++noise++.
_MARK = re.compile(r"\[[^][]*\]|<[^<>]*>|\([^()]*\)|\{[^{}]*\}|\*[^*\s][^*]*\*|\+\+[^+]+\+\+")

# Marks of sounds that are no words, and of words that were not understood, without brackets.
_NOISE = re.compile(
    "((background|spoken|vocali[sz]ed|human|non ?human) )?noises?|static|beep|clicks?|ringing"
    "|laugh(s|ter|ing)?|cough(s|ing)?|sneez(es?|ing)|sniff(s|ing)?|sigh(s|ing)?|yawn(s|ing)?"
    "|breath(s|es|ing)?|(in|ex)hal(es?|ing)|(lip ?)?smack(s|ing)?|clears throat|throat clearing"
    "|cry(ing)?|music|applause|cross ?talk|sil|silence|pause|spn|nsn"
    "|unk|unknown|inaudible|unintelligible"
)

# Texts or marks that a line of the log names.
_NUM_SHOWN = 5
# Different marks that are counted by name. In books every remark in brackets is another one, and
# memory must not grow with them.
_NUM_NAMED = 10_000


class Marks:
    """Takes the marks of noises out of texts, and counts them and the marks that stay.

    Attributes:
        dropped: the marks of noises, with how often each was left out.
        kept: other marks, which stay as words, with how often each occurred; the first 10,000.
        num_kept: how often other marks occurred, all together.
    """

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()
        self.num_kept = 0

    def without_noises(self, text: str) -> str:
        """Give a text without its marks of noises; one that has none comes back as it is."""
        cleaned = _MARK.sub(self._replacement, text)
        return text if cleaned == text else " ".join(cleaned.split())

    def _replacement(self, match: re.Match[str]) -> str:
        mark = match.group()
        if _NOISE.fullmatch(_inner(mark)):
            self.dropped[mark] += 1
            return " "

        self.num_kept += 1
        if mark in self.kept or len(self.kept) < _NUM_NAMED:
            self.kept[mark] += 1
        return mark

    def lines(self, of_what: str) -> list[str]:
        """Say what was left out and what stays; nothing where there were no marks.

        Args:
            of_what: what the texts are, such as "transcripts".
        """
        lines: list[str] = []
        if self.dropped:
            lines.append(
                f"{self.dropped.total()} marks of noises are left out of {of_what}: "
                f"{named(self.dropped)}"
            )
        if self.kept:
            lines.append(
                f"{self.num_kept} other marks in {of_what} stay, as words: {named(self.kept)}; "
                "remove those that nobody says"
            )
        return lines


def named(counts: Counter[str]) -> str:
    """Name the most frequent texts, and how often each occurs."""
    most = counts.most_common(_NUM_SHOWN)
    parts = [f"{text!r} {count}" for text, count in most]
    dots = ["..."] if len(counts) > _NUM_SHOWN else []
    return ", ".join(parts + dots)


def _inner(mark: str) -> str:
    """Return what stands between a mark's brackets, in lower case and with single spaces."""
    words = re.findall(r"[^\W_]+", mark.lower())
    return " ".join(words)
