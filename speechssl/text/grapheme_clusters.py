"""Grapheme clusters: what a reader takes for one character, of several code points or of one."""

import unicodedata

from speechssl.text.unicode_words import ZERO_WIDTH_JOINER

# Letters by their category, and yet a part of what is before them: the vowels am of Thai and Lao,
# and the voicing marks of kana of half width.
_ATTACHED_LETTERS = "\u0e33\u0eb3\uff9e\uff9f"
# Shades of skin.
_EMOJI_MODIFIERS = range(0x1F3FB, 0x1F400)

# Signs that write two consonants as one: Indic_Conjunct_Break Linker. Other signs that mute a
# vowel, such as the asat of Burmese, end a syllable.
# fmt: off
_LINKERS = frozenset(map(chr, (
    0x94D, 0x9CD, 0xACD, 0xB4D, 0xC4D, 0xD4D, 0x1039, 0x17D2, 0x1A60, 0x1B44, 0x1BAB, 0xA9C0,
    0xAAF6, 0x10A3F, 0x11133, 0x1193E, 0x11A47, 0x11A99,
)))
# fmt: on

# The parts of a syllable of Hangul: consonants that begin it, and what follows these.
_HANGUL_LEADING = (range(0x1100, 0x1160), range(0xA960, 0xA97D))
_HANGUL_SYLLABLES = (range(0xAC00, 0xD7A4),)
_HANGUL_FOLLOWING = (range(0x1160, 0x1200), range(0xD7B0, 0xD7FC))

# Two of them are one flag.
_REGIONAL_INDICATORS = range(0x1F1E6, 0x1F200)


def belongs_to(cluster: str, character: str) -> bool:
    """Whether a code point goes on with the cluster before it.

    What has no width of its own, such as the zero-width space, always does.

    Args:
        cluster: of one code point at least.

    Source: Unicode Standard Annex 29, grapheme clusters. No cluster of these is parted; the
    vowels that Burmese writes beside a consonant stay with it, too.
    """
    if _is_attached(character):
        return True

    last = cluster[-1]
    if _is_in(last, _HANGUL_LEADING):
        return _is_in(character, _HANGUL_LEADING + _HANGUL_SYLLABLES)
    if len(cluster) == 1 and ord(last) in _REGIONAL_INDICATORS:
        return ord(character) in _REGIONAL_INDICATORS

    category = unicodedata.category(character)
    if last == ZERO_WIDTH_JOINER and category == "So":
        return True
    is_letter = category[0] == "L"
    return is_letter and _ends_in_linker(cluster)


def _ends_in_linker(cluster: str) -> bool:
    """Whether a linker is among the last marks of a cluster, behind which no vowel stands."""
    for character in reversed(cluster):
        if character in _LINKERS:
            return True
        is_mark_over_it = unicodedata.category(character) in ("Mn", "Me")
        if not is_mark_over_it and character != ZERO_WIDTH_JOINER:
            return False
    return False


def _is_attached(character: str) -> bool:
    """Whether a code point belongs to whatever is before it."""
    category = unicodedata.category(character)
    return (
        category[0] == "M"
        or category == "Cf"
        or character in _ATTACHED_LETTERS
        or ord(character) in _EMOJI_MODIFIERS
        or _is_in(character, _HANGUL_FOLLOWING)
    )


def _is_in(character: str, ranges: tuple[range, ...]) -> bool:
    return any(ord(character) in one for one in ranges)
