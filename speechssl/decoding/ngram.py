"""N-gram language models: estimated with modified Kneser-Ney smoothing, written and read as ARPA, asked for scores."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speechssl.errors import ConfigError
from speechssl.runtime.log import log

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
SPECIAL = (UNKNOWN, BEGIN, END)  # ids 0, 1, 2
MAX_ORDER = 6  # the most that KenLM takes as it is distributed
# Where a text is too small or too regular to tell: what lmplz takes then.
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
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
        _, first, found, count = np.unique(
            keys, return_index=True, return_inverse=True, return_counts=True
        )
        first = ends[first]
        context.append(ids[-1][first - 1])
        suffix.append(ids[-1][first])
        word.append(text[first])
        begins.append(begins[-1][context[-1]])
        counts.append(count)
        ids.append(np.full(len(text), -1))
        ids[-1][ends] = found.reshape(-1)
    for k in range(
        order - 1
    ):  # all but the longest: in how many words' company a n-gram was seen, not how often
        company = np.bincount(suffix[k + 1], minlength=len(word[k]))
        counts[k] = np.where(begins[k], counts[k], company)
    counts[0][SPECIAL.index(BEGIN)] = 0
    orders: list[Order] = []
    for k in range(order):
        lower = (
            np.full(1, 1 / (size - 1)) if k == 0 else 10 ** orders[-1].log10_prob
        )  # <s> is never predicted
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
                raise ConfigError(
                    f"{word!r} cannot be a word of a language model: it is a mark or holds white space"
                )
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
    counts: Ints,
    context: Ints,
    suffix: Ints,
    lower: Floats,
    discounts: Sequence[float],
    num_contexts: int,
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
            w if (w,) in self._ngrams[0] else UNKNOWN
            for w in context[max(0, len(context) - self.order + 1) :]
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

    def score(
        self, sentence: Sequence[str], *, begin: bool = True, end: bool = True
    ) -> list[float]:
        """log10 probability of each word, and of the end of the sentence after them."""
        said = [*([BEGIN] if begin else []), *sentence, *([END] if end else [])]
        return [self.log10_prob(said[i], said[:i]) for i in range(int(begin), len(said))]


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
