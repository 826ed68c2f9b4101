"""A toy language, spoken in tones: recordings, and labelled folders of them."""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speechssl.audio.reader import write_wav

RATE = 16_000
PITCH_HZ = {"a": 300, "b": 480, "c": 760, "d": 1200, "e": 1900, "f": 3000}


def speak(text: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """A toy language: a letter is a tone of 120 to 180 ms and a gap, a space 150 ms of quiet."""
    parts = []
    for letter in text:
        length = int(RATE * rng.uniform(0.12, 0.18))
        time = np.arange(length) / RATE
        tone = (
            0.0
            if letter == " "
            else 0.3 * np.sin(2 * np.pi * PITCH_HZ[letter] * rng.uniform(0.98, 1.02) * time)
        )
        parts += [tone * np.hanning(length), np.zeros(int(RATE * 0.03))]
    wave = np.concatenate(parts)
    return (wave + 0.003 * rng.standard_normal(len(wave))).astype(np.float32)


def sentence(rng: np.random.Generator, words: int = 4) -> str:
    """Random words of the toy language."""
    return " ".join(
        "".join(rng.choice(list(PITCH_HZ), size=rng.integers(2, 5))) for _ in range(words)
    )


def make_labelled(folder: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """A folder with ``metadata.csv`` and ``counts[split]`` recordings per split."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "transcription", "speaker", "split"])
        for split, count in counts.items():
            for number in range(count):
                text, name = sentence(rng), f"{split}{number:03d}.wav"
                write_wav(folder / name, speak(text, rng), RATE)
                table.writerow([name, text, f"speaker{number % 3}", split])
    return folder


def speech_with_pauses(sentences: int, seed: int = 0) -> NDArray[np.float32]:
    """Sentences of four words with a second of silence after each, over which nothing is joined."""
    rng = np.random.default_rng(seed)
    pause = np.zeros(RATE, dtype=np.float32)
    return np.concatenate(
        [part for _ in range(sentences) for part in (speak(sentence(rng), rng), pause)]
    )
