"""The words of texts, of stores and of language models, and how often each occurs."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from speechssl.data.store import Store, is_store
from speechssl.decoding.arpa import read_words
from speechssl.errors import ConfigError
from speechssl.ngrams.arpa_table import is_arpa
from speechssl.recognition.lm_training import read_texts
from speechssl.text.normalise import normalise


def word_counts(paths: Sequence[Path], normaliser: str, split: str | None = None) -> Counter[str]:
    """Count the words of text files, of stores' transcripts and of ARPA files.

    Args:
        normaliser: what is done to each text.
        split: whose transcripts to take of a store; None takes all.

    Returns:
        how often each word occurs; once for a word of an ARPA file.

    Raises:
        ConfigError: a file cannot be read, or there is no word in all of them.
    """
    counts: Counter[str] = Counter()
    for path in paths:
        for text in _texts(path, split):
            counts.update(normalise(text, normaliser).split())

    if not counts:
        raise ConfigError(f"{', '.join(map(str, paths))}: not one word: give texts that have some")
    return counts


def _texts(path: Path, split: str | None) -> Iterator[str]:
    if is_store(path) and split is None:
        store = Store(path)
        has_texts = False
        for index in store.indices():
            text = store.record(int(index)).text
            if text:
                has_texts = True
                yield text

        if not has_texts:
            raise ConfigError(f"{path} has no transcripts: prepare it with transcripts")
    elif path.is_file() and is_arpa(path):
        yield from read_words(path, None)
    else:
        yield from read_texts([path], split or "train")
