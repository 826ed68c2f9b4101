"""Make recordings that sound a little like speech, for measurements."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speechssl.audio.reader import write_flac
from speechssl.corpus.manifest import Manifest, Record
from speechssl.runtime.seeds import generator

# Sample rate of the synthetic speech, Hz.
RATE = 16_000

# What the random words are made of.
LETTERS = "abcdefghijklmnopqrstuvwxyz"

# Speech that is made at a time, seconds: memory stays flat however long a file is.
_BLOCK_S = 10

# Time from one syllable to the next, seconds, and the share of them that is a pause.
_SYLLABLE_S = 0.2
_SPOKEN = 0.85

# Shortest and longest utterance of a corpus, seconds.
_SHORTEST_S = 4
_LONGEST_S = 15

# Utterances for development, the first ones of a corpus.
_NUM_DEV = 2


def write_speech(path: Path, seconds: float, seed: int) -> None:
    """Write a humming voice with syllables and pauses as FLAC, 16 kHz mono.

    The same ``seed`` gives the same file.
    """
    rng = generator("bench", seed)
    num_samples = round(seconds * RATE)
    blocks = _blocks(num_samples, rng)
    write_flac(path, blocks, RATE)


def write_corpus(folder: Path, seconds: float) -> Manifest:
    """Write two utterances for development and about ``seconds`` to learn from.

    Each has 4 to 15 s, and random letters for words.
    """
    rng = generator("bench", "corpus")
    records: list[Record] = []
    left_s = seconds

    while left_s > 0:
        number = len(records)
        name = f"{number:05d}"
        file_name = f"{name}.flac"
        split = "dev" if number < _NUM_DEV else "train"

        # Of the last one about what is left.
        longest = min(_LONGEST_S, max(left_s, 5))
        length = float(rng.uniform(_SHORTEST_S, longest))
        write_speech(folder / file_name, length, seed=number)

        # Two words a second, about the rate of speech.
        num_words = int(2 * length)
        text = _random_words(num_words, rng)
        records.append(Record(name, file_name, text=text, split=split))
        if split == "train":
            left_s -= length

    return Manifest(folder, tuple(records))


def write_recordings(folder: Path, seconds: float, length: float) -> list[Path]:
    """Write unlabelled recordings of ``length`` seconds, ``seconds`` in all; the last is short."""
    folder.mkdir(parents=True)
    count = math.ceil(seconds / length)

    files: list[Path] = []
    for number in range(count):
        path = folder / f"{number:05d}.flac"
        left_s = seconds - number * length
        own_length = min(length, left_s)
        write_speech(path, own_length, seed=number)
        files.append(path)

    return files


def _blocks(num_samples: int, rng: np.random.Generator) -> Iterator[NDArray[np.float32]]:
    """Make the samples of a recording, some seconds at a time."""
    block = _BLOCK_S * RATE
    for start in range(0, num_samples, block):
        left = num_samples - start
        yield _speech(min(block, left), rng)


def _speech(num_samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Make (num_samples,) samples of a voice with the first six harmonics of a gliding pitch."""
    now = np.arange(num_samples) / RATE
    duration_s = num_samples / RATE
    # One syllable more than fits, so that the last sample lies between two.
    marks = np.arange(0, duration_s + _SYLLABLE_S, _SYLLABLE_S)
    num_syllables = len(marks)

    # Each syllable has a loudness of its own, and some are silent.
    syllable_loudness = rng.uniform(0.2, 1, num_syllables)
    is_spoken = rng.random(num_syllables) < _SPOKEN
    loudness = np.interp(now, marks, syllable_loudness * is_spoken)

    syllable_pitch_hz = rng.uniform(90, 220, num_syllables)
    pitch_hz = np.interp(now, marks, syllable_pitch_hz)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / RATE

    # Higher harmonics are weaker, as in a voice.
    voice = np.zeros(num_samples)
    for harmonic in range(1, 7):
        wave = np.sin(harmonic * phase)
        voice += wave / harmonic

    noise = 0.0005 * rng.standard_normal(num_samples)
    speech = 0.15 * loudness * voice + noise
    return speech.astype(np.float32)


def _random_words(count: int, rng: np.random.Generator) -> str:
    """Make words of 2 to 7 letters."""
    letters = list(LETTERS)
    words: list[str] = []
    for _ in range(count):
        length = rng.integers(2, 8)
        chosen = rng.choice(letters, size=length)
        words.append("".join(chosen))
    return " ".join(words)
