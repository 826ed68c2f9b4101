"""N-gram language models: estimated with modified Kneser-Ney smoothing, written and read as ARPA, asked for scores."""

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from speechssl.data.store import Store, is_store
from speechssl.errors import ConfigError
from speechssl.runtime.log import log

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
SPECIAL = (UNKNOWN, BEGIN, END)  # ids 0, 1, 2
MAX_ORDER = 6  # the most that KenLM takes as it is distributed
# Where a text is too small or too regular to tell: what lmplz takes then.
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
_KENLM = b"mmap lm http://kheafield.com/code"  # how its files begin
_NEVER = -99.0  # log10 probability of <s>, by custom

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Order:
    """All n-grams of one length k, as arrays of one entry each; ids are places in these arrays.

    Attributes:
        context: id of the first k-1 words among the n-grams of length k-1; of unigrams, 0.
        suffix: id of the last k-1 words; of unigrams, 0.
        word: id of the last word.
        log10_prob: of the last word after the others.
        log10_backoff: log10 weight of shorter contexts after this n-gram; 0 for what is no context.
        discounts: what was subtracted from counts of 1, 2, and 3 or more.
    """

    context: Ints
    suffix: Ints
    word: Ints
    log10_prob: Floats
    log10_backoff: Floats
    discounts: tuple[float, float, float]


@dataclass(frozen=True)
class Estimate:
    """An estimated model: the words by id, and its n-grams by length, from 1 on."""

    words: tuple[str, ...]
    orders: tuple[Order, ...]


def estimate(sentences: Iterable[Sequence[str]], order: int) -> Estimate:
    """An interpolated model of ``order``-grams with modified Kneser-Ney smoothing.

    A sentence is a sequence of words, without marks of its ends; an empty one counts for nothing. Every word of the
    text is a word of the model, none is cut off. A word outside has the share that the unigrams' discounts leave to one
    more word.

    Raises:
        ConfigError: ``order`` is not 2..6, there is no sentence, or a word is one of the marks or has white space.

    Source: Chen and Goodman 1998, "An empirical study of smoothing techniques", section 3, with counts at the beginning
    of sentences as in Heafield et al. 2013, "Scalable modified Kneser-Ney language model estimation" (lmplz): n-grams
    that begin with ``<s>`` keep their own counts, as nothing precedes them, and unigrams are interpolated with equal
    shares. Where the counts of an order allow no discounts, they are 0.5, 1 and 1.5, as lmplz's fallback, and a line is
    logged.
    """
    if not 2 <= order <= MAX_ORDER:
        raise ConfigError(f"order is {order}: allowed are 2 to {MAX_ORDER}")
    words, text, place = _text(sentences)
    size = len(words)
    ids = [text]  # by length, for each position of the text: the n-gram that ends there
    context, suffix, counts = (
        [np.zeros(size, np.int64)],
        [np.zeros(size, np.int64)],
        [np.bincount(text, minlength=size)],
    )
    word, begins = [np.arange(size)], [np.arange(size) == SPECIAL.index(BEGIN)]
    for k in range(2, order + 1):
        ends = np.flatnonzero(place >= k - 1)
        keys = ids[-1][ends - 1] * size + text[ends]
        _, first, found, count = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        first = ends[first]
        context.append(ids[-1][first - 1])
        suffix.append(ids[-1][first])
        word.append(text[first])
        begins.append(begins[-1][context[-1]])
        counts.append(count)
        ids.append(np.full(len(text), -1))
        ids[-1][ends] = found.reshape(-1)
    for k in range(order - 1):  # all but the longest: in how many words' company a n-gram was seen, not how often
        company = np.bincount(suffix[k + 1], minlength=len(word[k]))
        counts[k] = np.where(begins[k], counts[k], company)
    counts[0][SPECIAL.index(BEGIN)] = 0
    orders: list[Order] = []
    for k in range(order):
        lower = np.full(1, 1 / (size - 1)) if k == 0 else 10 ** orders[-1].log10_prob  # <s> is never predicted
        discounts = _discounts(counts[k], k + 1)
        contexts = 1 if k == 0 else len(word[k - 1])
        prob, backoff = _interpolated(counts[k], context[k], suffix[k], lower, discounts, contexts)
        with np.errstate(divide="ignore"):
            log10_prob, log10_backoff = np.log10(prob), np.log10(backoff)
        if k == 0:
            log10_prob[SPECIAL.index(BEGIN)] = _NEVER
        else:
            orders[-1].log10_backoff[:] = log10_backoff
        empty = np.zeros(len(prob))
        orders.append(Order(context[k], suffix[k], word[k], log10_prob, empty, discounts))
    return Estimate(words, tuple(orders))


def _text(sentences: Iterable[Sequence[str]]) -> tuple[tuple[str, ...], Ints, Ints]:
    """Words by id, the whole text as ids with marks around each sentence, and each position's place in its sentence."""
    known = {name: i for i, name in enumerate(SPECIAL)}
    text, place = array("q"), array("q")
    for sentence in sentences:
        if not sentence:
            continue
        for position, word in enumerate((BEGIN, *sentence, END)):
            text.append(known.setdefault(word, len(known)))
            place.append(position)
        for word in sentence:
            if word in SPECIAL or word.split() != [word]:
                raise ConfigError(f"{word!r} cannot be a word of a language model: it is a mark or holds white space")
    if not text:
        raise ConfigError("no sentence to estimate a language model from: the texts are empty")
    return tuple(known), np.frombuffer(text, np.int64), np.frombuffer(place, np.int64)


def _discounts(counts: Ints, k: int) -> tuple[float, float, float]:
    """What to subtract from counts of 1, 2, and 3 or more (Chen and Goodman 1998, equation 26)."""
    n1, n2, n3, n4 = (int((counts == c).sum()) for c in (1, 2, 3, 4))
    if min(n1, n2, n3) > 0:
        y = n1 / (n1 + 2 * n2)
        found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        if all(0 < d <= c for d, c in zip(found, (1, 2, 3), strict=True)):
            return found
    log(f"{k}-grams: too few counts of 1 to 4 for discounts of their own; those are 0.5, 1 and 1.5")
    return FALLBACK_DISCOUNTS


def _interpolated(
    counts: Ints, context: Ints, suffix: Ints, lower: Floats, discounts: Sequence[float], num_contexts: int
) -> tuple[Floats, Floats]:
    """Probability of each n-gram's last word, and weight of the lower order in each context.

    ``lower`` holds the probability of each suffix; of unigrams, the one equal share.
    """
    taken = np.array((0.0, *discounts))[np.minimum(counts, 3)]
    total = np.bincount(context, counts, num_contexts)
    # A context that nothing followed (</s>, or <unk>) leaves all to the lower order.
    total_or_1 = np.maximum(total, 1)
    left = np.where(total > 0, np.bincount(context, taken, num_contexts) / total_or_1, 1.0)
    return (counts - taken) / total_or_1[context] + left[context] * lower[suffix], left


def arpa_lines(model: Estimate) -> Iterator[str]:
    """The model as lines of an ARPA file, in the order of lengths, then of ids; log10 to 7 digits after the point."""
    yield "\\data\\\n"
    for k, order in enumerate(model.orders, 1):
        yield f"ngram {k}={len(order.word)}\n"
    texts = [""]
    for k, order in enumerate(model.orders, 1):
        yield f"\n\\{k}-grams:\n"
        last = [model.words[w] for w in order.word.tolist()]
        texts = last if k == 1 else [f"{texts[c]} {w}" for c, w in zip(order.context.tolist(), last, strict=True)]
        rows = zip(order.log10_prob.tolist(), texts, order.log10_backoff.tolist(), strict=True)
        if k == len(model.orders):
            yield from (f"{p:.7f}\t{text}\n" for p, text, _ in rows)
        else:
            yield from (f"{p:.7f}\t{text}\t{b:.7f}\n" for p, text, b in rows)
    yield "\n\\end\\\n"


class NgramModel:
    """An n-gram model in memory, asked for one word at a time.

    Attributes:
        order: length of the longest n-grams.
        words: that it can predict, ``</s>`` and ``<unk>`` among them where the file has them, ``<s>`` not.
    """

    def __init__(self, ngrams: Sequence[dict[tuple[str, ...], tuple[float, float]]]) -> None:
        self._ngrams = ngrams
        self.order = len(ngrams)
        self.words = frozenset(word for (word,) in ngrams[0] if word != BEGIN)

    def log10_prob(self, word: str, context: Sequence[str]) -> float:
        """Of ``word`` after ``context``, of which the last words count; a word it does not have is ``<unk>``.

        A model without ``<unk>`` gives it -100, as KenLM does.
        """
        if word not in self.words:
            word = UNKNOWN
        known = tuple(
            w if (w,) in self._ngrams[0] else UNKNOWN for w in context[max(0, len(context) - self.order + 1) :]
        )
        backoff = 0.0
        for start in range(len(known) + 1):
            history = known[start:]
            found = self._ngrams[len(history)].get((*history, word))
            if found is not None:
                return backoff + found[0]
            if history:
                backoff += self._ngrams[len(history) - 1].get(history, (0.0, 0.0))[1]
        return backoff - 100.0

    def score(self, sentence: Sequence[str], *, begin: bool = True, end: bool = True) -> list[float]:
        """log10 probability of each word, and of the end of the sentence after them."""
        said = [*([BEGIN] if begin else []), *sentence, *([END] if end else [])]
        return [self.log10_prob(said[i], said[:i]) for i in range(int(begin), len(said))]


def read_arpa(path: Path) -> NgramModel:
    """Read an ARPA file; what stands before ``\\data\\`` or after ``\\end\\`` is a comment.

    Raises:
        ConfigError: it cannot be read, is no ARPA file, or has more or fewer n-grams than it says; the line is named.
    """
    with _opened(path) as file:
        return NgramModel(_Arpa(path, file).ngrams())


def arpa_words(path: Path) -> list[str]:
    """The words of an ARPA file without the marks, in its order; no more of it is read.

    Raises:
        ConfigError: as ``read_arpa``.
    """
    with _opened(path) as file:
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
def _opened(path: Path, kind: str = "an ARPA file") -> Iterator[TextIO]:
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            yield file
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path} cannot be read as {kind}: {why}") from error


def read_texts(paths: Iterable[Path], split: str) -> Iterator[str]:
    """The lines of text files, and the transcripts of one split of stores.

    Raises:
        ConfigError: a file cannot be read as UTF-8 text, or is a table, or a store has no transcript there.
    """
    for path in paths:
        if is_store(path):
            store = Store(path)
            texts = [store.record(int(i)).text for i in store.indices([split])]
            if not any(texts):
                there = [name for name in store.splits if any(store.record(int(i)).text for i in store.indices([name]))]
                has = (
                    f"those with some: {', '.join(there)}" if there else "nor in any other: prepare it with transcripts"
                )
                raise ConfigError(f"{path} has no transcripts in split {split}; {has}")
            yield from (text for text in texts if text)
        elif path.exists() and path.suffix.lower() in (".csv", ".tsv", ".json", ".jsonl"):
            raise ConfigError(
                f"{path} is a table, not text: prepare it and give the store, or a file of one text a line"
            )
        else:
            with _opened(path, "text") as file:
                yield from file


def read_words(lm: Path, listed: Path | None) -> list[str]:
    """The words of a language model, each once and without the marks: those listed, one a line, or the ARPA file's.

    Raises:
        ConfigError: a file cannot be read, there is no word, or a KenLM binary comes without its words.
    """
    if listed:
        with _opened(listed, "text") as file:
            found = [word for line in file if (word := line.strip()) and word not in SPECIAL]
    elif is_binary(lm):
        raise ConfigError(f"{lm} is a KenLM binary, which does not tell its words: list them with --words FILE")
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
                raise self.wrong(f"{line[:80]!r} where 'ngram {len(declared) + 1}=...' was expected")
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
            raise self.wrong(f"{line[:80]!r} has a probability above 1, or a weight that is no number")
        return tuple(parts[1 : k + 1]), (prob, backoff)


@dataclass(frozen=True)
class Perplexity:
    """Of a text under a model, as KenLM's ``query`` says it: with and without the words the model does not have."""

    including_unknown: float
    excluding_unknown: float
    num_words: int
    num_unknown: int


def perplexity(model: NgramModel, sentences: Iterable[Sequence[str]]) -> Perplexity:
    """10 to minus the mean log10 probability of words and ends of sentences; empty ones count for nothing.

    Raises:
        ConfigError: there is no sentence.
    """
    total = known_total = 0.0
    words = unknown = 0
    for sentence in filter(None, sentences):
        for word, value in zip((*sentence, END), model.score(sentence), strict=True):
            total += value
            words += 1
            if word in model.words:
                known_total += value
            else:
                unknown += 1
    if not words:
        raise ConfigError("no sentence to measure a language model on: the texts are empty")
    known = words - unknown
    return Perplexity(10 ** (-total / words), 10 ** (-known_total / known), words, unknown)
