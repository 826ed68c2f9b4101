"""``tune_lm``: the weights of a language model, found and kept in a model folder."""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from speechssl.data.dataset import Dataset
from speechssl.data.store import Store
from speechssl.decoding.arpa import is_binary, read_words
from speechssl.decoding.beam import BeamSearch
from speechssl.decoding.hypothesis import BeamConfig
from speechssl.decoding.lexicon import are_joined, known_words, spellings
from speechssl.decoding.lm_unit import LmUnit, unit_of
from speechssl.decoding.ngram import UNKNOWN
from speechssl.decoding.ngram_table import SearchTable, read_search_table
from speechssl.decoding.word_model import WordModel, word_model
from speechssl.errors import ConfigError
from speechssl.recognition.evaluate import references, with_transcripts
from speechssl.recognition.language_model import LM_FOLDER, lm_digest, save_lm
from speechssl.recognition.lm_weights import Tuned, find_weights, weights_line
from speechssl.recognition.model import CtcModel, load_ctc
from speechssl.recognition.remarks import unwritable_words
from speechssl.runtime.device import pick_device
from speechssl.runtime.log import log
from speechssl.storage.saved_folders import model_folder
from speechssl.text.normalise import normalise
from speechssl.text.phone_tokenizer import PhoneTokenizer
from speechssl.text.sentencepiece_tokenizer import SentencePieceTokenizer
from speechssl.text.tokenizer import Tokenizer


def tune_lm(
    model: str | Path,
    lm: Path,
    store: str | Path,
    split: str = "dev",
    words: Path | None = None,
    unknown_words: bool = False,
    unit: LmUnit | None = None,
    report: Callable[[Tuned], None] = lambda tuned: None,
) -> Tuned:
    """Find the weights of a language model, and keep it in the model folder if it helps.

    Where greedy decoding makes fewer errors nothing is kept, and what was there stays.

    Args:
        model: run or model folder.
        lm: ARPA file, or a binary file of KenLM with ``words``.
        store: prepared store with transcripts.
        split: the split to tune on, never the one to measure on.
        words: file of the words to recognise, one a line; None takes those of the ARPA file.
        unknown_words: whether words that the language model lacks can be recognised too, at the
            price of its ``<unk>``: those of ``words``, else of the recogniser's lexicon.
        unit: what the n-grams are of; None takes what the file says, or its entries show.
        report: called with what was found before anything is saved, so that a full disk does not
            lose it.

    Raises:
        ConfigError: the model, the language model or the store cannot be used.
    """
    # Before a large language model is read: that takes a while.
    dataset = with_transcripts(Dataset([Store(store)], [split]), split)
    folder = model_folder(Path(model))
    recogniser = load_ctc(folder).to(pick_device("auto"))
    tokenizer = recogniser.tokenizer

    unit = unit_of(tokenizer, lm, words, unit)
    known: list[str] | None = None
    table: SearchTable | None = None
    source: Path | WordModel = lm
    config = BeamConfig(unit="tokens")

    if unit == "words":
        listed = read_words(lm, words)
        if unknown_words and words is None:
            listed = _with_lexicon(listed, tokenizer)
        known = known_words(tokenizer, recogniser.normaliser, listed)
        _say_unknown(recogniser, known, dataset)

        table = read_search_table(lm)
        if unknown_words:
            _check_unknown(table, lm)

        words_to_find = word_model(tokenizer, table, spellings(tokenizer, known), unknown_words)
        _say_what_pieces_miss(tokenizer, words_to_find, folder)
        source = words_to_find

        config = BeamConfig(unit="words", unknown_words=unknown_words)
    elif unknown_words:
        raise ConfigError(
            f"{lm} is over the recogniser's tokens, of which any word can be made: leave "
            "--unknown-words out"
        )
    elif words is not None and not is_binary(lm):
        raise ConfigError(
            f"{lm} is over the recogniser's tokens, which write any word: to recognise the words "
            "of a list only, give --words with a language model over words"
        )

    def search(weights: BeamConfig, log_prior: Tensor) -> BeamSearch:
        return BeamSearch(tokenizer, source, weights, log_prior=log_prior)

    tuned = find_weights(recogniser, dataset, config, search, folder)
    report(tuned)

    if tuned.is_worth_keeping:
        best = tuned.chosen.score
        found_on = {"lm": str(lm), "store": str(store), "split": split} | lm_digest(lm)
        rates = {"wer": best.wer}
        if tuned.greedy.unit == best.unit:
            rates["greedy_wer"] = tuned.greedy.wer
        save_lm(folder, table or lm, known, tuned.best, found_on | rates, tuned.log_prior)
        log(
            f"{folder / LM_FOLDER} holds the language model over {config.unit} "
            f"with {weights_line(tuned.best)}, beam {tuned.best.beam_size}"
        )
    else:
        stays = "; the one that is there stays" if (folder / LM_FOLDER).exists() else ""
        log(f"no weight makes the language model as good as greedy decoding: it is not kept{stays}")

    return tuned


def _with_lexicon(words: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    """Add the words of the recogniser's lexicon.

    Raises:
        ConfigError: it has none.
    """
    if not isinstance(tokenizer, PhoneTokenizer):
        raise ConfigError(
            "--unknown-words without --words, and this recogniser has no lexicon to take words "
            "from: list them in a file for --words"
        )
    return list(dict.fromkeys([*words, *tokenizer.lexicon.words]))


def _say_unknown(recogniser: CtcModel, known: Sequence[str], dataset: Dataset) -> None:
    """Say which words of the transcripts the language model lacks: no weight makes up for them."""
    if are_joined(recogniser.tokenizer, known):
        return
    transcripts = references(recogniser, dataset).values()
    texts = [normalise(text, recogniser.normaliser) for text in transcripts]
    missing = unwritable_words(known, texts)
    if missing.counts:
        log(missing.line())


def _say_what_pieces_miss(tokenizer: Tokenizer, words: WordModel, folder: Path) -> None:
    """Say that pieces of a text without spaces may hold the end of a word and the next one."""
    if words.are_joined and isinstance(tokenizer, SentencePieceTokenizer):
        log(
            "the recogniser's pieces may reach from one word into the next, which a language model "
            "over words cannot follow: one over its tokens can, speechssl lm --tokens-of "
            f"{folder}"
        )


def _check_unknown(table: SearchTable, lm: Path) -> None:
    if UNKNOWN not in table.ids():
        raise ConfigError(
            f"{lm} has no {UNKNOWN}, whose price unknown words would have: estimate it with "
            "speechssl lm, or leave --unknown-words out"
        )
