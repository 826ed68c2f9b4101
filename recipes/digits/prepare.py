"""Strings of 3 to 7 spoken digits, joined from single ones; every recording is used once, speakers keep their split.

python recipes/digits/prepare.py DIGITS OUT [--seed 0]

DIGITS/metadata.csv   file_name, transcription, speaker, split of recordings of one digit each
OUT/<speaker>/<n>.wav, OUT/metadata.csv   the strings, 50 to 300 ms of quiet around each digit
OUT/seed.txt                              what they were drawn with
"""

import argparse
import csv
import random
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from speechssl.audio.reader import load_audio, write_wav
from speechssl.corpus.layouts import scan
from speechssl.corpus.manifest import Record
from speechssl.errors import ConfigError, SpeechsslError

DIGITS_IN_A_STRING = 3, 7
QUIET_S = 0.05, 0.3
RATE_HZ = 8000
NOISE = 1e-4  # amplitude of the quiet: digital silence between digits would give them away


def strings(records: Sequence[Record], draws: random.Random) -> Iterator[list[Record]]:
    """The recordings of one speaker in random order, cut into strings; no cut leaves too few for another one."""
    left = list(records)
    draws.shuffle(left)
    least, most = DIGITS_IN_A_STRING
    while left:
        counts = [n for n in range(least, most + 1) if n == len(left) or len(left) - n >= least]
        count = draws.choice(counts) if counts else len(left)
        yield left[:count]
        left = left[count:]


def join(
    root: Path, string: Sequence[Record], draws: random.Random
) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """(S,) samples of one string."""
    quiet = np.random.default_rng(draws.getrandbits(32))

    def pause() -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        return (NOISE * quiet.standard_normal(round(draws.uniform(*QUIET_S) * RATE_HZ))).astype(
            np.float32
        )

    parts = [pause()]
    for record in string:
        parts += [load_audio(root / record.audio, RATE_HZ), pause()]
    return np.concatenate(parts)


def make(digits: Path, out: Path, seed: int) -> int:
    """Write all strings, unless they are there; returns how many.

    Raises:
        ConfigError: strings of another seed are there; a recording's speaker is unknown, or in two splits.
    """
    if (out / "metadata.csv").is_file():
        mark = out / "seed.txt"
        before = mark.read_text(encoding="utf-8").strip() if mark.is_file() else "unknown"
        if before != str(seed):
            raise ConfigError(
                f"{out} holds strings of seed {before}: give another folder for those of {seed}"
            )
        return len((out / "metadata.csv").read_text(encoding="utf-8").splitlines()) - 1
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    rows: list[tuple[str, str, str, str]] = []
    manifest = scan(digits)
    split_of: dict[str, str | None] = {}
    for record in manifest.records:
        if not record.speaker or split_of.setdefault(record.speaker, record.split) != record.split:
            raise ConfigError(
                f"{digits}: {record.audio} needs a speaker, all of whose recordings are in one split"
            )
    for speaker in sorted(split_of):
        own = [record for record in manifest.records if record.speaker == speaker]
        draws = random.Random(f"{seed} {speaker}")  # noqa: S311 (no secret)
        (partial / speaker).mkdir(parents=True)
        for number, string in enumerate(strings(own, draws)):
            name = f"{speaker}/{number:03d}.wav"
            write_wav(partial / name, join(digits, string, draws), RATE_HZ)
            rows.append(
                (name, " ".join(r.text or "" for r in string), speaker, string[0].split or "train")
            )
    with (partial / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("file_name", "transcription", "speaker", "split"), *rows])
    (partial / "seed.txt").write_text(f"{seed}\n", encoding="utf-8")
    partial.rename(out)
    return len(rows)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Join recordings of single digits into strings.")
    parser.add_argument("digits", type=Path, help="folder with metadata.csv")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        print(f"{make(given.digits, given.out, given.seed)} strings in {given.out}")
    except SpeechsslError as error:
        sys.exit(f"prepare.py: {error}")


if __name__ == "__main__":
    main()
