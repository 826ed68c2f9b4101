"""``basic-2``: the words of a text in any script, by Unicode's tables of what belongs to a word."""

import re
import unicodedata


def _characters(*ranges: tuple[int, int]) -> str:
    """Return a class of characters for regular expressions, of first and last code points."""
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


# Marks that stand inside words, between two letters: MidLetter in UAX 29's table Word_Break. The
# full stop of MidNumLet is not among them: UAX 29 would join "end.Next". Of the signs that look
# alike one is taken.
COLON = ":"  # Finnish EU:n, Swedish k:a
MIDDLE_DOT = "·"  # Catalan col·lecció
GERSHAYIM = "״"  # Hebrew צה״ל
MIDDLE_MARKS = frozenset({COLON, MIDDLE_DOT, GERSHAYIM, "՟"})
_COLONS = "︓﹕："

# Signs that belong to words as letters do: ALetter in the same table, though punctuation or
# modifiers by their category, such as the Armenian marks of a question and the Hebrew geresh.
# fmt: off
_LETTER_SIGNS = _characters(
    (0xB8, 0xB8), (0x2C2, 0x2C5), (0x2D2, 0x2D7), (0x2DE, 0x2DF), (0x2E5, 0x2EB), (0x2ED, 0x2ED),
    (0x2EF, 0x2FF), (0x55A, 0x55C), (0x55E, 0x55E), (0x58A, 0x58A), (0x5F3, 0x5F3),
    (0xA708, 0xA716), (0xA720, 0xA721), (0xA789, 0xA78A), (0xAB5B, 0xAB5B),
)
# Signs that are words or parts of words, though punctuation or symbols by their category: "and" and
# "in" of Sindhi, four particles of Burmese, and the sign that Bengali puts before a name.
_WORD_SIGNS = "۽۾၌၍၎၏৺"
# Letters that no mark joins, since their scripts put no spaces between words: those that are
# neither ALetter nor Hebrew_Letter. A Chinese colon ends what is before it.
_UNSPACED = _characters(
    (0xE01, 0xEDF), (0x1000, 0x108E), (0x1780, 0x17DC), (0x1950, 0x19C9), (0x1A20, 0x1AA7),
    (0x3006, 0x3035), (0x3041, 0x30FF), (0x31F0, 0x9FFF), (0xA9E0, 0xA9FE), (0xAA60, 0xAADD),
    (0xF900, 0xFAD9), (0xFF66, 0xFF9F), (0x11700, 0x11746), (0x17000, 0x1B2FB), (0x20000, 0x3FFFD),
)
# Invisible: Default_Ignorable_Code_Point, without the joiners, which are spelling in Persian and in
# Indic scripts, and without the zero-width space, which parts words.
_INVISIBLE = _characters(
    (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5),
    (0x180B, 0x180F), (0x200E, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164),
    (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF),
    # By their category only, such as the signs over Arabic numbers.
    (0x600, 0x605), (0x6DD, 0x6DD), (0x70F, 0x70F), (0x890, 0x891), (0x8E2, 0x8E2),
    (0xFFF9, 0xFFFB), (0x110BD, 0x110BD), (0x110CD, 0x110CD), (0x13430, 0x1343F),
)
# What only lengthens the line between two letters: Joining_Type Join_Causing, without the Arabic
# ones that carry a hamza.
_LENGTHENING = "\u0640\u07fa\u180a"
# fmt: on

ZERO_WIDTH_NON_JOINER = "\u200c"
ZERO_WIDTH_JOINER = "\u200d"
_JOINERS = ZERO_WIDTH_NON_JOINER + ZERO_WIDTH_JOINER
VIRAMA = 9  # canonical combining class of the signs that mute a consonant's vowel

APOSTROPHE = "'"
# A letter where it begins or ends a word, as in Hausa; inside words an apostrophe like the others.
LETTER_APOSTROPHE = "ʼ"
_AS_APOSTROPHE = dict.fromkeys("’‘‛＇`´", APOSTROPHE)
_ONE_FORM = str.maketrans(
    _AS_APOSTROPHE | dict.fromkeys(_COLONS, COLON) | {"ŀ": "l·", "‧": MIDDLE_DOT}
)

# Letters and signs in a form for one place or one width, which fonts choose today.
_FORMS = range(0xFB00, 0xFFF0)
_OF_PLACE_OR_WIDTH = ("<isolated>", "<initial>", "<medial>", "<final>", "<wide>", "<narrow>")
_LIGATURES = range(0xFB00, 0xFB18)  # Latin and Armenian


def _usual_forms() -> dict[int, str]:
    """Map ﬁ to fi, ｱ to ア, Ａ to A, and Arabic letters as they are drawn to what they are."""
    usual: dict[int, str] = {}
    for code in _FORMS:
        kind, *parts = unicodedata.decomposition(chr(code)).split() or [""]
        letters = "".join(chr(int(part, 16)) for part in parts)
        # Of a mark that stands alone, or a whole phrase in one sign, there is no other form.
        has_space = " " in letters
        if (kind in _OF_PLACE_OR_WIDTH or code in _LIGATURES) and not has_space:
            usual[code] = re.sub(f"[{_LENGTHENING}]", "", letters)
    return usual


_USUAL_FORMS = _usual_forms()

_HEBREW = "\u05d0-\u05ea\u05ef-\u05f2"
_HEBREW_GERSHAYIM = re.compile(f"(?<=[{_HEBREW}])(?:[\"“”″]|'')(?=[{_HEBREW}])")
_HEBREW_GERESH = re.compile(f"(?<=[{_HEBREW}])'(?!')")

# Two signs that are typed for one: the vowel am of Thai and Lao in two parts, around which a tone
# may stand, their vowel ae as two e, and what other programs make of İ in lower case.
_SPELLED_IN_PARTS = (
    (re.compile("i\u0307+"), "i"),
    (re.compile("\u0e4d([\u0e48-\u0e4b]?)\u0e32"), "\\1\u0e33"),
    (re.compile("([\u0e48-\u0e4b])\u0e4d\u0e32"), "\\1\u0e33"),
    (re.compile("\u0ecd([\u0ec8-\u0ecb]?)\u0eb2"), "\\1\u0eb3"),
    (re.compile("([\u0ec8-\u0ecb])\u0ecd\u0eb2"), "\\1\u0eb3"),
    (re.compile("\u0e40\u0e40"), "\u0e41"),
    (re.compile("\u0ec0\u0ec0"), "\u0ec1"),
)

_INVISIBLE_CHARACTER = re.compile(f"[{_INVISIBLE}{_LENGTHENING}]")
_NON_JOINERS = re.compile(ZERO_WIDTH_NON_JOINER + "+")
_LETTER_SIGN = re.compile(f"[{_LETTER_SIGNS}{_WORD_SIGNS}]")
_UNSPACED_LETTER = re.compile(f"[{_UNSPACED}]")

# Languages with two letters i, whose capitals are İ and I.
DOTLESS_I_LANGUAGES = ("tr", "az")


def basic_2(text: str, language: str | None = None) -> str:
    """Keep lower-case words: letters, marks, numbers and what stands inside words by Unicode.

    As ``basic-1``, but a mark between two letters stays where UAX 29 has it inside words (the full
    stop apart); no invisible character is left; İ becomes one letter; letters of another width, as
    ligatures or as Arabic draws them, are the usual ones. Applying it twice changes nothing.
    Python's version of Unicode says what is a letter.

    Args:
        language: "tr" or "az", where the small letter of I is ı; None for all others.

    Source: Unicode Standard Annex 29, word boundaries, and the property
    Default_Ignorable_Code_Point. Where we differ: the full stop and the underscore end words, and
    so do the signs between two digits. Checked against both tables in test_unicode_words.py.
    """
    text = _INVISIBLE_CHARACTER.sub("", text).translate(_USUAL_FORMS)
    text = unicodedata.normalize("NFC", text)
    text = _lower(text, language).translate(_ONE_FORM)
    if LETTER_APOSTROPHE in text:
        text = _with_plain_apostrophes(text)
    text = _HEBREW_GERSHAYIM.sub(GERSHAYIM, text)
    text = _HEBREW_GERESH.sub("׳", text)

    kept = []
    for place, character in enumerate(text):
        if character in MIDDLE_MARKS or character == APOSTROPHE:
            kept.append(character if _is_inside_word(text, place) else " ")
        else:
            kept.append(_kept_character(character))

    words = []
    stretches = _NON_JOINERS.sub(ZERO_WIDTH_NON_JOINER, "".join(kept))
    for stretch in re.sub("'''+", " ", stretches).split():
        word = _without_edges(stretch)
        # What is left of a lone emoji or symbol can be marks only: invisible, and yet a word that
        # would count as an error.
        if _has_letter_or_number(word):
            words.append(word)

    kept_text = " ".join(words)
    for in_parts, whole in _SPELLED_IN_PARTS:
        kept_text = in_parts.sub(whole, kept_text)
    return unicodedata.normalize("NFC", kept_text)


def is_unspaced(character: str) -> bool:
    """Whether a letter is of a script that puts no spaces between words."""
    return _UNSPACED_LETTER.match(character) is not None


def part_unspaced(text: str) -> tuple[str, list[str]]:
    """Give a text with a space for each character of scripts without spaces, and these."""
    return _UNSPACED_LETTER.sub(" ", text), _UNSPACED_LETTER.findall(text)


def _lower(text: str, language: str | None) -> str:
    """Return text in lower case; case folding would respell words (``ß`` to ``ss``)."""
    if language in DOTLESS_I_LANGUAGES:
        text = text.replace("I", "ı")

    # By itself, Python makes two code points of it.
    return text.replace("İ", "i").lower()


def _with_plain_apostrophes(text: str) -> str:
    """Write the apostrophe that is a letter as the others are, where it is inside of a word."""
    characters = list(text)
    for place in range(1, len(text) - 1):
        neighbours = text[place - 1], text[place + 1]
        if text[place] == LETTER_APOSTROPHE and all(map(_is_kept, neighbours)):
            characters[place] = APOSTROPHE
    return "".join(characters)


def _is_kept(character: str) -> bool:
    """Whether a character can be part of a word."""
    is_mark = character in MIDDLE_MARKS or character == APOSTROPHE
    return is_mark or _kept_character(character) != " "


def _kept_character(character: str) -> str:
    """Return what becomes of a character that is no mark inside words: itself or a space."""
    category = unicodedata.category(character)
    if category[0] in "LMN" or character in _JOINERS or _LETTER_SIGN.match(character):
        return character

    return " "


def _is_inside_word(text: str, place: int) -> bool:
    """Whether a mark or an apostrophe stands where it does not end a word."""
    before = place - 1
    while before >= 0 and _is_attached(text[before]):
        before -= 1

    neighbours = text[max(before, 0) : before + 1], text[place + 1 : place + 2]
    if text[place] == APOSTROPHE:
        # Those at the edges are taken off later, with what else stands there.
        return not any(map(_UNSPACED_LETTER.match, neighbours))

    return all(map(_is_spaced_letter, neighbours))


def _is_attached(character: str) -> bool:
    """Whether a character belongs to the letter before it."""
    return unicodedata.category(character)[0] == "M" or character in _JOINERS


def _is_spaced_letter(character: str) -> bool:
    """Whether this is a letter of a script that puts spaces between words."""
    is_letter = character != "" and unicodedata.category(character)[0] == "L"
    return (is_letter or bool(_LETTER_SIGN.match(character))) and not _UNSPACED_LETTER.match(
        character
    )


def _without_edges(stretch: str) -> str:
    """Take off the apostrophes and joiners at the edges of a word that are not its spelling."""
    word = stretch.strip(APOSTROPHE + _JOINERS)

    # Behind a muted consonant the joiner makes another letter of it: a chillu of Malayalam.
    rest = stretch[stretch.find(word) + len(word) :]
    ends_in_virama = word != "" and unicodedata.combining(word[-1]) == VIRAMA
    if ends_in_virama and rest.startswith(ZERO_WIDTH_JOINER):
        word += ZERO_WIDTH_JOINER

    return word


def _has_letter_or_number(word: str) -> bool:
    without_apostrophes = word.replace(LETTER_APOSTROPHE, "")
    return any(
        unicodedata.category(character)[0] in "LN" or character in _WORD_SIGNS
        for character in without_apostrophes
    )
