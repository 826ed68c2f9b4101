"""A language model over words, ready for search: its n-grams, and the spellings of its words."""

from dataclasses import dataclass

from speechssl.decoding.lexicon import Lexicon, are_joined, separator, with_free_spaces
from speechssl.decoding.ngram_table import SearchTable
from speechssl.decoding.prefix_tree import PrefixTree, prefix_tree
from speechssl.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class WordModel:
    """A language model over words, and how the words are spelled: all but the weights.

    Attributes:
        separator: the token between words, if there is one.
        are_joined: whether words stand without spaces between them. The texts of the tokens tell
            then where there is a space.
    """

    table: SearchTable
    tree: PrefixTree
    separator: tuple[int, ...]
    are_joined: bool
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
    joined = are_joined(tokenizer, lexicon)
    if joined:
        lexicon = with_free_spaces(lexicon, tokenizer)
        between_words = ()

    tree = prefix_tree(lexicon, table, between_words, unknown_words)
    return WordModel(table, tree, between_words, joined, tokenizer.blank_id)
