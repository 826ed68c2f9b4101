"""Evaluations side by side, and how much of their difference is more than chance.

Both are measured by a bootstrap over the same utterances.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from speechssl.errors import ConfigError
from speechssl.scoring.bootstrap import (
    NUM_BOOTSTRAP,
    Array,
    bootstrap_sums,
    percentiles,
    rates,
)
from speechssl.scoring.score import Counts, Interval, Unit
from speechssl.storage.json_text import Row
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
        unit: "phone" where the words are phones; there are no characters then.
    """

    name: str
    ids: tuple[str, ...]
    references: tuple[str, ...]
    table: Array
    num_runs: int
    unit: Unit = "word"

    @property
    def rate_names(self) -> tuple[str, ...]:
        """What is shown of ``rates``: of phones the first alone."""
        return ("PER",) if self.unit == "phone" else ("WER", "CER")

    @property
    def rates(self) -> tuple[float, float]:
        """Word and character error rate, errors of all runs over reference units of all runs."""
        totals = self.table.sum(axis=0)
        wer, cer = rates(totals)
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
    first_folder, *other_folders = folders
    first = _read_run(name, first_folder)
    table = first.table

    runs = [_read_run(name, folder) for folder in other_folders]
    for folder, run in zip(other_folders, runs, strict=True):
        if not _same_utterances(run, first):
            raise ConfigError(
                f"{folder} and {first_folder} are both called {name!r}, but not of the same "
                "utterances and references: one name is for runs of one system on one test set"
            )

        # Counts are whole numbers, so their sum does not depend on the order.
        table = table + run.table

    return System(name, first.ids, first.references, table, len(folders), first.unit)


def intervals(system: System, seed: int = 0) -> tuple[Interval, Interval]:
    """Compute 95 % intervals (low, high) of word and character error rate.

    Of one run they are those that ``score`` gives. Utterances are drawn, with all runs of each: the
    interval says nothing of how runs differ.
    """
    sums = bootstrap_sums(system.table, seed, NUM_BOOTSTRAP)
    wer, cer = rates(sums)
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
    system_sums, baseline_sums = np.hsplit(sums, 2)
    wer_draws, cer_draws = rates(system_sums)
    baseline_wer_draws, baseline_cer_draws = rates(baseline_sums)

    wer, cer = system.rates
    baseline_wer, baseline_cer = baseline.rates
    wer_difference = _difference(wer - baseline_wer, wer_draws - baseline_wer_draws)
    cer_difference = _difference(cer - baseline_cer, cer_draws - baseline_cer_draws)
    return wer_difference, cer_difference


def comparison(systems: Sequence[System]) -> str:
    """Show the rates of all systems as a table, and below it how each differs from the first.

    Raises:
        ConfigError: some were measured in words, others in phones.
    """
    baseline = systems[0]
    for system in systems:
        if system.unit != baseline.unit:
            raise ConfigError(
                f"{baseline.name} was measured in {baseline.unit}s and {system.name} in "
                f"{system.unit}s: compare evaluations of one unit"
            )

    text = _rates_table(systems)

    rows = []
    incomparable = []
    for system in systems[1:]:
        found = differences(system, baseline)
        if found:
            row = [system.name]
            for difference, _ in zip(found, system.rate_names, strict=False):
                row += _difference_cells(difference)
            rows.append(row)
        else:
            what = "reference texts" if system.ids == baseline.ids else "utterances"
            incomparable.append(
                f"{system.name}: other {what} than {baseline.name}, "
                "so their difference says nothing\n"
            )

    if incomparable:
        text += "\n" + "".join(incomparable)

    if rows:
        columns = [f"minus {baseline.name}"]
        for rate_name in baseline.rate_names:
            columns += [f"{rate_name}, points", "95 % interval", "p"]
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

        utterances = [_utterance(row) for row in rows]
        counts = [utterance.counts for utterance in utterances]
        table = np.array(counts, dtype=np.float64).reshape(-1, 4)
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = str(error)
        if isinstance(error, OSError):
            why = f"{path.name}: {error.strerror}"
        raise ConfigError(
            f"no scores can be read from {folder} ({why}): "
            "give a folder that speechssl evaluate wrote"
        ) from error

    if not utterances:
        raise ConfigError(f"{path} holds no utterance: give a folder that speechssl evaluate wrote")

    ids, references, _ = zip(*utterances, strict=True)
    unit: Unit = "phone" if "phones" in rows[0] else "word"
    return System(name, ids, references, table, num_runs=1, unit=unit)


class _Utterance(NamedTuple):
    """One utterance of an evaluation.

    ``counts`` are errors and reference length, in words and then in characters.
    """

    id: str
    reference: str
    counts: tuple[int, int, int, int]


def _utterance(row: Row) -> _Utterance:
    """Take what a comparison needs from one row of ``utterances.jsonl``, of words or of phones."""
    utterance_id = str(row["utterance_id"])
    reference = str(row["reference"])

    if "phones" in row:
        phones = Counts(**row["phones"])
        return _Utterance(utterance_id, reference, (phones.errors, phones.reference_length, 0, 0))

    words = Counts(**row["words"])
    characters = Counts(**row["characters"])
    counts = (
        words.errors,
        words.reference_length,
        characters.errors,
        characters.reference_length,
    )
    return _Utterance(utterance_id, reference, counts)


def _same_utterances(one: System, other: System) -> bool:
    return one.ids == other.ids and one.references == other.references


def _difference(value: float, draws: Array) -> Difference:
    """Summarise bootstrap draws (num_draws,) of a difference."""
    # Ties count on both sides, and one draw more than there were keeps p above 0.
    num_below = int((draws <= 0).sum())
    num_above = int((draws >= 0).sum())
    rarer = min(num_below, num_above)
    share = (2 * rarer + 1) / (len(draws) + 1)
    p = min(1.0, share)

    low, high = percentiles(draws)
    return Difference(value, low, high, p)


def _rates_table(systems: Sequence[System]) -> str:
    rows = []
    for system in systems:
        row: list[object] = [system.name]
        measured = zip(system.rates, intervals(system), system.rate_names, strict=False)
        for rate, interval, _ in measured:
            row += [f"{rate:.1%}", _percent(interval)]
        rows.append([*row, len(system.ids), system.num_runs])

    columns = ["system"]
    for rate_name in systems[0].rate_names:
        columns += [rate_name, "95 % interval"]
    return text_table([*columns, "utterances", "runs"], rows)


def _percent(interval: Interval) -> str:
    low, high = interval
    return f"{low:.1%} .. {high:.1%}"


def _difference_cells(d: Difference) -> tuple[str, str, str]:
    """Show value and interval in percentage points, and p."""
    value = 100 * d.value
    low = 100 * d.low
    high = 100 * d.high
    p = f"{d.p:.4f}" if d.p >= 0.0005 else "< 0.0005"
    return f"{value:+.1f}", f"{low:+.1f} .. {high:+.1f}", p
