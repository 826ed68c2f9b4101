"""Recordings that sound a little like speech, made for measurements."""

import math
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from speechssl.corpus.manifest import Manifest, Record
from speechssl.runtime.seeds import generator

RATE = 16_000  # of the synthetic speech, Hz
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def write_speech(path: Path, seconds: float, seed: int) -> None:
    """FLAC, 16 kHz mono, of a humming voice with syllables and pauses; the same for the same ``seed``."""
    rng, left = generator("bench", seed), round(seconds * RATE)
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16", format="FLAC") as file:
        while left > 0:
            file.write(_speech(min(10 * RATE, left), rng))
            left -= 10 * RATE


def _speech(num_samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
    now = np.arange(num_samples) / RATE
    marks = np.arange(0, num_samples / RATE + 0.2, 0.2)
    loud = np.interp(now, marks, rng.uniform(0.2, 1, len(marks)) * (rng.random(len(marks)) < 0.85))
    phase = 2 * np.pi * np.cumsum(np.interp(now, marks, rng.uniform(90, 220, len(marks)))) / RATE
    voice = sum((np.sin(h * phase) / h for h in range(1, 7)), np.zeros(num_samples))
    return (0.15 * loud * voice + 0.0005 * rng.standard_normal(num_samples)).astype(np.float32)


def write_corpus(folder: Path, seconds: float) -> Manifest:
    """Two utterances for development and about ``seconds`` to learn from, 4 to 15 s each, random letters for words."""
    rng, records, left = generator("bench", "corpus"), list[Record](), seconds
    while left > 0:
        name, split = f"{len(records):05d}", "train" if len(records) > 1 else "dev"
        length = float(rng.uniform(4, min(15, max(left, 5))))
        write_speech(folder / f"{name}.flac", length, len(records))
        words = [
            "".join(rng.choice(list(LETTERS), size=rng.integers(2, 8)))
            for _ in range(int(2 * length))
        ]
        records.append(Record(name, f"{name}.flac", text=" ".join(words), split=split))
        left -= length if split == "train" else 0
    return Manifest(folder, tuple(records))


def write_recordings(folder: Path, seconds: float, length: float) -> list[Path]:
    """Unlabelled recordings of ``length`` seconds, the last one shorter; ``seconds`` in all."""
    folder.mkdir(parents=True)
    files = [folder / f"{number:05d}.flac" for number in range(math.ceil(seconds / length))]
    for number, path in enumerate(files):
        write_speech(path, min(length, seconds - number * length), number)
    return files
