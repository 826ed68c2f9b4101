"""Measure how fast updates of pretraining and fine-tuning are, and where their time goes."""

import math
import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr
from dataclasses import asdict
from io import StringIO
from itertools import count, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from speechssl.analysis.benchmark import check_size, flop_rates, machine_and_precision
from speechssl.analysis.profiler import Stopwatch, flop_counter, matmul_peak, spread
from speechssl.analysis.synthetic_speech import write_corpus
from speechssl.config import Table, merge
from speechssl.data.prepare import PrepareConfig, prepare
from speechssl.errors import ConfigError, TrainingError
from speechssl.pretraining.pretrain import pretrain
from speechssl.pretraining.settings import PretrainSettings
from speechssl.recognition.finetune import finetune
from speechssl.recognition.settings import FinetuneSettings
from speechssl.runtime import ranks
from speechssl.runtime.device import peak_memory_gb, pick_device
from speechssl.runtime.log import log
from speechssl.storage.json_text import read_json_lines
from speechssl.training.presets import resolve_settings

TrainingSettings = PretrainSettings | FinetuneSettings

# Updates at the start of a run that do not count: they allocate, and fill caches.
WARM_UP = 2

# Size of the corpus to train on, by default: enough for so many updates, and at most so many
# seconds where updates are long.
_BATCHES = 20
_MOST_S = 8000.0

# Utterances on which the operations that a second of audio needs are counted.
_COUNTED = 8

# Settings of ``train`` that say how long a run is.
_LENGTHS = ("steps", "save_every", "validate_every", "log_every")


def bench_training(
    verb: Literal["pretrain", "finetune"],
    preset: str = "tiny",
    overrides: Mapping[str, Any] | None = None,
    seconds: float | None = None,
    updates: int = 10,
) -> Table:
    """Time updates of ``pretrain`` or ``finetune`` from random weights.

    All updates do the same work: no layer is dropped, and fine-tuning trains from the first one on
    what it else trains after ``ctc.head_only_steps``.

    Args:
        overrides: nested tables of settings to change.
        seconds: audio to learn from, about; None = enough for 20 updates of ``batch.seconds`` each,
            up to 8000 s. Of less, no batches of equal lengths can be made, and padding takes more
            time than in real use.
        updates: timed, without hooks; as many again with those that tell the parts apart.

    Raises:
        ConfigError: settings that do not fit, or that say how long the run is.
    """
    settings = _steady_settings(verb, preset, overrides or {}, updates)
    if seconds is None:
        seconds = enough_audio(settings.batch.seconds)
    check_size(seconds, updates)
    if ranks.count() > 1:
        raise ConfigError("bench times one process: give the command without torchrun")

    device = pick_device(settings.train.device)
    precision = settings.train.precision

    with TemporaryDirectory() as folder:
        runs = TrialRuns(settings, Path(folder), seconds)

        longest = min(settings.batch.seconds, seconds)
        log(f"timing {updates} updates of up to {longest:g} s of audio")
        with _step_events(device) as events:
            rows = runs.run(WARM_UP + updates)
        update_s = _update_seconds(rows, events)
        audio_s = [row["audio_s"] for row in rows[WARM_UP:]]
        # Read before what follows takes memory of its own.
        peak_gb = peak_memory_gb()

        log("timing their parts, and counting operations")
        with Stopwatch(device) as watch:
            parts = watch.parts(runs.run(WARM_UP + updates), WARM_UP)
        needed = runs.flops_needed()
        run = runs.flops_run(updates)

    rate = spread([audio / took for audio, took in zip(audio_s, update_s, strict=True)])
    best = matmul_peak(device, precision)

    table: Table = {
        "bench": verb,
        "about": {
            "preset": Path(settings.preset).stem,
            "updates": updates,
            "seconds in each": round(statistics.mean(audio_s), 1),
        },
        "machine": machine_and_precision(device, precision),
        "parts": parts,
        "audio_s_per_s": asdict(rate),
        "update_s": asdict(spread(update_s)),
        "peak_memory_gb": peak_gb,
        "matmul_peak": best,
    }

    table |= flop_rates("needed", needed * rate.median, best)
    return table | flop_rates("run", run * rate.median, best)


def enough_audio(batch_s: float) -> float:
    """Choose how much audio to learn from, seconds.

    Args:
        batch_s: audio of an update, seconds.
    """
    return min(_BATCHES * batch_s, _MOST_S)


class TrialRuns:
    """Short runs of the real thing over one temporary store of synthetic speech."""

    def __init__(self, settings: TrainingSettings, folder: Path, seconds: float) -> None:
        self.settings = settings
        self.folder = folder
        self.store = folder / "store"

        audio = folder / "audio"
        audio.mkdir()
        corpus = write_corpus(audio, seconds)
        prepare(corpus, self.store, PrepareConfig(features=settings.encoder.features))

    def run(self, steps: int, most_s: float = math.inf, **others: Any) -> list[dict[str, Any]]:
        """Train for some updates.

        Args:
            most_s: audio of an update at most, seconds.
            others: settings of ``train`` that differ.

        Returns:
            The rows of ``metrics.jsonl``, one for each update.
        """
        run = self.folder / "run"
        train = self.settings.train
        batch = self.settings.batch

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
        """Count the operations of updates as they are run, for each second of audio.

        Padding is included, and what is computed twice.
        """
        return self._count(updates)

    def flops_needed(self) -> float:
        """Count the operations that the architecture needs for each second of audio.

        Forward and backward count. Under bfloat16 a CPU runs the plain operations: nothing is
        computed twice to save memory, nothing in another way to save time. An utterance alone in
        its update has no padding.
        """
        return self._count(_COUNTED, 1.0, precision="bfloat16", device="cpu")

    def _count(self, updates: int, most_s: float = math.inf, **others: Any) -> float:
        """Run updates and count their operations for each second of audio."""
        steps = count(1)

        with ExitStack() as counting:
            counter = counting.enter_context(flop_counter())

            def stop_after_last_step(*_: Any) -> None:
                # Fine-tuning goes on to recognise the development set, which does not count.
                if next(steps) == updates:
                    counting.close()

            hook = register_optimizer_step_post_hook(stop_after_last_step)
            try:
                rows = self.run(updates, most_s, **others)
            finally:
                hook.remove()

        audio_s = sum(row["audio_s"] for row in rows)
        return float(counter.get_total_flops() / audio_s)


def _steady_settings(
    verb: Literal["pretrain", "finetune"], preset: str, overrides: Mapping[str, Any], updates: int
) -> TrainingSettings:
    """Resolve settings under which every update does the same work."""
    # A run on synthetic sounds is not to be judged as one that should learn: no window of updates
    # is ever full.
    steady: Table = {
        "encoder": {"layer_drop": 0.0},
        "train": {"health": {"window": WARM_UP + updates + 1}},
    }
    if verb == "finetune":
        steady["ctc"] = {"head_only_steps": 0}
    changes = merge(steady, overrides)

    settings: TrainingSettings
    if verb == "pretrain":
        settings = resolve_settings(PretrainSettings, preset, changes)
    else:
        settings = resolve_settings(FinetuneSettings, preset, changes)

    for name in _LENGTHS:
        if name in changes.get("train", {}):
            raise ConfigError(
                f"--set train.{name} is not for a benchmark: "
                "--repeats says how many updates it takes"
            )
    return settings


@contextmanager
def _step_events(device: torch.device) -> Iterator[list[torch.cuda.Event]]:
    """Record an event for each update on a GPU.

    There ``time_s`` only says how long it took to ask for the work. On a CPU the list stays empty.
    """
    events: list[torch.cuda.Event] = []
    if device.type != "cuda":
        yield events
        return

    def mark(*_: Any) -> None:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        events.append(event)

    hook = register_optimizer_step_post_hook(mark)
    try:
        yield events
    finally:
        hook.remove()


def _update_seconds(
    rows: Sequence[Mapping[str, Any]], events: Sequence[torch.cuda.Event]
) -> list[float]:
    """Find the time of each update after the warm-up, seconds."""
    if not events:
        return [row["time_s"] for row in rows[WARM_UP:]]

    torch.cuda.synchronize()
    counted = events[WARM_UP - 1 :]
    # elapsed_time is in milliseconds.
    return [before.elapsed_time(after) / 1000 for before, after in pairwise(counted)]
