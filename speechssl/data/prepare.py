"""Manifest to feature store: decode, cut at silences, featurise, and account for every sample.

The sorted records are dealt into shards. A shard is one task, which only depends on its records and
the settings. So the store has the same bytes however many processes made it, and after a kill only
unfinished shards are made again.
"""

import json
import math
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speechssl.config import as_table
from speechssl.corpus.layouts import scan
from speechssl.corpus.manifest import Manifest
from speechssl.corpus.transcripts import clean_transcripts
from speechssl.data.account import Account, Tally
from speechssl.data.division import (
    RECIPE_OF_DRAWN_AGAIN,
    Division,
    divide,
    divide_again,
    log_empty_splits,
    log_splits,
)
from speechssl.data.plan import digest, make_plan
from speechssl.data.rejects import read_rejects
from speechssl.data.sandbox import MEMORY_BYTES, cpu_limit_s, find_crashing
from speechssl.data.settings import PrepareConfig
from speechssl.data.shards import (
    PARTS,
    ShardJob,
    ShardPart,
    is_finished,
    join_parts,
    make_alone,
    make_part,
    make_shard,
    split_shard,
)
from speechssl.data.store import TABLES, Store, is_of_another_program, is_store, shard_name
from speechssl.data.store_writer import TableWriter
from speechssl.errors import ConfigError, SpeechsslError
from speechssl.runtime.log import log
from speechssl.runtime.processes import (
    deaf_to_interrupts,
    end_with_parent,
    limit_memory,
    worker_context,
)
from speechssl.storage.atomic import remove_leftovers, write_atomic
from speechssl.storage.json_text import read_json_lines
from speechssl.tables import text_table

__all__ = ["PrepareConfig", "PrepareReport", "prepare"]

# Called with the hours done so far, and None for their total, which is not known.
ProgressCallback = Callable[[float, float | None], None]

# With fewer shards than this for each process, shards are divided, so that all processes end at
# about the same time.
SHARDS_PER_PROCESS = 8

# A file of a shard, finished or not; see ``shard_name``.
SHARD = re.compile(r"shard-\d{5,}\.bin(\.tmp)?")


@dataclass(frozen=True)
class PrepareReport:
    """What became of the audio. Every sample that was decoded is kept or dropped under one reason.

    Attributes:
        sample_rate_hz: of the samples counted.
        kept: files that gave at least one chunk, the chunks, their samples.
        dropped: reason -> what was left out. A file counts once: as kept, or as rejected, or, when
            nothing of it was worth keeping, as too short if there was speech, or else as silence.
        num_rejected: files of which nothing could be used because they are broken.
        num_reject_lines: records in ``rejects.jsonl``.
        num_scaled: chunks whose peak lay above 1 and that were scaled down.
        num_raised: chunks in which quiet speech was raised.
        max_gain_db: the most that any of it was raised by, dB, to a tenth.
        num_lowered: chunks in which a bang was lowered.
        max_lowering_db: the most that any of these was lowered by, dB, to a tenth.
        num_dual_mono: readable files of several channels that are equal in every sample.
        num_averaged: readable files of several channels that differ, of which the mean was taken.
        max_bad_fraction: the limit that ``too_many_bad`` compares with.
    """

    sample_rate_hz: int
    kept: Tally
    dropped: dict[str, Tally]
    num_rejected: int
    num_reject_lines: int
    num_scaled: int
    num_raised: int
    max_gain_db: float
    num_lowered: int
    max_lowering_db: float
    num_dual_mono: int
    num_averaged: int
    max_bad_fraction: float

    @property
    def total(self) -> Tally:
        """All that was given: kept and dropped together."""
        whole = Tally()
        for tally in (self.kept, *self.dropped.values()):
            whole.add(tally)
        return whole

    @property
    def num_files(self) -> int:
        """Files that the manifest names."""
        return self.total.files

    @property
    def too_many_bad(self) -> bool:
        """Whether more files were rejected than ``max_bad_fraction`` allows."""
        return self.num_rejected > self.max_bad_fraction * self.num_files

    @property
    def all_bad(self) -> bool:
        """Whether every file was rejected."""
        return self.num_rejected == self.num_files > 0

    def rows(self) -> list[tuple[str, int, int, int, float]]:
        """(label, files, chunks, samples, hours): the first row is the sum of those below it."""
        labelled = [("in", self.total), ("kept", self.kept)]
        for reason, tally in sorted(self.dropped.items()):
            labelled.append((f"dropped: {reason}", tally))

        rows = []
        for label, tally in labelled:
            hours = tally.samples / self.sample_rate_hz / 3600
            rows.append((label, tally.files, tally.chunks, tally.samples, hours))
        return rows

    def table(self) -> str:
        """``rows`` as text."""
        cells = []
        for label, files, chunks, samples, hours in self.rows():
            cells.append((label, files, chunks, samples, f"{hours:.4f}"))
        return text_table(("", "files", "chunks", "samples", "hours"), cells)


def prepare(
    source: Manifest | str | os.PathLike[str],
    out: str | os.PathLike[str],
    config: PrepareConfig | None = None,
    jobs: int = 0,
    force: bool = False,
    progress: ProgressCallback | None = None,
    ignore_transcripts: bool = False,
) -> PrepareReport:
    """Make a feature store of ``source`` in folder ``out``, or finish one that was interrupted.

    A transcribed utterance stays whole; other recordings are cut at silences. A bad file never
    stops the run: it is listed in ``rejects.jsonl``. A finished store of the same plan stays as it
    is.

    Args:
        source: a manifest, or anything that ``scan`` reads.
        jobs: processes that decode files under limits of time and memory. A file that crashes its
            process, or exceeds the limits, is a reject. The number of processes does not change the
            result. 0: all in this process, without limits. Such a file ends it then, and the same
            call again leaves the file out. Processes need a script that calls from under
            ``if __name__ == "__main__"``.
        force: delete the store of another plan in ``out``.
        progress: called with the hours done so far, and None for their unknown total.
        ignore_transcripts: as for ``scan``.

    Raises:
        ManifestError: the source cannot be read.
        ConfigError: ``out`` holds something else, or settings contradict each other.
        SpeechsslError: a process died, and not of a file; the same call goes on.
    """
    config = config or PrepareConfig()
    _check_settings(config, jobs)

    if isinstance(source, Manifest):
        as_written = source
    else:
        as_written = scan(source, ignore_transcripts=ignore_transcripts)
    given, remarks = clean_transcripts(as_written)
    division = divide(given, config)
    folder = Path(out)
    tasks = make_plan(division.manifest, folder, config, division.recipe)
    plan = digest([division.recipe, *(task.plan for task in tasks)])

    finished = _claim(folder, plan, division.recipe, force)
    if finished and Store(folder).recipe == RECIPE_OF_DRAWN_AGAIN:
        rejected = {row["id"] for row in read_rejects(folder)}
        division = divide_again(division, config, rejected) or division

    for remark in remarks:
        log(remark)
    log_splits(division)

    if not finished:
        division = _make_store(division, tasks, plan, config, jobs, _count_hours(progress))

    store = Store(folder)
    log_empty_splits(division, store, config)
    return _report(store.account, config)


def _check_settings(config: PrepareConfig, jobs: int) -> None:
    if config.min_chunk_s > config.max_chunk_s:
        raise ConfigError(
            f"the shortest chunk, {config.min_chunk_s:g} s, is longer than the longest, "
            f"{config.max_chunk_s:g} s: give a smaller --min-chunk or a larger --max-chunk"
        )
    if jobs < 0:
        raise ConfigError(f"jobs is {jobs}, allowed are 0 (all in this process) and more")


def _count_hours(progress: ProgressCallback | None) -> Callable[[float], None]:
    """Return a function that adds up hours and tells ``progress`` their sum."""
    done = 0.0

    def tick(hours: float) -> None:
        nonlocal done
        done += hours
        if progress:
            progress(done, None)

    return tick


def _claim(folder: Path, plan: str, recipe: int, force: bool) -> bool:
    """Make ``folder`` ready for ``plan``, and return True when it holds the finished store already.

    Only files that a store consists of are ever deleted.
    """
    parts = folder / PARTS
    marker = parts / "plan.json"

    if is_of_another_program(folder):
        raise ConfigError(f"{folder / 'store.json'} is another program's: give a new folder")
    if is_store(folder):
        if not force and Store(folder).plan == plan:
            # Parts are left here by a run that was killed between its last two steps.
            shutil.rmtree(parts, ignore_errors=True)
            return True
    elif marker.is_file():
        if not force and marker.read_text(encoding="utf-8") == plan:
            return False
    elif folder.exists():
        is_foreign = not folder.is_dir() or any(path.name != PARTS for path in folder.iterdir())
        if is_foreign:
            raise ConfigError(f"{folder} is not empty and not a store: give a new folder")

    if not force and is_store(folder) and Store(folder).recipe != recipe:
        raise ConfigError(
            f"{folder} holds a store of recipe {Store(folder).recipe}, and these recordings are "
            f"prepared by recipe {recipe}: use it as it is; --force makes it anew, with other "
            "splits"
        )
    if not force and (is_store(folder) or marker.is_file()):
        raise ConfigError(
            f"{folder} holds a store of other recordings or settings: --force replaces it"
        )

    # The old plan is replaced last: a folder with neither a plan nor a store in it would not be
    # known again after a kill.
    parts.mkdir(parents=True, exist_ok=True)
    for path in parts.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path != marker:
            path.unlink()
    write_atomic(marker, plan)

    # What is left of an old store is unfinished shards, each of which is made again.
    (folder / "store.json").unlink(missing_ok=True)
    return False


def _make_store(
    division: Division,
    tasks: list[ShardJob],
    plan: str,
    config: PrepareConfig,
    jobs: int,
    tick: Callable[[float], None],
) -> Division:
    """Make all shards, and the store of them.

    Returns:
        The division that the store has: another one where nothing of a drawn split can be used.
    """
    folder = tasks[0].folder
    _make_shards(tasks, division.manifest, config, jobs, tick)

    again = divide_again(division, config, _rejected(tasks))
    if again is None:
        _assemble(folder, tasks, plan, division.recipe)
        return division

    log("nothing of a split can be used: the splits are drawn again, without the rejects")
    log_splits(again)

    # Planned by the recipe of before, so that shards in which no split changes stay.
    tasks_again = make_plan(again.manifest, folder, config, division.recipe)
    _make_shards(tasks_again, again.manifest, config, jobs, tick)
    _assemble(folder, tasks_again, plan, again.recipe)
    return again


def _make_shards(
    tasks: list[ShardJob],
    manifest: Manifest,
    config: PrepareConfig,
    jobs: int,
    tick: Callable[[float], None],
) -> None:
    """Make all shards that no earlier run finished, without the files that kill their process.

    Raises:
        SpeechsslError: a process died, and not of a file.
    """

    def work_alone(audio: str) -> Callable[[], object]:
        records = tuple(record for record in manifest.records if record.audio == audio)
        return partial(make_alone, replace(tasks[0], records=records))

    def crashing_files() -> dict[str, str]:
        notes = tasks[0].folder / PARTS
        return find_crashing(notes, work_alone, cpu_limit_s(config.max_duration_s))

    # An earlier run may have died of a file.
    crashing = crashing_files()

    while True:
        todo = []
        for task in tasks:
            if not is_finished(task):
                todo.append(replace(task, crashing=crashing, limited=jobs > 0))
        if not todo:
            return

        try:
            if jobs:
                _make_in_processes(todo, jobs, tick)
            else:
                _make_here(todo, tick)
        except BrokenProcessPool as error:
            known = crashing
            crashing = crashing_files()
            if crashing == known:
                raise SpeechsslError(
                    "a worker process died, and of no file alone: it was killed, or memory does "
                    "not do for as many --jobs. Give the command again to go on"
                ) from error


def _rejected(tasks: Sequence[ShardJob]) -> set[str]:
    """Return the ids of the records of which no shard could use anything."""
    return {
        row["id"] for task in tasks for row in read_json_lines(task.part.with_suffix(".rejects"))
    }


def _make_here(tasks: Sequence[ShardJob], tick: Callable[[float], None]) -> None:
    # One thread, as in the workers: sums in another order would give other bytes.
    with _one_torch_thread():
        for task in tasks:
            make_shard(task, tick)


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _make_in_processes(tasks: Sequence[ShardJob], jobs: int, tick: Callable[[float], None]) -> None:
    """Make each shard whole or, where there are few, in pieces that are joined here."""
    most_pieces = 1
    if jobs > 1:
        most_pieces = math.ceil(SHARDS_PER_PROCESS * jobs / len(tasks))
    pieces = [split_shard(task, most_pieces) for task in tasks]

    num_pieces = sum(map(len, pieces))
    num_processes = min(jobs, num_pieces)
    already_running = set(active_children())

    with ProcessPoolExecutor(num_processes, worker_context(), _start_worker) as pool:
        try:
            # The processes start here, deaf to interrupts: an interrupt ends this process, which
            # ends them.
            with deaf_to_interrupts():
                running = _submit(pool, tasks, pieces)
            _collect(running, tasks, pieces, tick)
        except (KeyboardInterrupt, SystemExit):
            # The files that they are reading are not waited for.
            for worker in set(active_children()) - already_running:
                worker.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _submit(
    pool: ProcessPoolExecutor, tasks: Sequence[ShardJob], pieces: Sequence[list[ShardJob]]
) -> dict[Future[Any], int]:
    """Hand all work to the pool, and return the position of each future's task."""
    running: dict[Future[Any], int] = {}
    for position, task_pieces in enumerate(pieces):
        if len(task_pieces) == 1:
            running[pool.submit(make_shard, tasks[position])] = position
            continue

        for number, piece in enumerate(task_pieces):
            running[pool.submit(make_part, piece, number)] = position
    return running


def _collect(
    running: dict[Future[Any], int],
    tasks: Sequence[ShardJob],
    pieces: Sequence[list[ShardJob]],
    tick: Callable[[float], None],
) -> None:
    """Wait for all work, and join a shard's pieces when the last of them is made."""
    made: dict[int, list[ShardPart]] = defaultdict(list)
    for future in as_completed(running):
        position = running[future]
        result = future.result()
        if not isinstance(result, ShardPart):
            # A whole shard gives its hours.
            tick(result)
            continue

        tick(result.hours)
        made[position].append(result)
        if len(made[position]) == len(pieces[position]):
            join_parts(tasks[position], made.pop(position))


def _start_worker() -> None:
    end_with_parent()
    torch.set_num_threads(1)
    limit_memory(MEMORY_BYTES)


def _assemble(folder: Path, tasks: Sequence[ShardJob], plan: str, recipe: int) -> None:
    """Join the parts of all shards; ``store.json`` comes last and makes the folder a store."""
    _delete_other_shards(folder, {shard_name(task.number) for task in tasks})

    markers = []
    for task in tasks:
        marker = task.part.with_suffix(".json").read_text(encoding="utf-8")
        markers.append(json.loads(marker))

    features = tasks[0].config.features
    account: dict[str, Any] = Account().table()
    num_chunks = sum(marker["chunks"] for marker in markers)
    num_samples = 0
    num_units = 0

    with TableWriter(folder, num_chunks) as writer:
        for task, marker in zip(tasks, markers, strict=True):
            index = np.load(task.part.with_suffix(".npy"))
            lines = task.part.with_suffix(".jsonl").read_bytes()
            rejects = task.part.with_suffix(".rejects").read_bytes()
            writer.add(index, lines, rejects)

            num_samples += int(index["num_samples"].sum(dtype=np.int64))
            num_units += int(index["num_units"].sum(dtype=np.int64))
            _merge(account, marker["account"])

        account["sample_rate_hz"] = features.sample_rate_hz
        is_waveform = features.kind == "waveform"
        meta = {
            "features": as_table(features),
            "dtype": "int16" if is_waveform else "float16",
            "width": None if is_waveform else features.width,
            "splits": list(tasks[0].splits),
            "totals": {"chunks": num_chunks, "samples": num_samples, "units": num_units},
            "shards": [marker["shard"] for marker in markers],
            "account": account,
            "plan": plan,
            "recipe": recipe,
        }

        writer.finish(meta)

    shutil.rmtree(folder / PARTS)


def _delete_other_shards(folder: Path, ours: set[str]) -> None:
    """Delete shards of another plan, and what runs that were killed left of theirs."""
    remove_leftovers(folder)

    unfinished_tables = {f"{name}.tmp" for name in TABLES}
    for path in folder.iterdir():
        is_shard = SHARD.fullmatch(path.name) is not None
        is_other_shard = is_shard and path.name not in ours
        if is_other_shard or path.name in unfinished_tables:
            path.unlink()


def _merge(account: dict[str, Any], part: dict[str, Any]) -> None:
    """Add the counts of a nested table to another of the same kind, in place.

    Of the largest changes of level the larger ones stay.
    """
    for name, value in part.items():
        if isinstance(value, dict):
            _merge(account.setdefault(name, {}), value)
        elif name in ("max_gain_db", "max_lowering_db"):
            account[name] = max(account.get(name, 0.0), value)
        else:
            account[name] = account.get(name, 0) + value


def _report(account: dict[str, Any], config: PrepareConfig) -> PrepareReport:
    dropped = {reason: Tally(**tally) for reason, tally in sorted(account["dropped"].items())}
    return PrepareReport(
        sample_rate_hz=account["sample_rate_hz"],
        kept=Tally(**account["kept"]),
        dropped=dropped,
        num_rejected=account["num_rejected"],
        num_reject_lines=account["num_reject_lines"],
        num_scaled=account["num_scaled"],
        # A store may have been finished before these were counted.
        num_raised=account.get("num_raised", 0),
        max_gain_db=account.get("max_gain_db", 0.0),
        num_lowered=account.get("num_lowered", 0),
        max_lowering_db=account.get("max_lowering_db", 0.0),
        num_dual_mono=account.get("num_dual_mono", 0),
        num_averaged=account.get("num_averaged", 0),
        max_bad_fraction=config.max_bad_fraction,
    )
