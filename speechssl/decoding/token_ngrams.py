"""The language model of a search over tokens: read once for both engines, as KenLM demands it."""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from speechssl.decoding.arpa import read_arpa
from speechssl.decoding.ngram import BEGIN, END, NO_WEIGHTS, UNKNOWN, NgramModel, Ngrams

# log10 probability of what cannot be, such as <s> behind other tokens: KenLM reads no infinity.
_IMPOSSIBLE = -99.0


def read_token_ngrams(path: Path) -> NgramModel:
    """Read an ARPA file, and complete it as KenLM demands it.

    KenLM asks for the marks of a sentence, for n-grams of two words at least, and for the two
    shorter n-grams in every n-gram. What is missing is added with the score that it has by backing
    off.

    Raises:
        ConfigError: as ``read_arpa``.
    """
    return NgramModel(_completed(read_arpa(path)))


def kenlm_arpa(path: Path) -> bytes:
    """Read an ARPA file, and write it in the form that KenLM accepts: the same model.

    Raises:
        ConfigError: as ``read_arpa``.
    """
    file = path.stat() if path.exists() else None
    stamp = (file.st_size, file.st_mtime_ns) if file else None
    return _written(path, stamp)


@lru_cache(maxsize=1)
def _written(path: Path, stamp: tuple[int, int] | None) -> bytes:
    """Write a file once for all the weights that are tried with it."""
    model = read_token_ngrams(path)
    return "".join(_lines(model.ngrams)).encode()


def _completed(model: NgramModel) -> list[Ngrams]:
    """Add the n-grams that KenLM wants to find."""
    orders = [dict(ngrams) for ngrams in model.ngrams]
    if len(orders) == 1:
        # Nothing backs off to the shortest n-grams where there are no others.
        orders = [{words: (prob, 0.0) for words, (prob, _) in orders[0].items()}, {}]

    unigrams = orders[0]
    unigrams.setdefault((UNKNOWN,), (model.log10_prob(UNKNOWN, ()), 0.0))
    unigrams.setdefault((BEGIN,), (_IMPOSSIBLE, 0.0))
    unigrams.setdefault((END,), (model.log10_prob(END, ()), 0.0))

    with_marks = NgramModel(orders)
    for shorter, ngrams in pairwise(orders):
        going_on = next((words for words in shorter if words[-1] not in (UNKNOWN, END)), None)
        if not ngrams and going_on is not None:
            ngrams[*going_on, END] = (with_marks.log10_prob(END, going_on), 0.0)
    while not orders[-1]:
        orders.pop()

    # The longest first, so that the parts of parts are added too.
    for length in range(len(orders) - 1, 0, -1):
        shorter = orders[length - 1]
        for ngram in orders[length]:
            for part in (ngram[:-1], ngram[1:]):
                if part not in shorter:
                    backed_off = with_marks.log10_prob(part[-1], part[:-1])
                    shorter[part] = (backed_off, NO_WEIGHTS[1])

    return orders


def _lines(orders: Sequence[Ngrams]) -> Iterator[str]:
    yield "\\data\\\n"
    for length, ngrams in enumerate(orders, start=1):
        yield f"ngram {length}={len(ngrams)}\n"

    for length, ngrams in enumerate(orders, start=1):
        yield f"\n\\{length}-grams:\n"
        is_longest = length == len(orders)
        for words, (log10_prob, log10_backoff) in ngrams.items():
            prob = log10_prob if math.isfinite(log10_prob) else _IMPOSSIBLE
            backoff = "" if is_longest else f"\t{log10_backoff!r}"
            yield f"{prob!r}\t{' '.join(words)}{backoff}\n"

    yield "\n\\end\\\n"
