"""Pronunciations of words in phones, read from the lexicons that people have.

A lexicon gives each word one or several pronunciations. The forms that are read:

    word  P1 P2          CMUdict (variants ``word(2)``, comments ``;;;``), Kaldi's lexicon.txt
    word 0.8 P1 P2       Kaldi's lexiconp.txt
    word 0.8 0.1 1.2 0.9 P1 P2    MFA's: the first of up to four numbers is the probability
    our own              MFA's form with a head that says how it was made, see ``Pronunciations``
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from speechssl.errors import ConfigError
from speechssl.runtime.ranks import log_once
from speechssl.storage.compression import opener_of
from speechssl.storage.text_files import TEXT_ENCODING
from speechssl.storage.wrong_paths import what_instead
from speechssl.text.normalise import DEFAULT_NORMALISER, normalise
from speechssl.text.plausible_lexicon import check_inventory

NO_FOLDING = "none"
DEFAULT_FOLDING = "stress"

# The first line of our own form, and how the other lines of its head begin.
_TITLE = ";;; speechssl lexicon 1"
_COMMENT = ";;;"

# A probability below this is kept as this: its logarithm must be a number.
_LEAST_PROBABILITY = 1e-4
_DECIMALS = 4

# Entries that may be left out for each one that is used. A lexicon has some words with a hyphen; a
# file of something else, such as an ARPA file, has some lines like those of a lexicon.
_MOST_LEFT_OUT = 9

# Columns of numbers that MFA writes between a word and its phones.
_MOST_NUMBERS = 4
_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?([eE]-?[0-9]+)?|\.[0-9]+")
_VARIANT = re.compile(r"(?<=.)\([0-9]+\)$")  # word(2)
_TRAILING_COMMENT = re.compile(r"\s#(\s|$)")  # aalborg AO1 L B AO0 R G # place, danish
# Silence, noise and the like: <unk>, [noise], {laugh}, (cough), !SIL.
_NO_WORD = tuple("<[{(!")

_ARPABET_STRESS = re.compile(r"(?<=^[A-Z]{2})[0-2]$|(?<=^[A-Z]{3})[0-2]$")
_IPA_STRESS = re.compile("[ˈˌ]")
_LENGTH = re.compile("[ːˑ:]")
_TONES = re.compile("[˥˦˧˨˩⁰¹²³⁴⁵\u0300\u0301\u0302\u0304\u030c]|(?<=[^0-9])[0-9]+$")

_FOLDS: dict[str, tuple[re.Pattern[str], ...]] = {
    "stress": (_ARPABET_STRESS, _IPA_STRESS),
    "length": (_LENGTH,),
    "tones": (_TONES,),
}


class Pronunciation(NamedTuple):
    """One way to say a word.

    Attributes:
        phones: at least one.
        probability: above 0; 1 for the most probable pronunciation of a word.
        source: who guessed it, such as "g2p"; empty if it was in the lexicon.
    """

    phones: tuple[str, ...]
    probability: float = 1.0
    source: str = ""


@dataclass(frozen=True)
class Pronunciations:
    """A pronunciation lexicon.

    Probabilities are scaled so that the largest of each word is 1, as Kaldi does: otherwise a word
    would be recognised less often because it can be said in several ways.

    Attributes:
        words: the pronunciations of each word, the most probable first.
        folding: the rule under which phones were made one, see ``fold``.
        origin: what the lexicon was made by, such as "espeak-ng 1.52.0 de"; may be empty.
    """

    words: Mapping[str, tuple[Pronunciation, ...]]
    folding: str = DEFAULT_FOLDING
    origin: str = ""

    @classmethod
    def of_entries(
        cls,
        entries: Iterable[tuple[str, Pronunciation]],
        folding: str = DEFAULT_FOLDING,
        origin: str = "",
    ) -> "Pronunciations":
        """Fold the phones, join entries of equal phones (the more probable counts), and sort.

        Of equally probable pronunciations the earlier entry comes first.

        Raises:
            ConfigError: there is no such folding rule.
        """
        folds = _folds_of(folding)
        folded: dict[str, str] = {}
        found: dict[str, dict[tuple[str, ...], Pronunciation]] = {}

        for word, one in entries:
            for phone in one.phones:
                if phone not in folded:
                    folded[phone] = _folded(phone, folds)
            phones = tuple(filter(None, map(folded.__getitem__, one.phones)))

            of_word = found.setdefault(word, {})
            before = of_word.get(phones)
            if phones and (before is None or before.probability < one.probability):
                of_word[phones] = one._replace(phones=phones)

        words = {word: _scaled(found[word].values()) for word in sorted(found) if found[word]}
        return cls(words, folding, origin)

    @cached_property
    def phones(self) -> tuple[str, ...]:
        """All phones that some word has, sorted."""
        all_phones = {phone for _, one in self.entries() for phone in one.phones}
        return tuple(sorted(all_phones))

    def entries(self) -> Iterator[tuple[str, Pronunciation]]:
        """Yield each word with each of its pronunciations."""
        for word, of_word in self.words.items():
            for one in of_word:
                yield word, one

    def as_text(self) -> str:
        """Write our own form: a head, then the word, probability and phones between tabs.

        Pronunciations that somebody guessed end in ``# source``. ``parse_own`` reads it back.
        """
        lines = [_TITLE, f"{_COMMENT} folding: {self.folding}"]
        if self.origin:
            lines.append(f"{_COMMENT} origin: {self.origin}")

        for word, one in self.entries():
            phones = " ".join(one.phones)
            comment = f"\t# {one.source}" if one.source else ""
            lines.append(f"{word}\t{one.probability:g}\t{phones}{comment}")

        return "\n".join(lines) + "\n"


def fold(phone: str, folding: str) -> str:
    """Make phones one that differ only in what the recogniser need not tell apart.

    Args:
        folding: "none", or rules joined by "+", such as "stress+tones". "stress" takes away the
            digits of ARPAbet vowels (AH0 -> AH) and the IPA marks ˈ and ˌ. "length" takes away ː, ˑ
            and ":". "tones" takes away tone letters, tone accents and digits at the end.

    Returns:
        the phone in Unicode's form NFC; empty if nothing is left.

    Raises:
        ConfigError: there is no such rule.
    """
    return _folded(phone, _folds_of(folding))


def read_lexicon(
    path: Path, normaliser: str = DEFAULT_NORMALISER, folding: str | None = None
) -> Pronunciations:
    """Read a lexicon in any of the forms above, and log which one it was.

    Words are normalised as transcripts are. An entry that is no single word then, or that has no
    phones, is left out and counted. Where two entries become one word, the one that was spelled
    like it comes first: "'cause" is a second pronunciation of "cause".

    Args:
        folding: see ``fold``; None takes what a lexicon of our own form says, else "stress".

    Raises:
        ConfigError: no text or no lexicon, a probability outside 0..1, or not one word is left.
    """
    text, encoding = _text_of(path)
    lines = _parse(path, text)

    entries: list[tuple[str, Pronunciation]] = []
    respelled: list[tuple[str, Pronunciation]] = []
    left_out: list[str] = []
    for line in lines.entries:
        word = "" if line.word.startswith(_NO_WORD) else normalise(line.word, normaliser)
        is_word = word and len(word.split()) == 1
        if not is_word or not line.phones:
            left_out.append(line.word)
            continue

        one = Pronunciation(line.phones, line.probability, line.source)
        is_spelled_so = line.word.lower() == word
        (entries if is_spelled_so else respelled).append((word, one))

    rule = folding or lines.head.get("folding", DEFAULT_FOLDING)
    origin = lines.head.get("origin", path.name)
    found = Pronunciations.of_entries([*entries, *respelled], rule, origin)
    num_used = len(entries) + len(respelled)
    if not found.words or len(left_out) > _MOST_LEFT_OUT * num_used:
        raise ConfigError(
            f"{path} is no pronunciation lexicon: of {len(lines.entries)} lines {num_used} are one "
            "word and its phones. Give a lexicon as CMUdict, Kaldi and MFA write it"
        )

    doubt = check_inventory(str(path), [(word, one.phones) for word, one in found.entries()])

    num_pronunciations = sum(map(len, found.words.values()))
    message = (
        f"{path}: {lines.form}{encoding}, {num_pronunciations} pronunciations of "
        f"{len(found.words)} words in {len(found.phones)} phones (folding: {rule})"
    )
    if left_out:
        message += (
            f"; {len(left_out)} entries left out that are no single word of {normaliser} "
            f"or have no phones (first: {left_out[0]})"
        )
    if lines.comments:
        message += (
            f"; what stands behind # in {len(lines.comments)} lines is left out as a comment "
            f"(first: {lines.comments[0]}): a phone needs another name"
        )
    log_once(message)
    if doubt:
        log_once(f"{path}: {doubt}")
    return found


def parse_own(text: str) -> Pronunciations:
    """Read what ``as_text`` wrote, as it is: words and phones have been made one before.

    Raises:
        ConfigError: it is something else.
    """
    head: dict[str, str] = {}
    words: dict[str, tuple[Pronunciation, ...]] = {}

    for number, line in enumerate(text.split("\n")[:-1], start=1):
        if line.startswith(_COMMENT):
            name, _, value = line.removeprefix(_COMMENT).partition(":")
            head[name.strip()] = value.strip()
            continue

        try:
            word, probability, phones, *comment = line.split("\t")
            source = comment[0].removeprefix("# ") if comment else ""
            one = Pronunciation(tuple(phones.split()), float(probability), source)
        except ValueError as error:
            raise ConfigError(f"line {number} of the lexicon is not ours: {line!r}") from error
        words[word] = (*words.get(word, ()), one)

    if not text.startswith(_TITLE):
        raise ConfigError(f"a lexicon of our own begins with {_TITLE!r}")
    return Pronunciations(words, head.get("folding", DEFAULT_FOLDING), head.get("origin", ""))


_OWN_FORM = "speechssl's form"


class _Line(NamedTuple):
    """An entry as it stands in a file; ``probability`` is 1 where there is none."""

    word: str
    probability: float
    phones: tuple[str, ...]
    source: str


class _Lines(NamedTuple):
    """A file: its entries, the name of its form, and the settings in the head of our own form.

    ``comments`` are those behind entries, which only our own form takes for something.
    """

    entries: list[_Line]
    form: str
    head: dict[str, str]
    comments: list[str]


def _text_of(path: Path) -> tuple[str, str]:
    """Read a file as UTF-8, or as Latin-1, in which cmudict-0.7b is written, and say so."""
    if not path.is_file():
        what = what_instead(path) or ": give a file of one word and its phones a line"
        raise ConfigError(f"no lexicon {path}{what}")

    with opener_of(path)(path, "rb") as file:
        content: bytes = file.read()
    if b"\0" in content:
        what = what_instead(path) or ": give a lexicon of one word and its phones a line"
        raise ConfigError(f"{path} is not text{what}")
    try:
        return content.decode(TEXT_ENCODING), ""
    except UnicodeDecodeError:
        return content.decode("latin-1"), " in Latin-1"


def _parse(path: Path, text: str) -> _Lines:
    """Split a lexicon into entries."""
    is_own = text.startswith(_TITLE)
    head: dict[str, str] = {}
    rows: list[tuple[int, list[str], int | None, str]] = []
    comments: list[str] = []
    has_comments = has_variants = False

    # Not splitlines(), which also splits at characters that a word may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.startswith(_COMMENT):
            has_comments = True
            name, _, value = line.removeprefix(_COMMENT).partition(":")
            if is_own:
                head[name.strip()] = value.strip()
            continue

        entry, *comment = _TRAILING_COMMENT.split(line, maxsplit=1)
        fields = entry.split()
        if fields:
            source = comment[-1].strip() if is_own and comment else ""
            if comment and not is_own:
                comments.append(line.strip())
            has_variants = has_variants or _VARIANT.search(fields[0]) is not None
            rows.append((number, fields, _numbers_between_tabs(entry), source))

    # Without tabs, a number may be a phone: it is a probability if every line has it.
    least = min(
        (_leading_numbers(fields) for _, fields, tabbed, _ in rows if tabbed is None), default=0
    )

    entries: list[_Line] = []
    most = 0
    for number, fields, tabbed, source in rows:
        count = least if tabbed is None else tabbed
        most = max(most, count)
        probability = float(fields[1]) if count else 1.0
        if not 0 < probability <= 1:
            raise ConfigError(
                f"{path}, line {number}: {fields[0]!r} has the probability {fields[1]}: "
                "write one above 0 and up to 1, or leave the entry out"
            )
        word = _VARIANT.sub("", fields[0])
        entries.append(_Line(word, probability, tuple(fields[1 + count :]), source))

    if is_own:
        form = _OWN_FORM
    elif most > 1:
        form = f"MFA's form with {most} columns of numbers"
    elif most == 1:
        form = "the form of Kaldi's lexiconp.txt"
    elif has_comments or has_variants:
        form = "CMUdict's form"
    else:
        form = "the form of Kaldi's lexicon.txt"
    return _Lines(entries, form, head, comments)


def _numbers_between_tabs(line: str) -> int | None:
    """Count the columns between the word's and the phones'; None if tabs do not tell."""
    between = line.strip().split("\t")[1:-1]
    are_numbers = all(_NUMBER.fullmatch(column.strip()) for column in between)
    return len(between) if between and are_numbers else None


def _leading_numbers(fields: list[str]) -> int:
    """Count the numbers behind the word, at most those that MFA writes."""
    behind = fields[1 : 1 + _MOST_NUMBERS]
    return len(list(takewhile(_NUMBER.fullmatch, behind)))


def _folds_of(folding: str) -> tuple[re.Pattern[str], ...]:
    if folding == NO_FOLDING:
        return ()

    names = folding.split("+")
    if not all(name in _FOLDS for name in names):
        known = ", ".join(_FOLDS)
        raise ConfigError(
            f"unknown folding {folding!r}: choose none, or some of {known} joined by +"
        )
    return tuple(pattern for name in names for pattern in _FOLDS[name])


def _folded(phone: str, folds: tuple[re.Pattern[str], ...]) -> str:
    # Decomposed, so that an accent is a character of its own.
    text = unicodedata.normalize("NFD", phone)
    for pattern in folds:
        text = pattern.sub("", text)
    return unicodedata.normalize("NFC", text)


def _scaled(of_word: Iterable[Pronunciation]) -> tuple[Pronunciation, ...]:
    """Sort the pronunciations of a word, and make the largest probability 1."""
    in_order = sorted(of_word, key=lambda one: -one.probability)
    largest = in_order[0].probability

    scaled: list[Pronunciation] = []
    for one in in_order:
        probability = max(_LEAST_PROBABILITY, round(one.probability / largest, _DECIMALS))
        scaled.append(one._replace(probability=probability))
    return tuple(scaled)
