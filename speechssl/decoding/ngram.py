"""N-gram language models: estimation with modified Kneser-Ney smoothing, scores, perplexity."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from speechssl.errors import ConfigError
from speechssl.runtime.log import log

# Marks of an ARPA file: begin and end of a sentence, and any word that the model does not have.
BEGIN = "<s>"
END = "</s>"
UNKNOWN = "<unk>"
# Their order is that of their ids: 0, 1 and 2.
SPECIAL = (UNKNOWN, BEGIN, END)
_BEGIN_ID = SPECIAL.index(BEGIN)

# The longest n-grams, in words: the most that KenLM takes as it is distributed.
MAX_ORDER = 6

# Subtracted from counts of 1, 2, and 3 or more where a text is too small or too regular to
# estimate discounts. KenLM's lmplz takes the same.
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)

# log10 probability of <s>, by custom of ARPA files: nothing predicts it.
_NEVER = -99.0
# log10 probability of an unknown word under a model without <unk>, as KenLM has it.
_WITHOUT_UNKNOWN = -100.0

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
# What is subtracted from counts of 1, 2, and 3 or more.
Discounts = tuple[float, float, float]
# N-grams of one length: log10 probability of the last word, log10 backoff weight.
Ngrams = dict[tuple[str, ...], tuple[float, float]]

# Weights of an n-gram that a model does not have: its backoff costs nothing.
_NO_WEIGHTS = (0.0, 0.0)


@dataclass(frozen=True)
class Order:
    """All n-grams of one length k, as arrays of one entry each; ids are places in these arrays.

    Attributes:
        context: id of the first k-1 words among the n-grams of length k-1; of unigrams, 0.
        suffix: id of the last k-1 words; of unigrams, 0.
        word: id of the last word.
        log10_prob: of the last word after the others.
        log10_backoff: log10 weight of shorter contexts after this n-gram; 0 where nothing longer
            begins with it.
        discounts: what was subtracted from counts.
    """

    context: Ints
    suffix: Ints
    word: Ints
    log10_prob: Floats
    log10_backoff: Floats
    discounts: Discounts


@dataclass(frozen=True)
class Estimate:
    """An estimated model: the words by id, and the n-grams by length, from 1 on."""

    words: tuple[str, ...]
    orders: tuple[Order, ...]


@dataclass(frozen=True)
class Perplexity:
    """Perplexity of a text, as KenLM's ``query`` prints it: with and without unknown words."""

    including_unknown: float
    excluding_unknown: float
    num_words: int
    num_unknown: int


class NgramModel:
    """An n-gram model in memory, which scores one word at a time.

    Attributes:
        order: length of the longest n-grams.
        words: words that it can predict. ``</s>`` is among them, ``<unk>`` where the file has it,
            ``<s>`` never.
    """

    def __init__(self, ngrams: Sequence[Ngrams]) -> None:
        """Take the n-grams of each length, from 1 on."""
        self._ngrams = ngrams
        self.order = len(ngrams)

        words = {word for (word,) in ngrams[0]}
        words.discard(BEGIN)
        self.words = frozenset(words)

    def log10_prob(self, word: str, context: Sequence[str]) -> float:
        """Look up the log10 probability of ``word`` after ``context``.

        Only the last ``order - 1`` words of the context count. A word that the model does not have
        is ``<unk>``; a model without ``<unk>`` gives it -100, as KenLM does.
        """
        if word not in self.words:
            word = UNKNOWN

        # Counted from the front: a slice of the last 0 words would be the whole context.
        max_context = self.order - 1
        context_start = max(0, len(context) - max_context)
        recent = context[context_start:]

        unigrams = self._ngrams[0]
        known = tuple(other if (other,) in unigrams else UNKNOWN for other in recent)

        # From the longest context to none: each step back costs the backoff weight of the context
        # that was not found with this word.
        backoff = 0.0
        for start in range(len(known) + 1):
            history = known[start:]
            history_length = len(history)

            # Unigrams come first in the list, so place n holds the n-grams of n + 1 words.
            longer = self._ngrams[history_length]
            ngram = longer.get((*history, word))
            if ngram is not None:
                return backoff + ngram[0]

            if history:
                same_length = self._ngrams[history_length - 1]
                weights = same_length.get(history, _NO_WEIGHTS)
                backoff += weights[1]

        return backoff + _WITHOUT_UNKNOWN

    def score(
        self, sentence: Sequence[str], *, begin: bool = True, end: bool = True
    ) -> list[float]:
        """Score a sentence: log10 probability of each word, then of the end of the sentence.

        Args:
            begin: whether the words stand at the beginning of a sentence.
            end: whether the sentence ends behind them.
        """
        marked = list(sentence)
        if begin:
            marked.insert(0, BEGIN)
        if end:
            marked.append(END)

        # Nothing predicts <s>: it is context only.
        first = 1 if begin else 0

        scores: list[float] = []
        for position in range(first, len(marked)):
            word = marked[position]
            context = marked[:position]
            scores.append(self.log10_prob(word, context))
        return scores


def estimate(sentences: Iterable[Sequence[str]], order: int) -> Estimate:
    """Estimate an interpolated ``order``-gram model with modified Kneser-Ney smoothing.

    A sentence is a sequence of words, without marks of its ends; empty sentences are skipped. Every
    word of the text is in the model: no cut-off. An unknown word gets the share that the unigrams'
    discounts leave to one more word.

    Raises:
        ConfigError: ``order`` is not 2..6, there is no sentence, or a word is one of the marks or
            holds white space.

    Source: Chen and Goodman 1998, "An empirical study of smoothing techniques", section 3. The
    beginning of sentences follows Heafield et al. 2013, "Scalable modified Kneser-Ney language
    model estimation" (lmplz): n-grams that begin with ``<s>`` keep their own counts, as nothing
    precedes them, and unigrams are interpolated with equal shares. Where the counts of a length
    allow no discounts, these are 0.5, 1 and 1.5, as in lmplz, and a line is logged.
    """
    if not 2 <= order <= MAX_ORDER:
        raise ConfigError(f"order is {order}: allowed are 2 to {MAX_ORDER}")

    words, text, place = _text(sentences)
    num_words = len(words)
    counted = _count_ngrams(text, place, order, num_words)
    counts_by_length = _continuation_counts(counted)

    orders: list[Order] = []
    for ngrams, counts in zip(counted, counts_by_length, strict=True):
        if not orders:
            num_contexts = 1
            # Equal shares for all words but <s>, which nothing predicts.
            equal_share = 1 / (num_words - 1)
            lower = np.full(1, equal_share)
        else:
            shorter = orders[-1]
            num_contexts = len(shorter.word)
            lower = 10**shorter.log10_prob

        length = len(orders) + 1
        discounts = _discounts(counts, length)
        prob, backoff = _interpolated(
            counts, ngrams.context, ngrams.suffix, lower, discounts, num_contexts
        )
        with np.errstate(divide="ignore"):
            log10_prob = np.log10(prob)
            log10_backoff = np.log10(backoff)

        if not orders:
            log10_prob[_BEGIN_ID] = _NEVER
        else:
            # Backoff weights belong to the contexts, which are the n-grams one shorter.
            shorter.log10_backoff[:] = log10_backoff

        # The next length fills in the backoff weights; the longest n-grams keep zeros.
        estimated = Order(
            context=ngrams.context,
            suffix=ngrams.suffix,
            word=ngrams.word,
            log10_prob=log10_prob,
            log10_backoff=np.zeros(len(prob)),
            discounts=discounts,
        )
        orders.append(estimated)

    return Estimate(words, tuple(orders))


def perplexity(model: NgramModel, sentences: Iterable[Sequence[str]]) -> Perplexity:
    """Measure how well a model predicts a text; empty sentences are skipped.

    The perplexity is 10 ** -m, where m is the mean log10 probability of words and sentence ends.

    Raises:
        ConfigError: there is no sentence.
    """
    total = 0.0
    known_total = 0.0
    num_words = 0
    num_unknown = 0
    for sentence in sentences:
        if not sentence:
            continue

        predicted = (*sentence, END)
        scores = model.score(sentence)
        for word, value in zip(predicted, scores, strict=True):
            total += value
            num_words += 1

            if word in model.words:
                known_total += value
            else:
                num_unknown += 1

    if not num_words:
        raise ConfigError("no sentence to measure a language model on: the texts are empty")

    num_known = num_words - num_unknown
    known_exponent = -known_total / num_known
    exponent = -total / num_words

    including_unknown = 10**exponent
    excluding_unknown = 10**known_exponent
    return Perplexity(including_unknown, excluding_unknown, num_words, num_unknown)


@dataclass(frozen=True)
class _Counted:
    """N-grams of one length with their counts; ``context``, ``suffix``, ``word`` as in ``Order``.

    ``begins_sentence``: whether the first word is ``<s>``.
    """

    context: Ints
    suffix: Ints
    word: Ints
    counts: Ints
    begins_sentence: NDArray[np.bool_]


def _text(sentences: Iterable[Sequence[str]]) -> tuple[tuple[str, ...], Ints, Ints]:
    """Number the words.

    Returns:
        words: by id.
        text: (N,) ids of all sentences one after the other, each between ``<s>`` and ``</s>``.
        place: (N,) place of each in its own sentence, ``<s>`` being 0.
    """
    ids = {name: i for i, name in enumerate(SPECIAL)}
    # Arrays hold 8 bytes a word where lists would hold an object each: texts are large.
    text = array("q")
    place = array("q")

    for sentence in sentences:
        if not sentence:
            continue

        marked = (BEGIN, *sentence, END)
        for position, word in enumerate(marked):
            # A new word gets the next id.
            word_id = ids.setdefault(word, len(ids))
            text.append(word_id)
            place.append(position)

        for word in sentence:
            has_space = word.split() != [word]
            if has_space or word in SPECIAL:
                raise ConfigError(
                    f"{word!r} cannot be a word of a language model: "
                    "it is a mark or holds white space"
                )

    if not text:
        raise ConfigError("no sentence to estimate a language model from: the texts are empty")

    # Views of the same memory, no copies.
    text_ids = np.frombuffer(text, np.int64)
    places = np.frombuffer(place, np.int64)
    return tuple(ids), text_ids, places


def _count_ngrams(text: Ints, place: Ints, order: int, num_words: int) -> list[_Counted]:
    """Find the different n-grams of each length, from 1 to ``order``, and count them."""
    word_ids = np.arange(num_words)
    word_counts = np.bincount(text, minlength=num_words)
    # The context of a unigram is the empty one, and so is what is left without its first word.
    nothing = np.zeros(num_words, np.int64)
    unigrams = _Counted(
        context=nothing,
        suffix=nothing,
        word=word_ids,
        counts=word_counts,
        begins_sentence=word_ids == _BEGIN_ID,
    )

    counted = [unigrams]
    # (N,) id of the n-gram that ends at each position of the text; -1 where a sentence is shorter.
    shorter_ids = text
    for length in range(2, order + 1):
        ends = np.flatnonzero(place >= length - 1)

        # One number for each n-gram: all its words but the last, by id, and the last one.
        # They are as many as the words of the text, so memory for them is taken only once.
        keys = shorter_ids[ends - 1] * num_words
        keys += text[ends]
        _, first_index, ids, counts = np.unique(
            keys, return_index=True, return_inverse=True, return_counts=True
        )

        # Where in the text each different n-gram ends for the first time.
        first_end = ends[first_index]
        context = shorter_ids[first_end - 1]
        shorter = counted[-1]
        ngrams = _Counted(
            context=context,
            suffix=shorter_ids[first_end],
            word=text[first_end],
            counts=counts,
            begins_sentence=shorter.begins_sentence[context],
        )
        counted.append(ngrams)

        longer_ids = np.full(len(text), -1)
        longer_ids[ends] = ids.reshape(-1)
        shorter_ids = longer_ids

    return counted


def _continuation_counts(counted: Sequence[_Counted]) -> list[Ints]:
    """Replace the counts of all but the longest n-grams by the number of words seen before them.

    Nothing stands before ``<s>``, so n-grams that begin with it keep their counts.
    """
    by_length: list[Ints] = []
    for ngrams, longer in pairwise(counted):
        num_ngrams = len(ngrams.word)
        words_before = np.bincount(longer.suffix, minlength=num_ngrams)
        continued = np.where(ngrams.begins_sentence, ngrams.counts, words_before)
        by_length.append(continued)

    longest = counted[-1]
    by_length.append(longest.counts)

    # <s> is never predicted, so it takes no part in the unigrams' probabilities.
    unigram_counts = by_length[0]
    unigram_counts[_BEGIN_ID] = 0
    return by_length


def _discounts(counts: Ints, length: int) -> Discounts:
    """Estimate what to subtract from counts of 1, 2, and 3 or more.

    With n1 to n4 n-grams of counts 1 to 4 and Y = n1 / (n1 + 2 n2), the discounts are
    1 - 2 Y n2 / n1, 2 - 3 Y n3 / n2 and 3 - 4 Y n4 / n3 (Chen and Goodman 1998, equation 26).
    """
    # Counts above 4 share the last place; nothing but 1 to 4 is read.
    occurrences = np.bincount(np.minimum(counts, 5), minlength=6)
    _, n1, n2, n3, n4, _ = occurrences.tolist()

    if min(n1, n2, n3) > 0:
        y = n1 / (n1 + 2 * n2)
        one = 1 - 2 * y * n2 / n1
        two = 2 - 3 * y * n3 / n2
        three = 3 - 4 * y * n4 / n3

        # An irregular text can ask for discounts that are negative or above the count itself.
        are_valid = 0 < one <= 1 and 0 < two <= 2 and 0 < three <= 3
        if are_valid:
            return one, two, three

    log(
        f"{length}-grams: too few counts of 1 to 4 for discounts of their own; "
        "those are 0.5, 1 and 1.5"
    )
    return FALLBACK_DISCOUNTS


def _interpolated(
    counts: Ints,
    context: Ints,
    suffix: Ints,
    lower: Floats,
    discounts: Sequence[float],
    num_contexts: int,
) -> tuple[Floats, Floats]:
    """Interpolate discounted counts with the probabilities of the next shorter n-grams.

    p(w | h) = (c(h w) - d(c(h w))) / c(h) + b(h) p(w | h without its first word)

    where c counts, d is the discount of a count, c(h) is the sum of c(h w) over all words w, and
    b(h) is what the discounts leave over: the sum of d(c(h w)) over w, divided by c(h).

    Args:
        counts: (N,) of each n-gram.
        context: (N,) id of h.
        suffix: (N,) id of the n-gram without its first word.
        lower: probability of each suffix; for unigrams, one equal share.
        discounts: of counts of 1, 2, and 3 or more.
        num_contexts: number of different h, C.

    Returns:
        probability: (N,) of each n-gram's last word after its context.
        backoff: (C,) weight b of the shorter context.
    """
    # A count of 0 has no discount, and all above 3 have that of 3.
    discount_of_count = np.array((0.0, *discounts))
    discounted = discount_of_count[np.minimum(counts, 3)]

    context_counts = np.bincount(context, counts, num_contexts)
    context_discounts = np.bincount(context, discounted, num_contexts)

    # A context that nothing followed (</s>, or <unk>) leaves all to the lower order.
    divisor = np.maximum(context_counts, 1)
    left_over = context_discounts / divisor
    backoff = np.where(context_counts > 0, left_over, 1.0)

    own_share = (counts - discounted) / divisor[context]
    lower_share = backoff[context] * lower[suffix]
    return own_share + lower_share, backoff
