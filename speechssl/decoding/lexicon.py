"""How tokens spell words, and which words of a language model a recogniser can say."""

from collections.abc import Iterable, Sequence

from speechssl.decoding.ngram import SPECIAL
from speechssl.errors import ConfigError
from speechssl.runtime.log import log
from speechssl.text.normalise import normalise
from speechssl.text.phone_tokenizer import PhoneTokenizer
from speechssl.text.sentencepiece_tokenizer import SentencePieceTokenizer
from speechssl.text.tokenizer import Spelling, Tokenizer
from speechssl.text.word_spaces import are_without_word_spaces

# The ways to spell each word in tokens, of which every word has one at least.
Lexicon = dict[str, list[Spelling]]

# Share of a language model's words that may be unusable. With more, its text was probably
# normalised otherwise than the recogniser's transcripts.
MAX_LOST = 0.1

# What tokens are called whose own name another token has.
_BAR = "<bar>"
_AGAIN = "<again>"


def spellings(tokenizer: Tokenizer, words: Iterable[str]) -> Lexicon:
    """Spell each word in tokens, without the space between words.

    Words that the tokens cannot spell, and the special words of language models, are left out.
    """
    lexicon: Lexicon = {}
    for word in words:
        if word in SPECIAL:
            continue

        found = tokenizer.spellings(word)
        if found:
            lexicon[word] = found

    return lexicon


def separator(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Find the id of the token that is a space; empty if there is none.

    SentencePiece has none: its pieces contain the space before a word.
    """
    if isinstance(tokenizer, SentencePieceTokenizer):
        return ()

    # The first two ids are the blank and the unknown token, whatever they are called.
    for token_id in range(2, len(tokenizer.texts)):
        if tokenizer.texts[token_id] == " ":
            return (token_id,)
    return ()


def are_joined(tokenizer: Tokenizer, words: Iterable[str]) -> bool:
    """Whether a recogniser writes these words without spaces between them, as in Chinese or Thai.

    What a recogniser of phones learned from was split into words: it has spaces in any script.
    """
    return not isinstance(tokenizer, PhoneTokenizer) and are_without_word_spaces(words)


def with_free_spaces(lexicon: Lexicon, tokenizer: Tokenizer) -> Lexicon:
    """Let a space stand beside each word or not: where words are joined, some are between phrases.

    The token that is a space may follow a word. The pieces of SentencePiece have it before one.
    """
    space = separator(tokenizer)

    found: Lexicon = {}
    for word, ways in lexicon.items():
        found[word] = list(ways)
        if isinstance(tokenizer, SentencePieceTokenizer):
            inside = tokenizer.encode_inside(word)
            found[word].append(Spelling(tuple(inside), 0.0))
        elif space:
            found[word] += [Spelling(way.ids + space, way.log_prob) for way in ways]
    return found


def token_name(text: str) -> str:
    """Write a token as a word of a language model over tokens: a space becomes ``|``."""
    return text.replace(" ", "|")


def token_names(tokenizer: Tokenizer) -> list[str]:
    """Name the tokens, by id, as words of a language model over tokens, each by another name.

    A bar that would be taken for the space is called ``<bar>``. Of equal tokens, which other
    libraries may have, the first one has the plain name.
    """
    texts = tokenizer.texts
    of_spaces = {token_name(text) for text in texts if " " in text}

    names: list[str] = []
    taken: set[str] = set()
    for text in texts:
        name = token_name(text)
        if "|" in text and name in of_spaces:
            name = token_name(text.replace("|", _BAR))
        while name in taken:
            name += _AGAIN
        taken.add(name)
        names.append(name)

    return names


def known_words(tokenizer: Tokenizer, normaliser: str, words: Sequence[str]) -> list[str]:
    """Keep the words of a language model that the recogniser can say, and log how many are lost.

    Raises:
        ConfigError: more than ``MAX_LOST`` of the words have characters that the recogniser does
            not, or differ from how its transcripts are normalised; or none is left.
    """
    lexicon = spellings(tokenizer, words)

    unspelled = [word for word in words if word not in lexicon]
    if tokenizer.unknown_kind == "words":
        # Every text has words that a pronunciation lexicon lacks.
        problem = "have no pronunciation"
        if not lexicon:
            raise ConfigError(
                f"none of the {len(words)} words of the language model has a pronunciation, "
                f"{unspelled[0]!r} for one: estimate it from text like the transcripts"
            )
    else:
        problem = "have characters that the recogniser does not"
        _refuse_many(unspelled, words, problem, normaliser)

    not_normalised = [word for word in words if normalise(word, normaliser) != word]
    _refuse_many(not_normalised, words, f"are not as {normaliser} leaves them", normaliser)

    num_words = len(words)
    num_lost = num_words - len(lexicon)
    if num_lost > 0:
        log(f"{num_lost} of {num_words} words {problem}: left out")
    return list(lexicon)


def _refuse_many(
    unusable: Sequence[str], words: Sequence[str], problem: str, normaliser: str
) -> None:
    """Refuse a language model of which too many words are unusable."""
    num_words = len(words)
    num_unusable = len(unusable)
    if num_unusable <= MAX_LOST * num_words:
        return

    example = unusable[0]
    raise ConfigError(
        f"{num_unusable} of the {num_words} words of the language model {problem}, "
        f"{example!r} for one: estimate it from text like the transcripts "
        f"(speechssl lm --normaliser {normaliser})"
    )
