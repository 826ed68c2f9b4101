"""N-gram models as files, for tests that need one."""

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from speechssl.ngrams.arpa_text import file_model_lines
from speechssl.ngrams.kneser_ney import EVERYTHING, Selection, estimate


def write_lm(
    path: Path, sentences: Iterable[Sequence[str]], order: int, selection: Selection = EVERYTHING
) -> None:
    """Estimate a model of sentences, and write it as an ARPA file."""
    path.write_text("".join(lm_lines(sentences, order, selection)), encoding="utf-8")


def lm_lines(
    sentences: Iterable[Sequence[str]], order: int, selection: Selection = EVERYTHING
) -> list[str]:
    """Estimate a model of sentences, and give the parts of its ARPA file."""
    with TemporaryDirectory() as folder:
        model = estimate(sentences, order, Path(folder), selection)
        return list(file_model_lines(model))


def toy_sentences(num: int = 300, seed: int = 0, vocabulary: int = 30) -> list[list[str]]:
    """Draw sentences of a chain whose words like some successors more than others."""
    draws = random.Random(seed)
    words = [f"w{i}" for i in range(vocabulary)]
    found = []
    for _ in range(num):
        at, sentence = draws.randrange(vocabulary), []
        for _ in range(draws.randint(1, 9)):
            sentence.append(words[at])
            at = (at * 3 + int(draws.expovariate(0.7))) % vocabulary
        found.append(sentence)
    return found
