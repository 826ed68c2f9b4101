"""Which token sequences spell which words."""

from collections.abc import Iterable, Sequence

from speechssl.decoding.ngram import SPECIAL
from speechssl.errors import ConfigError
from speechssl.runtime.log import log
from speechssl.text.normalise import normalise
from speechssl.text.tokenizers import SentencePieceTokenizer, Tokenizer

MAX_LOST = 0.1  # share of a language model's words that the recogniser may be unable to say


def spellings(tokenizer: Tokenizer, words: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Token ids of each word that can be spelled, with the space behind it where that is a token."""
    space = separator(tokenizer)
    found = {}
    for word in words:
        if word not in SPECIAL and not tokenizer.has_unknown(word):
            ids = tokenizer.encode(word)
            if ids and tokenizer.unk_id not in ids:
                found[word] = (*ids, *space)
    return found


def separator(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The id of the token that separates words, if one does; SentencePiece's pieces begin words themselves."""
    if isinstance(tokenizer, SentencePieceTokenizer):
        return ()
    return tuple(i for i, text in enumerate(tokenizer.texts[2:], 2) if text == " ")[:1]


def token_name(text: str) -> str:
    """A token as a word of a language model over tokens: what is a space in it becomes ``|``."""
    return text.replace(" ", "|")


def known_words(tokenizer: Tokenizer, normaliser: str, words: Sequence[str]) -> list[str]:
    """The words of a language model that the recogniser can say; how many it cannot is logged.

    Raises:
        ConfigError: these are more than ``MAX_LOST`` of them, or as many are not normalised as transcripts are.
    """
    spelled = spellings(tokenizer, words)
    for problem, found in (
        ("have characters that the recogniser does not", [w for w in words if w not in spelled]),
        (
            f"are not as {normaliser} leaves them",
            [w for w in words if normalise(w, normaliser) != w],
        ),
    ):
        if len(found) > MAX_LOST * len(words):
            raise ConfigError(
                f"{len(found)} of the {len(words)} words of the language model {problem}, {found[0]!r} for one: "
                f"estimate it from text like the transcripts (speechssl lm --normaliser {normaliser})"
            )
    if len(spelled) < len(words):
        log(
            f"{len(words) - len(spelled)} of {len(words)} words have characters that the recogniser does not: left out"
        )
    return list(spelled)


def is_over_tokens(tokenizer: Tokenizer, words: Iterable[str]) -> bool:
    """Whether a language model with these words is one over the recogniser's tokens, the space among them.

    Without the space, single letters are words too, such as digits.
    """
    names = {token_name(text) for text in tokenizer.texts}
    return set(words) <= names and all(
        token_name(tokenizer.texts[i]) in words for i in separator(tokenizer)
    )
