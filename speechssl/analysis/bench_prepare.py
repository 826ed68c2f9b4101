"""Measure how fast ``prepare`` is, beside a loop that only decodes the same files."""

import math
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import soundfile
import torch

from speechssl.analysis.benchmark import check_size, machine_and_precision
from speechssl.analysis.profiler import spread
from speechssl.analysis.synthetic_speech import write_recordings
from speechssl.audio.feature_config import FeatureConfig
from speechssl.config import Table
from speechssl.corpus.layouts import scan
from speechssl.data.prepare import PrepareConfig, prepare
from speechssl.errors import ConfigError
from speechssl.runtime.device import peak_memory_gb
from speechssl.runtime.processes import worker_context

# Length of a synthetic recording, seconds.
_RECORDING_S = 60.0

# Tasks that each process gets, so that all of them have work to the end.
_TASKS_PER_JOB = 4

# Samples of each channel that the bare loop reads at a time.
_BLOCK = 1 << 20


def bench_prepare(
    source: Path | None = None,
    features: Literal["logmel", "waveform"] = "logmel",
    jobs: int = 0,
    seconds: float = 1800.0,
    repeats: int = 5,
) -> Table:
    """Time ``prepare`` in turn with a loop that only decodes the same files in as many processes.

    Without ``jobs`` it runs in this process, so without the verb's limits. With more than one
    process both start theirs anew each time, which takes seconds: only hours of audio tell then.
    Call from under ``if __name__ == ...`` in that case.

    Args:
        source: anything that ``corpus.layouts.scan`` reads; None = ``seconds`` of synthetic
            recordings of a minute each.

    Raises:
        ConfigError, ManifestError: the source cannot be read, or nothing of it can be decoded.
    """
    check_size(seconds, repeats)
    config = PrepareConfig(features=FeatureConfig(kind=features))

    with TemporaryDirectory() as folder:
        if source is None:
            source = Path(folder, "audio")
            files = write_recordings(source, seconds, _RECORDING_S)
            # By default so few files would be one shard, and a shard is one task.
            shard_files = math.ceil(len(files) / (_TASKS_PER_JOB * max(1, jobs)))
            config = config.model_copy(update={"shard_files": shard_files})
        else:
            manifest = scan(source)
            files = sorted({manifest.root / record.audio for record in manifest.records})

        store = Path(folder, "store")
        ours_s: list[float] = []
        bare_s: list[float] = []

        # Once more than asked: the first time loads libraries, and the files into memory.
        for _ in range(1 + repeats):
            started = time.perf_counter()
            report = prepare(source, store, config, jobs=jobs)
            ours_s.append(time.perf_counter() - started)
            shutil.rmtree(store)

            started = time.perf_counter()
            _decode_all(files, jobs)
            bare_s.append(time.perf_counter() - started)

    audio_s = report.total.samples / report.sample_rate_hz
    if not audio_s:
        raise ConfigError(f"nothing in {source} can be decoded: give a folder of recordings")

    ours_s = ours_s[1:]
    bare_s = bare_s[1:]
    ratios = [ours / bare for ours, bare in zip(ours_s, bare_s, strict=True)]
    return {
        "bench": "prepare",
        "about": {
            "features": features,
            "jobs": jobs,
            "files": len(files),
            "seconds": round(audio_s, 1),
            "repeats": repeats,
        },
        "machine": machine_and_precision(torch.device("cpu")),
        "audio_s_per_s": asdict(spread([audio_s / took for took in ours_s])),
        "bare_audio_s_per_s": asdict(spread([audio_s / took for took in bare_s])),
        "time_over_bare": asdict(spread(ratios)),
        "peak_memory_gb": peak_memory_gb(),
    }


def _decode_all(files: Sequence[Path], jobs: int) -> None:
    """Decode files in this process, or in ``jobs`` others."""
    if jobs == 0:
        for path in files:
            _decode(path)
        return

    files_per_task = math.ceil(len(files) / (_TASKS_PER_JOB * jobs))
    with ProcessPoolExecutor(jobs, worker_context()) as pool:
        # The list waits for all of them, and raises what one has raised.
        list(pool.map(_decode, files, chunksize=files_per_task))


def _decode(path: Path) -> None:
    """Read every sample of a file, or of what can be read of it, and do nothing with them."""
    with suppress(soundfile.LibsndfileError), soundfile.SoundFile(path) as file:
        while len(file.read(_BLOCK, dtype="float32")):
            pass
