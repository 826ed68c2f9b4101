"""A language model over words, ready for search: its n-grams, and the spellings of its words."""

from dataclasses import dataclass

from speechssl.decoding.lexicon import Lexicon, separator
from speechssl.decoding.ngram_table import SearchTable
from speechssl.decoding.prefix_tree import PrefixTree, prefix_tree
from speechssl.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class WordModel:
    """A language model over words, and how the words are spelled: all but the weights.

    Attributes:
        separator: the token between words, if there is one.
    """

    table: SearchTable
    tree: PrefixTree
    separator: tuple[int, ...]
    blank_id: int


def word_model(
    tokenizer: Tokenizer, table: SearchTable, lexicon: Lexicon, unknown_words: bool = False
) -> WordModel:
    """Prepare a language model for search.

    Args:
        unknown_words: whether to say words of the lexicon that the language model lacks.

    Raises:
        ConfigError: the language model has no word of the lexicon.
    """
    between_words = separator(tokenizer)
    tree = prefix_tree(lexicon, table, between_words, unknown_words)
    return WordModel(table, tree, between_words, tokenizer.blank_id)
