"""English as it is spoken: numbers, contractions and titles written out as words.

So two spellings of one reading agree.
"""

import re
from collections.abc import Iterable, Set

# fmt: off
ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "ten", "eleven", "twelve", "thirteen", "fourteen",
    "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)
TENS = "zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"
GROUPS = "hundred", "thousand", "million", "billion", "trillion"
MOST_DIGITS = 15  # of a number that has a name; longer ones are read digit by digit
ORDINALS = {  # of what does not just take "th"
    "one": "first", "two": "second", "three": "third", "five": "fifth",
    "eight": "eighth", "nine": "ninth", "twelve": "twelfth",
}
# Of what has one reading only: 's, 'd, ain't, st and no. have several, and stay.
WORDS = {
    "won't": "will not", "can't": "can not", "cannot": "can not", "shan't": "shall not",
    "let's": "let us", "gonna": "going to", "wanna": "want to", "gotta": "got to",
    "mr": "mister", "mrs": "missus", "dr": "doctor", "prof": "professor",
    "vs": "versus", "okay": "ok",
}
# fmt: on
ENDINGS = {"n't": "not", "'re": "are", "'ve": "have", "'ll": "will", "'m": "am"}
UNCHANGED = {"ain't"}
HESITATIONS = frozenset({"uh", "um", "uhm", "hm", "hmm", "mhm", "erm"})  # mm and er are words too
MAGNITUDES = {"k": "thousand", "m": "million", "bn": "billion"}
_BELOW_HUNDRED = {*ONES[1:], *TENS[1:]}  # what may follow "hundred and" in a number
_YEARS = range(1100, 2100)  # numbers of four digits that are read as years
_YEARS_OF_TWO_THOUSAND = range(2000, 2010)  # "two thousand one", and not "twenty oh one"
CURRENCIES = {"$": "dollar", "£": "pound", "€": "euro"}
# What english-2 reads too, and those whose names have no plural of their own.
MORE_CURRENCIES = {
    "¢": "cent",
    "¥": "yen",
    "₹": "rupee",
    "₩": "won",
    "₽": "ruble",
    "₺": "lira",
    "₪": "shekel",
    "₱": "peso",
    "₦": "naira",
}
SAME_IN_PLURAL = {"yen", "won", "naira"}
MAGNITUDE = "thousand|million|billion|trillion|k|m|bn"


def _number_pattern(currencies: Iterable[str]) -> re.Pattern[str]:
    """Return what finds a number, with one of these signs before it or without."""
    signs = "".join(currencies)
    return re.compile(
        rf"(?P<currency>[{signs}])?"
        # Possessive: no digit is left to what follows.
        r"(?P<whole>[0-9]{1,3}(?:,[0-9]{3})++(?![0-9])|[0-9]++)"
        r"(?:\.(?P<decimals>[0-9]++)"
        r"|(?P<ordinal>(?:st|nd|rd|th)(?![a-z]))"
        r"|(?P<decade>(?<=0)'?s(?![a-z])))?"
        rf"(?(currency)(?:\s*(?P<magnitude>{MAGNITUDE})(?![a-z]))?)"
    )


_NUMBER = _number_pattern(CURRENCIES)
NUMBER_2 = _number_pattern([*CURRENCIES, *MORE_CURRENCIES])


def numbers_as_words(text: str, pattern: re.Pattern[str] = _NUMBER) -> str:
    """Write the numbers, amounts, per cents and ampersands of lower-case text as words.

    A number that could be read in several ways is read in one, the same for everyone: what counts
    is that both sides of a comparison are read alike.
    """
    text = pattern.sub(_spoken, text)
    return text.replace("%", " percent ").replace("&", " and ")


def plain_words(words: list[str], hesitations: Set[str] = HESITATIONS) -> list[str]:
    """Write out contractions and titles, and leave out hesitations and "and" inside a number."""
    plain: list[str] = []
    for word in words:
        if word in WORDS:
            plain += WORDS[word].split()
        elif word not in hesitations:
            plain += _without_contraction(word)

    words_before = ["", *plain[:-1]]
    words_after = [*plain[1:], ""]

    kept: list[str] = []
    for before, word, after in zip(words_before, plain, words_after, strict=False):
        is_inside_number = word == "and" and _is_one_number(before, after)
        if not is_inside_number:
            kept.append(word)

    return kept


def cardinal(number: int) -> str:
    """Name a number of up to ``MOST_DIGITS`` digits, without "and" and hyphens."""
    if number < 20:
        return ONES[number]

    if number < 100:
        tens, rest = divmod(number, 10)
        words = TENS[tens]
    else:
        # The largest group that the number holds at least once.
        size = 100
        group, *larger_groups = GROUPS
        for k, larger in enumerate(larger_groups, start=1):
            if number >= 1000**k:
                size = 1000**k
                group = larger

        count, rest = divmod(number, size)
        words = f"{cardinal(count)} {group}"

    return f"{words} {cardinal(rest)}" if rest else words


def ordinal(words: str) -> str:
    """Turn a number's words into its ordinal: ``twenty one`` -> ``twenty first``."""
    before, space, last = words.rpartition(" ")
    if last.endswith("y"):
        stem = last.removesuffix("y")
        return f"{before}{space}{stem}ieth"

    last_ordinal = ORDINALS.get(last, f"{last}th")
    return before + space + last_ordinal


def year(number: int) -> str:
    """Read 1100 to 2099 as a year: ``nineteen oh five``, ``twenty ten``, ``two thousand one``."""
    if number in _YEARS_OF_TWO_THOUSAND:
        return cardinal(number)

    century, rest = divmod(number, 100)
    century_words = cardinal(century)
    if rest == 0:
        return f"{century_words} hundred"

    rest_words = cardinal(rest)
    if rest < 10:
        return f"{century_words} oh {rest_words}"
    return f"{century_words} {rest_words}"


def _spoken(found: re.Match[str]) -> str:
    """Read one number of a text, with a space at both ends."""
    currency = found["currency"]
    decimals = found["decimals"]
    whole = found["whole"]
    digits = whole.replace(",", "")

    has_comma = digits != whole
    is_amount = has_comma or currency or decimals or found["ordinal"]
    has_name = not digits.startswith("0") and len(digits) <= MOST_DIGITS
    if is_amount and has_name:
        number = int(digits)
        words = cardinal(number)
    else:
        words = _plain_number(digits)

    if decimals:
        words += f" point {_one_by_one(decimals)}"
    if found["ordinal"]:
        words = ordinal(words)
    if currency:
        words = _amount(words, currency, found["magnitude"])
    if found["decade"]:
        words = _plural(words)

    return f" {words} "


def _plural(words: str) -> str:
    """Turn a number's words into their plural: ``nineteen nineties``, ``two thousands``."""
    if words.endswith("y"):
        stem = words.removesuffix("y")
        return f"{stem}ies"

    return f"{words}s"


def _plain_number(digits: str) -> str:
    """Read digits: four of them as a year, those that begin with 0 or are many one by one."""
    num_digits = len(digits)
    has_leading_zero = digits.startswith("0") and num_digits > 1
    if has_leading_zero or num_digits > MOST_DIGITS:
        return _one_by_one(digits)

    number = int(digits)
    is_year = num_digits == 4 and number in _YEARS
    return year(number) if is_year else cardinal(number)


def _one_by_one(digits: str) -> str:
    names = [ONES[int(digit)] for digit in digits]
    return " ".join(names)


def _amount(words: str, currency: str, magnitude: str | None) -> str:
    """Name an amount of money: ``two million dollars``, ``one pound``."""
    if magnitude:
        magnitude_name = MAGNITUDES.get(magnitude, magnitude)
        words += f" {magnitude_name}"

    name = (CURRENCIES | MORE_CURRENCIES)[currency]
    is_singular = words == "one" or name in SAME_IN_PLURAL
    return f"{words} {name}" if is_singular else f"{words} {name}s"


def _without_contraction(word: str) -> list[str]:
    """Part a word from its contracted ending: ``they've`` -> ``they``, ``have``."""
    if word in UNCHANGED:
        return [word]

    for ending, written_out in ENDINGS.items():
        before = word.removesuffix(ending)
        if before and before != word:
            return [before, written_out]

    return [word]


def _is_one_number(before: str, after: str) -> bool:
    """Whether "and" between two words is inside a number, as in ``hundred and two``."""
    return before in GROUPS and after in _BELOW_HUNDRED
