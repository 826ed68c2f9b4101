"""Long recordings: speed, memory, word times, and whether pieces say what the whole says.

    python tools/long_files.py MODEL FOLDER [--hours 2] [--pieces 50] [--seed 0] [--greedy]

Joins recordings of FOLDER, drawn at random, with pauses of 0.3 to 2 seconds of faint noise, and transcribes:

* one file of --hours: seconds of audio per second, peak memory, and how far the first word of each recording begins
  from where its sound begins (the first 10 ms within 35 dB of its loudest), median and 95th percentile;
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
from speechssl.storage.checkpoint import model_folder
from speechssl.tables import text_table
from speechssl.transcription import pieces
from speechssl.transcription.pieces import find_audio
from speechssl.transcription.transcribe import transcribe
from speechssl.transcription.transcript import Transcript

NOISE = 1e-4  # standard deviation in pauses: digital silence would be easier than any real one
PAUSE_S = (0.3, 2.0)
SHORT_S = (20.0, 60.0)
NEAR_S = 0.3  # a first word is looked for from this far before a recording to its end


def joined(
    files: Sequence[Path], rate: int, path: Path, seconds: float, draws: random.Random
) -> Iterator[tuple[float, float, float]]:
    """Write recordings with pauses until ``seconds`` are reached; yields start, onset of sound and end of each."""
    noise = np.random.default_rng(draws.randrange(2**32))
    written = 0
    with soundfile.SoundFile(path, "w", rate, 1, "PCM_16") as out:
        while written < seconds * rate:
            samples = load_audio(draws.choice(files), rate)
            spoken = speech_intervals(samples, rate)
            if not spoken or len(samples) > 15 * rate:
                continue
            onset = written + spoken[0][0] + (round(MARGIN_S * rate) if spoken[0][0] else 0)
            yield written / rate, onset / rate, (written + len(samples)) / rate
            pause = NOISE * noise.standard_normal(round(draws.uniform(*PAUSE_S) * rate))
            for part in (samples, pause.astype(np.float32)):
                out.write(part)
                written += len(part)


def one(model: CtcModel, path: Path, decoder: CtcDecoder | None) -> Transcript:
    """The transcript of a file that is known to be one."""
    (result,) = transcribe(model, [path], decoder=decoder)
    assert isinstance(result, Transcript)
    return result


def onset_errors(
    result: Transcript, places: Sequence[tuple[float, float, float]]
) -> NDArray[np.float64]:
    """Seconds between the first word of each recording and its onset; of recordings without a word nothing."""
    starts = np.array([word.start for segment in result.segments for word in segment.words])
    errors = []
    for begin, onset, end in places:
        own = starts[(starts >= begin - NEAR_S) & (starts < end)]
        if len(own):
            errors.append(abs(float(own[0]) - onset))
    return np.array(errors)


def same_words(pieces: Sequence[str], wholes: Sequence[str]) -> tuple[float, int]:
    """Share of the words of ``wholes`` that ``pieces`` have too (1 of none), and how many texts are the same."""
    found: Any = jiwer.process_words(list(wholes), list(pieces))
    words = sum(len(text.split()) for text in wholes)
    return found.hits / words if words else 1.0, sum(
        a == b for a, b in zip(pieces, wholes, strict=True)
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Both comparisons, as a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--pieces", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--greedy", action="store_true")
    options = parser.parse_args(argv)
    folder = model_folder(options.model)
    model = load_ctc(folder)
    beam = None if options.greedy else load_lm(folder, model.tokenizer)
    decoder = beam_decoder(beam) if beam else None
    rate = model.encoder.config.features.sample_rate_hz
    files, draws = find_audio([options.folder]), random.Random(options.seed)  # noqa: S311
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "long.wav")
        places = list(joined(files, rate, path, 3600 * options.hours, draws))
        before, started = peak_memory_gb(), time.monotonic()
        result = one(model, path, decoder)
        took = time.monotonic() - started
        errors = onset_errors(result, places)
        rows += [
            ("audio", f"{result.duration_s / 3600:.2f} h of {len(places)} recordings"),
            ("words", sum(len(segment.words) for segment in result.segments)),
            ("speed", f"{result.duration_s / took:.0f} s per second, {took:.0f} s"),
            ("peak memory", f"{peak_memory_gb():.2f} GB, {before:.2f} GB before"),
            ("recordings with a word", f"{len(errors)} of {len(places)}"),
        ]
        if len(errors):
            middle, most = np.quantile(errors, [0.5, 0.95])
            rows.append(
                ("first word from onset", f"median {middle:.3f} s, 95 % within {most:.3f} s")
            )
        texts: dict[float, list[str]] = {0.0: [], 3600.0: []}
        for number in range(options.pieces):
            path = Path(scratch, f"{number}.wav")
            list(joined(files, rate, path, draws.uniform(*SHORT_S), draws))
            for whole_below_s, found in texts.items():
                # Put back at once: whoever calls this in a process of their own (tests) goes on with the constant.
                with mock.patch.object(pieces, "WHOLE_BELOW_S", whole_below_s):
                    found.append(one(model, path, decoder).text)
        share, same = same_words(*texts.values())
        rows.append(
            ("words the same in pieces as whole", f"{share:.1%}; {same} of {options.pieces} texts")
        )
    print(text_table(("", f"seed {options.seed}, {machine()['processor']}"), rows), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
