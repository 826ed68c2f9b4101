"""Evaluations side by side, and how much of their difference is more than chance.

Both are measured by a bootstrap over the same utterances.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechssl.errors import ConfigError
from speechssl.scoring.bootstrap import NUM_BOOTSTRAP, bootstrap_sums, percentiles, rates
from speechssl.scoring.score import Counts
from speechssl.tables import text_table

NUM_DRAWS = 10_000  # of a difference: more than of an interval, for p is a count in its tail


@dataclass(frozen=True)
class System:
    """One row of a comparison: a system, evaluated on the same utterances once or several times.

    Runs of one system differ in their seeds, for example.

    Attributes:
        name: of the row.
        ids, references: (N,) of the utterances, sorted by id.
        table: (N, 4) float64: word errors, reference words, character errors, reference characters,
            summed over runs.
        num_runs: evaluations pooled.
    """

    name: str
    ids: tuple[str, ...]
    references: tuple[str, ...]
    table: NDArray[np.float64]
    num_runs: int

    @property
    def rates(self) -> tuple[float, float]:
        """Word and character error rate, errors of all runs over reference units of all runs."""
        wer, cer = rates(self.table.sum(0))
        return float(wer), float(cer)


@dataclass(frozen=True)
class Difference:
    """How much higher the rate of one system is than another's.

    Attributes:
        value: of all utterances.
        low, high: 95 % interval.
        p: two-sided, see ``differences``.
    """

    value: float
    low: float
    high: float
    p: float


def read_system(name: str, folders: Sequence[Path]) -> System:
    """Read one row from what ``speechssl evaluate`` wrote: one folder, or the runs of one system.

    Raises:
        ConfigError: a folder has no ``utterances.jsonl`` that can be read, or the runs are not of
            the same utterances.
    """
    runs = [_read_run(name, folder) for folder in folders]
    first = runs[0]
    for folder, run in zip(folders[1:], runs[1:], strict=True):
        if not _same_utterances(run, first):
            raise ConfigError(
                f"{folder} and {folders[0]} are both called {name!r}, but not of the same "
                "utterances and references: one name is for runs of one system on one test set"
            )

    table = np.sum([run.table for run in runs], axis=0)
    return System(name, first.ids, first.references, table, len(runs))


def intervals(system: System, seed: int = 0) -> tuple[tuple[float, float], tuple[float, float]]:
    """Compute 95 % intervals (low, high) of word and character error rate.

    Of one run they are those that ``score`` gives. Utterances are drawn, with all runs of each: the
    interval says nothing of how runs differ.
    """
    wer, cer = rates(bootstrap_sums(system.table, seed, NUM_BOOTSTRAP))
    return percentiles(wer), percentiles(cer)


def differences(
    system: System, baseline: System, seed: int = 0
) -> tuple[Difference, Difference] | None:
    """Compute word and character error rate of ``system`` minus those of ``baseline``.

    Every draw takes the same utterances for both, so what makes an utterance hard for both cancels.
    ``p`` is two-sided: twice the share of draws on the rarer side of zero, ties on both, and never
    below 1 / (draws + 1). Like the interval, it takes utterances as independent, and says nothing
    about other seeds, speakers or recordings than those measured.

    Returns:
        None if the utterances are not the same.

    Source: Bisani and Ney 2004, "Bootstrap estimates for confidence intervals in ASR performance
    evaluation".
    """
    if not _same_utterances(system, baseline):
        return None

    both = np.hstack([system.table, baseline.table])  # (N, 8)
    sums = bootstrap_sums(both, seed, NUM_DRAWS)
    wer, cer = rates(sums[:, :4])
    baseline_wer, baseline_cer = rates(sums[:, 4:])

    wer_value, cer_value = np.subtract(system.rates, baseline.rates)
    return (
        _difference(float(wer_value), wer - baseline_wer),
        _difference(float(cer_value), cer - baseline_cer),
    )


def comparison(systems: Sequence[System]) -> str:
    """Show the rates of all systems as a table, and below it how each differs from the first."""
    baseline = systems[0]
    text = _rates_table(systems)

    rows = []
    incomparable = []
    for system in systems[1:]:
        found = differences(system, baseline)
        if found:
            rows.append((system.name, *_difference_cells(found[0]), *_difference_cells(found[1])))
        else:
            what = "reference texts" if system.ids == baseline.ids else "utterances"
            incomparable.append(
                f"{system.name}: other {what} than {baseline.name}, "
                "so their difference says nothing\n"
            )

    if incomparable:
        text += "\n" + "".join(incomparable)

    if rows:
        wer_columns = ("WER, points", "95 % interval", "p")
        cer_columns = ("CER, points", "95 % interval", "p")
        columns = (f"minus {baseline.name}", *wer_columns, *cer_columns)
        text += "\n" + text_table(columns, rows)

    return text


def _read_run(name: str, folder: Path) -> System:
    """Read one evaluation, from its folder or from the file of its utterances."""
    path = folder / "utterances.jsonl" if folder.is_dir() else folder
    try:
        # Only at "\n": ``splitlines`` would split at every mark that Unicode has for a line.
        lines = path.read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line) for line in lines if line]
        rows.sort(key=lambda row: str(row["utterance_id"]))

        ids = tuple(str(row["utterance_id"]) for row in rows)
        references = tuple(str(row["reference"]) for row in rows)
        table = np.array([_counted(row) for row in rows], dtype=np.float64).reshape(-1, 4)
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"{path.name}: {error.strerror}" if isinstance(error, OSError) else error
        raise ConfigError(
            f"no scores can be read from {folder} ({why}): "
            "give a folder that speechssl evaluate wrote"
        ) from error

    if not ids:
        raise ConfigError(f"{path} holds no utterance: give a folder that speechssl evaluate wrote")

    return System(name, ids, references, table, 1)


def _counted(row: dict[str, Any]) -> tuple[int, int, int, int]:
    """Return errors and reference length of one utterance, in words and in characters."""
    words = Counts(**row["words"])
    characters = Counts(**row["characters"])
    return (
        words.errors,
        words.reference_length,
        characters.errors,
        characters.reference_length,
    )


def _same_utterances(one: System, other: System) -> bool:
    return one.ids == other.ids and one.references == other.references


def _difference(value: float, draws: NDArray[np.float64]) -> Difference:
    """Summarise bootstrap draws (num_draws,) of a difference."""
    # Ties count on both sides, and one draw more than there were keeps p above 0.
    rarer = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    p = min(1.0, (2 * rarer + 1) / (len(draws) + 1))

    low, high = percentiles(draws)
    return Difference(value, low, high, p)


def _rates_table(systems: Sequence[System]) -> str:
    rows = []
    for system in systems:
        wer, cer = system.rates
        wer_interval, cer_interval = intervals(system)
        cells = (f"{wer:.1%}", _percent(wer_interval), f"{cer:.1%}", _percent(cer_interval))
        rows.append((system.name, *cells, str(len(system.ids)), str(system.num_runs)))

    columns = ("system", "WER", "95 % interval", "CER", "95 % interval", "utterances", "runs")
    return text_table(columns, rows)


def _percent(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{low:.1%} .. {high:.1%}"


def _difference_cells(d: Difference) -> tuple[str, str, str]:
    """Show value and interval in percentage points, and p."""
    p = f"{d.p:.4f}" if d.p >= 0.0005 else "< 0.0005"
    return f"{100 * d.value:+.1f}", f"{100 * d.low:+.1f} .. {100 * d.high:+.1f}", p
