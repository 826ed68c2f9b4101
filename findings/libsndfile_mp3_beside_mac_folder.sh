#!/usr/bin/env bash
# soundfile 0.14.0 with libsndfile 1.2.2: whether the bytes of an MP3 can be read depends on the current folder
#
# An MP3 that is read from a file object has no name. libsndfile takes it for one half of a Mac's file all the same before
# it tries its decoder, and looks for the other half under the empty name in the current folder: "._" or ".AppleDouble/".
# Shares that Macs use hold such folders. Where one is there, every such MP3 is refused, with error 149:
#
#     the same MP3                      other folder    folder with .AppleDouble/    folder with a file "._"
#     by its path                       16000           16000                        16000
#     from bytes or an open file        16000           error 149                    error 149
#     the same, behind an ID3v2 tag     16000           16000                        16000
#
# WAV, FLAC and Ogg from bytes are read in each of them. The folder of the MP3 plays no part, and the message of soundfile
# is empty, so the files seem to be broken: and they are whole again when the command runs elsewhere. A tag of ten bytes of
# padding, put before the bytes, is a way around it.
#
# The script fails where this has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet soundfile==0.14.0 numpy==2.4.6
mkdir "$folder/recordings" "$folder/plain" "$folder/mac" "$folder/other-half"
mkdir "$folder/mac/.AppleDouble"
touch "$folder/other-half/._"
cat >"$folder/read.py" <<'PYTHON'
import io
import os
import sys
from pathlib import Path

import numpy as np
import soundfile

CODINGS = {"MP3": "MPEG_LAYER_III", "WAV": "PCM_16", "FLAC": "PCM_16", "OGG": "VORBIS"}
TAG = b"ID3\4\0\0\0\0\0\x0a" + bytes(10)
ROOT = Path(sys.argv[1])


def outcome(source: object) -> int:
    """The number of samples, or the number of libsndfile's error, negative."""
    try:
        samples, _ = soundfile.read(source)
    except soundfile.LibsndfileError as error:
        return -error.code
    return len(samples)


path = ROOT / "recordings" / "tone.mp3"
tone = 0.1 * np.sin(np.arange(16_000) / 10)
memory = {}
for container, coding in CODINGS.items():
    memory[container] = io.BytesIO()
    soundfile.write(memory[container], tone, 16_000, format=container, subtype=coding)
path.write_bytes(memory["MP3"].getvalue())

for name, expected in (("plain", 16_000), ("mac", -149), ("other-half", -149)):
    os.chdir(ROOT / name)
    by_container = {}
    for container, file in memory.items():
        file.seek(0)
        by_container[container] = outcome(file)
    with path.open("rb") as opened:
        from_file = outcome(opened)
    tagged = outcome(io.BytesIO(TAG + path.read_bytes()))

    print(f"{name}: path {outcome(path)}, open file {from_file}, bytes {by_container}, behind a tag {tagged}")
    others = {container: 16_000 for container in CODINGS if container != "MP3"}
    as_described = (
        outcome(path) == 16_000
        and from_file == expected
        and by_container == {"MP3": expected} | others
        and tagged == 16_000
    )
    if not as_described:
        raise SystemExit("this has changed")

print(soundfile.__version__, soundfile.__libsndfile_version__, "as described")
PYTHON
"$folder/venv/bin/python" "$folder/read.py" "$folder"
