"""Manifest to feature store: decode, cut at silences, featurise, and account for every sample.

The sorted records are dealt into shards; a shard is one task, which only depends on its records and the settings. So
the store has the same bytes however many processes made it, and after a kill only unfinished shards are made again.
"""

import json
import math
import os
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speechssl.config import as_table
from speechssl.corpus.layouts import scan
from speechssl.corpus.manifest import Manifest
from speechssl.data.account import Account, Tally
from speechssl.data.cutter import PrepareConfig
from speechssl.data.plan import RECIPE, digest, make_plan, tell_splits, with_splits
from speechssl.data.sandbox import MEMORY_BYTES, cpu_limit_s, find_crashing
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
from speechssl.data.store import Store, is_store, shard_name
from speechssl.data.store_writer import TableWriter
from speechssl.errors import ConfigError, SpeechsslError
from speechssl.runtime.processes import deaf_to_interrupts, end_with_parent, limit_memory
from speechssl.storage.atomic import write_atomic
from speechssl.tables import text_table

__all__ = ["PrepareConfig", "PrepareReport", "prepare"]

ProgressCallback = Callable[[float, float | None], None]

SHARDS_PER_PROCESS = 8  # with fewer shards than that for each process, shards are divided, so that all end at one time


@dataclass(frozen=True)
class PrepareReport:
    """What became of the audio. Every sample that was decoded is either kept or dropped under one reason.

    Attributes:
        sample_rate_hz: of the samples counted.
        kept: files that gave at least one chunk, the chunks, their samples.
        dropped: reason -> what was left out. A file counts once: as kept, or as rejected, or, when nothing of it was
            worth keeping, as too short if there was speech, or else as silence.
        num_rejected: files of which nothing could be used because they are broken.
        num_reject_lines: records in ``rejects.jsonl``.
        num_scaled: chunks whose peak lay above 1 and that were scaled down.
        max_bad_fraction: the limit that ``too_many_bad`` compares with.
    """

    sample_rate_hz: int
    kept: Tally
    dropped: dict[str, Tally]
    num_rejected: int
    num_reject_lines: int
    num_scaled: int
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
        labelled += [
            (f"dropped: {reason}", tally) for reason, tally in sorted(self.dropped.items())
        ]
        return [
            (name, t.files, t.chunks, t.samples, t.samples / self.sample_rate_hz / 3600)
            for name, t in labelled
        ]

    def table(self) -> str:
        """``rows`` as text."""
        cells = [
            (name, files, chunks, samples, f"{hours:.4f}")
            for name, files, chunks, samples, hours in self.rows()
        ]
        return text_table(("", "files", "chunks", "samples", "hours"), cells)


def prepare(
    source: Manifest | str | os.PathLike[str],
    out: str | os.PathLike[str],
    config: PrepareConfig | None = None,
    jobs: int = 0,
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> PrepareReport:
    """Make a feature store of ``source`` in folder ``out``, or finish one that was interrupted.

    A transcribed utterance stays whole; other recordings are cut at silences. A bad file never stops the run: it is
    listed in ``rejects.jsonl``. A finished store of the same plan is left as it is.

    Args:
        source: a manifest, or anything that ``manifest.scan`` reads.
        jobs: processes of their own, in which files are decoded under limits of time and memory: one that crashes its
            process, or exceeds them, is a reject; how many does not change the result. 0: all in this process, without
            limits: such a file ends it, and the same call again leaves the file out. A process of its own needs a
            script that calls from under ``if __name__ == "__main__"``.
        force: delete the store of another plan in ``out``.
        progress: called with the hours done so far, and None for their unknown total.

    Raises:
        ManifestError: the source cannot be read.
        ConfigError: ``out`` holds something else, or settings contradict each other.
        SpeechsslError: a process died, and not of a file; the same call goes on.
    """
    config = config or PrepareConfig()
    if config.min_chunk_s > config.max_chunk_s:
        raise ConfigError(
            f"the shortest chunk, {config.min_chunk_s:g} s, is longer than the longest, {config.max_chunk_s:g} s: give "
            "a smaller --min-chunk or a larger --max-chunk"
        )
    if jobs < 0:
        raise ConfigError(f"jobs is {jobs}, allowed are 0 (all in this process) and more")
    given = source if isinstance(source, Manifest) else scan(source)
    manifest = with_splits(given, config)
    tasks = make_plan(manifest, Path(out), config)
    plan = digest([RECIPE, *(task.plan for task in tasks)])
    folder = Path(out)
    finished = _claim(folder, plan, force)
    if manifest.labelled:
        tell_splits(given, manifest)
    if finished:
        return _report(Store(folder).account, config)
    done = 0.0

    def tick(hours: float) -> None:
        nonlocal done
        done += hours
        if progress:
            progress(done, None)

    def alone(audio: str) -> Callable[[], object]:
        own = tuple(record for record in manifest.records if record.audio == audio)
        return partial(make_alone, replace(tasks[0], records=own))

    suspects = folder / PARTS, alone, cpu_limit_s(config.max_duration_s)
    crashing = find_crashing(*suspects)
    while todo := [
        replace(task, crashing=crashing, limited=jobs > 0)
        for task in tasks
        if not is_finished(task)
    ]:
        try:
            _make(todo, jobs, tick)
        except BrokenProcessPool as error:
            before, crashing = crashing, find_crashing(*suspects)
            if crashing == before:
                raise SpeechsslError(
                    "a worker process died, and of no file alone: it was killed, or memory does not do for as many "
                    "--jobs. Give the command again to go on"
                ) from error
    return _assemble(folder, tasks, plan, config)


def _make(todo: list[ShardJob], jobs: int, tick: Callable[[float], None]) -> None:
    """All shards that are asked for, here or in processes."""
    if jobs:
        most = math.ceil(SHARDS_PER_PROCESS * jobs / len(todo)) if jobs > 1 else 1
        _run_pool(todo, [split_shard(task, most) for task in todo], jobs, tick)
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the workers: sums in another order would give other bytes
    try:
        for task in todo:
            make_shard(task, tick)
    finally:
        torch.set_num_threads(threads)


# ---- the plan -----------------------------------------------------------------------------------------------------


def _claim(folder: Path, plan: str, force: bool) -> bool:
    """Make ``folder`` ready for ``plan``; True when it holds the finished store already.

    Only files that a store consists of are ever deleted.
    """
    marker = folder / PARTS / "plan.json"
    if is_store(folder):
        if not force and Store(folder).plan == plan:
            shutil.rmtree(folder / PARTS, ignore_errors=True)  # killed between the last two steps
            return True
    elif marker.is_file():
        if not force and marker.read_text(encoding="utf-8") == plan:
            return False
    elif folder.exists() and (
        not folder.is_dir() or any(path.name != PARTS for path in folder.iterdir())
    ):
        raise ConfigError(f"{folder} is not empty and not a store: give a new folder")
    if not force and (is_store(folder) or marker.is_file()):
        raise ConfigError(
            f"{folder} holds a store of other recordings or settings: --force replaces it"
        )
    # The old plan goes last: a folder with neither a plan nor a store in it would not be known again.
    (folder / PARTS).mkdir(parents=True, exist_ok=True)
    for path in (folder / PARTS).iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path != marker:
            path.unlink()
    write_atomic(marker, plan)
    (folder / "store.json").unlink(
        missing_ok=True
    )  # what is left is unfinished shards, each made again
    return False


def _run_pool(
    tasks: list[ShardJob], pieces: list[list[ShardJob]], jobs: int, tick: Callable[[float], None]
) -> None:
    """Make each task whole, or in its pieces, which are joined here."""
    with ProcessPoolExecutor(
        min(jobs, sum(map(len, pieces))), get_context("spawn"), _start_worker
    ) as pool:
        running: dict[Future[Any], int] = {}
        made: dict[int, list[ShardPart]] = defaultdict(list)
        others = set(active_children())
        try:
            with (
                deaf_to_interrupts()
            ):  # the processes start here: an interrupt ends this one, and this one ends them
                for k, divided in enumerate(pieces):
                    if len(divided) == 1:
                        running[pool.submit(make_shard, tasks[k])] = k
                    else:
                        running |= {
                            pool.submit(make_part, piece, number): k
                            for number, piece in enumerate(divided)
                        }
            for future in as_completed(running):
                k, result = running[future], future.result()
                if not isinstance(result, ShardPart):
                    tick(result)
                    continue
                tick(result.hours)
                made[k].append(result)
                if len(made[k]) == len(pieces[k]):
                    join_parts(tasks[k], made.pop(k))
        except KeyboardInterrupt:  # do not wait for the files that they are at
            for worker in set(active_children()) - others:
                worker.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    torch.set_num_threads(1)
    limit_memory(MEMORY_BYTES)
    threading.Thread(target=end_with_parent, daemon=True).start()


# ---- putting it together ------------------------------------------------------------------------------------------


def _assemble(
    folder: Path, tasks: Sequence[ShardJob], plan: str, config: PrepareConfig
) -> PrepareReport:
    """Join the parts of all shards; ``store.json`` comes last and makes the folder a store."""
    ours = {shard_name(task.number) for task in tasks}
    for path in (
        *folder.glob("*.tmp"),
        *folder.glob("shard-*.bin"),
    ):  # of runs that were killed, of another plan
        if path.name not in ours:
            path.unlink()
    done = [
        json.loads(task.part.with_suffix(".json").read_text(encoding="utf-8")) for task in tasks
    ]
    features, num_chunks = config.features, sum(about["chunks"] for about in done)
    account: dict[str, Any] = Account().table()
    samples = units = 0
    with TableWriter(folder, num_chunks) as writer:
        for task, about in zip(tasks, done, strict=True):
            index = np.load(task.part.with_suffix(".npy"))
            writer.add(
                index,
                *(task.part.with_suffix(suffix).read_bytes() for suffix in (".jsonl", ".rejects")),
            )
            samples += int(index["num_samples"].sum(dtype=np.int64))
            units += int(index["num_units"].sum(dtype=np.int64))
            _merge(account, about["account"])
        account |= {"sample_rate_hz": features.sample_rate_hz}
        meta = {
            "features": as_table(features),
            "dtype": "int16" if features.kind == "waveform" else "float16",
            "width": None if features.kind == "waveform" else features.width,
            "splits": list(tasks[0].splits),
            "totals": {"chunks": num_chunks, "samples": samples, "units": units},
            "shards": [about["shard"] for about in done],
            "account": account,
            "plan": plan,
        }
        writer.finish(meta)
    shutil.rmtree(folder / PARTS)
    return _report(account, config)


def _merge(account: dict[str, Any], part: dict[str, Any]) -> None:
    """Add the counts of a nested table to another of the same kind, in place."""
    for name, value in part.items():
        if isinstance(value, dict):
            _merge(account.setdefault(name, {}), value)
        else:
            account[name] = account.get(name, 0) + value


def _report(account: dict[str, Any], config: PrepareConfig) -> PrepareReport:
    return PrepareReport(
        sample_rate_hz=account["sample_rate_hz"],
        kept=Tally(**account["kept"]),
        dropped={reason: Tally(**tally) for reason, tally in sorted(account["dropped"].items())},
        num_rejected=account["num_rejected"],
        num_reject_lines=account["num_reject_lines"],
        num_scaled=account["num_scaled"],
        max_bad_fraction=config.max_bad_fraction,
    )
