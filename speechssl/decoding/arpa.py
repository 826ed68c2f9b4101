"""ARPA files of n-gram models: writing, reading, and the words in them."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from speechssl.decoding.ngram import MAX_ORDER, SPECIAL, Estimate, NgramModel, Ngrams, Order
from speechssl.errors import ConfigError

# The first bytes of KenLM's own binary files.
_KENLM = b"mmap lm http://kheafield.com/code"
# Characters of a faulty line that a message shows.
_SHOWN = 80
# Digits that a count of n-grams may have: as many always fit in 64 bits.
_MAX_DIGITS = 18


def arpa_lines(model: Estimate) -> Iterator[str]:
    """Write a model as lines of an ARPA file.

    N-grams come by length, then by id; log10 values have 7 digits after the point.
    """
    yield "\\data\\\n"
    for length, order in enumerate(model.orders, 1):
        yield f"ngram {length}={len(order.word)}\n"

    texts: list[str] = []
    for length, order in enumerate(model.orders, 1):
        yield f"\n\\{length}-grams:\n"

        texts = _texts(order, model.words, texts)
        has_backoff = length < len(model.orders)
        yield from _ngram_lines(order, texts, has_backoff)

    yield "\n\\end\\\n"


def read_arpa(path: Path) -> NgramModel:
    """Read an ARPA file; what stands before ``\\data\\`` or after ``\\end\\`` is a comment.

    Raises:
        ConfigError: the file cannot be read, is no ARPA file, or has more or fewer n-grams than it
            says. The message names the line.
    """
    with opened(path) as file:
        return NgramModel(_ArpaReader(path, file).ngrams())


def arpa_words(path: Path) -> list[str]:
    """Read the words of an ARPA file without the marks, in its order; longer n-grams are not read.

    Raises:
        ConfigError: as ``read_arpa``.
    """
    with opened(path) as file:
        reader = _ArpaReader(path, file)
        num_unigrams = reader.header()[0]
        unigrams = reader.section(1, num_unigrams)

    return [word for (word,) in unigrams if word not in SPECIAL]


def is_binary(path: Path) -> bool:
    """Whether a file is one of KenLM's binary files, rather than ARPA."""
    try:
        with path.open("rb") as file:
            return file.read(len(_KENLM)) == _KENLM
    except OSError as error:
        raise ConfigError(f"{path} cannot be read as a language model: {error}") from error


@contextmanager
def opened(path: Path, kind: str = "an ARPA file") -> Iterator[TextIO]:
    """Open a UTF-8 text for reading.

    Raises:
        ConfigError: it cannot be read, now or within the ``with`` block.
    """
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            yield file
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path} cannot be read as {kind}: {why}") from error


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
        words = _listed_words(listed)
    elif is_binary(lm):
        raise ConfigError(
            f"{lm} is a KenLM binary, which does not tell its words: list them with --words FILE"
        )
    else:
        words = arpa_words(lm)

    if not words:
        raise ConfigError(f"{listed or lm} holds no word: give the words that may be recognised")
    return list(dict.fromkeys(words))


def _texts(order: Order, words: Sequence[str], shorter: Sequence[str]) -> list[str]:
    """Spell the n-grams of one length, given the texts of those one word shorter."""
    last_words = [words[i] for i in order.word.tolist()]
    if not shorter:
        return last_words

    pairs = zip(order.context.tolist(), last_words, strict=True)
    return [f"{shorter[context]} {word}" for context, word in pairs]


def _ngram_lines(order: Order, texts: Sequence[str], has_backoff: bool) -> Iterator[str]:
    """Write one line for each n-gram; the longest have no backoff weight."""
    rows = zip(order.log10_prob.tolist(), texts, order.log10_backoff.tolist(), strict=True)
    for log10_prob, text, log10_backoff in rows:
        if has_backoff:
            yield f"{log10_prob:.7f}\t{text}\t{log10_backoff:.7f}\n"
        else:
            yield f"{log10_prob:.7f}\t{text}\n"


def _listed_words(path: Path) -> list[str]:
    """Read a list of one word a line."""
    with opened(path, "text") as file:
        words = [line.strip() for line in file]
    return [word for word in words if word and word not in SPECIAL]


class _ArpaReader:
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
            found.append(self.section(length, count))

            is_longest = length == len(counts)
            next_title = "\\end\\" if is_longest else f"\\{length + 1}-grams:"
            self._expect(self._next(), next_title)

        return found

    def header(self) -> list[int]:
        """Read how many n-grams of each length the file has, and the title of the first section."""
        while self._next() != "\\data\\":
            pass

        counts: list[int] = []
        line = self._next()
        while not line.startswith("\\"):
            counts.append(self._declared_count(line, len(counts) + 1))
            line = self._next()

        if not 1 <= len(counts) <= MAX_ORDER:
            raise self._error(f"n-grams of {len(counts)} lengths: allowed are 1 to {MAX_ORDER}")
        self._expect(line, "\\1-grams:")
        return counts

    def section(self, length: int, count: int) -> Ngrams:
        """Read the n-grams of one length, of which ``count`` are declared."""
        found = dict(self._ngram(self._next(), length) for _ in range(count))
        if len(found) < count:
            raise self._error(f"one of the {length}-grams above stands there twice")
        return found

    def _declared_count(self, line: str, length: int) -> int:
        """Parse a line of the header, such as ``ngram 2=1034``."""
        name, _, number = line.partition("=")
        number = number.strip(" \t")

        # Python's text methods take more characters for digits and spaces than int does, and int
        # refuses numbers of more than 4,300 digits with an error of its own.
        is_count = number.isascii() and number.isdecimal() and len(number) <= _MAX_DIGITS
        if name.split() != ["ngram", str(length)] or not is_count:
            raise self._error(f"{line[:_SHOWN]!r} where 'ngram {length}=...' was expected")
        return int(number)

    def _ngram(self, line: str, length: int) -> tuple[tuple[str, ...], tuple[float, float]]:
        """Parse a line of a section: log10 probability, words, and a backoff weight or none."""
        # Words are separated by spaces; fields by a tab in most files, by a space in some.
        fields = [field for field in line.replace("\t", " ").split(" ") if field]
        without_backoff = length + 1
        with_backoff = length + 2
        if len(fields) not in (without_backoff, with_backoff):
            raise self._error(f"{line[:_SHOWN]!r} where a {length}-gram was expected")

        backoff = 0.0
        try:
            log10_prob = float(fields[0])
            if len(fields) == with_backoff:
                backoff = float(fields[-1])
        except ValueError:
            shown = repr(line[:_SHOWN])
            raise self._error(f"{shown} has no number where one was expected") from None

        # "not <=" is also true of a probability that is not a number.
        if not log10_prob <= 0 or not math.isfinite(backoff):
            raise self._error(
                f"{line[:_SHOWN]!r} has a probability above 1, or a weight that is no number"
            )

        words = tuple(fields[1 : length + 1])
        return words, (log10_prob, backoff)

    def _next(self) -> str:
        """Read up to the next line that is not empty."""
        for line in self.lines:
            self.line_number += 1
            stripped = line.strip(" \t\r\n")
            if stripped:
                return stripped

        raise self._error("the file ends here, before \\end\\")

    def _expect(self, line: str, title: str) -> None:
        """Refuse any line but this title."""
        if line != title:
            raise self._error(f"{line[:_SHOWN]!r} where {title} was expected")

    def _error(self, why: str) -> ConfigError:
        """Describe what is wrong with the line that was read last."""
        return ConfigError(f"{self.path} line {self.line_number}: {why}; give a whole ARPA file")
