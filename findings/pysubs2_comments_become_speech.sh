#!/usr/bin/env bash
# pysubs2 1.8.1: a comment between two cues of a WebVTT file becomes words of the cue before it
#
# W3C's WebVTT allows blocks NOTE between cues, times inside the text of a cue, and character references such as &amp;. Four
# readers were given the same valid files, and what they take for the first cue's text is:
#
#     in the file                          pysubs2 1.8.1            webvtt-py 0.6.0    pycaption 2.3.14   ttconv 1.2.3
#     "one two", blank line, "NOTE late"   one two\N\NNOTE late     one two            one two            one two
#     one <00:00:02.000>two                one <00:00:02.000>two    one two            one two            one two
#     salt &amp; pepper                    salt &amp; pepper        salt &amp; pepper  salt & pepper      salt & pepper
#
# In captions that people checked by hand such notes are common, and nothing tells them from what was said.
#
# In SubRip files pysubs2 looks for two digits of hours, wherever they stand. A cue at hour 100 or later, as a logger that
# runs for a week writes it, comes 100 hours too early, without a word. In WebVTT it is read right.
#
#     100:00:01,000 --> 100:00:02,500      1.0 to 2.5 s             360001 to ...      360001 to ...      360001 to ...
#
# The script fails where this has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pysubs2==1.8.1 webvtt-py==0.6.0 pycaption==2.3.14 ttconv==1.2.3
cat >"$folder/read.py" <<'PYTHON'
import io
import sys
import warnings
from pathlib import Path

import pycaption
import pysubs2
import ttconv.model
import ttconv.srt.reader
import ttconv.vtt.reader
import webvtt

warnings.simplefilter("ignore")
FOLDER = Path(sys.argv[1])
READERS = ("pysubs2", "webvtt-py", "pycaption", "ttconv")
SECOND_CUE = "00:00:05.000 --> 00:00:06.000\nbye\n"


def first_cues(kind: str, text: str) -> dict[str, tuple[float, str]]:
    """By reader, when the first cue begins, seconds, and its text."""
    path = FOLDER / f"captions.{kind}"
    path.write_text(text)
    cue = pysubs2.load(str(path))[0]
    found = {"pysubs2": (cue.start / 1000, cue.text)}

    read = webvtt.read if kind == "vtt" else webvtt.from_srt
    caption = read(str(path))[0]
    found["webvtt-py"] = (float(caption.start_in_seconds), caption.text)

    reader = pycaption.WebVTTReader() if kind == "vtt" else pycaption.SRTReader()
    captions = reader.read(text)
    first = captions.get_captions(captions.get_languages()[0])[0]
    found["pycaption"] = (first.start / 1e6, first.get_text())

    module = ttconv.vtt.reader if kind == "vtt" else ttconv.srt.reader
    document = module.to_model(io.StringIO(text))
    paragraphs = [part for part in document.get_body().dfs_iterator() if isinstance(part, ttconv.model.P)]
    words = [part.get_text() for part in paragraphs[0].dfs_iterator() if isinstance(part, ttconv.model.Text)]
    found["ttconv"] = (float(paragraphs[0].get_begin()), "".join(words))
    return found


def check(name: str, found: dict[str, tuple[float, str]], expected: dict[str, tuple[float, str]]) -> None:
    print(name, found)
    if found != expected:
        raise SystemExit("this has changed")


def vtt(lines: str) -> dict[str, tuple[float, str]]:
    return first_cues("vtt", f"WEBVTT\n\n00:00:01.000 --> 00:00:03.000\n{lines}\n\n{SECOND_CUE}")


plain = {reader: (1.0, "one two") for reader in READERS}
check("plain", vtt("one two"), plain)
check("note", vtt("one two\n\nNOTE late"), plain | {"pysubs2": (1.0, "one two\\N\\NNOTE late")})
check(
    "time inside",
    vtt("one <00:00:02.000>two"),
    plain | {"pysubs2": (1.0, "one <00:00:02.000>two")},
)
escaped, meant = (1.0, "salt &amp; pepper"), (1.0, "salt & pepper")
check(
    "reference",
    vtt("salt &amp; pepper"),
    {"pysubs2": escaped, "webvtt-py": escaped, "pycaption": meant, "ttconv": meant},
)

late = {reader: (360_001.0, "one two") for reader in READERS}
cue = "100:00:01{0}000 --> 100:00:02{0}500\none two\n"
check("hour 100, WebVTT", first_cues("vtt", "WEBVTT\n\n" + cue.format(".")), late)
check("hour 100, SubRip", first_cues("srt", "1\n" + cue.format(",")), late | {"pysubs2": (1.0, "one two")})
print("as described")
PYTHON
"$folder/venv/bin/python" "$folder/read.py" "$folder"
