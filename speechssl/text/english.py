"""English as it is spoken: numbers, contractions and titles written out as words.

So two spellings of one reading agree.
"""

import re

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
ENDINGS = (("n't", "not"), ("'re", "are"), ("'ve", "have"), ("'ll", "will"), ("'m", "am"))
UNCHANGED = {"ain't"}
HESITATIONS = frozenset({"uh", "um", "uhm", "hm", "hmm", "mhm", "erm"})  # mm and er are words too
MAGNITUDES = {"k": "thousand", "m": "million", "bn": "billion"}
_BELOW_HUNDRED = {*ONES[1:], *TENS[1:]}  # what may follow "hundred and" in a number
CURRENCIES = {"$": "dollar", "£": "pound", "€": "euro"}

_NUMBER = re.compile(
    r"(?P<currency>[$£€])?"
    # Possessive: no digit is left to what follows.
    r"(?P<whole>[0-9]{1,3}(?:,[0-9]{3})++(?![0-9])|[0-9]++)"
    r"(?:\.(?P<decimals>[0-9]++)"
    r"|(?P<ordinal>(?:st|nd|rd|th)(?![a-z]))"
    r"|(?P<decade>(?<=0)'?s(?![a-z])))?"
    r"(?(currency)(?:\s*(?P<magnitude>thousand|million|billion|trillion|k|m|bn)(?![a-z]))?)"
)


def numbers_as_words(text: str) -> str:
    """Write the numbers, amounts, per cents and ampersands of lower-case text as words.

    A number that could be read in several ways is read in one, the same for everyone: what counts
    is that both sides of a comparison are read alike.
    """
    text = _NUMBER.sub(_spoken, text)
    return text.replace("%", " percent ").replace("&", " and ")


def plain_words(words: list[str]) -> list[str]:
    """Write out contractions and titles, and leave out hesitations and "and" inside a number."""
    plain: list[str] = []
    for word in words:
        if word in WORDS:
            plain += WORDS[word].split()
        elif word not in HESITATIONS:
            plain += _without_contraction(word)

    kept = []
    for k, word in enumerate(plain):
        is_inner = 0 < k < len(plain) - 1
        if word == "and" and is_inner and _is_one_number(plain[k - 1], plain[k + 1]):
            continue
        kept.append(word)

    return kept


def cardinal(number: int) -> str:
    """Name a number of up to ``MOST_DIGITS`` digits, without "and" and hyphens."""
    if number < 20:
        return ONES[number]

    if number < 100:
        tens, ones = divmod(number, 10)
        return f"{TENS[tens]} {ONES[ones]}" if ones else TENS[tens]

    size = 100
    name = GROUPS[0]
    for k, larger in enumerate(GROUPS[1:], start=1):
        if number >= 1000**k:
            size = 1000**k
            name = larger

    count, rest = divmod(number, size)
    words = f"{cardinal(count)} {name}"
    return f"{words} {cardinal(rest)}" if rest else words


def ordinal(words: str) -> str:
    """Turn a number's words into its ordinal: ``twenty one`` -> ``twenty first``."""
    before, space, last = words.rpartition(" ")
    if last.endswith("y"):
        return f"{before}{space}{last[:-1]}ieth"

    return before + space + ORDINALS.get(last, f"{last}th")


def year(number: int) -> str:
    """Read 1100 to 2099 as a year: ``nineteen oh five``, ``twenty ten``, ``two thousand one``."""
    if number in range(2000, 2010):
        return cardinal(number)

    century, rest = divmod(number, 100)
    if rest == 0:
        return f"{cardinal(century)} hundred"
    if rest < 10:
        return f"{cardinal(century)} oh {cardinal(rest)}"
    return f"{cardinal(century)} {cardinal(rest)}"


def _spoken(found: re.Match[str]) -> str:
    """Read one number of a text, with a space at both ends."""
    currency = found["currency"]
    decimals = found["decimals"]
    digits = found["whole"].replace(",", "")

    has_comma = "," in found["whole"]
    is_amount = has_comma or currency or decimals or found["ordinal"]
    if is_amount and digits[0] != "0" and len(digits) <= MOST_DIGITS:
        words = cardinal(int(digits))
    else:
        words = _plain_number(digits)

    if decimals:
        words += f" point {_one_by_one(decimals)}"
    if found["ordinal"]:
        words = ordinal(words)
    if currency:
        words = _amount(words, currency, found["magnitude"])
    if found["decade"]:
        words = f"{words[:-1]}ies" if words.endswith("y") else f"{words}s"

    return f" {words} "


def _plain_number(digits: str) -> str:
    """Read digits: four of them as a year, those that begin with 0 or are many one by one."""
    has_leading_zero = digits[0] == "0" and len(digits) > 1
    if has_leading_zero or len(digits) > MOST_DIGITS:
        return _one_by_one(digits)

    number = int(digits)
    if len(digits) == 4 and 1100 <= number < 2100:
        return year(number)
    return cardinal(number)


def _one_by_one(digits: str) -> str:
    return " ".join(ONES[int(digit)] for digit in digits)


def _amount(words: str, currency: str, magnitude: str | None) -> str:
    """Name an amount of money: ``two million dollars``, ``one pound``."""
    if magnitude:
        words += f" {MAGNITUDES.get(magnitude, magnitude)}"

    name = CURRENCIES[currency]
    return f"{words} {name}" if words == "one" else f"{words} {name}s"


def _without_contraction(word: str) -> list[str]:
    """Part a word from its contracted ending: ``they've`` -> ``they``, ``have``."""
    if word in UNCHANGED:
        return [word]

    for ending, written_out in ENDINGS:
        if word.endswith(ending) and word != ending:
            return [word.removesuffix(ending), written_out]

    return [word]


def _is_one_number(before: str, after: str) -> bool:
    """Whether "and" between two words is inside a number, as in ``hundred and two``."""
    return before in GROUPS and after in _BELOW_HUNDRED
