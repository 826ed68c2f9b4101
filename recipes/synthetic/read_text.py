"""Let espeak-ng's voices read sentences of a text: hours of speech whose transcripts cost nothing.

    python recipes/synthetic/read_text.py TEXT OUT --voices en-us --minutes 150 --seed 0

    OUT/labelled/<speaker>/<n>.flac     one sentence each
    OUT/labelled/metadata.csv           file_name,transcription,speaker,split (train or dev)
    OUT/finished.json                   settings and counts; written when all the rest is there

A recogniser of few recordings may start from an encoder that has learned from these. A result with
such a start is one of made voices too, and stands in a row of its own.

TEXT has a sentence a line; a name that ends in .xz is unpacked. Lines of 4 to 14 words without
digits are read, in a random order, none twice. Each voice variant of espeak-ng reads as much as any
other, with one of the voices, a rate and a pitch of its own; a few of them are dev. The same text,
seed and espeak-ng give the same bytes, whatever ``--jobs`` is.
"""

import argparse
import hashlib
import lzma
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prepare import (
    Job,
    Recording,
    duration,
    make_once,
    make_speaker,
    print_parts,
    share,
    speak,
    stream,
)
from prepare import voices as variants

# Shorter lines are often headings, longer ones are read without a breath.
WORDS = range(4, 15)
# A letter of any alphabet, and around it more of them, apostrophes, hyphens and marks that a voice
# pauses at. A word without a letter would be silence.
MARKS = r"['\u2019,.;:!?-]*"
READABLE_WORD = re.compile(rf"{MARKS}(?:[^\W\d_]{MARKS})+")
# Of so many variants one is dev.
EACH_DEV = 20
# Shorter than any sentence of so many words, with the silence around it.
SHORTEST_S = 1.0


def sentences(text: Path, seed: int) -> list[str]:
    """Give the different lines of a text that can be read, in a random order."""
    opener = lzma.open if text.suffix == ".xz" else open
    with opener(text, "rt", encoding="utf-8") as file:
        lines = dict.fromkeys(line.strip() for line in file)

    readable = [line for line in lines if is_readable(line.split())]
    stream(seed, "lines").shuffle(readable)
    return readable


def is_readable(words: Sequence[str]) -> bool:
    """Whether a voice can read these words as one sentence."""
    return len(words) in WORDS and all(READABLE_WORD.fullmatch(word) for word in words)


def plan(
    lines: Sequence[str], names: Sequence[str], minutes: float, seed: int, out: Path
) -> list[Job]:
    """Give each voice variant its share of the minutes and of the sentences.

    Args:
        names: of espeak-ng's voices, from which each variant draws one.

    Raises:
        ValueError: there are too few sentences.
    """
    everybody = [make_speaker(seed, variant, names) for variant in variants()]
    stream(seed, "readers").shuffle(everybody)
    who = share(everybody, minutes, len(everybody))
    seconds = 60 * minutes / max(1, len(who))
    per_speaker = math.ceil(seconds / SHORTEST_S) + 1

    if per_speaker * len(who) > len(lines):
        raise ValueError(
            f"{len(lines)} lines can be read, and {minutes:g} minutes may need "
            f"{per_speaker * len(who)}: give more text, or fewer minutes"
        )

    jobs = []
    for i, speaker in enumerate(who):
        own = list(lines[i * per_speaker : (i + 1) * per_speaker])
        folder = out / "labelled" / speaker.name
        part = "dev" if i % EACH_DEV == 0 else "train"
        jobs.append(Job(part, folder, speaker, own, seconds, None, seed))
    return jobs


def make(
    text: Path, out: Path, names: Sequence[str], minutes: float, seed: int, num_jobs: int
) -> dict[str, Any]:
    """Make the corpus unless it is there; return what ``finished.json`` holds.

    Args:
        names: of espeak-ng's voices.
        num_jobs: speakers at the same time.

    Raises:
        ValueError: the text is too short, or ``out`` holds something that this recipe has not made.
    """
    digest = hashlib.sha256(text.read_bytes()).hexdigest()
    settings = {"text": digest, "voices": list(names), "minutes": minutes, "seed": seed}

    def fill(folder: Path) -> list[Recording]:
        jobs = plan(sentences(text, seed), names, minutes, seed, folder)
        return speak(jobs, num_jobs)

    return make_once(out, settings, fill)


def main() -> None:
    """Run the command line."""
    given = parse()
    try:
        finished = make(
            given.text, given.out, given.voices, given.minutes, given.seed, max(1, given.jobs)
        )
    except ModuleNotFoundError as error:
        sys.exit(f"read_text.py: no module {error.name}: pip install 'speechssl[demo]'")
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"read_text.py: {error}")

    print_parts(finished)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Let espeak-ng's voices read a text.")
    parser.add_argument("text", type=Path, metavar="TEXT", help="a sentence a line, .xz too")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make")
    parser.add_argument(
        "--voices", nargs="+", required=True, metavar="NAME", help="of espeak-ng, such as en-us de"
    )
    parser.add_argument("--minutes", type=duration, default=150.0, metavar="M", help="default 150")
    parser.add_argument("--seed", type=int, default=0)

    jobs_help = "speakers made at the same time (default 2)"
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help=jobs_help)
    return parser.parse_args()


if __name__ == "__main__":
    main()
