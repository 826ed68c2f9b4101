"""Long recordings: speed, memory, word times, and whether pieces give the same text as the whole.

    python tools/long_files.py MODEL FOLDER [--hours 2] [--pieces 50] [--seed 0] [--greedy]

Joins recordings of FOLDER, drawn at random, with pauses of 0.3 to 2 seconds of faint noise, and
transcribes:

* one file of --hours: seconds of audio per second, peak memory, and how far the first word of each
  recording begins from where its sound begins (the first 10 ms within 35 dB of its loudest), median
  and 95th percentile;
* --pieces files of 20 to 60 seconds, in pieces and whole: the share of words that are the same.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import jiwer
import numpy as np
import soundfile
from numpy.typing import NDArray
from turns import machine

from speechssl.audio.reader import load_audio
from speechssl.audio.silence import MARGIN_S, speech_intervals
from speechssl.recognition.decoders import CtcDecoder, beam_decoder
from speechssl.recognition.language_model import load_lm
from speechssl.recognition.model import CtcModel, load_ctc
from speechssl.runtime.device import peak_memory_gb
from speechssl.storage.saved_folders import model_folder
from speechssl.tables import text_table
from speechssl.transcription import pieces
from speechssl.transcription.pieces import find_audio
from speechssl.transcription.transcribe import transcribe
from speechssl.transcription.transcript import Transcript

# Standard deviation in pauses: digital silence would be easier than any real one.
NOISE = 1e-4
# Shortest and longest pause, and file that is transcribed in pieces and whole.
PAUSE_S = (0.3, 2.0)
SHORT_S = (20.0, 60.0)
# Longer recordings are not joined.
MOST_S = 15
# A first word is looked for from this far before a recording to its end.
NEAR_S = 0.3

# Of a recording: where it begins, where its sound begins, and where it ends, in seconds.
Place = tuple[float, float, float]


def joined(
    files: Sequence[Path], rate: int, path: Path, seconds: float, draws: random.Random
) -> Iterator[Place]:
    """Write recordings with pauses until ``seconds`` are reached, and yield where each lies."""
    noise = np.random.default_rng(draws.randrange(2**32))
    most_samples = MOST_S * rate
    written = 0
    with soundfile.SoundFile(path, "w", rate, 1, "PCM_16") as out:
        while written < seconds * rate:
            samples = load_audio(draws.choice(files), rate)
            spoken = speech_intervals(samples, rate)
            if not spoken or len(samples) > most_samples:
                continue

            # An interval begins a margin before its sound, unless the recording does.
            onset = spoken[0][0]
            if onset > 0:
                onset += round(MARGIN_S * rate)
            end = written + len(samples)
            yield written / rate, (written + onset) / rate, end / rate

            pause_samples = round(draws.uniform(*PAUSE_S) * rate)
            pause = (NOISE * noise.standard_normal(pause_samples)).astype(np.float32)
            for part in (samples, pause):
                out.write(part)
                written += len(part)


def one(model: CtcModel, path: Path, decoder: CtcDecoder | None) -> Transcript:
    """Transcribe a single file."""
    (result,) = transcribe(model, [path], decoder=decoder)
    assert isinstance(result, Transcript)
    return result


def onset_errors(result: Transcript, places: Sequence[Place]) -> NDArray[np.float64]:
    """Measure the seconds between the first word of each recording and its onset.

    Recordings without a word are left out.
    """
    words = [word for segment in result.segments for word in segment.words]
    starts = np.array([word.start for word in words])

    errors = []
    for begin, onset, end in places:
        own = starts[(starts >= begin - NEAR_S) & (starts < end)]
        if len(own):
            errors.append(abs(float(own[0]) - onset))
    return np.array(errors)


def same_words(pieces: Sequence[str], wholes: Sequence[str]) -> tuple[float, int]:
    """Compare the texts of pieces with those of the whole.

    Returns:
        Share of the words of ``wholes`` that ``pieces`` have too (1 of none), and how many texts
        are the same.
    """
    found: Any = jiwer.process_words(list(wholes), list(pieces))
    num_words = sum(len(text.split()) for text in wholes)
    share = found.hits / num_words if num_words else 1.0
    num_same = sum(piece == whole for piece, whole in zip(pieces, wholes, strict=True))
    return share, num_same


def main(argv: Sequence[str] | None = None) -> int:
    """Print both comparisons as a table."""
    options = parse(argv)
    folder = model_folder(options.model)
    model = load_ctc(folder)
    beam = None if options.greedy else load_lm(folder, model.tokenizer)
    decoder = beam_decoder(beam) if beam else None

    rate = model.encoder.config.features.sample_rate_hz
    files = find_audio([options.folder])
    draws = random.Random(options.seed)  # noqa: S311

    def join(path: Path, seconds: float) -> list[Place]:
        return list(joined(files, rate, path, seconds, draws))

    rows: list[tuple[str, object]] = []
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "long.wav")
        places = join(path, 3600 * options.hours)
        rows += long_rows(model, decoder, path, places)

        paths = []
        for number in range(options.pieces):
            path = Path(scratch, f"{number}.wav")
            join(path, draws.uniform(*SHORT_S))
            paths.append(path)
        rows.append(pieces_row(model, decoder, paths))

    header = ("", f"seed {options.seed}, {machine()['processor']}")
    print(text_table(header, rows), end="")
    return 0


def long_rows(
    model: CtcModel, decoder: CtcDecoder | None, path: Path, places: Sequence[Place]
) -> list[tuple[str, object]]:
    """Transcribe the long file: speed, memory and word times."""
    before_gb = peak_memory_gb()
    started = time.monotonic()
    result = one(model, path, decoder)
    took_s = time.monotonic() - started

    errors = onset_errors(result, places)
    num_words = sum(len(segment.words) for segment in result.segments)
    rows: list[tuple[str, object]] = [
        ("audio", f"{result.duration_s / 3600:.2f} h of {len(places)} recordings"),
        ("words", num_words),
        ("speed", f"{result.duration_s / took_s:.0f} s per second, {took_s:.0f} s"),
        ("peak memory", f"{peak_memory_gb():.2f} GB, {before_gb:.2f} GB before"),
        ("recordings with a word", f"{len(errors)} of {len(places)}"),
    ]

    if len(errors):
        middle, most = np.quantile(errors, [0.5, 0.95])
        shown = f"median {middle:.3f} s, 95 % within {most:.3f} s"
        rows.append(("first word from onset", shown))

    return rows


def pieces_row(
    model: CtcModel, decoder: CtcDecoder | None, paths: Sequence[Path]
) -> tuple[str, object]:
    """Transcribe short files in pieces, and whole."""

    def texts(whole_below_s: float) -> list[str]:
        # Put back at once: whoever calls this in a process of their own (tests) goes on with the
        # constant.
        with mock.patch.object(pieces, "WHOLE_BELOW_S", whole_below_s):
            return [one(model, path, decoder).text for path in paths]

    share, num_same = same_words(pieces=texts(0.0), wholes=texts(3600.0))
    shown = f"{share:.1%}; {num_same} of {len(paths)} texts"
    return "words the same in pieces as whole", shown


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--pieces", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--greedy", action="store_true")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
