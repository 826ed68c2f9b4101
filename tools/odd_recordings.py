"""Does a recogniser lose words when a recording comes in another form?

Each clean recording is written as a random one: container, coding, rate, channels, level, offset,
hum, silence around it, and a tag behind it, drawn by a seed. All go through ``prepare`` and
``transcribe``, and each transcript is compared with that of the clean file. What a lossy coding
itself takes is no loss: there the clean file comes in the same coding, at full scale.

A recogniser also reads a word otherwise when nothing but a moment of silence stands before a clean
file. How often is counted beside it, with as many files: the forms lose what they lose more.

    python tools/odd_recordings.py MODEL CLEAN_FOLDER WORK_FOLDER --count 1000 --seed 0
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import jiwer
import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from speechssl.audio.formats import AUDIO_SUFFIXES
from speechssl.audio.level import without_lows
from speechssl.audio.reader import load_audio
from speechssl.audio.resampling import Resampler
from speechssl.data.prepare import PrepareReport, prepare
from speechssl.tables import text_table
from speechssl.transcription.recogniser import load_recogniser
from speechssl.transcription.transcript import Transcript

RATE_HZ = 16_000
RATES_HZ = (16_000, 22_050, 44_100, 48_000)
OPUS_RATES_HZ = (16_000, 24_000, 48_000)


@dataclass(frozen=True)
class Coding:
    """What a coding can hold.

    Attributes:
        is_lossy: whether it changes what it holds also at full scale.
        is_mono: whether it has one channel only.
    """

    rates_hz: tuple[int, ...] = RATES_HZ
    is_lossy: bool = False
    is_mono: bool = False


# Container and coding, as libsndfile names them.
CODINGS = {
    ("WAV", "PCM_16"): Coding(),
    ("WAV", "PCM_24"): Coding(),
    ("WAV", "FLOAT"): Coding(),
    ("RF64", "PCM_16"): Coding(),
    ("AIFF", "PCM_16"): Coding(),
    ("AU", "PCM_16"): Coding(),
    ("CAF", "PCM_24"): Coding(),
    ("FLAC", "PCM_16"): Coding(),
    ("FLAC", "PCM_24"): Coding(),
    ("WAV", "ULAW"): Coding(is_lossy=True),
    ("AU", "ALAW"): Coding(is_lossy=True),
    ("WAV", "IMA_ADPCM"): Coding(is_lossy=True),
    ("WAV", "MS_ADPCM"): Coding(is_lossy=True),
    ("WAV", "GSM610"): Coding(is_lossy=True, is_mono=True),
    ("MP3", "MPEG_LAYER_III"): Coding(is_lossy=True),
    ("OGG", "VORBIS"): Coding(is_lossy=True),
    ("OGG", "OPUS"): Coding(rates_hz=OPUS_RATES_HZ, is_lossy=True),
}
CHANNELS = ("mono", "same", "dead", "quiet", "inverted")
TAG = b"TAG" + bytes(125)  # ID3v1
# Behind these containers players put tags.
TAGGED = ("WAV", "FLAC", "MP3")
# Words are asked for where the voice's power is this far above that of the coding's noise, dB; of a
# coding that does not reach it at full scale (GSM), where it is as far as there, less ``SLACK_DB``.
NEEDED_DB = 15.0
SLACK_DB = 1.0
# The longest silence that is put before a clean file in the comparison, seconds.
LONGEST_SHIFT_S = 0.075


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
    def about_coding(self) -> Coding:
        return CODINGS[self.container, self.coding]

    def undisturbed(self) -> "Form":
        """Return the same coding and rate at full scale, with nothing beside the speech."""
        return replace(
            self,
            channels="mono",
            peak_db=0.0,
            offset=0.0,
            hum_db=-np.inf,
            before_s=0.0,
            after_s=0.0,
            tag=False,
        )


def draw_form(draws: np.random.Generator) -> Form:
    """Draw how a recording is written."""
    codings = list(CODINGS)
    container, coding = codings[draws.integers(len(codings))]
    about = CODINGS[container, coding]
    channels = "mono" if about.is_mono else str(draws.choice(CHANNELS))
    peak_db = float(draws.uniform(-50, 0))

    return Form(
        container=container,
        coding=coding,
        rate_hz=int(draws.choice(about.rates_hz)),
        channels=channels,
        peak_db=peak_db,
        offset=float(draws.uniform(0, 0.2)),
        hum_hz=int(draws.choice([50, 60])),
        hum_db=min(peak_db + float(draws.uniform(-30, 6)), -12),
        before_s=float(draws.uniform(0, 3)),
        after_s=float(draws.uniform(0, 3)),
        tag=bool(container in TAGGED and draws.random() < 0.3),
    )


def write_form(path: Path, clean: NDArray[np.float32], form: Form) -> float:
    """Write a recording (S,) at 16 kHz in another form; return its signal-to-noise ratio, dB.

    The signal is the voice as it is heard without offset and hum, and the noise what the coding
    makes of it.
    """
    channels = _channels_of(clean, form)
    _write_blocks(path, channels, form)
    if form.tag:
        with path.open("ab") as file:
            file.write(TAG)

    coded, rate_hz = soundfile.read(path, always_2d=True)
    return _snr_db(_heard(channels, form, rate_hz), _heard(coded, form, rate_hz))


def _channels_of(clean: NDArray[np.float32], form: Form) -> NDArray[np.float64]:
    """(S,) at 16 kHz -> (S, C) at the rate of the form, before it is coded."""
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
    both: NDArray[np.float64] = np.stack(channels, axis=1)

    peak = np.abs(both).max()
    if peak > 1 and form.coding != "FLOAT":
        both = both / peak
    return both


def _heard(channels: NDArray[np.float64], form: Form, rate_hz: int) -> NDArray[np.float64]:
    """(S, C) -> (S,) what should be heard of them: their mean, of inverted ones one."""
    mono = channels[:, 0] if form.channels == "inverted" else channels.mean(axis=1)
    return without_lows(mono.astype(np.float32), rate_hz)


def _snr_db(signal: NDArray[np.float64], coded: NDArray[np.float64]) -> float:
    """Compare a signal with what a coding made of it, which may come later or earlier."""
    likeness = fftconvolve(coded, signal[::-1])
    delay = int(likeness.argmax()) - (len(signal) - 1)
    coded, signal = coded[max(delay, 0) :], signal[max(-delay, 0) :]

    length = min(len(coded), len(signal))
    noise = coded[:length] - signal[:length]
    power = max(float(np.square(noise).mean()), 1e-30)
    return float(10 * np.log10(np.square(signal[:length]).mean() / power))


def _write_blocks(path: Path, samples: NDArray[np.float64], form: Form) -> None:
    """Write samples (S, channels), a second at a time: of Ogg libsndfile takes little at once."""
    _, num_channels = samples.shape
    about = {"subtype": form.coding, "format": form.container}
    with soundfile.SoundFile(path, "w", form.rate_hz, num_channels, **about) as file:
        for start in range(0, len(samples), form.rate_hz):
            file.write(samples[start : start + form.rate_hz])


@dataclass(frozen=True)
class Recording:
    """An odd recording, and what its transcript is compared with.

    Attributes:
        snr_db: of the voice above the noise of the coding.
        reference_snr_db: the same of the reference: at full scale, with nothing beside the voice.
    """

    path: Path
    form: Form
    clean: Path
    reference: Path
    snr_db: float
    reference_snr_db: float

    @property
    def is_asked_for(self) -> bool:
        """Whether the voice lies far enough above the coding's noise."""
        return self.snr_db >= min(NEEDED_DB, self.reference_snr_db - SLACK_DB)


def make_recordings(
    clean_files: list[Path], folder: Path, count: int, seed: int
) -> Iterator[Recording]:
    """Write ``count`` recordings into ``folder``, and references of lossy codings beside it."""
    folder.mkdir(parents=True)
    references = folder.with_name("references")
    references.mkdir()

    for number in range(count):
        draws = np.random.default_rng([seed, number])
        clean = clean_files[draws.integers(len(clean_files))]
        form = draw_form(draws)
        voice = load_audio(clean, RATE_HZ)
        path = folder / f"{number:04d}.{form.container.lower()}"
        snr_db = write_form(path, voice, form)

        reference = clean
        reference_snr_db = np.inf
        if form.about_coding.is_lossy:
            reference = references / path.name
            reference_snr_db = write_form(reference, voice, form.undisturbed())
        yield Recording(path, form, clean, reference, snr_db, reference_snr_db)


def shift_recordings(
    recordings: list[Recording], folder: Path, seed: int
) -> Iterator[tuple[Path, Path]]:
    """Yield the clean file of each recording, and that file with a moment of silence before it."""
    folder.mkdir()
    draws = np.random.default_rng([seed, len(recordings)])

    for number, recording in enumerate(recordings):
        voice = load_audio(recording.clean, RATE_HZ)
        before = np.zeros(round(draws.uniform(0, LONGEST_SHIFT_S) * RATE_HZ), np.float32)
        path = folder / f"{number:04d}.wav"
        soundfile.write(path, np.concatenate([before, voice]), RATE_HZ)
        yield recording.clean, path


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
    asked_for = [recording for recording in made if recording.is_asked_for]
    shifted = list(shift_recordings(asked_for, options.work / "shifted", options.seed))
    references = {recording.reference for recording in made}
    references |= {clean for clean, _ in shifted}
    paths = [*sorted(references), *(path for _, path in shifted)]
    paths += [recording.path for recording in made]
    texts = {
        Path(result.path): result.text if isinstance(result, Transcript) else ""
        for result in recogniser.transcribe_files(paths)
    }

    counts: dict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros(4, np.int64))
    for recording in made:
        form = recording.form
        expected, heard = texts[recording.reference], texts[recording.path]
        lost = lost_words(expected, heard)
        if lost:
            row = {"file": recording.path.name, "lost": lost, "snr_db": recording.snr_db}
            row["asked_for"] = recording.is_asked_for
            print(json.dumps({**row, **asdict(form), "clean": expected, "heard": heard}))

        count = np.array([1, recording.is_asked_for, len(expected.split()), lost])
        if not recording.is_asked_for:
            count[2:] = 0
        counts[f"{form.container} {form.coding}"] += count

    heads = ("coding", "recordings", "asked for", "their words", "lost")
    print(text_table(heads, [(name, *count.tolist()) for name, count in sorted(counts.items())]))
    _, _, num_words, num_lost = sum(counts.values())
    seconds = time.monotonic() - started
    print(f"{num_lost} of {num_words} words lost in {options.count} recordings, {seconds:.0f} s")

    num_clean_words = sum(len(texts[clean].split()) for clean, _ in shifted)
    num_otherwise = sum(lost_words(texts[clean], texts[path]) for clean, path in shifted)
    print(
        f"{num_otherwise} of {num_clean_words} words of {len(shifted)} clean files with up to "
        f"{1000 * LONGEST_SHIFT_S:.0f} ms of silence before them"
    )
    sys.exit(int(num_lost / num_words > num_otherwise / num_clean_words))


if __name__ == "__main__":
    main()
