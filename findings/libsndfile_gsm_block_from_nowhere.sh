#!/usr/bin/env bash
# soundfile 0.14.0 with libsndfile 1.2.2: a WAV file in GSM 6.10 with an odd number of blocks ends in a block from nowhere
#
# A block of GSM in WAV has 65 bytes and 320 samples. An odd number of them is padded with a byte, as RIFF asks for.
# soundfile takes that byte for another block and decodes 320 samples of it, 40 ms at 8 kHz, which nobody recorded: noise
# behind digital silence, and behind a quiet tone up to full scale. FFmpeg, through PyAV 18.1.0, reads the same files right:
#
#     written                          soundfile reads     peak      PyAV reads      peak
#     1 block of silence               640 samples         0.069     320             0
#     2 blocks of silence              640                 0         640             0
#     1 block of a tone of 0.05        640                 1.0       320             0.053
#     5 blocks of the same tone        1920                0.084     1600            0.060
#
# Whoever scales such a recording by its peak makes a whisper of it. The chunk "fact" holds the number of samples that were
# written, and neither library ends there: of 1,000 samples both read 1,280.
#
# The script fails where this has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet soundfile==0.14.0 av==18.1.0 numpy==2.4.6
cat >"$folder/read.py" <<'PYTHON'
import struct
import sys
from pathlib import Path

import av
import numpy as np
import soundfile

SAMPLES_OF_BLOCK = 320
# Amplitude and blocks -> samples and peak of soundfile, samples and peak of PyAV.
EXPECTED = {
    (0.0, 1): (640, 0.069, 320, 0.0),
    (0.0, 2): (640, 0.0, 640, 0.0),
    (0.05, 1): (640, 1.0, 320, 0.053),
    (0.05, 5): (1920, 0.084, 1600, 0.06),
    (0.05, 1000 / SAMPLES_OF_BLOCK): (1280, 0.057, 1280, 0.057),
}
path = Path(sys.argv[1]) / "call.wav"

for (amplitude, num_blocks), expected in EXPECTED.items():
    num_samples = round(num_blocks * SAMPLES_OF_BLOCK)
    tone = amplitude * np.sin(np.arange(num_samples) / 9)
    soundfile.write(path, tone, 8000, subtype="GSM610")
    data = path.read_bytes()
    (counted,) = struct.unpack_from("<I", data, data.index(b"fact") + 8)

    heard, _ = soundfile.read(path)
    with av.open(str(path)) as file:
        frames = [frame.to_ndarray().ravel() for frame in file.decode(audio=0)]
    by_ffmpeg = np.concatenate(frames) / 32768

    found = (
        len(heard),
        round(float(np.abs(heard).max()), 3),
        len(by_ffmpeg),
        round(float(np.abs(by_ffmpeg).max()), 3),
    )
    print(f"{num_blocks} blocks of {amplitude}, fact {counted}:", found)
    if counted != num_samples or found != expected:
        raise SystemExit("this has changed")

print(soundfile.__version__, soundfile.__libsndfile_version__, av.__version__, "as described")
PYTHON
"$folder/venv/bin/python" "$folder/read.py" "$folder"
