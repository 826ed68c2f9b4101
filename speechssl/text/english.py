"""English as it is spoken: numbers, contractions and titles written out, so that two spellings of one reading agree."""

import re

# fmt: off
ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)
TENS = "zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"
# fmt: on
GROUPS = "hundred", "thousand", "million", "billion", "trillion"
MOST_DIGITS = 15  # of a number that has a name; longer ones are read digit by digit
ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
# Of what has one reading only: 's, 'd, ain't, st and no. have several, and stay.
WORDS = {
    "won't": "will not",
    "can't": "can not",
    "cannot": "can not",
    "shan't": "shall not",
    "let's": "let us",
    "gonna": "going to",
    "wanna": "want to",
    "gotta": "got to",
    "mr": "mister",
    "mrs": "missus",
    "dr": "doctor",
    "prof": "professor",
    "vs": "versus",
    "okay": "ok",
}
ENDINGS = (("n't", "not"), ("'re", "are"), ("'ve", "have"), ("'ll", "will"), ("'m", "am"))
UNCHANGED = {"ain't"}
HESITATIONS = frozenset(
    ["uh", "um", "uhm", "hm", "hmm", "mhm", "erm"]
)  # not mm and er, which are words too
MAGNITUDES = {"k": "thousand", "m": "million", "bn": "billion"}
CURRENCIES = {"$": "dollar", "£": "pound", "€": "euro"}

_NUMBER = re.compile(
    r"(?P<currency>[$£€])?"
    r"(?P<whole>[0-9]{1,3}(?:,[0-9]{3})++(?![0-9])|[0-9]++)"  # possessive: no digit is left to what follows
    r"(?:\.(?P<decimals>[0-9]++)|(?P<ordinal>(?:st|nd|rd|th)(?![a-z]))|(?P<decade>(?<=0)'?s(?![a-z])))?"
    r"(?(currency)(?:\s*(?P<magnitude>thousand|million|billion|trillion|k|m|bn)(?![a-z]))?)"
)


def cardinal(number: int) -> str:
    """The words of a number of up to ``MOST_DIGITS`` digits, without "and" and hyphens."""
    if number < 20:
        return ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return TENS[tens] + (f" {ONES[ones]}" if ones else "")
    size, name = 100, GROUPS[0]
    for k, larger in enumerate(GROUPS[1:], 1):
        if number >= 1000**k:
            size, name = 1000**k, larger
    count, rest = divmod(number, size)
    return f"{cardinal(count)} {name}" + (f" {cardinal(rest)}" if rest else "")


def ordinal(words: str) -> str:
    """Of a number's words: ``twenty one`` -> ``twenty first``."""
    before, space, last = words.rpartition(" ")
    if last.endswith("y"):
        return f"{before}{space}{last[:-1]}ieth"
    return before + space + ORDINALS.get(last, f"{last}th")


def year(number: int) -> str:
    """1100 to 2099 as years are read: ``nineteen oh five``, ``twenty ten``, ``two thousand one``."""
    high, low = divmod(number, 100)
    if number in range(2000, 2010):
        return cardinal(number)
    if low == 0:
        return f"{cardinal(high)} hundred"
    return f"{cardinal(high)} {'oh ' if low < 10 else ''}{cardinal(low)}"


def _read(digits: str) -> str:
    """Digits without a separator: four of them as a year, those that begin with 0 or are many one by one."""
    if (digits[0] == "0" and len(digits) > 1) or len(digits) > MOST_DIGITS:
        return " ".join(ONES[int(d)] for d in digits)
    is_year = len(digits) == 4 and 1100 <= int(digits) < 2100
    return year(int(digits)) if is_year else cardinal(int(digits))


def _spoken(found: re.Match[str]) -> str:
    """One number of a text, with a space at both ends."""
    whole, decimals, currency = found["whole"], found["decimals"], found["currency"]
    digits = whole.replace(",", "")
    is_amount = bool("," in whole or currency or decimals or found["ordinal"])
    has_name = is_amount and digits[0] != "0" and len(digits) <= MOST_DIGITS
    words = cardinal(int(digits)) if has_name else _read(digits)
    if decimals:
        words += " point " + " ".join(ONES[int(d)] for d in decimals)
    if found["ordinal"]:
        words = ordinal(words)
    if currency:
        magnitude = found["magnitude"]
        words += f" {MAGNITUDES.get(magnitude, magnitude)}" if magnitude else ""
        words += f" {CURRENCIES[currency]}" + ("" if words == "one" else "s")
    if found["decade"]:
        words = f"{words[:-1]}ies" if words.endswith("y") else f"{words}s"
    return f" {words} "


def numbers_as_words(text: str) -> str:
    """Lower-case text whose numbers, amounts, per cents and ampersands are words; all else stays.

    A number that could be read in several ways is read in one, the same for everyone: what counts is that both sides of
    a comparison are read alike.
    """
    text = _NUMBER.sub(_spoken, text)
    return text.replace("%", " percent ").replace("&", " and ")


def plain_words(words: list[str]) -> list[str]:
    """Contractions and titles written out, hesitations left out, and no "and" inside a number."""
    plain: list[str] = []
    for word in words:
        ending = next(
            (pair for pair in ENDINGS if word.endswith(pair[0]) and len(word) > len(pair[0])), None
        )
        if word in WORDS:
            plain += WORDS[word].split()
        elif ending and word not in UNCHANGED:
            plain += [word.removesuffix(ending[0]), ending[1]]
        elif word not in HESITATIONS:
            plain.append(word)
    numbers = {*ONES[1:], *TENS[1:]}
    inside = [
        word == "and"
        and 0 < k < len(plain) - 1
        and plain[k - 1] in GROUPS
        and plain[k + 1] in numbers
        for k, word in enumerate(plain)
    ]
    return [word for word, skip in zip(plain, inside, strict=True) if not skip]
