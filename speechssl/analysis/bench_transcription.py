"""Measure how fast ``transcribe`` is, from path to text."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from speechssl.analysis.benchmark import check_size, flop_rates, machine_and_precision
from speechssl.analysis.profiler import Spread, flop_counter, matmul_peak, spread
from speechssl.analysis.synthetic_speech import LETTERS, write_recordings
from speechssl.config import Table
from speechssl.encoder.encoder import Encoder
from speechssl.errors import ConfigError
from speechssl.recognition.defaults import BATCH_SECONDS
from speechssl.recognition.model import CtcModel, load_ctc
from speechssl.recognition.settings import FinetuneSettings
from speechssl.runtime.device import peak_memory_gb, pick_device
from speechssl.runtime.log import log
from speechssl.runtime.seeds import derive_seed
from speechssl.storage.saved_folders import model_folder
from speechssl.text.character_tokenizer import CharTokenizer
from speechssl.training.presets import resolve_settings
from speechssl.transcription.pieces import find_audio
from speechssl.transcription.transcribe import transcribe
from speechssl.transcription.transcript import Failure

# Length of a short synthetic file, seconds.
_SHORT_S = 10.0


def bench_transcribe(
    model: Path | None = None,
    audio: Sequence[Path] = (),
    preset: str = "tiny",
    seconds: float = 600.0,
    batch_seconds: float = BATCH_SECONDS,
    repeats: int = 5,
) -> Table:
    """Time ``transcribe`` from path to text.

    Args:
        model: run or model folder; None = random weights of ``preset``, which hear nonsense.
        audio: files and folders; none = a synthetic file of ``seconds``, and as much again in
            files of 10 s.

    Raises:
        ConfigError, CheckpointError: nothing in ``audio`` can be read; ``model`` is no recogniser.
    """
    check_size(seconds, repeats)
    device = pick_device("auto")
    recogniser = load_ctc(model_folder(model)) if model else _random_recogniser(preset)
    recogniser = recogniser.to(device)

    with TemporaryDirectory() as folder:
        if audio:
            tasks = {"audio_s_per_s": find_audio(audio)}
        else:
            long = write_recordings(Path(folder, "long"), seconds, seconds)
            short = write_recordings(Path(folder, "short"), seconds, _SHORT_S)
            tasks = {"long_audio_s_per_s": long, "short_audio_s_per_s": short}

        rates: dict[str, Spread] = {}
        for name, files in tasks.items():
            timed = [
                _timed_transcription(recogniser, files, batch_seconds) for _ in range(1 + repeats)
            ]
            # The first one loads libraries.
            rates[name] = spread([audio_s / took for audio_s, took in timed[1:]])

        # Read before the count below takes memory of its own.
        peak_gb = peak_memory_gb()

        first_task = next(iter(tasks))
        # torch's counter stumbles over weights that could learn, where nothing can.
        recogniser.requires_grad_(False)
        with flop_counter() as counter:
            audio_s, _ = _timed_transcription(recogniser, tasks[first_task], batch_seconds)

    flops_per_audio_s = counter.get_total_flops() / audio_s
    flops = flops_per_audio_s * rates[first_task].median
    best = matmul_peak(device)

    table: Table = {
        "bench": "transcribe",
        "about": {
            "model": str(model or f"{preset}, random weights"),
            "seconds": round(audio_s, 1),
            "repeats": repeats,
        },
        "machine": machine_and_precision(device),
        "peak_memory_gb": peak_gb,
    }

    for name, rate in rates.items():
        table[name] = asdict(rate)
    table["matmul_peak"] = best
    return table | flop_rates("run", flops, best)


def _random_recogniser(preset: str) -> CtcModel:
    """Make a recogniser of letters with seeded random weights."""
    settings = resolve_settings(FinetuneSettings, preset, {})
    torch.manual_seed(derive_seed(0, "weights"))
    encoder = Encoder(settings.encoder)
    tokenizer = CharTokenizer.train([LETTERS])
    return CtcModel(encoder, tokenizer, settings.normaliser, settings.ctc).eval()


def _timed_transcription(
    model: CtcModel, files: Sequence[Path], batch_seconds: float
) -> tuple[float, float]:
    """Transcribe files.

    Returns:
        audio_s: seconds of audio that were heard.
        took: seconds that it took.
    """
    audio_s = 0.0
    started = time.perf_counter()

    for result in transcribe(model, files, batch_seconds=batch_seconds):
        if isinstance(result, Failure):
            log(f"{result.path}: {result.error}")
        else:
            audio_s += result.duration_s

    took = time.perf_counter() - started
    if not audio_s:
        raise ConfigError("no audio that can be transcribed: give other files")
    return audio_s, took
