"""Numbers in words, each in one spelling: a part of ``english-2``, behind what reads digits.

So "a hundred and first" is "101st", "one thousand five hundred" is "fifteen hundred", as the year
is read, and "nineteen o five" is "nineteen oh five".
"""

from speechssl.text.english import GROUPS, ONES, TENS, cardinal, ordinal, year

DIGITS = frozenset(ONES[:10])
NUMBER_NAMES = frozenset({*ONES, *TENS, "oh"})
_PARTS = frozenset({"half", "third", "quarter"})
_BELOW_HUNDRED = {cardinal(number): number for number in range(1, 100)}
_ORDINALS = frozenset(ordinal(name) for name in (*ONES[1:], *TENS[1:]))
# Numbers that digits without a comma are read as years.
_YEARS = range(1100, 2100)


def numbers_alike(words: list[str]) -> list[str]:
    """Give numbers in words one spelling each."""
    words = _zeros_alike(words)
    words = _with_one_for_a(words)
    words = _without_and_before_ordinals(words)
    return _as_years(words)


def _zeros_alike(words: list[str]) -> list[str]:
    """Read ``zero point five`` as ``point five``, ``three point oh`` with zero, ``o`` as ``oh``."""
    alike: list[str] = []
    for place, word in enumerate(words):
        before = alike[-1] if alike else ""
        behind = [*words[place + 1 : place + 3], "", ""]

        begins_decimals = word == "zero" and behind[0] == "point" and behind[1] in DIGITS
        if begins_decimals and before not in NUMBER_NAMES:
            continue

        if word in ("oh", "o") and before == "point":
            word = "zero"
        elif word == "o" and before in NUMBER_NAMES and behind[0] in DIGITS:
            word = "oh"
        alike.append(word)

    return alike


def _with_one_for_a(words: list[str]) -> list[str]:
    """Read ``a hundred`` as ``one hundred``, ``and a quarter`` as ``and one quarter``."""
    alike: list[str] = []
    for place, word in enumerate(words):
        before = alike[-1] if alike else ""
        behind = words[place + 1] if place + 1 < len(words) else ""

        counts = behind in GROUPS and before != "half"
        is_part = behind == "half" or (before == "and" and behind in _PARTS)
        alike.append("one" if word == "a" and (counts or is_part) else word)

    return alike


def _without_and_before_ordinals(words: list[str]) -> list[str]:
    """Leave "and" out inside of ``one hundred and first``."""
    kept: list[str] = []
    for place, word in enumerate(words):
        before = kept[-1] if kept else ""
        behind = words[place + 1] if place + 1 < len(words) else ""
        is_inside = before in GROUPS and behind in _ORDINALS
        if not (word == "and" and is_inside):
            kept.append(word)

    return kept


def _as_years(words: list[str]) -> list[str]:
    """Read numbers from 1100 to 2099 as years are, whatever they count.

    Digits do not tell which they are: ``1500``, ``1,500`` and ``fifteen hundred`` are one number.
    """
    read: list[str] = []
    place = 0
    while place < len(words):
        before = read[-1] if read else ""
        number, end = _thousands(words, place)
        goes_on = end < len(words) and words[end] in (*GROUPS, "point")

        if number in _YEARS and before not in NUMBER_NAMES | {*GROUPS} and not goes_on:
            read += year(number).split()
            place = end
        else:
            read.append(words[place])
            place += 1

    return read


def _thousands(words: list[str], place: int) -> tuple[int, int]:
    """Find the number that begins with one or two thousand here.

    Returns:
        the number and the place behind it; 0 where there is none.
    """
    if words[place] not in ("one", "two") or words[place + 1 : place + 2] != ["thousand"]:
        return 0, place

    number = 1000 * ONES.index(words[place])
    end = place + 2
    if words[end + 1 : end + 2] == ["hundred"] and words[end] in DIGITS:
        number += 100 * ONES.index(words[end])
        end += 2

    for length in (2, 1):
        rest = " ".join(words[end : end + length])
        if len(rest.split()) == length and rest in _BELOW_HUNDRED:
            return number + _BELOW_HUNDRED[rest], end + length

    return number, end
