"""``build_lm``: from texts and transcripts to an n-gram language model for a recogniser."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from speechssl.data.store import Store, is_store, sha256_of
from speechssl.decoding.lexicon import token_names
from speechssl.decoding.lm_unit import recorded_unit, unit_comment
from speechssl.decoding.ngram import Perplexity, perplexity
from speechssl.errors import CheckpointError, ConfigError
from speechssl.ngrams.arpa_table import is_arpa, read_table
from speechssl.ngrams.arpa_text import Floats, blocks_of_file, file_model_lines
from speechssl.ngrams.entropy_pruning import prune_by_entropy
from speechssl.ngrams.held_out import Sentences, model_for, word_probabilities
from speechssl.ngrams.kneser_ney import EVERYTHING, Discounts, Selection, estimate
from speechssl.ngrams.mixture import best_weights, mix
from speechssl.ngrams.table import NgramTable, blocks_of_table, table_of_files
from speechssl.runtime.log import log
from speechssl.runtime.memory import peak_memory_mb
from speechssl.storage.atomic import write_atomic
from speechssl.storage.text_files import open_text
from speechssl.storage.wrong_paths import kind_of_path
from speechssl.text.marks import Marks
from speechssl.text.normalise import DEFAULT_NORMALISER, normalise
from speechssl.text.plausible_lexicon import are_lexicon
from speechssl.text.tokenizers import load_tokenizer
from speechssl.text.unicode_words import is_unspaced
from speechssl.text.word_spaces import are_without_word_spaces
from speechssl.text.words_or_characters import words_or_characters

TABLE_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl")

# Of a text without spaces between words: characters of a word on average, from which on it cannot
# have been parted into words, and the sentences that are looked at.
UNPARTED_CHARACTERS = 5
NUM_LOOKED_AT = 1000

# From a normalised line to the words of an n-gram model; None where the recogniser cannot write it.
SplitLine = Callable[[str], list[str] | None]

# Lines by which a pronunciation lexicon is known that is given as a text.
_LINES_OF_LEXICON = 5000


class LmCorpus:
    """How texts become sentences of a language model: over words, or over a recogniser's tokens.

    Args:
        normaliser: what is done to each text; None takes the recogniser's, or the default.
        tokens_of: run or model folder whose tokens the n-grams are of; None means words.
    """

    def __init__(self, normaliser: str | None = None, tokens_of: Path | None = None) -> None:
        self.unit = "words"
        self.split_line: SplitLine = str.split
        default = DEFAULT_NORMALISER

        if tokens_of is not None:
            # Only here: this imports torch, which a model of words does without.
            from speechssl.storage.checkpoint import load_record
            from speechssl.storage.saved_folders import model_folder

            # The tokenizer and the normaliser, without the network.
            folder = model_folder(tokens_of)
            record = load_record(folder)
            if record.get("kind") != "ctc":
                raise CheckpointError(
                    f"{folder} holds an encoder without a CTC head: "
                    "fine-tune it first (speechssl finetune)"
                )
            tokenizer = load_tokenizer(folder)
            default = str(record["normaliser"])

            names = token_names(tokenizer)

            def tokens(line: str) -> list[str] | None:
                if tokenizer.has_unknown(line):
                    return None
                return [names[token] for token in tokenizer.encode(line)]

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
        first_lines: list[str] = []

        for text in read_texts(paths, split):
            line = normalise(text, self.normaliser)
            if len(first_lines) < NUM_LOOKED_AT:
                first_lines.append(line)

            sentence = self.split_line(line)
            if sentence is None:
                num_lost += 1
            else:
                num_used += 1
                yield sentence

        if num_lost:
            log(f"{num_lost} sentences hold characters that the recogniser does not have: left out")
        log(f"{num_used} sentences of {', '.join(map(str, paths))}")
        if self.unit == "words":
            _say_if_unparted(first_lines)


def _say_if_unparted(lines: Sequence[str]) -> None:
    """Say that what stands between spaces is no word, in a script without spaces between words."""
    if not are_without_word_spaces(lines):
        return

    # Words of other scripts among them are words in any case.
    words = [word for line in lines for word in line.split() if is_unspaced(word[0])]
    num_characters = sum(len(words_or_characters(word)) for word in words)
    if num_characters > UNPARTED_CHARACTERS * len(words):
        log(
            f"the words of these texts, such as {max(words, key=len)!r}, have "
            f"{num_characters / len(words):.1f} characters on average: part the texts into words "
            "by spaces, or make the model over a recogniser's tokens with --tokens-of MODEL"
        )


@dataclass(frozen=True)
class LmPlan:
    """What language model is made of texts.

    Attributes:
        order: length of the longest n-grams.
        selection: which words and n-grams of the texts it holds.
        others: ARPA files, texts and stores that are mixed in.
        entropy: n-grams that raise the perplexity by a smaller share are left out; 0 leaves out
            none.
        held_out: text or store to measure the perplexity of, and to find weights on.
        split: whose transcripts to take of stores.
        held_out_split: the same of ``held_out``.
    """

    order: int
    selection: Selection = EVERYTHING
    others: tuple[Path, ...] = ()
    entropy: float = 0.0
    held_out: Path | None = None
    split: str = "train"
    held_out_split: str = "dev"

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            ConfigError: models are to be mixed without a text to find weights on, or the threshold
                is not a number of 0 or more.
        """
        if self.others and self.held_out is None:
            raise ConfigError("to mix models, give a text to find their weights on: --held-out")
        if not 0 <= self.entropy < math.inf:
            raise ConfigError(f"--prune-entropy is {self.entropy}: give a small number, as 1e-8")


@dataclass(frozen=True)
class Ingredient:
    """A model that went into another: its name, its weight there, and how well it does alone."""

    name: str
    weight: float
    perplexity: Perplexity


@dataclass(frozen=True)
class LmReport:
    """What became of texts.

    Attributes:
        discounts: by length, what was subtracted from the counts of the texts.
        num_ngrams: by length, in the ARPA file.
        ingredients: models that were mixed; none otherwise.
        perplexity: of the held-out text; None without one.
    """

    discounts: tuple[Discounts, ...]
    num_ngrams: tuple[int, ...]
    ingredients: tuple[Ingredient, ...]
    perplexity: Perplexity | None


def build_lm(texts: Sequence[Path], out: Path, plan: LmPlan, corpus: LmCorpus) -> LmReport:
    """Estimate n-grams (modified Kneser-Ney), mix and prune as planned, and write an ARPA file.

    Without mixing and pruning by entropy, memory does not grow with the texts: temporary files lie
    beside ``out``.

    Args:
        texts: text files, a sentence a line, and stores with transcripts.

    Raises:
        ConfigError: a text or an ARPA file cannot be read, the order is not 2 to 6, the plan does
            not go together, or no word is left.
    """
    started = time.monotonic()
    plan.check()
    _check_readable(texts, plan.others)
    _say_repeated(texts, plan)

    held_out: list[list[str]] = []
    if plan.held_out is not None:
        sentences = corpus.sentences([plan.held_out], plan.held_out_split)
        held_out = [sentence for sentence in sentences if sentence]

    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".speechssl-lm-", dir=out.parent) as folder:
        model = estimate(
            corpus.sentences(texts, plan.split), plan.order, Path(folder), plan.selection
        )
        discounts = tuple(order.discounts for order in model.orders)

        if plan.others or plan.entropy:
            table = table_of_files(model)
            ingredients: tuple[Ingredient, ...] = ()
            if plan.others:
                tables = {_joined_names(texts): table}
                for path in plan.others:
                    tables[str(path)] = _other_table(path, plan, corpus, out.parent)
                table, ingredients = _mixed(tables, held_out)
            if plan.entropy:
                num_pruned = prune_by_entropy(table, plan.entropy)
                log(f"{num_pruned} n-grams are left out, which hardly change the perplexity")

            write_atomic(out, chain([unit_comment(corpus.unit)], table.lines()))
            num_ngrams = [len(order.ids) for order in table.orders]
            words = table.words
            orders = map(blocks_of_table, table.orders)
        else:
            ingredients = ()
            write_atomic(out, chain([unit_comment(corpus.unit)], file_model_lines(model)))
            num_ngrams = [order.rows.num_rows for order in model.orders]
            words = model.words
            orders = map(blocks_of_file, model.orders)

        found: Perplexity | None = None
        if plan.held_out is not None:
            found = perplexity(model_for(held_out, words, orders), held_out)

    seconds = time.monotonic() - started
    log(
        f"{out} holds n-grams of up to {len(num_ngrams)} {corpus.unit}, of {model.num_words} "
        f"{corpus.unit} of text; {seconds:.1f} s, {peak_memory_mb():.0f} MB of memory at most"
    )
    return LmReport(discounts, tuple(num_ngrams), ingredients, found)


def _check_readable(texts: Sequence[Path], others: Sequence[Path]) -> None:
    """See that each can be read, before any is: the last one's turn may come after an hour.

    Args:
        others: texts, stores and ARPA files.
    """
    for path in (*texts, *others):
        if is_store(path):
            continue

        _check_text(path, may_be_arpa=path in others)
        # What is no regular file, such as a pipe, can be read once only.
        if path.is_file() or not path.exists():
            with open_text(path) as file:
                file.readline()


def _say_repeated(texts: Sequence[Path], plan: LmPlan) -> None:
    """Log which texts are named more than once, and whether the held-out one is among them.

    Two names may lead to one file, one may be a copy, and stores may be of the same recordings.
    """
    names: dict[object, list[str]] = defaultdict(list)
    for path in texts:
        names[_content(path, plan.split)].append(str(path))

    for same in names.values():
        if len(same) > 1:
            log(
                f"{' and '.join(same)} hold the same text, which counts {len(same)} times: "
                "name a text once, unless that is meant"
            )

    if plan.held_out is None:
        return
    held_out = _content(plan.held_out, plan.held_out_split)
    for path in (*texts, *plan.others):
        if _content(path, plan.split) == held_out:
            log(
                f"{plan.held_out} is held out, and the same text as {path}, which the model "
                "learns: its perplexity says nothing, nor do weights found on it; hold another out"
            )


def _content(path: Path, split: str) -> object:
    """Give what is equal for texts that are the same, whatever they are called."""
    if is_store(path):
        return Store(path).plan, split
    # What is no regular file can be read once only.
    return sha256_of(path) if path.is_file() else path.resolve()


def _joined_names(paths: Iterable[Path]) -> str:
    return " ".join(map(str, paths))


def _other_table(path: Path, plan: LmPlan, corpus: LmCorpus, scratch: Path) -> NgramTable:
    """Read a model that is to be mixed in, or estimate it of a text."""
    if path.is_file() and is_arpa(path):
        unit = recorded_unit(path)
        if unit not in (None, corpus.unit):
            raise ConfigError(
                f"{path} is over {unit}, and this model over {corpus.unit}: mix models of one kind"
            )
        return read_table(path)

    with TemporaryDirectory(prefix=".speechssl-lm-", dir=scratch) as folder:
        sentences = corpus.sentences([path], plan.split)
        return table_of_files(estimate(sentences, plan.order, Path(folder), plan.selection))


def _mixed(
    tables: Mapping[str, NgramTable], held_out: Sentences
) -> tuple[NgramTable, tuple[Ingredient, ...]]:
    """Mix models with the weights that suit a text best."""
    perplexities: list[Perplexity] = []
    probabilities: list[Floats] = []
    for table in tables.values():
        model = model_for(held_out, table.words, map(blocks_of_table, table.orders))
        perplexities.append(perplexity(model, held_out))
        probabilities.append(word_probabilities(model, held_out))

    # A word that no model has tells nothing about them.
    of_models = np.stack(probabilities)
    is_known = of_models.any(axis=0)
    weights = best_weights(of_models[:, is_known])

    ingredients = map(Ingredient, tables, weights.tolist(), perplexities)
    return mix(list(tables.values()), weights), tuple(ingredients)


def read_texts(paths: Sequence[Path], split: str) -> Iterator[str]:
    """Read the lines of text files, and the transcripts of one split of stores.

    Marks of noises, such as ``[noise]``, are left out as ``prepare`` leaves them out of
    transcripts. How many there were is logged at the end, and which other marks stay.

    Raises:
        ConfigError: a file is not text in UTF-8 or is a table, or a store has no transcript there.
    """
    marks = Marks()
    for path in paths:
        for text in _texts(path, split):
            yield marks.without_noises(text)

    lines = marks.lines("texts")
    if lines:
        log(f"{', '.join(map(str, paths))}: {'; '.join(lines)}")


def _texts(path: Path, split: str) -> Iterator[str]:
    """Read the lines of a text file, or the transcripts of one split of a store."""
    if is_store(path):
        yield from _transcripts(Store(path), split)
        return

    _check_text(path)
    with open_text(path) as file:
        yield from file


def _check_text(path: Path, may_be_arpa: bool = False) -> None:
    """See that a file may be text, and say what to do with what people give in its place.

    Raises:
        ConfigError: it is something else.
    """
    if path.is_dir():
        raise ConfigError(
            f"{path} is a folder and no store: give a file of one text a line, or the store that "
            "speechssl prepare makes of recordings and their transcripts"
        )
    if not path.is_file():
        return

    if path.suffix.lower() in TABLE_SUFFIXES:
        raise ConfigError(
            f"{path} is a table, not text: prepare it and give the store, "
            "or a file of one text a line"
        )
    if is_arpa(path):
        if may_be_arpa:
            return
        raise ConfigError(
            f"{path} is an ARPA file, not text: give a file of one text a line (lm mixes an ARPA "
            "file in with --with)"
        )
    kind = kind_of_path(path)
    if kind:
        raise ConfigError(f"{path} is no text but {kind.name}; {kind.remedy}")
    with open_text(path) as file:
        lines = islice(file, _LINES_OF_LEXICON)
        if are_lexicon(lines):
            raise ConfigError(
                f"{path} is a pronunciation lexicon, not text: each line is a word and its phones; "
                "give a file of one text a line (finetune takes a lexicon: --tokenizer phones:FILE)"
            )


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
