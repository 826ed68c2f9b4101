"""Does a recogniser lose words when a recording comes in another form?

Each clean recording is written as a random one: container, coding, rate, channels, level, offset,
hum, silence around it, and a tag behind it, drawn by a seed. All go through ``prepare`` and
``transcribe``, and each transcript is compared with that of the clean file:

    python tools/odd_recordings.py MODEL CLEAN_FOLDER WORK_FOLDER --count 1000 --seed 0
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import jiwer
import numpy as np
import soundfile
from numpy.typing import NDArray

from speechssl.audio.reader import AUDIO_SUFFIXES, load_audio
from speechssl.audio.resampling import Resampler
from speechssl.data.prepare import PrepareReport, prepare
from speechssl.transcription.recogniser import load_recogniser
from speechssl.transcription.transcript import Transcript

RATE_HZ = 16_000
# Container and coding, as libsndfile names them, and the level of the coding's own noise, dB of
# full scale. What is quieter than that cannot be heard.
CODINGS = {
    ("WAV", "PCM_16"): -98,
    ("WAV", "PCM_24"): -140,
    ("WAV", "FLOAT"): -140,
    ("WAV", "ULAW"): -75,
    ("RF64", "PCM_16"): -98,
    ("AIFF", "PCM_16"): -98,
    ("AU", "PCM_16"): -98,
    ("CAF", "PCM_24"): -140,
    ("FLAC", "PCM_16"): -98,
    ("FLAC", "PCM_24"): -140,
}
RATES_HZ = (16_000, 22_050, 44_100, 48_000)
CHANNELS = ("mono", "same", "dead", "quiet", "inverted")
TAG = b"TAG" + bytes(125)  # ID3v1
# Peaks of speech must lie this far above the coding's noise to be asked for, dB.
NEEDED_DB = 45


@dataclass(frozen=True)
class Form:
    """How a recording is written; levels in dB of full scale."""

    container: str
    coding: str
    rate_hz: int
    channels: str
    peak_db: float
    offset: float
    hum_hz: int
    hum_db: float
    before_s: float
    after_s: float
    tag: bool

    @property
    def is_asked_for(self) -> bool:
        """Whether speech lies above the coding's resolution."""
        return self.peak_db >= CODINGS[self.container, self.coding] + NEEDED_DB


def draw_form(draws: np.random.Generator) -> Form:
    """Draw how a recording is written."""
    codings = list(CODINGS)
    container, coding = codings[draws.integers(len(codings))]
    peak_db = float(draws.uniform(-50, 0))
    return Form(
        container=container,
        coding=coding,
        rate_hz=int(draws.choice(RATES_HZ)),
        channels=str(draws.choice(CHANNELS)),
        peak_db=peak_db,
        offset=float(draws.uniform(0, 0.2)),
        hum_hz=int(draws.choice([50, 60])),
        hum_db=min(peak_db + float(draws.uniform(-30, 6)), -12),
        before_s=float(draws.uniform(0, 3)),
        after_s=float(draws.uniform(0, 3)),
        # Behind these containers players put tags.
        tag=bool(container in ("WAV", "FLAC") and draws.random() < 0.3),
    )


def write_form(path: Path, clean: NDArray[np.float32], form: Form) -> None:
    """Write a recording (S,) at 16 kHz in another form."""
    samples = clean / np.abs(clean).max() * 10 ** (form.peak_db / 20)
    before = np.zeros(round(form.before_s * RATE_HZ))
    after = np.zeros(round(form.after_s * RATE_HZ))
    voice = np.concatenate([before, samples, after]).astype(np.float32)
    if form.rate_hz != RATE_HZ:
        resampler = Resampler(RATE_HZ, form.rate_hz)
        voice = np.concatenate([resampler.push(voice), resampler.finish()])

    seconds = np.arange(len(voice)) / form.rate_hz
    hum = 10 ** (form.hum_db / 20) * np.sin(2 * np.pi * form.hum_hz * seconds)
    gains = {"mono": [1], "same": [1, 1], "dead": [1, 0], "quiet": [0.01, 1], "inverted": [1, -1]}
    channels = [gain * voice + hum + form.offset for gain in gains[form.channels]]
    both = np.stack(channels, axis=1)

    peak = np.abs(both).max()
    if peak > 1 and form.coding != "FLOAT":
        both = both / peak
    soundfile.write(path, both, form.rate_hz, subtype=form.coding, format=form.container)
    if form.tag:
        with path.open("ab") as file:
            file.write(TAG)


def make_recordings(
    clean_files: list[Path], folder: Path, count: int, seed: int
) -> Iterator[tuple[Path, Path, Form]]:
    """Write ``count`` recordings, and give each with its clean file and its form."""
    folder.mkdir(parents=True)
    for number in range(count):
        draws = np.random.default_rng([seed, number])
        clean = clean_files[draws.integers(len(clean_files))]
        form = draw_form(draws)
        path = folder / f"{number:04d}.{form.container.lower()}"
        write_form(path, load_audio(clean, RATE_HZ), form)
        yield clean, path, form


def lost_words(reference: str, heard: str) -> int:
    """Count the words of ``reference`` that are missing or others in ``heard``."""
    if not reference:
        return 0
    result = jiwer.process_words(reference, heard)
    return int(result.deletions + result.substitutions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("clean", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    started = time.monotonic()
    files = sorted(p for p in options.clean.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
    folder = options.work / "recordings"
    made = list(make_recordings(files, folder, options.count, options.seed))
    report: PrepareReport = prepare(folder, options.work / "store")
    print(report.table())

    recogniser = load_recogniser(options.model)
    clean_files = sorted({clean for clean, _, _ in made})
    paths = [*clean_files, *(path for _, path, _ in made)]
    texts = {
        Path(result.path): result.text if isinstance(result, Transcript) else ""
        for result in recogniser.transcribe_files(paths)
    }

    num_words = num_lost = 0
    for clean, path, form in made:
        lost = lost_words(texts[clean], texts[path])
        if lost:
            row = {"file": path.name, "lost": lost, "asked_for": form.is_asked_for}
            print(json.dumps({**row, **asdict(form), "clean": texts[clean], "heard": texts[path]}))
        if form.is_asked_for:
            num_words += len(texts[clean].split())
            num_lost += lost

    seconds = time.monotonic() - started
    print(f"{num_lost} of {num_words} words lost in {options.count} recordings, {seconds:.0f} s")
    sys.exit(num_lost > 0)


if __name__ == "__main__":
    main()
