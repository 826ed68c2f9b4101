"""Export a recogniser to ONNX, and compare its texts and its speed with torch.

    python tools/onnx_demo.py MODEL AUDIO... [--out FOLDER] [--rounds 5] [--threads 2]

Both start from samples in memory, so features count and decoding of files does not.
"""

import argparse
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import onnxruntime
import torch

from speechssl.audio.levelling import levelled
from speechssl.audio.reader import load_audio
from speechssl.decoding.greedy import greedy
from speechssl.encoder.encoder import EncoderOutput
from speechssl.errors import AudioError, SpeechsslError
from speechssl.interop.onnx import (
    Recordings,
    export_onnx,
    min_samples,
    model_log_probs,
    onnx_log_probs,
    onnx_session,
    output_difference,
)
from speechssl.recognition.model import CtcModel, load_ctc
from speechssl.storage.saved_folders import model_folder
from speechssl.tables import text_table
from speechssl.transcription.pieces import WHOLE_BELOW_S, find_audio

Recognise = Callable[[Recordings], EncoderOutput]
BATCH_SIZES = (1, 8)


def load(model: CtcModel, paths: Sequence[Path]) -> Recordings:
    """Load samples of the files that transcription takes whole, at the level at which it does.

    The others are named.
    """
    rate = model.encoder.config.features.sample_rate_hz
    shortest = min_samples(model.encoder.config)
    longest = WHOLE_BELOW_S * rate

    recordings = []
    for path in find_audio(paths):
        try:
            samples, _ = levelled(load_audio(path, rate), rate)
        except AudioError as error:
            print(f"left out: {path}: {error}", file=sys.stderr)
            continue

        if shortest <= len(samples) <= longest:
            recordings.append(samples)
        else:
            why = f"{len(samples) / rate:.2f} s, not up to {WHOLE_BELOW_S:g} s"
            print(f"left out: {path}: {why}", file=sys.stderr)

    if not recordings:
        raise SystemExit("no recording is left")
    return recordings


def texts(model: CtcModel, output: EncoderOutput) -> list[str]:
    """Decode log-probabilities."""
    ids = greedy(output.hidden, output.num_frames, model.tokenizer.blank_id)
    return [model.tokenizer.decode(tokens) for tokens in ids]


def compare(
    model: CtcModel, engines: dict[str, Recognise], recordings: Recordings, size: int
) -> tuple[float, int]:
    """Find the largest difference of a log-probability, and count the equal transcripts."""
    largest = 0.0
    num_same = 0
    for start in range(0, len(recordings), size):
        batch = recordings[start : start + size]
        expected, found = (recognise(batch) for recognise in engines.values())
        largest = max(largest, output_difference(found, expected))

        pairs = zip(texts(model, expected), texts(model, found), strict=True)
        num_same += sum(one == other for one, other in pairs)
    return largest, num_same


def seconds_for(model: CtcModel, recognise: Recognise, recordings: Recordings, size: int) -> float:
    """Time all recordings from samples to texts, in batches of ``size``."""
    started = time.perf_counter()
    for start in range(0, len(recordings), size):
        texts(model, recognise(recordings[start : start + size]))
    return time.perf_counter() - started


def measure(
    model: CtcModel, engines: dict[str, Recognise], recordings: Recordings, size: int, rounds: int
) -> dict[str, list[float]]:
    """Measure seconds of audio per second in each round.

    The engines take turns, and each goes first in every other round.
    """
    audio_s = seconds_of(model, recordings)
    speeds: dict[str, list[float]] = {name: [] for name in engines}

    # Round -1 warms up.
    for number in range(-1, rounds):
        order = list(engines)
        if number % 2 == 0:
            order.reverse()
        for name in order:
            wall_s = seconds_for(model, engines[name], recordings, size)
            if number >= 0:
                speeds[name].append(audio_s / wall_s)
    return speeds


def seconds_of(model: CtcModel, recordings: Recordings) -> float:
    """Add up the audio of all recordings."""
    return sum(map(len, recordings)) / model.encoder.config.features.sample_rate_hz


def run(options: argparse.Namespace, out: Path) -> None:
    """Export to ``out``, compare, measure, print."""
    torch.set_num_threads(options.threads)
    model = load_ctc(model_folder(options.model))
    # Longest first, as transcription batches them.
    recordings = sorted(load(model, options.audio), key=len, reverse=True)

    started = time.perf_counter()
    checked = export_onnx(model, out)
    took_s = time.perf_counter() - started
    size_mb = sum(file.stat().st_size for file in out.glob("model.onnx*")) / 1e6
    print(f"exported in {took_s:.1f} s, {size_mb:.1f} MB; on export {checked:.1e} apart")

    engines: dict[str, Recognise] = {
        "torch": partial(model_log_probs, model),
        "onnxruntime": partial(onnx_log_probs, onnx_session(out)),
    }

    rows = []
    for size in BATCH_SIZES:
        difference, num_same = compare(model, engines, recordings, size)
        agreement = {
            "torch": ("", ""),
            "onnxruntime": (f"{difference:.1e}", f"{num_same} of {len(recordings)}"),
        }

        speeds = measure(model, engines, recordings, size, options.rounds)
        for name, found in speeds.items():
            speed = f"{statistics.median(found):.0f} ({min(found):.0f} .. {max(found):.0f})"
            rows.append((size, name, speed, *agreement[name]))

    print(
        f"{len(recordings)} recordings, {seconds_of(model, recordings):.1f} s of audio; "
        f"median (range) of {options.rounds} rounds"
    )

    versions = f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}"
    print(f"{options.threads} threads on {platform.machine()}; {versions}")
    print(text_table(("batch", "", "s of audio per s", "max difference", "same text"), rows))


def main() -> None:
    options = parse()
    try:
        with tempfile.TemporaryDirectory() as folder:
            run(options, options.out or Path(folder, "onnx"))
    except SpeechsslError as error:
        raise SystemExit(str(error)) from error


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", type=Path, help="run or model folder")
    audio_help = "files and folders; those of up to 15 s are taken"
    parser.add_argument("audio", type=Path, nargs="+", help=audio_help)
    out_help = "keep the export in this folder, which must not exist"
    parser.add_argument("--out", type=Path, help=out_help)
    parser.add_argument("--rounds", type=int, default=5, help="timed passes of each")
    parser.add_argument("--threads", type=int, default=2, help="of torch and of onnxruntime")

    options = parser.parse_args()
    if options.rounds < 1 or options.threads < 1:
        parser.error("--rounds and --threads are at least 1")
    return options


if __name__ == "__main__":
    main()
