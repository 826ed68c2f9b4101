#!/usr/bin/env bash
# pylangacq 0.23.0 (its readers and writers are those of rustling 0.9.0) turns CHAT into ELAN files and TextGrids
#
# In a CHAT file each utterance ends with its times between two characters of number 21. Four utterances at 1 to 2 s,
# 2.5 to 3 s, 6 to 7 s and 8 to 8.5 s, by a mother and, the second one, a child:
#
#     to_elan       writes the times, with these characters, into the text of each annotation. XML 1.0 forbids them:
#                   Python's own reader, lxml and pympi refuse the file. rustling reads it: "thank you . 6000_7000"
#     to_textgrid   writes no empty interval for a pause, where Praat has one. The mother's three intervals follow each
#                   other directly, and the child's tier ends at 3 s, the file at 8.5 s. In Praat 6.1.38 the pause from
#                   2 to 6 s belongs to "thank you ."; a boundary at 4 s makes an interval of this text from 6 to 4 s
#     to_srt        is right
#
# praatio 6.2.2 and tgt 1.5 read the TextGrid as it was meant, so whoever checks with these alone sees nothing. The ELAN
# file of a single timed utterance is refused as well. Nothing is reported when the files are written.
#
# The script fails where this has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pylangacq==0.23.0 rustling==0.9.0 pympi-ling==1.71 lxml==6.1.3 praatio==6.2.2 \
    tgt==1.5 praat-parselmouth==0.4.7 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import importlib.metadata
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import lxml.etree
import parselmouth
import pylangacq
import pympi
import rustling
import tgt
from parselmouth.praat import call
from praatio import textgrid

BULLET = "\x15"  # stands in front of and behind the times of an utterance
UTTERANCES = [
    ("MOT", "where is it ?", 1000, 2000),
    ("CHI", "there .", 2500, 3000),
    ("MOT", "thank you .", 6000, 7000),
    ("MOT", "bye .", 8000, 8500),
]
HEADERS = [
    "@UTF8",
    "@Begin",
    "@Languages:\teng",
    "@Participants:\tCHI Child, MOT Mother",
    "@ID:\teng|said|CHI|||||Child|||",
    "@ID:\teng|said|MOT|||||Mother|||",
    "@Media:\tsaid, audio",
]


def expect(holds: bool, what: str) -> None:
    if not holds:
        raise SystemExit(f"this has changed: {what}")


def refusal(read: Callable[[str], object]) -> str:
    """The message of a reader that refuses the ELAN file, or nothing."""
    try:
        read("said.eaf")
    except Exception as error:
        return str(error)
    return ""


def in_praat(grid: parselmouth.Data, tier: int) -> list[tuple[float, float, str]]:
    count = call(grid, "Get number of intervals", tier)
    return [
        (
            call(grid, "Get start time of interval", tier, number),
            call(grid, "Get end time of interval", tier, number),
            call(grid, "Get label of interval", tier, number),
        )
        for number in range(1, count + 1)
    ]


for package in ("pylangacq", "rustling", "praat-parselmouth"):
    print(package, importlib.metadata.version(package))
print("Praat", parselmouth.PRAAT_VERSION)

lines = [f"*{speaker}:\t{text} {BULLET}{start}_{end}{BULLET}" for speaker, text, start, end in UTTERANCES]
Path("said.cha").write_text("\n".join([*HEADERS, *lines, "@End", ""]))
chat = pylangacq.read_chat("said.cha")
read = [(one.participant, one.time_marks) for one in chat.utterances()]
expect(read == [(speaker, (start, end)) for speaker, _, start, end in UTTERANCES], "what is read from CHAT")

print("ELAN:")
alone = pylangacq.CHAT.from_strs(["\n".join([*HEADERS[:-1], lines[0], "@End", ""])]).to_elan_strs()[0]
Path("said.eaf").write_text(alone)
expect(bool(refusal(ElementTree.parse)), "a single utterance")
Path("said.eaf").write_text(chat.to_elan_strs()[0])
readers = {"Python": ElementTree.parse, "lxml": lxml.etree.parse, "pympi": pympi.Eaf}
for name, reader in readers.items():
    message = refusal(reader)
    print(f"    {name}: {message or 'reads it'}")
    expect(bool(message), f"{name} reads the ELAN file")

[tiers] = rustling.read_elan("said.eaf").tiers()
values = {name: [one.value for one in tier.annotations] for name, tier in tiers.items()}
print(f"    rustling: {values}")
expected = {"MOT": [], "CHI": []}
for speaker, text, start, end in UTTERANCES:
    expected[speaker].append(f"{text} {BULLET}{start}_{end}{BULLET}")
expect(values == expected, "what rustling reads from its ELAN file")

cleaned = Path("said.eaf").read_text().replace(BULLET, "")
expect(ElementTree.fromstring(cleaned).tag == "ANNOTATION_DOCUMENT", "only these characters are to blame")

print("TextGrid:")
Path("said.TextGrid").write_text(chat.to_textgrid_strs()[0])
meant = {"MOT": [], "CHI": []}
for speaker, text, start, end in UTTERANCES:
    meant[speaker].append((start / 1000, end / 1000, text))

opened = textgrid.openTextgrid("said.TextGrid", includeEmptyIntervals=False, reportingMode="error")
by_praatio = {tier.name: [tuple(one) for one in tier.entries] for tier in opened.tiers}
by_tgt = {
    tier.name: [(one.start_time, one.end_time, one.text) for one in tier]
    for tier in tgt.io.read_textgrid("said.TextGrid").tiers
}
print(f"    praatio: {by_praatio}")
expect(by_praatio == by_tgt == meant, "praatio and tgt")

grid = parselmouth.read("said.TextGrid")
ends = [call(grid, "Get end time"), in_praat(grid, 2)[-1][1]]
print(f"    Praat: {in_praat(grid, 1)}; end of the file and of the child's tier: {ends}")
expect(in_praat(grid, 1) == meant["MOT"], "the intervals in Praat have no pauses between them")
expect(ends == [8.5, 3.0], "the child's tier ends early")

inside = call(grid, "Get interval at time", 1, 4.0)
print(f"    Praat: at 4.0 s, in the pause, is interval {inside}, {in_praat(grid, 1)[inside - 1]}")
expect(inside == 2, "the pause belongs to the interval behind it")

call(grid, "Insert boundary", 1, 4.0)
broken = in_praat(grid, 1)
print(f"    Praat: with a boundary at 4.0 s: {broken}")
expect((6.0, 4.0, "thank you .") in broken, "an interval ends before it begins")

srt = chat.to_srt_strs()[0]
expect(BULLET not in srt and "00:00:06,000 --> 00:00:07,000\nMOT: thank you ." in srt, "SubRip")
print("as described")
PYTHON
