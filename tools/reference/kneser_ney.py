"""Modified Kneser-Ney smoothing as its formulas have it: counters of tuples, worked out when asked.

Chen and Goodman 1998, section 3, with the beginnings of sentences, the cut-offs and the limited
vocabulary of KenLM's lmplz.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
FALLBACK = (0.0, 0.5, 1.0, 1.5)

Ngram = tuple[str, ...]


class KneserNey:
    """A model of sentences.

    Args:
        cutoffs: by length: n-grams seen no more often are left out.
        vocabulary: n-grams with other words are left out; None keeps all.

    Attributes:
        ngrams: those that the model has, without those that begin with ``<s>`` twice.
        words: those that can be predicted.
    """

    def __init__(
        self,
        sentences: Sequence[Sequence[str]],
        order: int,
        cutoffs: Sequence[int] = (0, 0, 0, 0, 0, 0),
        vocabulary: Collection[str] | None = None,
    ) -> None:
        self.order = order
        padded = [(BEGIN, *sentence, END) for sentence in sentences if sentence]
        raw = [
            Counter(s[i : i + k] for s in padded for i in range(len(s) - k + 1))
            for k in range(1, order + 1)
        ]
        raw[0].pop((BEGIN,))

        self.counts = [self._adjusted(raw, k) for k in range(order)]
        self.discounts = [of_counts(counts) for counts in self.counts]

        known = {word for (word,) in raw[0]} if vocabulary is None else set(vocabulary)
        known |= {BEGIN, END}
        self.ngrams = {
            ngram
            for counts, cutoff in zip(raw, cutoffs, strict=False)
            for ngram, count in counts.items()
            if (count > cutoff or ngram == (END,)) and known.issuperset(ngram)
        }
        self.words = {ngram[0] for ngram in self.ngrams if len(ngram) == 1} | {UNKNOWN}

        self.after: dict[Ngram, list[Ngram]] = defaultdict(list)
        for counts in self.counts:
            for ngram in counts:
                self.after[ngram[:-1]].append(ngram)

    def _adjusted(self, raw: list[Counter[Ngram]], k: int) -> dict[Ngram, int]:
        """Counts of n-grams of k + 1 words, by the words before them."""
        if k == self.order - 1:
            return dict(raw[k])

        before: dict[Ngram, set[str]] = defaultdict(set)
        for longer in raw[k + 1]:
            before[longer[1:]].add(longer[0])
        return {g: c if g[0] == BEGIN else len(before[g]) for g, c in raw[k].items()}

    def backoff(self, context: Ngram) -> float:
        """The weight of the shorter context: what discounts and n-grams that are left out leave."""
        counts = self.counts[len(context)]
        discounts = self.discounts[len(context)]
        total, left = 0, 0.0
        for ngram in self.after[context]:
            count = counts[ngram]
            total += count
            left += discounts[min(count, 3)] if ngram in self.ngrams else count
        return left / total if total else 1.0

    def prob(self, word: str, context: Ngram) -> float:
        """The probability of a word after a context shorter than the order."""
        lower = self.prob(word, context[1:]) if context else 1 / len(self.words)
        if context and context not in self.ngrams and context != (BEGIN,):
            return lower

        share = 0.0
        ngram = (*context, word)
        if ngram in self.ngrams:
            counts = self.counts[len(context)]
            total = sum(counts[other] for other in self.after[context])
            discount = self.discounts[len(context)][min(counts[ngram], 3)]
            share = (counts[ngram] - discount) / total
        return share + self.backoff(context) * lower


def of_counts(counts: dict[Ngram, int]) -> tuple[float, ...]:
    """Discounts of counts of 0, 1, 2, and 3 or more (equation 26)."""
    n = Counter(counts.values())
    if not (n[1] and n[2] and n[3]):
        return FALLBACK
    y = n[1] / (n[1] + 2 * n[2])
    found = tuple(c - (c + 1) * y * n[c + 1] / n[c] for c in (1, 2, 3))
    ok = all(0 < d <= c for c, d in enumerate(found, 1))
    return (0.0, *found) if ok else FALLBACK
