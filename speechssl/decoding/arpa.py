"""ARPA files of n-gram models: written, read, and asked for their words."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from speechssl.decoding.ngram import MAX_ORDER, SPECIAL, Estimate, NgramModel
from speechssl.errors import ConfigError

_KENLM = b"mmap lm http://kheafield.com/code"  # how its files begin


def arpa_lines(model: Estimate) -> Iterator[str]:
    """The model as lines of an ARPA file, in the order of lengths, then of ids; log10 to 7 digits after the point."""
    yield "\\data\\\n"
    for k, order in enumerate(model.orders, 1):
        yield f"ngram {k}={len(order.word)}\n"
    texts = [""]
    for k, order in enumerate(model.orders, 1):
        yield f"\n\\{k}-grams:\n"
        last = [model.words[w] for w in order.word.tolist()]
        texts = (
            last
            if k == 1
            else [f"{texts[c]} {w}" for c, w in zip(order.context.tolist(), last, strict=True)]
        )
        rows = zip(order.log10_prob.tolist(), texts, order.log10_backoff.tolist(), strict=True)
        if k == len(model.orders):
            yield from (f"{p:.7f}\t{text}\n" for p, text, _ in rows)
        else:
            yield from (f"{p:.7f}\t{text}\t{b:.7f}\n" for p, text, b in rows)
    yield "\n\\end\\\n"


def read_arpa(path: Path) -> NgramModel:
    """Read an ARPA file; what stands before ``\\data\\`` or after ``\\end\\`` is a comment.

    Raises:
        ConfigError: it cannot be read, is no ARPA file, or has more or fewer n-grams than it says; the line is named.
    """
    with opened(path) as file:
        return NgramModel(_Arpa(path, file).ngrams())


def arpa_words(path: Path) -> list[str]:
    """The words of an ARPA file without the marks, in its order; no more of it is read.

    Raises:
        ConfigError: as ``read_arpa``.
    """
    with opened(path) as file:
        arpa = _Arpa(path, file)
        return [word for (word,) in arpa.section(1, arpa.header()[0]) if word not in SPECIAL]


def is_binary(path: Path) -> bool:
    """Whether a file is one of KenLM's own, rather than ARPA."""
    try:
        with path.open("rb") as file:
            return file.read(len(_KENLM)) == _KENLM
    except OSError as error:
        raise ConfigError(f"{path} cannot be read as a language model: {error}") from error


@contextmanager
def opened(path: Path, kind: str = "an ARPA file") -> Iterator[TextIO]:
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            yield file
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path} cannot be read as {kind}: {why}") from error


def read_words(lm: Path, listed: Path | None) -> list[str]:
    """The words of a language model, each once and without the marks: those listed, one a line, or the ARPA file's.

    Raises:
        ConfigError: a file cannot be read, there is no word, or a KenLM binary comes without its words.
    """
    if listed:
        with opened(listed, "text") as file:
            found = [word for line in file if (word := line.strip()) and word not in SPECIAL]
    elif is_binary(lm):
        raise ConfigError(
            f"{lm} is a KenLM binary, which does not tell its words: list them with --words FILE"
        )
    else:
        found = arpa_words(lm)
    if not found:
        raise ConfigError(f"{listed or lm} holds no word: give the words that may be recognised")
    return list(dict.fromkeys(found))


class _Arpa:
    """The lines of an ARPA file, one after the other, with the number of the last one for messages."""

    def __init__(self, path: Path, lines: Iterable[str]) -> None:
        self.path, self.number = path, 0
        self.lines = iter(lines)

    def next(self) -> str:
        for line in self.lines:
            self.number += 1
            if found := line.strip(" \t\r\n"):
                return found
        raise self.wrong("the file ends here, before \\end\\")

    def wrong(self, why: str) -> ConfigError:
        return ConfigError(f"{self.path} line {self.number}: {why}; give a whole ARPA file")

    def expect(self, line: str, title: str) -> None:
        if line != title:
            raise self.wrong(f"{line[:80]!r} where {title} was expected")

    def header(self) -> list[int]:
        """How many n-grams of each length are to come; the title of the first ones is read."""
        while self.next() != "\\data\\":
            pass
        declared: list[int] = []
        while not (line := self.next()).startswith("\\"):
            name, _, number = line.partition("=")
            number = number.strip(" \t")
            # What is a digit or a space to Python's text is not always one to int, and 4,300 digits are too many.
            counts = number.isascii() and number.isdecimal() and len(number) < 19
            if name.split() != ["ngram", str(len(declared) + 1)] or not counts:
                raise self.wrong(
                    f"{line[:80]!r} where 'ngram {len(declared) + 1}=...' was expected"
                )
            declared.append(int(number))
        if not 1 <= len(declared) <= MAX_ORDER:
            raise self.wrong(f"n-grams of {len(declared)} lengths: allowed are 1 to {MAX_ORDER}")
        self.expect(line, "\\1-grams:")
        return declared

    def section(self, k: int, count: int) -> dict[tuple[str, ...], tuple[float, float]]:
        """The n-grams of one length."""
        found = dict(self.ngram(self.next(), k) for _ in range(count))
        if len(found) < count:
            raise self.wrong(f"one of the {k}-grams above stands there twice")
        return found

    def ngrams(self) -> list[dict[tuple[str, ...], tuple[float, float]]]:
        """All of them, by length, to the end of the file's data."""
        declared = self.header()
        found = []
        for k, count in enumerate(declared, 1):
            found.append(self.section(k, count))
            self.expect(self.next(), f"\\{k + 1}-grams:" if k < len(declared) else "\\end\\")
        return found

    def ngram(self, line: str, k: int) -> tuple[tuple[str, ...], tuple[float, float]]:
        # Words are separated by spaces; fields by a tab in most files, by a space in some.
        parts = [part for part in line.replace("\t", " ").split(" ") if part]
        if len(parts) not in (k + 1, k + 2):
            raise self.wrong(f"{line[:80]!r} where a {k}-gram was expected")
        try:
            prob, backoff = float(parts[0]), float(parts[k + 1]) if len(parts) == k + 2 else 0.0
        except ValueError:
            raise self.wrong(f"{line[:80]!r} has no number where one was expected") from None
        if not (prob <= 0 and math.isfinite(backoff)):
            raise self.wrong(
                f"{line[:80]!r} has a probability above 1, or a weight that is no number"
            )
        return tuple(parts[1 : k + 1]), (prob, backoff)
