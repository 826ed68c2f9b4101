"""Where no line may end between two characters of a script without spaces."""

import unicodedata

# Vowels that Thai and Lao write before the consonant that they are said behind.
_NEVER_LAST = "เแโใไເແໂໃໄ"
# Their vowels behind it, and their signs of repetition and abbreviation.
_NEVER_FIRST_OF_THAI_AND_LAO = "ะาำๅๆฯະາຳໆຯ"
# Small kana, which change the sound before them, the long vowel, and signs of repetition.
_NEVER_FIRST_OF_JAPANESE = (
    "ぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶーｧｨｩｪｫｬｭｮｯｰ々〻ゝゞヽヾ"
)
_NEVER_FIRST = frozenset(_NEVER_FIRST_OF_THAI_AND_LAO + _NEVER_FIRST_OF_JAPANESE)


def may_break(before: str, behind: str) -> bool:
    """Whether a line may end between two texts, as readers of their script expect it.

    Args:
        before, behind: of one character at least.

    Source: Unicode Standard Annex 14, classes CJ, NS, OP, CL and CP in strict style, and the
    property Logical_Order_Exception.
    """
    is_opening = unicodedata.category(before[-1]) in ("Ps", "Pi")
    is_closing = unicodedata.category(behind[0]) in ("Pe", "Pf", "Po")
    if is_opening or is_closing:
        return False

    return before[-1] not in _NEVER_LAST and behind[0] not in _NEVER_FIRST
