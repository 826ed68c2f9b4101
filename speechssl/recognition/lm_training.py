"""``build_lm``: from texts and transcripts to an n-gram language model for a recogniser."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from speechssl.data.store import Store, is_store
from speechssl.decoding.arpa import arpa_lines, opened, read_arpa
from speechssl.decoding.lexicon import token_name
from speechssl.decoding.ngram import Estimate, Perplexity, estimate, perplexity
from speechssl.errors import ConfigError
from speechssl.recognition.model import load_ctc
from speechssl.runtime.log import log
from speechssl.storage.atomic import write_atomic
from speechssl.text.normalise import normalise

# What is done to a text when neither the user nor a recogniser says.
NORMALISER = "basic-1"
TABLE_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl")

# From a normalised line to the words of an n-gram model; None where the recogniser cannot write it.
SplitLine = Callable[[str], list[str] | None]


class LmCorpus:
    """How texts become sentences of a language model: over words, or over a recogniser's tokens.

    Args:
        normaliser: what is done to each text; None takes the recogniser's, or basic-1.
        tokens_of: run or model folder whose tokens the n-grams are of; None means words.
    """

    def __init__(self, normaliser: str | None = None, tokens_of: Path | None = None) -> None:
        self.unit = "words"
        self.split_line: SplitLine = str.split
        default = NORMALISER

        if tokens_of is not None:
            model = load_ctc(tokens_of)
            tokenizer = model.tokenizer
            default = model.normaliser

            def tokens(line: str) -> list[str] | None:
                if tokenizer.has_unknown(line):
                    return None
                return [token_name(tokenizer.texts[token]) for token in tokenizer.encode(line)]

            self.unit = "tokens"
            self.split_line = tokens

        self.normaliser = normaliser or default

    def sentences(self, paths: Sequence[Path], split: str) -> Iterator[list[str]]:
        """Read the sentences of text files and of one split of stores.

        How many there were is logged at the end, and how many a recogniser could not write.

        Raises:
            ConfigError: see ``read_texts``.
        """
        num_used = 0
        num_lost = 0

        for text in read_texts(paths, split):
            sentence = self.split_line(normalise(text, self.normaliser))
            if sentence is None:
                num_lost += 1
            else:
                num_used += 1
                yield sentence

        if num_lost:
            log(f"{num_lost} sentences hold characters that the recogniser does not have: left out")
        log(f"{num_used} sentences of {', '.join(map(str, paths))}")


def build_lm(
    texts: Sequence[Path], out: Path, order: int, corpus: LmCorpus, split: str = "train"
) -> Estimate:
    """Estimate n-grams of up to ``order`` (modified Kneser-Ney) and write them as an ARPA file.

    Args:
        texts: text files, a sentence a line, and stores with transcripts.
        split: whose transcripts to take of a store.

    Raises:
        ConfigError: a text cannot be read, or the order is not 2 to 6.
    """
    model = estimate(corpus.sentences(texts, split), order)
    write_atomic(out, arpa_lines(model))
    log(f"{out} holds n-grams of up to {order} {corpus.unit}")
    return model


def held_out_perplexity(lm: Path, text: Path, corpus: LmCorpus, split: str = "dev") -> Perplexity:
    """Measure the perplexity of an ARPA file on a text or a store that it was not made from."""
    return perplexity(read_arpa(lm), corpus.sentences([text], split))


def read_texts(paths: Iterable[Path], split: str) -> Iterator[str]:
    """Read the lines of text files, and the transcripts of one split of stores.

    Raises:
        ConfigError: a file is not text in UTF-8 or is a table, or a store has no transcript there.
    """
    for path in paths:
        if is_store(path):
            yield from _transcripts(Store(path), split)
        elif path.exists() and path.suffix.lower() in TABLE_SUFFIXES:
            raise ConfigError(
                f"{path} is a table, not text: prepare it and give the store, "
                "or a file of one text a line"
            )
        else:
            with opened(path, "text") as file:
                yield from file


def _transcripts(store: Store, split: str) -> Iterator[str]:
    texts = _texts_of(store, split)
    if texts:
        yield from texts
        return

    others = [name for name in store.splits if _texts_of(store, name)]
    remedy = "nor in any other: prepare it with transcripts"
    if others:
        remedy = f"those with some: {', '.join(others)}"
    raise ConfigError(f"{store.path} has no transcripts in split {split}; {remedy}")


def _texts_of(store: Store, split: str) -> list[str]:
    """Give the transcripts of one split that say anything."""
    records = (store.record(int(index)) for index in store.indices([split]))
    return [record.text for record in records if record.text]
