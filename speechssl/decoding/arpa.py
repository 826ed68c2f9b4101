"""ARPA files of n-gram models: reading them, and the words in them."""

import math
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from speechssl.decoding.ngram import MAX_ORDER, SPECIAL, NgramModel, Ngrams
from speechssl.errors import ConfigError
from speechssl.storage.text_files import open_text
from speechssl.storage.wrong_paths import what_instead

# A line of a section: the words of an n-gram, then its log10 probability and backoff weight.
_NgramLine = tuple[tuple[str, ...], tuple[float, float]]

# What messages call the files that are read here.
_KIND = "an ARPA file"
# The first bytes of KenLM's own binary files.
_KENLM = b"mmap lm http://kheafield.com/code"
# Characters of a faulty line that a message shows: lines of a file that is no text can be endless.
_SHOWN = 80
# Digits that a count of n-grams may have: as many always fit in 64 bits.
_MAX_DIGITS = 18


def read_arpa(path: Path) -> NgramModel:
    """Read an ARPA file; what stands before ``\\data\\`` or after ``\\end\\`` is a comment.

    Raises:
        ConfigError: the file cannot be read, is no ARPA file, or has more or fewer n-grams than it
            says. The message names the line.
    """
    with open_text(path, _KIND) as file:
        reader = ArpaReader(path, file)
        ngrams = reader.ngrams()

    return NgramModel(ngrams)


def read_ngrams(path: Path) -> "ArpaNgrams":
    """Read an ARPA file as arrays: for large files, faster and smaller than ``read_arpa``.

    Raises:
        ConfigError: as ``read_arpa``, but an n-gram that stands there twice is not noticed; or a
            word of an n-gram is none of the unigrams.
    """
    with open_text(path, _KIND) as file:
        reader = ArpaReader(path, file)
        return reader.flat_ngrams()


def arpa_words(path: Path) -> list[str]:
    """Read the words of an ARPA file without the marks, in its order; longer n-grams are not read.

    Raises:
        ConfigError: as ``read_arpa``.
    """
    with open_text(path, _KIND) as file:
        reader = ArpaReader(path, file)
        counts = reader.header()
        unigrams = reader.section(1, counts[0])

    words: list[str] = []
    for (word,) in unigrams:
        if word not in SPECIAL:
            words.append(word)
    return words


def is_binary(path: Path) -> bool:
    """Whether a file is one of KenLM's binary files, rather than ARPA."""
    if path.is_dir():
        raise ConfigError(
            f"{path} is a folder: give an ARPA file, which speechssl lm makes of texts"
            f"{what_instead(path)}"
        )
    try:
        with path.open("rb") as file:
            first_bytes = file.read(len(_KENLM))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read as a language model: {error.strerror}{what_instead(path)}"
        ) from error

    return first_bytes == _KENLM


class ArpaNgrams(NamedTuple):
    """The n-grams of a file, in its order.

    Attributes:
        words: the unigrams; the place of a word is its id.
        word_ids: for each length k, from 1 on, (N, k) int32.
        log10_prob: for each length, (N,) float64.
        log10_backoff: for each length, (N,) float64; 0 where the file has none.
    """

    words: list[str]
    word_ids: list[NDArray[np.int32]]
    log10_prob: list[NDArray[np.float64]]
    log10_backoff: list[NDArray[np.float64]]


def read_words(lm: Path, listed: Path | None) -> list[str]:
    """Read the words of a language model, each once and without the marks.

    Args:
        lm: ARPA file or KenLM binary.
        listed: a text with one word a line, instead of the words that ``lm`` has.

    Raises:
        ConfigError: a file cannot be read, there is no word, or a KenLM binary comes without a
            list of its words.
    """
    if listed:
        words = listed_words(listed)
    elif is_binary(lm):
        raise ConfigError(
            f"{lm} is a KenLM binary, which does not tell its words: list them with --words FILE"
        )
    else:
        words = arpa_words(lm)

    if not words:
        source = listed or lm
        raise ConfigError(f"{source} holds no word: give the words that may be recognised")

    # A dict keeps the order of the file, where a set would not.
    unique_words = dict.fromkeys(words)
    return list(unique_words)


def listed_words(path: Path) -> list[str]:
    """Read a list of one word a line, without the marks.

    Raises:
        ConfigError: it cannot be read, or a line has several words, as a text or a lexicon has.
    """
    words: list[str] = []
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            word = line.strip()
            if len(word.split()) > 1:
                raise ConfigError(
                    f"{path} line {number}: {_shown(word)} is more than one word, and a list has "
                    f"one word a line{what_instead(path)}"
                )
            if word and word not in SPECIAL:
                words.append(word)
    return words


class ArpaReader:
    """Parser of an ARPA file, line after line.

    Attributes:
        line_number: number of the line that was read last, for messages.
    """

    def __init__(self, path: Path, lines: Iterable[str]) -> None:
        self.path = path
        self.line_number = 0
        self.lines = iter(lines)

    def ngrams(self) -> list[Ngrams]:
        """Read all n-grams, by length, to the end of the file's data."""
        counts = self.header()

        found: list[Ngrams] = []
        for length, count in enumerate(counts, 1):
            ngrams = self.section(length, count)
            found.append(ngrams)
            self._check_words(ngrams, found[0])
            self.end_section(length, longest=len(counts))

        return found

    def flat_ngrams(self) -> ArpaNgrams:
        """Read all n-grams as arrays, to the end of the file's data."""
        counts = self.header()
        found = ArpaNgrams([], [], [], [])
        id_of: dict[str, int] = {}

        for length, count in enumerate(counts, 1):
            ids, probs, backoffs = array("i"), array("d"), array("d")
            for words, (log10_prob, log10_backoff) in self.entries(length, count):
                if length == 1:
                    id_of.setdefault(words[0], len(id_of))
                try:
                    ids.extend([id_of[word] for word in words])
                except KeyError as error:
                    raise self._error(f"the word {error} is not among the 1-grams") from None
                probs.append(log10_prob)
                backoffs.append(log10_backoff)

            found.word_ids.append(np.array(ids, np.int32).reshape(-1, length))
            found.log10_prob.append(np.array(probs))
            found.log10_backoff.append(np.array(backoffs))
            self.end_section(length, longest=len(counts))

        found.words.extend(id_of)
        return found

    def header(self) -> list[int]:
        """Read how many n-grams of each length the file has, and the title of the first section."""
        line = self._next_or_none()
        while line != "\\data\\":
            if line is None:
                what = what_instead(self.path) or ": speechssl lm makes one of texts"
                raise ConfigError(f"{self.path} is no ARPA file, which has a line \\data\\{what}")
            line = self._next_or_none()

        counts: list[int] = []
        line = self._next()
        while not line.startswith("\\"):
            length = len(counts) + 1
            count = self._declared_count(line, length)
            counts.append(count)
            line = self._next()

        num_lengths = len(counts)
        if not 1 <= num_lengths <= MAX_ORDER:
            raise self._error(f"n-grams of {num_lengths} lengths: allowed are 1 to {MAX_ORDER}")
        self._expect(line, "\\1-grams:")
        return counts

    def _check_words(self, ngrams: Ngrams, unigrams: Ngrams) -> None:
        """Refuse n-grams of words that are no unigrams, which nothing could ever match."""
        for words in ngrams:
            for word in words:
                if (word,) not in unigrams:
                    raise self._error(f"the word {word!r} is not among the 1-grams")

    def section(self, length: int, count: int) -> Ngrams:
        """Read the n-grams of one length, of which ``count`` are declared."""
        found: Ngrams = dict(self.entries(length, count))
        if len(found) < count:
            raise self._error(f"one of the {length}-grams above stands there twice")
        return found

    def entries(self, length: int, count: int) -> Iterator[_NgramLine]:
        """Read the n-grams of one length one after the other."""
        for _ in range(count):
            line = self._next()
            yield self._ngram(line, length)

    def end_section(self, length: int, longest: int) -> None:
        """Read the title that follows: so a section holds no more than it declared."""
        line = self._next()
        if length < longest:
            next_length = length + 1
            self._expect(line, f"\\{next_length}-grams:")
        else:
            self._expect(line, "\\end\\")

    def _declared_count(self, line: str, length: int) -> int:
        """Parse a line of the header, such as ``ngram 2=1034``."""
        name, _, number = line.partition("=")
        number = number.strip(" \t")

        # Python's text methods take more characters for digits and spaces than int does, and int
        # refuses numbers of more than 4,300 digits with an error of its own.
        is_number = number.isascii() and number.isdecimal()
        is_count = is_number and len(number) <= _MAX_DIGITS

        expected_name = ["ngram", str(length)]
        if name.split() != expected_name or not is_count:
            raise self._unexpected(line, f"'ngram {length}=...'")
        return int(number)

    def _ngram(self, line: str, length: int) -> _NgramLine:
        """Parse a line of a section: log10 probability, words, and a backoff weight or none."""
        # Words are separated by spaces; fields by a tab in most files, by a space in some.
        spaced = line.replace("\t", " ")
        fields = [field for field in spaced.split(" ") if field]

        num_fields = len(fields)
        without_backoff = length + 1
        with_backoff = length + 2
        if num_fields not in (without_backoff, with_backoff):
            raise self._unexpected(line, f"a {length}-gram")

        backoff = 0.0
        try:
            log10_prob = float(fields[0])
            if num_fields == with_backoff:
                backoff = float(fields[-1])
        except ValueError:
            shown = _shown(line)
            raise self._error(f"{shown} has no number where one was expected") from None

        # "not <=" is also true of a probability that is not a number.
        if not log10_prob <= 0 or not math.isfinite(backoff):
            shown = _shown(line)
            raise self._error(f"{shown} has a probability above 1, or a weight that is no number")

        words = fields[1:without_backoff]
        return tuple(words), (log10_prob, backoff)

    def _next(self) -> str:
        """Read up to the next line that is not empty."""
        line = self._next_or_none()
        if line is None:
            raise self._error("the file ends here, before \\end\\")
        return line

    def _next_or_none(self) -> str | None:
        """Read up to the next line that is not empty; None at the end of the file."""
        for line in self.lines:
            self.line_number += 1
            stripped = line.strip(" \t\r\n")
            if stripped:
                return stripped
        return None

    def _expect(self, line: str, title: str) -> None:
        """Refuse any line but this title."""
        if line != title:
            raise self._unexpected(line, title)

    def _unexpected(self, line: str, expected: str) -> ConfigError:
        """Describe a line that stands where something else was expected."""
        shown = _shown(line)
        return self._error(f"{shown} where {expected} was expected")

    def _error(self, why: str) -> ConfigError:
        """Describe what is wrong with the line that was read last."""
        where = f"{self.path} line {self.line_number}"
        return ConfigError(f"{where}: {why}; give a whole ARPA file")


def _shown(line: str) -> str:
    """Quote the beginning of a faulty line for a message."""
    beginning = line[:_SHOWN]
    return repr(beginning)
