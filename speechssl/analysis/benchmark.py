"""How fast speechssl is on this machine, how much memory it takes, where the time goes, how far from the peak.

Each benchmark makes seeded synthetic speech in a temporary folder and runs what the verb of its name runs (prepare
without ``jobs`` in this process, so without the verb's limits). It returns a table of JSON values: ``bench`` (the
verb), ``about`` and ``machine`` (what ran, and where), the measures that ``LABELS`` explains (repeated ones as median,
low, high), and for training ``parts``: seconds and share of an update.
"""

import math
import shutil
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, redirect_stderr, suppress
from dataclasses import asdict
from io import StringIO
from itertools import count, pairwise
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import soundfile
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from speechssl.analysis.profiler import (
    Spread,
    Stopwatch,
    flop_counter,
    matmul_peak,
    spread,
)
from speechssl.analysis.synthetic_speech import LETTERS, write_corpus, write_recordings
from speechssl.audio.features import FeatureConfig
from speechssl.config import Table, merge
from speechssl.corpus.layouts import scan
from speechssl.data.prepare import PrepareConfig, prepare
from speechssl.encoder.encoder import Encoder
from speechssl.errors import ConfigError, TrainingError
from speechssl.pretraining.pretrain import pretrain
from speechssl.pretraining.settings import PretrainSettings
from speechssl.recognition.decoders import BATCH_SECONDS
from speechssl.recognition.finetune import finetune
from speechssl.recognition.model import CtcModel, load_ctc
from speechssl.recognition.settings import FinetuneSettings
from speechssl.runtime import distributed
from speechssl.runtime.device import Precision, peak_memory_gb, pick_device
from speechssl.runtime.log import log
from speechssl.runtime.machine import describe_machine
from speechssl.runtime.seeds import derive_seed
from speechssl.storage.checkpoint import model_folder
from speechssl.storage.json_text import read_json_lines
from speechssl.tables import text_table
from speechssl.text.tokenizers import CharTokenizer
from speechssl.training.presets import resolve_settings
from speechssl.transcription.pieces import find_audio
from speechssl.transcription.transcribe import transcribe
from speechssl.transcription.transcript import Failure

WARM_UP = 2  # updates that do not count: they allocate, and fill caches
BATCHES, MOST_S = (
    20,
    8000.0,
)  # of the corpus to train on, by default: updates, and seconds where these are long
COUNTED = 8  # utterances from which it is told how many operations a second of audio needs

LABELS = {
    "audio_s_per_s": "seconds of audio per second",
    "long_audio_s_per_s": "seconds of audio per second, one long file",
    "short_audio_s_per_s": "seconds of audio per second, short files",
    "bare_audio_s_per_s": "the same of a loop that only decodes",
    "time_over_bare": "time over that of this loop",
    "update_s": "seconds per update",
    "peak_memory_gb": "peak memory of this process, GB",
    "matmul_peak": "best matrix product here, FLOP/s",
    "needed_flops": "matrix products of the plain architecture, without padding, FLOP/s",
    "needed_share": "of the best",
    "run_flops": "matrix products that were run, FLOP/s",
    "run_share": "of the best",
}
"""Measures, in the order of the printed table."""


def as_text(table: Table) -> str:
    """What a benchmark returned, for people: two lines and Markdown tables."""
    about, machine = (
        ", ".join(f"{k} {v}" for k, v in table[name].items()) for name in ("about", "machine")
    )
    rows = [(label, _cell(name, table[name])) for name, label in LABELS.items() if name in table]
    text = f"{table['bench']}: {about}\n{machine}\n\n" + text_table(("measure", "value"), rows)
    if "parts" in table:
        parts = [
            (name, f"{part['seconds']:.4f}", f"{part['share']:.1%}")
            for name, part in table["parts"].items()
        ]
        text += "\n" + text_table(("part of an update", "seconds", "share"), parts)
    return text


def _cell(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return str(Spread(**value))
    return f"{value:.1%}" if name.endswith("_share") else f"{value:.3g}"


def _machine(device: torch.device, precision: Precision = "float32") -> Table:
    return describe_machine(device) | {"precision": precision}


# ---- synthetic speech -------------------------------------------------------------------------------------------


# ---- training ---------------------------------------------------------------------------------------------------


def bench_training(
    verb: Literal["pretrain", "finetune"],
    preset: str = "tiny",
    overrides: Mapping[str, Any] | None = None,
    seconds: float | None = None,
    updates: int = 10,
) -> Table:
    """Time updates of ``pretrain`` or ``finetune`` from random weights.

    All updates do the same work: no layer is dropped, and fine-tuning trains from the first one on what it else trains
    after ``ctc.head_only_steps``.

    Args:
        overrides: nested tables of settings to change.
        seconds: audio to learn from, about; None = enough for ``BATCHES`` updates of ``batch.seconds`` each, up to
            ``MOST_S``. Of less, no batches of equal lengths can be made, and padding takes more time than in real use.
        updates: timed, without hooks; as many again with those that tell the parts apart.

    Raises:
        ConfigError: settings that do not fit, or that say how long the run is.
    """
    # Every update the same work; and a run on made-up sounds is not to be judged as one that should learn.
    steady: Table = {
        "encoder": {"layer_drop": 0.0},
        "train": {"health": {"window": WARM_UP + updates + 1}},
    }
    if verb == "finetune":
        steady["ctc"] = {"head_only_steps": 0}
    changes = merge(steady, overrides or {})
    settings: PretrainSettings | FinetuneSettings
    if verb == "pretrain":
        settings = resolve_settings(PretrainSettings, preset, changes)
    else:
        settings = resolve_settings(FinetuneSettings, preset, changes)
    for name in ("steps", "save_every", "validate_every", "log_every"):
        if name in changes.get("train", {}):
            raise ConfigError(
                f"--set train.{name} is not for a benchmark: --repeats says how many updates it takes"
            )
    seconds = _enough(settings.batch.seconds) if seconds is None else seconds
    _check(seconds, updates)
    if distributed.count() > 1:
        raise ConfigError("bench times one process: give the command without torchrun")
    device, precision = pick_device(settings.train.device), settings.train.precision
    with TemporaryDirectory() as folder:
        runs = _Runs(settings, Path(folder), seconds)
        log(
            f"timing {updates} updates of up to {min(settings.batch.seconds, seconds):g} s of audio"
        )
        with _step_events(device) as events:
            rows = runs.run(WARM_UP + updates)
        peak_gb = peak_memory_gb()  # before what is below takes memory of its own
        took, audio = _update_seconds(rows, events), [row["audio_s"] for row in rows[WARM_UP:]]
        log("timing their parts, and counting operations")
        with Stopwatch(device) as watch:
            parts = watch.parts(runs.run(WARM_UP + updates), WARM_UP)
        counted = {"needed": runs.flops_needed(), "run": runs.flops_run(updates)}
    rate, best = (
        spread([a / t for a, t in zip(audio, took, strict=True)]),
        matmul_peak(device, precision),
    )
    about = {
        "preset": Path(settings.preset).stem,
        "updates": updates,
        "seconds in each": round(statistics.mean(audio), 1),
    }
    table: Table = {
        "bench": verb,
        "about": about,
        "machine": _machine(device, precision),
        "parts": parts,
    }
    table |= {"audio_s_per_s": asdict(rate), "update_s": asdict(spread(took))}
    table |= {"peak_memory_gb": peak_gb, "matmul_peak": best}
    for name, flops in counted.items():
        table |= _flops(name, flops * rate.median, best)
    return table


def _enough(batch_s: float) -> float:
    return min(BATCHES * batch_s, MOST_S)


def _check(seconds: float, repeats: int) -> None:
    if not 5 <= seconds <= 86_400:
        raise ConfigError(f"--seconds is {seconds:g}: give 5 to 86400 seconds of audio")
    if repeats < 1:
        raise ConfigError(f"--repeats is {repeats}: give at least 1")


def _flops(name: str, rate: float, best: float) -> Table:
    return {f"{name}_flops": rate, f"{name}_share": rate / best}


class _Runs:
    """Short runs of the real thing over one temporary store of synthetic speech."""

    def __init__(
        self, settings: PretrainSettings | FinetuneSettings, folder: Path, seconds: float
    ) -> None:
        self.settings, self.folder, self.store = settings, folder, folder / "store"
        (folder / "audio").mkdir()
        prepare(
            write_corpus(folder / "audio", seconds),
            self.store,
            PrepareConfig(features=settings.encoder.features),
        )

    def run(self, steps: int, most_s: float = math.inf, **others: Any) -> list[dict[str, Any]]:
        """So many updates, of at most ``most_s`` seconds of audio each; returns their rows of ``metrics.jsonl``.

        Args:
            others: settings of ``train`` that differ.
        """
        run, train, batch = self.folder / "run", self.settings.train, self.settings.batch
        length = {"steps": steps, "save_every": steps, "validate_every": steps, "log_every": steps}
        changes = {
            "train": train.model_copy(update=length | others),
            "batch": batch.model_copy(update={"seconds": min(batch.seconds, most_s)}),
        }
        # Losses and error rates of random weights are not what was asked for.
        with redirect_stderr(StringIO()):
            if isinstance(self.settings, PretrainSettings):
                pretrain([self.store], run, self.settings.model_copy(update=changes))
            else:
                finetune([self.store], run, self.settings.model_copy(update=changes), None)
        if (run / "bad_steps.jsonl").exists():
            raise TrainingError(
                "an update was not finite, so its speed means nothing: leave out what --set changes"
            )
        rows = read_json_lines(run / "metrics.jsonl")
        shutil.rmtree(run)
        return rows

    def flops_run(self, updates: int) -> float:
        """Operations of updates as they are run, per second of audio: padding and what is computed twice included."""
        return self._count(updates)

    def flops_needed(self) -> float:
        """Operations that the architecture needs, forward and backward, per second of audio.

        Under bfloat16 a CPU runs the plain operations: nothing is computed twice to save memory, nothing in another way
        to save time. An utterance alone in its update has no padding.
        """
        return self._count(COUNTED, 1.0, precision="bfloat16", device="cpu")

    def _count(self, updates: int, most_s: float = math.inf, **others: Any) -> float:
        steps = count(1)
        with ExitStack() as counting:
            counter = counting.enter_context(flop_counter())
            # It ends with the last step of the optimiser: fine-tuning then goes on to recognise the development set.
            hook = register_optimizer_step_post_hook(
                lambda *_: counting.close() if next(steps) == updates else None
            )
            try:
                rows = self.run(updates, most_s, **others)
            finally:
                hook.remove()
        return float(counter.get_total_flops() / sum(row["audio_s"] for row in rows))


@contextmanager
def _step_events(device: torch.device) -> Iterator[list[torch.cuda.Event]]:
    """On a GPU an event per update: there ``time_s`` only says how long it took to ask for the work."""
    events: list[torch.cuda.Event] = []

    def mark(*_: Any) -> None:
        events.append(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]
        events[-1].record()

    hook = register_optimizer_step_post_hook(mark) if device.type == "cuda" else None
    try:
        yield events
    finally:
        if hook:
            hook.remove()


def _update_seconds(
    rows: Sequence[Mapping[str, Any]], events: Sequence[torch.cuda.Event]
) -> list[float]:
    """Of each update after the warm-up."""
    if events:
        torch.cuda.synchronize()
        return [a.elapsed_time(b) / 1000 for a, b in pairwise(events[WARM_UP - 1 :])]
    return [row["time_s"] for row in rows[WARM_UP:]]


# ---- files ------------------------------------------------------------------------------------------------------


def bench_prepare(
    source: Path | None = None,
    features: Literal["logmel", "waveform"] = "logmel",
    jobs: int = 0,
    seconds: float = 1800.0,
    repeats: int = 5,
) -> Table:
    """Time ``prepare`` in turn with a loop that only decodes the same files in as many processes.

    With more than one process both start theirs anew each time, which takes seconds: only hours of audio tell then.
    Call from under ``if __name__ == ...`` in that case.

    Args:
        source: anything that ``manifest.scan`` reads; None = ``seconds`` of synthetic recordings of a minute each.

    Raises:
        ConfigError, ManifestError: the source cannot be read, or nothing of it can be decoded.
    """
    _check(seconds, repeats)
    config = PrepareConfig(features=FeatureConfig(kind=features))
    with TemporaryDirectory() as folder:
        if source is None:
            source = Path(folder, "audio")
            files = write_recordings(source, seconds, 60.0)
            # By default so few files would be one shard, and a shard is one task.
            config = config.model_copy(
                update={"shard_files": math.ceil(len(files) / (4 * max(1, jobs)))}
            )
        else:
            manifest = scan(source)
            files = sorted({manifest.root / record.audio for record in manifest.records})
        store, ours, bare = Path(folder, "store"), [], []
        for _ in range(1 + repeats):  # the first loads libraries, and the files into memory
            started = time.perf_counter()
            report = prepare(source, store, config, jobs=jobs)
            ours.append(time.perf_counter() - started)
            shutil.rmtree(store)
            started = time.perf_counter()
            _decode_all(files, jobs)
            bare.append(time.perf_counter() - started)
    audio_s = report.total.samples / report.sample_rate_hz
    if not audio_s:
        raise ConfigError(f"nothing in {source} can be decoded: give a folder of recordings")
    about = {
        "features": features,
        "jobs": jobs,
        "files": len(files),
        "seconds": round(audio_s, 1),
        "repeats": repeats,
    }
    return {
        "bench": "prepare",
        "about": about,
        "machine": _machine(torch.device("cpu")),
        "audio_s_per_s": asdict(spread([audio_s / t for t in ours[1:]])),
        "bare_audio_s_per_s": asdict(spread([audio_s / t for t in bare[1:]])),
        "time_over_bare": asdict(spread([a / b for a, b in zip(ours[1:], bare[1:], strict=True)])),
        "peak_memory_gb": peak_memory_gb(),
    }


def _decode_all(files: Sequence[Path], jobs: int) -> None:
    if jobs == 0:
        for path in files:
            _decode(path)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        list(pool.map(_decode, files, chunksize=math.ceil(len(files) / (4 * jobs))))


def _decode(path: Path) -> None:
    """Every sample of a file, or of what can be read of it, and nothing done with them."""
    with suppress(soundfile.LibsndfileError), soundfile.SoundFile(path) as file:
        while len(file.read(1 << 20, dtype="float32")):
            pass


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
        audio: files and folders; none = a synthetic file of ``seconds``, and as much again in files of 10 s.

    Raises:
        ConfigError, CheckpointError: nothing in ``audio`` can be read; ``model`` is no recogniser.
    """
    _check(seconds, repeats)
    device = pick_device("auto")
    recogniser = (load_ctc(model_folder(model)) if model else _random_recogniser(preset)).to(device)
    with TemporaryDirectory() as folder:
        if audio:
            tasks = {"audio_s_per_s": find_audio(audio)}
        else:
            tasks = {
                "long_audio_s_per_s": write_recordings(Path(folder, "long"), seconds, seconds),
                "short_audio_s_per_s": write_recordings(Path(folder, "short"), seconds, 10.0),
            }
        rates: dict[str, Spread] = {}
        for name, files in tasks.items():
            timed = [
                _timed_transcription(recogniser, files, batch_seconds) for _ in range(1 + repeats)
            ]
            rates[name] = spread(
                [audio_s / took for audio_s, took in timed[1:]]
            )  # the first loads libraries
        peak_gb = peak_memory_gb()
        name, files = next(iter(tasks.items()))
        recogniser.requires_grad_(
            False
        )  # torch's counter stumbles over what could learn, where nothing can
        with flop_counter() as counter:
            audio_s, _ = _timed_transcription(recogniser, files, batch_seconds)
    flops, best = counter.get_total_flops() / audio_s * rates[name].median, matmul_peak(device)
    about = {
        "model": str(model or f"{preset}, random weights"),
        "seconds": round(audio_s, 1),
        "repeats": repeats,
    }
    table: Table = {
        "bench": "transcribe",
        "about": about,
        "machine": _machine(device),
        "peak_memory_gb": peak_gb,
    }
    table |= {name: asdict(rate) for name, rate in rates.items()}
    return table | {"matmul_peak": best} | _flops("run", flops, best)


def _random_recogniser(preset: str) -> CtcModel:
    settings = resolve_settings(FinetuneSettings, preset, {})
    torch.manual_seed(derive_seed(0, "weights"))
    return CtcModel(
        Encoder(settings.encoder), CharTokenizer.train([LETTERS]), settings.normaliser, settings.ctc
    ).eval()


def _timed_transcription(
    model: CtcModel, files: Sequence[Path], batch_seconds: float
) -> tuple[float, float]:
    """Seconds of audio that were heard, and seconds that it took."""
    audio_s, started = 0.0, time.perf_counter()
    for result in transcribe(model, files, batch_seconds=batch_seconds):
        if isinstance(result, Failure):
            log(f"{result.path}: {result.error}")
        else:
            audio_s += result.duration_s
    took = time.perf_counter() - started
    if not audio_s:
        raise ConfigError("no audio that can be transcribed: give other files")
    return audio_s, took
