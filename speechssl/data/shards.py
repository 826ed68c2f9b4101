"""One shard of a store: files in, chunks out, every sample accounted for.

A recording goes by in blocks. Each record of it has a cutter, which takes its samples and makes chunks: the whole
utterance where there is a transcript, pieces between silences where there is none. What a file gave is taken back when
the file turns out to be damaged at its end.
"""

import json
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from itertools import chain, groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechssl.audio.reader import stream_mono
from speechssl.audio.silence import load_splitter
from speechssl.corpus.manifest import Record
from speechssl.data.account import Account
from speechssl.data.cutter import Cutter, PrepareConfig, union
from speechssl.data.sandbox import READING, as_reject, cpu_limit_s, reading
from speechssl.data.store import shard_name
from speechssl.data.store_writer import ShardWriter, jsonl
from speechssl.errors import AudioError
from speechssl.runtime.processes import limit_cpu
from speechssl.storage.atomic import write_atomic

PART_FILES = 25  # a shard is divided among processes in pieces of so many files or more
PARTS = "parts"  # folder for what finished shards leave for the tables


@dataclass(frozen=True)
class ShardJob:
    """One shard: all records of some files, sorted by file."""

    number: int
    folder: Path
    root: Path
    records: tuple[Record, ...]
    splits: tuple[str, ...]
    config: PrepareConfig
    plan: str  # digest of all that the shard's bytes depend on
    crashing: Mapping[str, str] = field(
        default_factory=dict
    )  # files that killed a process, and how: not to be read
    limited: bool = False  # it is done in a process whose limits may be set

    @property
    def part(self) -> Path:
        """What the shard leaves for the tables, without suffix."""
        return self.folder / PARTS / f"{self.number:05d}"


def is_finished(task: ShardJob) -> bool:
    """Whether an earlier run made this very shard: its marker has the same plan and its file the right size."""
    try:
        about = json.loads(task.part.with_suffix(".json").read_text(encoding="utf-8"))
        held = (task.folder / shard_name(task.number)).stat().st_size
    except (OSError, ValueError):
        return False
    return bool(about["plan"] == task.plan and about["shard"]["bytes"] == held)


@dataclass(frozen=True)
class ShardPart:
    """Some files of a shard, made by themselves so that several processes can work on one shard."""

    number: int
    path: Path
    index: NDArray[Any]
    lines: bytes
    account: Account
    hours: float


def make_shard(task: ShardJob, tick: Callable[[float], None] | None = None) -> float:
    """Write the shard, its parts of the tables, and last the marker that it is done. Returns hours of audio."""
    with ShardWriter(task.folder, task.number, task.splits) as writer:
        account, hours = _fill(task, writer, tick, task.part.with_suffix(READING))
        _finish(task, writer, account)
    return hours


def split_shard(task: ShardJob, most: int) -> list[ShardJob]:
    """At most so many tasks for ``make_part``, each with consecutive files of the shard; few files stay together."""
    files = [list(group) for _, group in groupby(task.records, key=lambda record: record.audio)]
    count = min(most, len(files) // PART_FILES)
    if count <= 1:
        return [task]
    bounds = [len(files) * k // count for k in range(count + 1)]
    return [replace(task, records=tuple(chain(*files[a:b]))) for a, b in pairwise(bounds)]


def make_part(task: ShardJob, number: int) -> ShardPart:
    """Like ``make_shard`` for a piece of it, into a file that ``join_parts`` deletes."""
    folder = task.part.with_suffix(".pieces")
    folder.mkdir(exist_ok=True)
    with ShardWriter(folder, number, task.splits) as writer:
        account, hours = _fill(task, writer, None, folder / f"{number}{READING}")
        index, lines, _ = writer.close()
    return ShardPart(number, folder / shard_name(number), index, lines, account, hours)


def join_parts(task: ShardJob, pieces: Sequence[ShardPart]) -> None:
    """What ``make_shard`` would have written, byte for byte, from all its pieces, in whatever order they come."""
    account = Account()
    with ShardWriter(task.folder, task.number, task.splits) as writer:
        for piece in sorted(pieces, key=lambda piece: piece.number):
            writer.append(piece.path, piece.index, piece.lines)
            account.add(piece.account)
            piece.path.unlink()
        _finish(task, writer, account)


def make_alone(task: ShardJob) -> None:
    """All that is done with the files of ``task``, for nothing: to see whether it can be done."""
    load_splitter()
    limit_cpu(cpu_limit_s(task.config.max_duration_s))
    with ShardWriter(
        task.part.parent, task.number, task.splits
    ) as writer:  # where what a kill leaves goes in the end
        for _, group in groupby(task.records, key=lambda record: record.audio):
            _read_file(list(group), task, writer)


def _fill(
    task: ShardJob, writer: ShardWriter, tick: Callable[[float], None] | None, note: Path
) -> tuple[Account, float]:
    """All files of ``task`` into ``writer``; returns their account and hours of audio."""
    account, total_hours = Account(), 0.0
    if task.limited:
        load_splitter()
    with reading(note) as about_to_read:
        for audio, group in groupby(task.records, key=lambda record: record.audio):
            writer.mark()
            about_to_read(audio)
            if task.limited:
                limit_cpu(cpu_limit_s(task.config.max_duration_s))
            one = _read_file(list(group), task, writer)
            account.add(one)
            samples = one.kept.samples + sum(tally.samples for tally in one.dropped.values())
            hours = samples / task.config.features.sample_rate_hz / 3600
            total_hours += hours
            if tick:
                tick(hours)
    return account, total_hours


def _finish(task: ShardJob, writer: ShardWriter, account: Account) -> None:
    index, lines, about = writer.close()
    rows = BytesIO()
    np.save(rows, index)
    rejects = jsonl(account.rejects)
    for suffix, data in ((".jsonl", lines), (".rejects", rejects), (".npy", rows.getvalue())):
        with task.part.with_suffix(suffix).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    done = {"plan": task.plan, "shard": about, "chunks": len(index), "account": account.table()}
    write_atomic(task.part.with_suffix(".json"), json.dumps(done))


def _read_file(records: list[Record], task: ShardJob, writer: ShardWriter) -> Account:
    """Chunks of all records of one file into ``writer``; a damaged file leaves nothing there but its count."""
    config = task.config
    rate = config.features.sample_rate_hz
    account, position = Account(), 0
    cutters = [Cutter(record, config, writer, account) for record in records]
    try:
        if records[0].audio in task.crashing:
            raise AudioError("decoder crash", task.crashing[records[0].audio])
        waiting, active = (
            deque(cutters),
            list[Cutter](),
        )  # a long file may hold thousands of parts, sorted by start
        for block in stream_mono(
            task.root / records[0].audio, rate, max_duration_s=config.max_duration_s
        ):
            while waiting and waiting[0].start <= position + len(block):
                active.append(waiting.popleft())
            for cutter in active:
                cutter.push(block, position)
            active = [cutter for cutter in active if not cutter.finished]
            position += len(block)
        for cutter in cutters:
            cutter.finish(position)
    except (AudioError, MemoryError, RuntimeError) as caught:
        error = as_reject(caught, task.limited)
        writer.rollback()
        account = Account(num_rejected=1)
        account.drop(error.reason, position, files=1)
        for record in records:
            account.reject(record, error.reason, error.detail)
        return account
    asked = union([cutter.span(position) for cutter in cutters])
    account.drop("not in any part", position - sum(end - start for start, end in asked))
    if account.kept.chunks:
        account.kept.files = 1
    elif len(account.rejects) == len(records):
        account.num_rejected = 1
        account.drop(account.rejects[0]["reason"], 0, files=1)
    else:
        reasons = (
            "too short",
            *sorted(account.dropped, key=lambda name: -account.dropped[name].samples),
        )
        account.drop(next(reason for reason in reasons if reason in account.dropped), 0, files=1)
    return account
