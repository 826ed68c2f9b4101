#!/usr/bin/env bash
# tgt 1.5 writes a TextGrid, praatio 6.2.2 reads it (and Praat 6.1.38, which praat-parselmouth 0.4.7 holds)
#
# tgt's own form is the short one, and its files end without a line break. Of four words, of which the last goes on to the
# end of the recording, praatio returns three, and of three points two. It reports nothing:
#
#     written by tgt        read by Praat    read by praatio
#     short (its default)   4 words          3: the last one is gone
#     short, points last    3 points         2: the last one is gone
#     long                  4 words          4
#     short, with silence   4 words          4: what is gone is the silence, which nobody misses
#
# Recordings cut right after the speech lose their last word by this, the others none, and a file that praatio saves again
# has lost it for all readers. A line break added to the end of the file is enough to get it back.
#
# The script fails where this has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tgt==1.5 praatio==6.2.2 praat-parselmouth==0.4.7 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from pathlib import Path

import parselmouth
import tgt
from parselmouth.praat import call
from praatio import textgrid

FILE = "said.TextGrid"
WORDS = ["we", "did", "not", "agree"]
TONES = ["H*", "L-", "L%"]


def write(file_format: str, end: float, with_points: bool) -> None:
    """Words of one second each, and after them points in a tier of their own."""
    words = tgt.IntervalTier(0, end, "words")
    for second, word in enumerate(WORDS):
        words.add_interval(tgt.Interval(second, second + 1, word))
    grid = tgt.TextGrid()
    grid.add_tier(words)

    if with_points:
        points = tgt.PointTier(0, end, "tones")
        for second, tone in enumerate(TONES):
            points.add_point(tgt.Point(second + 0.5, tone))
        grid.add_tier(points)

    tgt.io.write_to_file(grid, FILE, format=file_format)


def by_praat() -> list[list[str]]:
    grid = parselmouth.read(FILE)
    tiers = []
    for tier in range(1, call(grid, "Get number of tiers") + 1):
        kind = "interval" if call(grid, "Is interval tier", tier) else "point"
        count = call(grid, f"Get number of {kind}s", tier)
        labels = [call(grid, f"Get label of {kind}", tier, number) for number in range(1, count + 1)]
        tiers.append([label for label in labels if label])
    return tiers


def by_praatio() -> list[list[str]]:
    grid = textgrid.openTextgrid(FILE, includeEmptyIntervals=False, reportingMode="error")
    return [[entry.label for entry in tier.entries] for tier in grid.tiers]


def check(case: str, written: list[list[str]], expected: list[list[str]]) -> None:
    praat, praatio = by_praat(), by_praatio()
    print(f"{case}: Praat {praat}; praatio {praatio}")
    if praat != written or praatio != expected:
        raise SystemExit("this has changed")


write("short", end=4, with_points=False)
check("short", [WORDS], [WORDS[:-1]])
with Path(FILE).open("a") as file:
    file.write("\n")
check("short, and a line break", [WORDS], [WORDS])

write("short", end=4, with_points=True)
check("short, points last", [WORDS, TONES], [WORDS, TONES[:-1]])

write("long", end=4, with_points=False)
check("long", [WORDS], [WORDS])

write("short", end=5, with_points=False)
check("short, with silence at the end", [WORDS], [WORDS])
print("as described")
PYTHON
