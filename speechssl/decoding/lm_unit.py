"""What the n-grams of a language model are of: words, or the tokens of a recogniser."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Literal

from speechssl.decoding.arpa import is_binary, read_words
from speechssl.decoding.lexicon import token_names
from speechssl.errors import ConfigError
from speechssl.runtime.log import log
from speechssl.storage.text_files import open_text
from speechssl.text.tokenizer import UNK_ID, Tokenizer

LmUnit = Literal["words", "tokens"]
_UNITS: tuple[LmUnit, ...] = ("words", "tokens")

# The comment in which our own models say it; KenLM asks for the number sign.
_COMMENT = "# speechssl lm: n-grams of "
# Share of the entries of a model over characters that may be longer, as names in Latin letters are.
MAX_LONG = 0.1
# Lines in which an ARPA file begins, behind comments.
_COMMENT_LINES = 100


def unit_comment(unit: str) -> str:
    """Write the line that begins an ARPA file of ours."""
    return f"{_COMMENT}{unit}\n"


def recorded_unit(path: Path) -> LmUnit | None:
    """Read what an ARPA file says of itself; None if it is not ours.

    Raises:
        ConfigError: the file cannot be read.
    """
    with open_text(path, "an ARPA file") as file:
        for line in islice(file, _COMMENT_LINES):
            if line.strip() == "\\data\\":
                return None
            for unit in _UNITS:
                if line == unit_comment(unit):
                    return unit
    return None


def unit_of(
    tokenizer: Tokenizer, lm: Path, listed: Path | None = None, given: LmUnit | None = None
) -> LmUnit:
    """Tell what a language model for this recogniser is over.

    Args:
        lm: ARPA file, or a binary file of KenLM.
        listed: a list of words; of a binary file, which does not tell its own, its entries.
        given: what the user says it is.

    Raises:
        ConfigError: a file cannot be read, its entries could be both and nobody says which, or the
            user says something else than the file; or it is over tokens of which the recogniser
            has none.
    """
    recorded: LmUnit | None = None
    if is_binary(lm):
        if given is not None:
            return given
        entries = read_words(lm, listed)
    else:
        recorded = recorded_unit(lm)
        entries = read_words(lm, None)

    if recorded and given and recorded != given:
        raise ConfigError(f"{lm} says that it is over {recorded}: leave --unit {given} out")

    unit = given or recorded or plain_unit(tokenizer, entries)
    if unit is None:
        raise ConfigError(
            f"{lm} could be over words or over the recogniser's tokens, as its entries, such as "
            f"{entries[0]!r}, can be both: say which with --unit words or --unit tokens"
        )

    if unit == "tokens":
        _check_tokens(tokenizer, lm, entries)
    return unit


def plain_unit(tokenizer: Tokenizer, entries: Iterable[str]) -> LmUnit | None:
    """Tell from the entries of a language model what they are; None where they could be both.

    Single letters and digits can be words too, so a model over tokens shows by an entry with the
    space. A recogniser without a space writes the same text with both. A model over characters may
    have some that the recogniser lacks.
    """
    names = set(token_names(tokenizer)[UNK_ID + 1 :])
    with_space = {name for name in names if "|" in name}
    distinct = set(entries)

    if distinct <= names:
        is_plain = not with_space or bool(distinct & with_space)
        return "tokens" if is_plain else None

    num_like_words = sum(entry not in names and len(entry) > 1 for entry in distinct)
    return "words" if num_like_words > MAX_LONG * len(distinct) else None


def _check_tokens(tokenizer: Tokenizer, lm: Path, entries: list[str]) -> None:
    """Say how many entries are no tokens of the recogniser, and refuse a model of none."""
    names = set(token_names(tokenizer))
    lacking = [entry for entry in entries if entry not in names]
    if len(lacking) == len(entries):
        raise ConfigError(
            f"{lm} has no token of this recogniser, {lacking[0]!r} for one is none: make it with "
            "speechssl lm --tokens-of MODEL, or give --unit words if it is over words"
        )
    if lacking:
        log(
            f"{len(lacking)} of the {len(entries)} entries of {lm} are no tokens of the "
            f"recogniser, {lacking[0]!r} for one: they are not used"
        )
