"""Make a lexicon of words, and add the words that one lacks."""

from collections.abc import Collection, Sequence
from pathlib import Path

from speechssl.errors import ConfigError
from speechssl.lexicon.espeak import PREFIX, espeak_lexicon
from speechssl.lexicon.g2p import guess, model_beside
from speechssl.runtime.log import log
from speechssl.text.phone_tokenizer import PhoneTokenizer
from speechssl.text.pronunciations import Pronunciation, Pronunciations, read_lexicon

G2P = "g2p"


def make(
    source: str, words: Collection[str] | None, folding: str, normaliser: str
) -> Pronunciations:
    """Make a lexicon of ``words`` from espeak-ng or from another lexicon.

    Args:
        source: "espeak-ng:LANGUAGE", or the path of a lexicon.
        words: None takes all words of a lexicon.

    Raises:
        ConfigError: the source cannot be used, or knows none of the words.
    """
    if source.startswith(PREFIX):
        if words is None:
            raise ConfigError(f"--from {source} needs words: give texts, stores or ARPA files")
        made = espeak_lexicon(words, source.removeprefix(PREFIX), folding)
    else:
        made = read_lexicon(Path(source), normaliser, folding)
        if words is not None:
            tokenizer = PhoneTokenizer(made)
            entries = [(word, one) for word in words for one in tokenizer.pronunciations(word)]
            made = Pronunciations.of_entries(entries, made.folding, made.origin)

    if not made.words:
        raise ConfigError(f"{source} has none of the words: check the language of the texts")
    if words is not None and len(made.words) < len(words):
        log(f"{len(words) - len(made.words)} of {len(words)} words have no pronunciation")
    return made


def extend(
    lexicon: Pronunciations, path: Path, words: Sequence[str], source: str, most: int
) -> Pronunciations:
    """Add guessed pronunciations of words that the lexicon lacks, each marked with who guessed it.

    Args:
        path: of the lexicon, beside which the model of the guesses is kept.
        source: "g2p", a model trained on the lexicon, or "espeak-ng:LANGUAGE".
        most: pronunciations of a word that are kept of the model's, the most probable.

    Raises:
        ConfigError: no such source, it cannot be used, or it has phones that the lexicon has not.
    """
    if not words:
        return lexicon

    if source == G2P:
        guessed = guess(model_beside(path, lexicon), words, most)
        new = [(word, one._replace(source=G2P)) for word, ones in guessed.items() for one in ones]
    elif source.startswith(PREFIX):
        spoken = espeak_lexicon(words, source.removeprefix(PREFIX), lexicon.folding)
        _check_phones(lexicon, spoken)
        new = [(word, _marked(one, spoken.origin)) for word, one in spoken.entries()]
    else:
        raise ConfigError(f"unknown --from {source!r}: choose g2p or espeak-ng:LANGUAGE")

    entries = [*lexicon.entries(), *new]
    return Pronunciations.of_entries(entries, lexicon.folding, lexicon.origin)


def _marked(one: Pronunciation, origin: str) -> Pronunciation:
    source = f"{origin}, {one.source}" if one.source else origin
    return one._replace(source=source)


def _check_phones(lexicon: Pronunciations, spoken: Pronunciations) -> None:
    """See that espeak-ng's phones are the lexicon's; its own lexicons may grow by some."""
    if lexicon.origin.split()[:1] == spoken.origin.split()[:1]:
        return

    others = sorted(set(spoken.phones) - set(lexicon.phones))
    if others:
        raise ConfigError(
            f"the lexicon does not have espeak-ng's phones {' '.join(others[:5])}: extend it with "
            "--from g2p, which learns the lexicon's own"
        )
