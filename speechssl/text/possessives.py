"""The English possessive: how "'s" sounds behind a word, where a lexicon has the word alone."""

from collections.abc import Set

from speechssl.text.pronunciations import Pronunciation, Pronunciations, fold

ENDING = "'s"

# CMUdict's phones, without the stress of vowels.
# fmt: off
_ARPABET = {
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH",
    "IH", "IY", "JH", "K", "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH",
    "UW", "V", "W", "Y", "Z", "ZH",
}
# fmt: on
_SIBILANTS = {"CH", "JH", "S", "SH", "Z", "ZH"}
_VOICELESS = {"F", "K", "P", "T", "TH"}


def is_english_arpabet(phones: Set[str]) -> bool:
    """Whether these are CMUdict's phones, with or without stress, and those of the ending too."""
    unstressed = {fold(phone, "stress") for phone in phones}
    return {"IH", "S", "Z"} <= unstressed <= _ARPABET


def possessive(lexicon: Pronunciations, word: str) -> tuple[Pronunciation, ...]:
    """Say "dog's" by the pronunciations of "dog"; none if the word is no possessive of one.

    The ending is IH Z behind a sibilant, S behind another voiceless consonant, and else Z. So
    CMUdict says 6,030 of its 6,309 possessives of words that it has.
    """
    owner = word.removesuffix(ENDING)
    if owner == word:
        return ()

    return tuple(
        one._replace(phones=(*one.phones, *_ending(one.phones[-1], lexicon.phones)))
        for one in lexicon.words.get(owner, ())
    )


def _ending(last: str, phones: tuple[str, ...]) -> tuple[str, ...]:
    if last in _SIBILANTS:
        vowel = "IH0" if "IH0" in phones else "IH"
        return (vowel, "Z")
    return ("S",) if last in _VOICELESS else ("Z",)
