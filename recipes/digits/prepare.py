"""Join recordings of single digits into strings of 3 to 7 digits.

    python recipes/digits/prepare.py DIGITS OUT [--seed 0]

    DIGITS/metadata.csv   file_name, transcription, speaker, split of recordings of one digit each
    OUT/<speaker>/<n>.wav, OUT/metadata.csv   the strings, 50 to 300 ms of quiet around each digit
    OUT/seed.txt                              the seed that they were drawn with

Every recording is used once, and speakers stay in their split.
"""

import argparse
import csv
import random
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speechssl.audio.reader import load_audio, write_wav
from speechssl.corpus.layouts import scan
from speechssl.corpus.manifest import Record
from speechssl.errors import ConfigError, SpeechsslError

# Fewest and most digits of a string.
DIGITS_IN_A_STRING = (3, 7)
# Shortest and longest pause around a digit, in seconds.
QUIET_S = (0.05, 0.3)
RATE_HZ = 8000
# Amplitude of the pauses. Digital silence between digits would give them away.
NOISE = 1e-4

HEADER = ("file_name", "transcription", "speaker", "split")
Row = tuple[str, str, str, str]
Samples = NDArray[np.float32]


def strings(records: Sequence[Record], draws: random.Random) -> Iterator[list[Record]]:
    """Cut the recordings of one speaker, in random order, into strings.

    No cut leaves fewer recordings than a string needs.
    """
    left = list(records)
    draws.shuffle(left)

    least, most = DIGITS_IN_A_STRING
    while left:
        counts = []
        for count in range(least, most + 1):
            left_over = len(left) - count
            if left_over == 0 or left_over >= least:
                counts.append(count)

        # Without an allowed count the speaker has fewer recordings than a string needs.
        count = draws.choice(counts) if counts else len(left)
        yield left[:count]
        left = left[count:]


def join(root: Path, string: Sequence[Record], draws: random.Random) -> Samples:
    """Join the recordings of one string, with pauses: (S,) samples."""
    noise = np.random.default_rng(draws.getrandbits(32))

    def pause() -> Samples:
        num_samples = round(draws.uniform(*QUIET_S) * RATE_HZ)
        return (NOISE * noise.standard_normal(num_samples)).astype(np.float32)

    parts = [pause()]
    for record in string:
        parts.append(load_audio(root / record.audio, RATE_HZ))
        parts.append(pause())
    return np.concatenate(parts)


def make(digits: Path, out: Path, seed: int) -> int:
    """Write all strings, unless they are there; return how many there are.

    Raises:
        ConfigError: strings of another seed are there; a recording's speaker is unknown, or in two
            splits.
    """
    if (out / "metadata.csv").is_file():
        return count_finished(out, seed)

    records = scan(digits).records
    by_speaker = recordings_by_speaker(digits, records)

    # A folder of another name until all is written: what is stopped is never taken for finished.
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)

    rows: list[Row] = []
    for speaker, own in sorted(by_speaker.items()):
        rows += write_speaker(digits, partial, speaker, own, seed)

    with (partial / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([HEADER, *rows])
    (partial / "seed.txt").write_text(f"{seed}\n", encoding="utf-8")

    partial.rename(out)
    return len(rows)


def count_finished(out: Path, seed: int) -> int:
    """Count the strings of a finished folder, which must be those of ``seed``."""
    seed_file = out / "seed.txt"
    finished_seed = "unknown"
    if seed_file.is_file():
        finished_seed = seed_file.read_text(encoding="utf-8").strip()

    if finished_seed != str(seed):
        raise ConfigError(
            f"{out} holds strings of seed {finished_seed}: give another folder for those of {seed}"
        )

    lines = (out / "metadata.csv").read_text(encoding="utf-8").splitlines()
    return len(lines) - 1


def recordings_by_speaker(digits: Path, records: Sequence[Record]) -> dict[str, list[Record]]:
    """Group recordings by speaker, each of whom must be in one split."""
    by_speaker: dict[str, list[Record]] = {}
    for record in records:
        own = by_speaker.setdefault(record.speaker or "", [])
        own.append(record)

        if not record.speaker or record.split != own[0].split:
            raise ConfigError(
                f"{digits}: {record.audio} needs a speaker, "
                "all of whose recordings are in one split"
            )
    return by_speaker


def write_speaker(
    digits: Path, out: Path, speaker: str, records: Sequence[Record], seed: int
) -> list[Row]:
    """Write the strings of one speaker; return their rows of the table."""
    # Seeded by the speaker: the strings of one do not depend on who else there is.
    draws = random.Random(f"{seed} {speaker}")  # noqa: S311 (no secret)
    (out / speaker).mkdir(parents=True)

    rows: list[Row] = []
    for number, string in enumerate(strings(records, draws)):
        name = f"{speaker}/{number:03d}.wav"
        write_wav(out / name, join(digits, string, draws), RATE_HZ)

        text = " ".join(record.text or "" for record in string)
        split = string[0].split or "train"
        rows.append((name, text, speaker, split))
    return rows


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Join recordings of single digits into strings.")
    parser.add_argument("digits", type=Path, help="folder with metadata.csv")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()

    try:
        num_strings = make(given.digits, given.out, given.seed)
    except SpeechsslError as error:
        sys.exit(f"prepare.py: {error}")
    print(f"{num_strings} strings in {given.out}")


if __name__ == "__main__":
    main()
