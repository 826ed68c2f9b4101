"""Makes a small corpus of made-up speech, so that the other examples need no data.

    python examples/made_up_speech.py FOLDER

Every letter is a tone and every space is a pause. A recogniser learns this "language" in less than
a minute. FOLDER gets recordings and ``metadata.csv``, as ``speechssl prepare`` reads them.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import soundfile

RATE_HZ = 16_000
PITCH_HZ = {"a": 300, "b": 480, "c": 760, "d": 1200, "e": 1900, "f": 3000}
RECORDINGS = {"train": 120, "dev": 12, "test": 24}


def speak(text: str, rng: np.random.Generator) -> np.ndarray:
    """Say a text: tones of 120 to 180 ms with short gaps, and a little noise."""
    parts = []

    for letter in text:
        length = int(RATE_HZ * rng.uniform(0.12, 0.18))
        time_s = np.arange(length) / RATE_HZ
        pitch_hz = PITCH_HZ.get(letter, 0) * rng.uniform(0.98, 1.02)
        tone = 0.3 * np.sin(2 * np.pi * pitch_hz * time_s) * np.hanning(length)
        gap = np.zeros(int(RATE_HZ * 0.03))
        parts += [tone, gap]

    speech = np.concatenate(parts)
    noise = 0.003 * rng.standard_normal(len(speech))
    return speech + noise


def sentence(rng: np.random.Generator) -> str:
    """Four random words of two to four letters."""
    letters = list(PITCH_HZ)
    words = ["".join(rng.choice(letters, size=rng.integers(2, 5))) for _ in range(4)]
    return " ".join(words)


def make_corpus(folder: Path, recordings: dict[str, int] = RECORDINGS, seed: int = 0) -> Path:
    """Write recordings and their ``metadata.csv``; returns the folder."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [("file_name", "transcription", "split")]

    for split, count in recordings.items():
        for number in range(count):
            text = sentence(rng)
            name = f"{split}{number:03d}.wav"
            soundfile.write(folder / name, speak(text, rng), RATE_HZ)
            rows.append((name, text, split))

    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)

    return folder


if __name__ == "__main__":
    print(make_corpus(Path(sys.argv[1])))
