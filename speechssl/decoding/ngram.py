"""N-gram language models: scores and perplexity."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from speechssl.errors import ConfigError

# Marks of an ARPA file: begin and end of a sentence, and any word that the model does not have.
BEGIN = "<s>"
END = "</s>"
UNKNOWN = "<unk>"
# Their order is that of their ids: 0, 1 and 2.
SPECIAL = (UNKNOWN, BEGIN, END)

# The longest n-grams, in words: the most that KenLM takes as it is distributed.
MAX_ORDER = 6

# log10 probability of an unknown word under a model without <unk>, as KenLM has it.
_WITHOUT_UNKNOWN = -100.0

# N-grams of one length: log10 probability of the last word, log10 backoff weight.
Ngrams = dict[tuple[str, ...], tuple[float, float]]

# Weights of an n-gram that a model does not have: its backoff costs nothing.
NO_WEIGHTS = (0.0, 0.0)


@dataclass(frozen=True)
class Perplexity:
    """Perplexity of a text, as KenLM's ``query`` prints it: with and without unknown words.

    Attributes:
        excluding_unknown: not a number where the model knows no word of the text.
        num_words: words and sentence ends.
    """

    including_unknown: float
    excluding_unknown: float
    num_words: int
    num_unknown: int


class NgramModel:
    """An n-gram model in memory, which scores one word at a time.

    Attributes:
        ngrams: by length, from 1 on.
        order: length of the longest n-grams.
        num_ngrams: n-grams of all lengths.
        words: words that it can predict. ``</s>`` is among them, ``<unk>`` where the file has it,
            ``<s>`` never.
    """

    def __init__(self, ngrams: Sequence[Ngrams]) -> None:
        """Take the n-grams of each length, from 1 on."""
        self.ngrams = ngrams
        self.order = len(ngrams)
        self.num_ngrams = sum(map(len, ngrams))

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

        unigrams = self.ngrams[0]
        known = tuple(other if (other,) in unigrams else UNKNOWN for other in recent)

        # From the longest context to none: each step back costs the backoff weight of the context
        # that was not found with this word.
        backoff = 0.0
        for start in range(len(known) + 1):
            history = known[start:]
            history_length = len(history)

            # Unigrams come first in the list, so place n holds the n-grams of n + 1 words.
            longer = self.ngrams[history_length]
            ngram = longer.get((*history, word))
            if ngram is not None:
                return backoff + ngram[0]

            if history:
                same_length = self.ngrams[history_length - 1]
                weights = same_length.get(history, NO_WEIGHTS)
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
            context = marked[max(0, position - self.order) : position]
            scores.append(self.log10_prob(word, context))
        return scores


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

    exponent = -total / num_words
    including_unknown = 10**exponent

    num_known = num_words - num_unknown
    if num_known:
        known_exponent = -known_total / num_known
        excluding_unknown = 10**known_exponent
    else:
        excluding_unknown = math.nan

    return Perplexity(including_unknown, excluding_unknown, num_words, num_unknown)
