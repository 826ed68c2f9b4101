#!/usr/bin/env bash
# num2words 0.5.14 (Azerbaijani and Turkish)
#
# Both languages say 1000 without "one" ("min", "bin"), but 11,000 with it. What comes out:
#
#                 Azerbaijani                 Turkish
#     10,000      on min                      onbin
#     11,000      on min, the same            onbirbin
#     21,500      iyirmi min beş yüz: 20,500  yirmibirbinbeşyüz
#     101,000     yüz min: 100,000            yüzbirbin
#     101,500     yüz min beş yüz: 100,500    yüzbinbeşyüz: 100,500
#
# In Azerbaijani 99,000 of the numbers below a million have the words of the number that is 1000 less: all from 11,000 on
# whose thousands end in 1. In Turkish 89,910 have: from 101,001 on, and only those that go on after the thousands. Texts
# that are read out, aligned with audio or counted for a language model hold wrong numbers by this, and look right.
#
# The script fails where this has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet num2words==0.5.14
"$folder/venv/bin/python" - <<'PYTHON'
from num2words import num2words

LIMIT = 1_000_000
EXAMPLES = {
    "az": {10_000: "on min", 11_000: "on min", 21_500: "iyirmi min beş yüz", 101_500: "yüz min beş yüz"},
    "tr": {10_000: "onbin", 11_000: "onbirbin", 101_000: "yüzbirbin", 101_500: "yüzbinbeşyüz"},
}


def less_by_1000(language: str) -> list[int]:
    """The numbers that have the words of another one. Stops if that is not the number 1000 below."""
    number_of = {}
    found = []
    for number in range(LIMIT):
        other = number_of.setdefault(num2words(number, lang=language), number)
        if other != number:
            if other != number - 1000:
                raise SystemExit(f"{language}: {number} has the words of {other}: this has changed")
            found.append(number)
    return found


for language, examples in EXAMPLES.items():
    words = {number: num2words(number, lang=language) for number in examples}
    print(f"{language}: {words}")
    if words != examples:
        raise SystemExit("this has changed")

expected = {
    "az": [number for number in range(11_000, LIMIT) if number // 1000 % 10 == 1],
    "tr": [number for number in range(101_000, LIMIT) if number // 1000 % 10 == 1 and number % 1000],
}
for language, numbers in expected.items():
    found = less_by_1000(language)
    print(f"{language}: {len(found)} numbers below {LIMIT} have the words of the number 1000 less")
    if found != numbers:
        raise SystemExit("this has changed")
print("as described")
PYTHON
