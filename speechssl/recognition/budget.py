"""``finetune --budget``: as many updates as a time allows.

The learning rate falls to zero with the last update, so their number is chosen before the first.
A few real updates tell what one takes on this machine.
"""

import copy
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import NamedTuple

from speechssl.data.batches import Batches
from speechssl.errors import ConfigError
from speechssl.recognition.ctc_crf import TokenBigram
from speechssl.recognition.model import CtcModel
from speechssl.recognition.settings import FinetuneSettings
from speechssl.runtime import ranks
from speechssl.runtime.ranks import log_once
from speechssl.storage.json_text import read_json_lines
from speechssl.training.journal import METRICS
from speechssl.training.loop import fit
from speechssl.training.run_folder import SETTINGS, settings_of_run

# Updates that are timed with each criterion, after one that is not: it allocates.
TIMED_UPDATES = 5


class Pace(NamedTuple):
    """What the parts of a training take on this machine, seconds."""

    update: float
    """of an update on average, over both criteria"""
    validation: float
    """of a measurement on dev"""

    def affordable(self, budget_s: float, validate_every: int) -> int:
        """Give the most updates that end within ``budget_s``, at least one.

        Args:
            validate_every: updates between two measurements; the last update has one too.
        """
        left = budget_s - self.validation
        per_update = self.update + self.validation / validate_every
        return max(1, math.floor(left / per_update))


def check_one_process() -> None:
    """See that one process does all updates: their pace is measured by itself.

    Raises:
        ConfigError: several share them.
    """
    if ranks.count() > 1:
        raise ConfigError(
            "--budget times the updates of one process: give the command without torchrun, or "
            "--set train.steps"
        )


def planned_steps(
    model: CtcModel,
    bigram: TokenBigram | None,
    batches: Batches,
    validate: Callable[[CtcModel], object],
    settings: FinetuneSettings,
    run: Path,
    budget_s: float,
) -> int:
    """Choose the number of updates of a training that should take ``budget_s``.

    Args:
        model: before its first update; it stays as it is.
        bigram: of the tokens, for CTC-CRF; None = CTC alone.
        batches: of the training.
        validate: measures a model on dev.
        settings: of the training.
        run: its folder; where one was begun, it goes on with the updates planned then.
        budget_s: seconds of updates and measurements.
    """
    begun = _steps_of(run)
    if begun is not None:
        log_once(f"{run} goes on with the {begun} updates that were planned for it")
        return begun

    pace = _measure(model, bigram, batches, validate, settings)
    steps = pace.affordable(budget_s, settings.train.validate_every)
    fits = f"there is time for {steps} updates"
    if pace.update + pace.validation > budget_s:
        fits = "there is no time for one update, and one is done"

    log_once(
        f"budget {budget_s / 60:.1f} min, preset {settings.preset}: an update takes "
        f"{pace.update:.2f} s and a measurement on dev {pace.validation:.1f} s, as measured once, "
        f"now, on this machine; so {fits}"
    )
    return steps


def _steps_of(run: Path) -> int | None:
    """Give the number of updates of a run that was begun; None = none was, or of another kind."""
    if not (run / SETTINGS).exists():
        return None
    train = settings_of_run(run).get("train", {})
    return train.get("steps") if isinstance(train, dict) else None


def _measure(
    model: CtcModel,
    bigram: TokenBigram | None,
    batches: Batches,
    validate: Callable[[CtcModel], object],
    settings: FinetuneSettings,
) -> Pace:
    """Time real updates of a copy of the model, with each criterion, and one validation."""
    share = 0.0 if bigram is None else settings.ctc.crf_share
    num_updates = 1 + TIMED_UPDATES
    trial = copy.deepcopy(model)
    # All that will learn later takes its time from the first update on.
    trial.config = trial.config.model_copy(update={"head_only_steps": 0})
    if bigram is not None:
        trial.learn_by_crf(bigram, num_updates)
        num_updates *= 2

    few = {"steps": num_updates, "log_every": num_updates, "save_every": num_updates}
    train = settings.train.model_copy(update=few)
    with TemporaryDirectory() as folder:
        fit(trial, batches, settings.optim, train, folder)
        rows = read_json_lines(Path(folder, METRICS))

    started = time.perf_counter()
    trial.eval()
    validate(trial)
    validation_s = time.perf_counter() - started

    ctc_rows = rows[1 : 1 + TIMED_UPDATES]
    crf_rows = rows[2 + TIMED_UPDATES :] or ctc_rows
    second_of_audio = (1 - share) * _seconds_per_second(ctc_rows)
    second_of_audio += share * _seconds_per_second(crf_rows)
    return Pace(second_of_audio * batches.mean_seconds, validation_s)


def _seconds_per_second(rows: Sequence[dict[str, float]]) -> float:
    """Seconds that updates took for a second of audio."""
    return mean(row["time_s"] for row in rows) / mean(row["audio_s"] for row in rows)
