#!/usr/bin/env bash
# soundfile 0.14.0 (its wheel holds libsndfile 1.2.2, which decodes MP3 with libmpg123)
#
# The encoders of Fraunhofer tell the length of an MP3 in a VBRI header, those of LAME in a Xing header. Both stand in a
# frame of their own, in front of the sound. A VBRI header is not known here: its frame is decoded as sound, and the
# length is guessed as if all frames were as large as this one. soundfile.info returns the guess, and reading ends there.
# Nothing is reported. Fraunhofer's frame is described as one of 160 kbit/s, in stereo, so it depends on the bit rate of
# the sound. The same 155 frames of sound, of 1152 samples each, with either header and with none (stereo, 44.1 kHz):
#
#     kbit/s, on average   VBRI declares   info.frames   read     of the sound is missing   with Xing   no header
#     277, variable        178560          310347        179712   nothing                   176400      154597
#     160, constant        178560          179866        179712   nothing                   176400      178560
#     126, variable        178560          141170        141170   22 %                      176400       87532
#      89, variable        178560          100056        100056   45 %                      176400       70626
#      56, variable        178560           63355         63355   65 %                      176400       44418
#
# With Xing it is right: the 176400 samples that were encoded. With VBRI the first 1152 samples are always silence, of
# the header's frame. Without any header, variable rates are cut in the same way, by the size of the first frame; but
# then the file does not say its length, and here it does. That the header, which the script puts together by hand, is a
# good one is shown by mutagen 1.48.1, which finds the length in it, and by FFmpeg (in av 18.1.0), which leaves it out of
# the sound and decodes all 155 frames.
#
# It is known that the number of frames of an MP3 may be wrong (issue 1001 of libsndfile). Of VBRI nothing was found there.
#
# The script fails where this has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet soundfile==0.14.0 numpy==2.4.6 mutagen==1.48.1 av==18.1.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import struct
from pathlib import Path

import av
import numpy as np
import soundfile
from mutagen.mp3 import MP3

FILE = Path("said.mp3")
RATE = 44_100
FRAME_SAMPLES = 1152  # of MPEG 1 layer III
KBITS = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320]
HEADER_KBITS = 160
HEADER_BYTES = 144_000 * HEADER_KBITS // RATE
ENCODER_DELAY = 1105  # samples, with the decoder's


def sound() -> np.ndarray:
    """Four seconds of a low voice, with a pause every half second, in stereo."""
    time = np.arange(4 * RATE) / RATE
    voice = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 25))
    noise = np.random.default_rng(0).normal(0, 0.001, len(time))
    left = 0.1 * voice * (np.sin(4 * np.pi * time) > 0) + noise
    return np.stack([left, 0.7 * left], axis=1)


def kbits(frame: bytes) -> int:
    return KBITS[frame[2] >> 4]


def frames(data: bytes) -> list[bytes]:
    """Walk along the frames, each of which tells its size."""
    found = []
    while data:
        assert data[0] == 0xFF and data[1] & 0xFE == 0xFA and data[2] & 0x0C == 0, data[:4]
        size = 144_000 * kbits(data) // RATE + (data[2] >> 1 & 1)
        assert len(data) >= size
        found.append(data[:size])
        data = data[size:]
    return found


def vbri(sound_frames: list[bytes]) -> bytes:
    """The frame with the header, which has the size of each frame of sound in its table."""
    num_bytes = HEADER_BYTES + sum(map(len, sound_frames))
    num_frames = len(sound_frames)
    header = b"VBRI" + struct.pack(">HHHII", 1, ENCODER_DELAY, 75, num_bytes, num_frames)
    table = struct.pack(">HHHH", num_frames, 1, 2, 1)  # entries, their unit, their bytes, frames of each
    table += struct.pack(f">{num_frames}H", *map(len, sound_frames))
    frame = bytes([0xFF, 0xFB, KBITS.index(HEADER_KBITS) << 4, 0]) + bytes(32) + header + table
    assert len(frame) <= HEADER_BYTES
    return frame.ljust(HEADER_BYTES, b"\0")


def heard(data: bytes) -> tuple[int, np.ndarray]:
    """The length that soundfile tells, and the samples that it gives."""
    FILE.write_bytes(data)
    return soundfile.info(FILE).frames, soundfile.read(FILE)[0]


def num_decoded_by_ffmpeg() -> int:
    with av.open(str(FILE)) as container:
        return sum(frame.samples for frame in container.decode(audio=0))


def expect(holds: bool, what: str) -> None:
    if not holds:
        raise SystemExit(f"this has changed: {what}")


def check(mode: str, level: float, least: float, most: float) -> None:
    """Of the declared samples, a share between the least and the most is missing."""
    soundfile.write(FILE, SOUND, RATE, subtype="MPEG_LAYER_III", bitrate_mode=mode, compression_level=level)
    with_xing = FILE.read_bytes()
    xing, *rest = frames(with_xing)
    assert xing[36:40] in (b"Xing", b"Info")
    without = b"".join(rest)
    declared = len(rest) * FRAME_SAMPLES
    average = sum(map(kbits, rest)) / len(rest)
    print(f"{mode.lower()}, {average:.0f} kbit/s on average: {len(rest)} frames x {FRAME_SAMPLES} samples")

    told, samples = heard(with_xing)
    print(f"    Xing:    info.frames {told}, read {len(samples)}")
    expect(told == len(samples) == len(SOUND), "with Xing")

    with_vbri = vbri(rest) + without
    told, cut = heard(with_vbri)
    by_mutagen, by_ffmpeg = round(MP3(FILE).info.length * RATE), num_decoded_by_ffmpeg()
    missing = 1 - (len(cut) - FRAME_SAMPLES) / declared
    print(f"    VBRI:    info.frames {told}, read {len(cut)}; declared {declared}, so {missing:.0%} is missing")
    print(f"             mutagen {by_mutagen}, FFmpeg {by_ffmpeg}")
    expect(by_mutagen == by_ffmpeg == declared, "the other readers")
    guess = len(with_vbri) * FRAME_SAMPLES // HEADER_BYTES
    expect(abs(told - guess) <= 1, f"the guess was {guess}")
    expect(len(cut) == min(told, declared + FRAME_SAMPLES), "with VBRI")
    expect(least <= missing <= most, "the share that is missing")

    # What is read is right, behind the header's own samples and the encoder's delay.
    start = FRAME_SAMPLES + ENCODER_DELAY
    same = min(len(cut) - start, len(samples))
    expect(not cut[:FRAME_SAMPLES].any(), "the silence in front")
    expect(np.allclose(cut[start : start + same], samples[:same], atol=1e-5), "the samples")

    told, bare = heard(without)
    print(f"    neither: info.frames {told}, read {len(bare)}")
    expect(len(bare) == min(told, declared), "without a header")


print(f"soundfile {soundfile.__version__}, {soundfile.__libsndfile_version__} of libsndfile")
SOUND = sound()
check("VARIABLE", 0.1, least=0.0, most=0.0)
check("CONSTANT", 0.5, least=0.0, most=0.0)
check("VARIABLE", 0.6, least=0.15, most=0.3)
check("VARIABLE", 0.7, least=0.35, most=0.55)
check("VARIABLE", 0.9, least=0.55, most=0.75)
print("as described")
PYTHON
