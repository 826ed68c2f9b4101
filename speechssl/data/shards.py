"""One shard of a store: files in, chunks out, every sample accounted for.

A recording goes by in blocks. Each record of it has a cutter, which takes its samples and makes
chunks: the whole utterance where there is a transcript, else the pieces between silences.
When a file turns out to be damaged at its end, all that it gave is taken back.
"""

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from itertools import chain, groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechssl.audio.channels import Mixer
from speechssl.audio.reader import stream_mono
from speechssl.audio.silence import load_splitter
from speechssl.corpus.manifest import Record
from speechssl.data.account import SILENCE, TOO_SHORT, Account
from speechssl.data.cutter import Cutter, union
from speechssl.data.sandbox import READING, as_reject, cpu_limit_s, reading
from speechssl.data.settings import PrepareConfig
from speechssl.data.store import shard_name
from speechssl.data.store_writer import ShardWriter, jsonl
from speechssl.errors import AudioError
from speechssl.runtime.processes import limit_cpu
from speechssl.storage.atomic import write_atomic

# Fewest files of a piece, where a shard is divided among processes.
PART_FILES = 25

# Folder in the store for what finished shards leave for the tables.
PARTS = "parts"


@dataclass(frozen=True)
class ShardJob:
    """One shard to make: all records of some files, sorted by file.

    Attributes:
        number: of the shard in its store.
        folder: of the store.
        root: the folder below which the records' audio lies.
        splits: all splits of the store; a chunk keeps its position among them.
        plan: digest of all that the shard's bytes depend on.
        crashing: files that killed a process, and how; they are not read.
        limited: the work is done in a process whose limits may be set.
    """

    number: int
    folder: Path
    root: Path
    records: tuple[Record, ...]
    splits: tuple[str, ...]
    config: PrepareConfig
    plan: str
    crashing: Mapping[str, str] = field(default_factory=dict)
    limited: bool = False

    @property
    def part(self) -> Path:
        """What the shard leaves for the tables, without suffix."""
        return self.folder / PARTS / f"{self.number:05d}"


@dataclass(frozen=True)
class ShardPart:
    """Some files of a shard, made by themselves so that several processes can work on one shard.

    Attributes:
        number: of the part in its shard.
        path: file of its arrays.
        index: (N,) rows of ``INDEX``; places count from the start of the part.
        lines: its lines of ``chunks.jsonl``.
        account: what became of its samples.
        hours: of audio that it read.
    """

    number: int
    path: Path
    index: NDArray[Any]
    lines: bytes
    account: Account
    hours: float


def is_finished(task: ShardJob) -> bool:
    """Whether an earlier run made this very shard.

    Its marker has the same plan then, and its file the size that the marker says.
    """
    try:
        marker = json.loads(task.part.with_suffix(".json").read_text(encoding="utf-8"))
        size = (task.folder / shard_name(task.number)).stat().st_size
    except (OSError, ValueError):
        return False
    return bool(marker["plan"] == task.plan and marker["shard"]["bytes"] == size)


def make_shard(task: ShardJob, tick: Callable[[float], None] | None = None) -> float:
    """Write the shard, its parts of the tables, and last the marker that it is done.

    Args:
        tick: called with the hours of audio of each file.

    Returns:
        hours of audio.
    """
    note = task.part.with_suffix(READING)
    with ShardWriter(task.folder, task.number, task.splits) as writer:
        account, hours = _read_files(task, writer, tick, note)
        _finish(task, writer, account)
    return hours


def split_shard(task: ShardJob, most: int) -> list[ShardJob]:
    """Divide a shard into at most ``most`` tasks for ``make_part``, each with consecutive files.

    Few files stay together: the task itself comes back then.
    """
    files = [records for _, records in _by_file(task)]
    count = min(most, len(files) // PART_FILES)
    if count <= 1:
        return [task]

    bounds = [len(files) * k // count for k in range(count + 1)]
    pieces = []
    for first, end in pairwise(bounds):
        records = tuple(chain(*files[first:end]))
        pieces.append(replace(task, records=records))
    return pieces


def make_part(task: ShardJob, number: int) -> ShardPart:
    """Make a piece of a shard as ``make_shard`` would, in a file that ``join_parts`` deletes."""
    folder = task.part.with_suffix(".pieces")
    folder.mkdir(exist_ok=True)

    with ShardWriter(folder, number, task.splits) as writer:
        account, hours = _read_files(task, writer, None, folder / f"{number}{READING}")
        index, lines, _ = writer.close()

    path = folder / shard_name(number)
    return ShardPart(number, path, index, lines, account, hours)


def join_parts(task: ShardJob, pieces: Sequence[ShardPart]) -> None:
    """Write what ``make_shard`` would have written, byte for byte, from all pieces in any order."""
    account = Account()
    with ShardWriter(task.folder, task.number, task.splits) as writer:
        for piece in sorted(pieces, key=lambda piece: piece.number):
            writer.append(piece.path, piece.index, piece.lines)
            account.add(piece.account)
            piece.path.unlink()
        _finish(task, writer, account)


def make_alone(task: ShardJob) -> None:
    """Do all that is done with the files of ``task``, only to see whether a process survives it."""
    load_splitter()
    limit_cpu(cpu_limit_s(task.config.max_duration_s))

    # Written into the folder of parts: it is deleted in the end, with all that a kill leaves there.
    with ShardWriter(task.part.parent, task.number, task.splits) as writer:
        for _, records in _by_file(task):
            _read_file(records, task, writer)


def _by_file(task: ShardJob) -> Iterator[tuple[str, list[Record]]]:
    """Yield each file of a shard, and its records."""
    for audio, group in groupby(task.records, key=lambda record: record.audio):
        yield audio, list(group)


def _read_files(
    task: ShardJob, writer: ShardWriter, tick: Callable[[float], None] | None, note: Path
) -> tuple[Account, float]:
    """Put the chunks of all files of ``task`` into ``writer``.

    Args:
        tick: called with the hours of audio of each file.
        note: the file that names the one which is being read.

    Returns:
        their account and hours of audio.
    """
    account = Account()
    total_hours = 0.0

    # Before the first limit is set, so that no file is charged for the time that libraries take.
    if task.limited:
        load_splitter()

    with reading(note) as about_to_read:
        for audio, records in _by_file(task):
            writer.mark()
            about_to_read(audio)
            if task.limited:
                limit_cpu(cpu_limit_s(task.config.max_duration_s))

            of_file = _read_file(records, task, writer)
            account.add(of_file)

            num_dropped = sum(tally.samples for tally in of_file.dropped.values())
            num_samples = of_file.kept.samples + num_dropped
            hours = num_samples / task.config.features.sample_rate_hz / 3600
            total_hours += hours
            if tick:
                tick(hours)

    return account, total_hours


def _read_file(records: list[Record], task: ShardJob, writer: ShardWriter) -> Account:
    """Put the chunks of all records of one file into ``writer``.

    Of a damaged file nothing stays there; the account has its samples and a reject for each record.
    """
    account = Account()
    cutters = [Cutter(record, task.config, writer, account) for record in records]
    progress = _Progress()
    mixer = Mixer()

    try:
        audio = records[0].audio
        if audio in task.crashing:
            raise AudioError("decoder crash", task.crashing[audio])
        _cut_file(task.root / audio, task.config, cutters, progress, mixer)
    except (AudioError, MemoryError, RuntimeError) as caught:
        error = as_reject(caught, task.limited)
        writer.rollback()
        return _damaged_file(records, error, progress.num_samples)

    num_samples = progress.num_samples
    asked_for = union([cutter.span(num_samples) for cutter in cutters])
    num_asked_for = sum(end - start for start, end in asked_for)
    account.drop("not in any part", num_samples - num_asked_for)
    account.num_dual_mono = int(mixer.is_dual_mono)
    account.num_averaged = int(mixer.is_averaged)

    _count_file(account, len(records))
    return account


@dataclass
class _Progress:
    """How many samples of a file went by, also when an error ended it."""

    num_samples: int = 0


def _cut_file(
    path: Path,
    config: PrepareConfig,
    cutters: Sequence[Cutter],
    progress: _Progress,
    mixer: Mixer,
) -> None:
    """Give a file's blocks to the cutters of its records.

    Args:
        cutters: sorted by where they start.
        progress: counts the samples as they go by.
        mixer: makes one channel of several.
    """
    # A long file may hold thousands of parts: a block is only given to those that it may concern.
    waiting = deque(cutters)
    active: list[Cutter] = []

    rate = config.features.sample_rate_hz
    for block in stream_mono(path, rate, max_duration_s=config.max_duration_s, mixer=mixer):
        position = progress.num_samples
        while waiting and waiting[0].start <= position + len(block):
            active.append(waiting.popleft())

        for cutter in active:
            cutter.push(block, position)
        active = [cutter for cutter in active if not cutter.finished]
        progress.num_samples += len(block)

    for cutter in cutters:
        cutter.finish(progress.num_samples)


def _damaged_file(records: Sequence[Record], error: AudioError, num_samples: int) -> Account:
    """Return the account of a file that cannot be used."""
    account = Account(num_rejected=1)
    account.drop(error.reason, num_samples, files=1)
    for record in records:
        account.reject(record, error.reason, error.detail)
    return account


def _count_file(account: Account, num_records: int) -> None:
    """Count a readable file once: as kept, as rejected, or as most of it was dropped."""
    if account.kept.chunks:
        account.kept.files = 1
        return

    broken = [row for row in account.rejects if row["reason"] not in (TOO_SHORT, SILENCE)]
    if len(broken) == num_records:
        account.num_rejected = 1
        account.drop(broken[0]["reason"], 0, files=1)
        return

    # Speech that was too short says more than silence. Else what took the most samples counts.
    reasons = sorted(account.dropped, key=lambda name: -account.dropped[name].samples)
    reason = reasons[0]
    if TOO_SHORT in account.dropped:
        reason = TOO_SHORT
    account.drop(reason, 0, files=1)


def _finish(task: ShardJob, writer: ShardWriter, account: Account) -> None:
    """Put the shard in place, then its parts of the tables, and last the marker that it is done."""
    index, lines, about = writer.close()
    index_file = BytesIO()
    np.save(index_file, index)

    parts = {
        ".jsonl": lines,
        ".rejects": jsonl(account.rejects),
        ".npy": index_file.getvalue(),
    }
    for suffix, data in parts.items():
        with task.part.with_suffix(suffix).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    marker = {
        "plan": task.plan,
        "shard": about,
        "chunks": len(index),
        "account": account.table(),
    }
    write_atomic(task.part.with_suffix(".json"), json.dumps(marker))
