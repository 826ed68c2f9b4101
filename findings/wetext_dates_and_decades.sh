#!/usr/bin/env bash
# WeTextProcessing 1.2.0 (written text to spoken words, Chinese and English, with the grammars of the wheel)
#
#     12月1日, 12月3日  ->  十二月一日, 十二月三日
#     12月2日           ->  十二月两日, "two days of December", in place of 十二月二日; so for all twelve months, though
#                           2026-12-02 and 12月2号 come out right. Of the 31 days of a month this is the only one.
#     in the 90s        ->  in the nineties
#     in the 1990s      ->  in the one thousand nine hundred and ninety seconds; so for the 1950s to 1980s and the 2020s
#     1001, 1,001       ->  one thousand one, but thousand and one
#
# Newspaper text for a language model, or the text of a reading that is to be aligned, has words by this that nobody said.
#
# The script fails where this has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet WeTextProcessing==1.2.0 pynini==2.1.6.post1
"$folder/venv/bin/python" - <<'PYTHON'
import logging

from tn.chinese.normalizer import Normalizer as Chinese
from tn.english.normalizer import Normalizer as English

logging.disable(logging.INFO)
DIGITS = "零一二三四五六七八九"


def number(value: int) -> str:
    """A number below 100 in Chinese."""
    tens, ones = divmod(value, 10)
    text = "" if tens == 0 else "十" if tens == 1 else DIGITS[tens] + "十"
    return text + (DIGITS[ones] if ones else "")


chinese, english = Chinese(), English()
failed = False


def check(text: str, spoken: str, expected: str) -> None:
    global failed
    print(f"{text} -> {spoken}")
    if spoken != expected:
        print(f"  this has changed, before: {expected}")
        failed = True


days = [(month, day) for month in range(1, 13) for day in range(1, 29)] + [(12, day) for day in (29, 30, 31)]
wrong = set()
for month, day in days:
    if chinese.normalize(f"{month}月{day}日") != f"{number(month)}月{number(day)}日":
        wrong.add((month, day))
print(f"{len(days)} days tried, wrong (month, day): {sorted(wrong)}")
failed |= wrong != {(month, 2) for month in range(1, 13)}

check("12月2日", chinese.normalize("12月2日"), "十二月两日")
check("2026-12-02", chinese.normalize("2026-12-02"), "二零二六年十二月二日")
check("12月2号", chinese.normalize("12月2号"), "十二月二号")

decades = {
    1950: "fifty",
    1960: "sixty",
    1970: "seventy",
    1980: "eighty",
    1990: "ninety",
}
for decade, word in decades.items():
    text = f"in the {decade}s"
    check(text, english.normalize(text), f"in the one thousand nine hundred and {word} seconds")
check("in the 2020s", english.normalize("in the 2020s"), "in the two thousand and twenty seconds")
check("in the 90s", english.normalize("in the 90s"), "in the nineties")
check("1001", english.normalize("1001"), "one thousand one")
check("1,001", english.normalize("1,001"), "thousand and one")
print("changed" if failed else "as described")
raise SystemExit(failed)
PYTHON
