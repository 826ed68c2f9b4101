"""Evaluations side by side, and what of their difference is more than chance: a bootstrap of the same utterances."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speechssl.errors import ConfigError
from speechssl.pictures import text_table
from speechssl.scoring.bootstrap import NUM_BOOTSTRAP, bootstrap_sums, percentiles, rates
from speechssl.scoring.score import Counts

NUM_DRAWS = 10_000  # of a difference: p is a count in its tail


@dataclass(frozen=True)
class System:
    """One row of a comparison: a system, evaluated once or, with other seeds, several times on the same utterances.

    Attributes:
        name: of the row.
        ids, references: (N,) of the utterances, sorted by id.
        table: (N, 4) float64: word errors, reference words, character errors, reference characters, summed over runs.
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
    """How much higher the rate of one system is than another's: in all, its 95 % interval, and p."""

    value: float
    low: float
    high: float
    p: float


def read_system(name: str, folders: Sequence[Path]) -> System:
    """One row of what ``speechssl evaluate`` wrote, from one folder or from the runs of one system.

    Raises:
        ConfigError: a folder has no ``utterances.jsonl`` that can be read, or the runs are not of the same utterances.
    """
    runs = [_read(folder) for folder in folders]
    first = runs[0]
    for folder, run in zip(folders[1:], runs[1:], strict=True):
        if (run[0], run[1]) != (first[0], first[1]):
            raise ConfigError(
                f"{folder} and {folders[0]} are both called {name!r}, but not of the same utterances and references: "
                "one name is for runs of one system on one test set"
            )
    return System(name, first[0], first[1], np.sum([run[2] for run in runs], axis=0), len(runs))


def _read(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...], NDArray[np.float64]]:
    path = folder / "utterances.jsonl" if folder.is_dir() else folder
    try:
        lines = path.read_text(encoding="utf-8").split(
            "\n"
        )  # not at every mark that Unicode has for a line
        rows = sorted(
            (json.loads(line) for line in lines if line), key=lambda row: str(row["utterance_id"])
        )
        counts = [(Counts(**row["words"]), Counts(**row["characters"])) for row in rows]
        table = [(w.errors, w.reference_length, c.errors, c.reference_length) for w, c in counts]
        ids, references = (
            tuple(str(row[key]) for row in rows) for key in ("utterance_id", "reference")
        )
        numbers = np.array(table, dtype=np.float64).reshape(-1, 4)
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"{path.name}: {error.strerror}" if isinstance(error, OSError) else error
        raise ConfigError(
            f"no scores can be read from {folder} ({why}): give a folder that speechssl evaluate wrote"
        ) from error
    if not ids:
        raise ConfigError(f"{path} holds no utterance: give a folder that speechssl evaluate wrote")
    return ids, references, numbers


def intervals(system: System, seed: int = 0) -> tuple[tuple[float, float], tuple[float, float]]:
    """95 % intervals (low, high) of word and character error rate; of one run, those that ``score`` gives.

    Utterances are drawn, with all runs of each: the interval says nothing of how runs differ.
    """
    wer, cer = rates(bootstrap_sums(system.table, seed, NUM_BOOTSTRAP))
    return percentiles(wer), percentiles(cer)


def differences(
    system: System, baseline: System, seed: int = 0
) -> tuple[Difference, Difference] | None:
    """Word and character error rate of ``system`` minus those of ``baseline``; None if the utterances are not the same.

    Every draw takes the same utterances for both, so what makes an utterance hard for both cancels (Bisani and Ney
    2004, "Bootstrap estimates for confidence intervals in ASR performance evaluation"). ``p`` is two-sided: twice the
    share of draws on the rarer side of zero, ties on both, and never below 1 / (draws + 1). Like the interval, it takes
    utterances as independent, and says nothing about other seeds, speakers or recordings than those measured.
    """
    if (system.ids, system.references) != (baseline.ids, baseline.references):
        return None
    sums = bootstrap_sums(np.hstack([system.table, baseline.table]), seed, NUM_DRAWS)
    values = np.subtract(system.rates, baseline.rates)
    found = []
    for ours, theirs, value in zip(rates(sums[:, :4]), rates(sums[:, 4:]), values, strict=True):
        draws = ours - theirs
        rarer = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
        p = min(1.0, (2 * rarer + 1) / (len(draws) + 1))
        found.append(Difference(float(value), *percentiles(draws), p))
    return found[0], found[1]


def comparison(systems: Sequence[System]) -> str:
    """The rates of all systems as a table, and below it what of each differs from the first on the same utterances."""
    rows = []
    for system in systems:
        cells = [
            cell
            for rate, interval in zip(system.rates, intervals(system), strict=True)
            for cell in (f"{rate:.1%}", "{:.1%} .. {:.1%}".format(*interval))
        ]
        rows.append((system.name, *cells, str(len(system.ids)), str(system.num_runs)))
    text = text_table(
        ("system", "WER", "95 % interval", "CER", "95 % interval", "utterances", "runs"), rows
    )
    against = [(s.name, differences(s, systems[0])) for s in systems[1:]]
    other = "".join(
        f"{s.name}: other {'reference texts' if s.ids == systems[0].ids else 'utterances'} than {systems[0].name}, "
        "so their difference says nothing\n"
        for s, (_, found) in zip(systems[1:], against, strict=True)
        if not found
    )
    if other:
        text += "\n" + other
    rows = [
        (name, *(cell for d in found for cell in _cells(d))) for name, found in against if found
    ]
    if not rows:
        return text
    columns = (
        f"minus {systems[0].name}",
        "WER, points",
        "95 % interval",
        "p",
        "CER, points",
        "95 % interval",
        "p",
    )
    return f"{text}\n{text_table(columns, rows)}"


def _cells(d: Difference) -> tuple[str, str, str]:
    p = f"{d.p:.4f}" if d.p >= 0.0005 else "< 0.0005"
    return f"{100 * d.value:+.1f}", f"{100 * d.low:+.1f} .. {100 * d.high:+.1f}", p
