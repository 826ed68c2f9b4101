"""One shard of a store: files in, chunks out, every sample accounted for.

A recording goes by in blocks. Each record of it has a cutter, which takes its samples and makes chunks: the whole
utterance where there is a transcript, pieces between silences where there is none. What a file gave is taken back when
the file turns out to be damaged at its end.
"""

import json
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from io import BytesIO
from itertools import chain, groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from speechssl.audio.features import FeatureConfig, featurise, num_units
from speechssl.audio.reader import MAX_DURATION_S, Samples, Span, stream_mono
from speechssl.audio.silence import WINDOW_S, load_splitter, settled_chunks
from speechssl.config import Settings
from speechssl.corpus.manifest import Record
from speechssl.data.sandbox import READING, as_reject, cpu_limit_s, reading
from speechssl.data.store import Chunk, ShardWriter, jsonl, shard_name
from speechssl.errors import AudioError
from speechssl.runtime.processes import limit_cpu
from speechssl.storage.atomic import write_atomic

PIECE_FILES = 25  # a shard is divided among processes in pieces of so many files or more
PARTS = "parts"  # folder for what finished shards leave for the tables
OVERHANG_S = 0.1  # by which a part may reach beyond the end of its file (rounded times), seconds


class PrepareConfig(Settings):
    """How recordings become chunks."""

    features: FeatureConfig = Field(FeatureConfig(), description="what the store holds")
    min_chunk_s: float = Field(2.0, gt=0, description="shortest chunk of unlabelled audio, seconds")
    max_chunk_s: float = Field(15.0, gt=0, le=120, description="longest chunk of unlabelled audio, seconds")
    top_db: float = Field(35.0, gt=0, description="silence is this far below the loudest part, dB")
    max_duration_s: float = Field(MAX_DURATION_S, gt=0, description="a file longer than this is rejected, seconds")
    max_utterance_s: float = Field(300.0, gt=0, description="a transcribed utterance longer than this is rejected, s")
    max_bad_fraction: float = Field(0.05, ge=0, le=1, description="share of rejected files that is still fine")
    dev: float | None = Field(None, ge=0, lt=1, description="share for dev; None: 0.1 with transcripts, else 0")
    test: float | None = Field(None, ge=0, lt=1, description="share for test; None: 0.1 with transcripts, else 0")
    shard_files: int = Field(500, gt=0, description="most files in a shard")
    shard_bytes: int = Field(64_000_000, gt=0, description="source bytes after which a shard is full")


@dataclass
class Tally:
    """Part of an account: files, chunks and samples at the store's rate under one label."""

    files: int = 0
    chunks: int = 0
    samples: int = 0

    def add(self, other: "Tally") -> None:
        """Add in place."""
        self.files += other.files
        self.chunks += other.chunks
        self.samples += other.samples


@dataclass(frozen=True)
class Task:
    """One shard: all records of some files, sorted by file."""

    number: int
    folder: Path
    root: Path
    records: tuple[Record, ...]
    splits: tuple[str, ...]
    config: PrepareConfig
    plan: str  # digest of all that the shard's bytes depend on
    crashing: Mapping[str, str] = field(default_factory=dict)  # files that killed a process, and how: not to be read
    limited: bool = False  # it is done in a process whose limits may be set

    @property
    def part(self) -> Path:
        """What the shard leaves for the tables, without suffix."""
        return self.folder / PARTS / f"{self.number:05d}"


def is_finished(task: Task) -> bool:
    """Whether an earlier run made this very shard: its marker has the same plan and its file the right size."""
    try:
        about = json.loads(task.part.with_suffix(".json").read_text(encoding="utf-8"))
        held = (task.folder / shard_name(task.number)).stat().st_size
    except (OSError, ValueError):
        return False
    return bool(about["plan"] == task.plan and about["shard"]["bytes"] == held)


@dataclass
class Account:
    """Counts of one shard; also of one file, before it is known whether the file is good."""

    kept: Tally = field(default_factory=Tally)
    dropped: dict[str, Tally] = field(default_factory=dict)
    rejects: list[dict[str, str]] = field(default_factory=list)
    num_rejected: int = 0
    num_scaled: int = 0

    def drop(self, reason: str, samples: int, files: int = 0) -> None:
        """Count what is left out."""
        if samples or files:
            self.dropped.setdefault(reason, Tally()).add(Tally(files, 0, samples))

    def reject(self, record: Record, reason: str, detail: str) -> None:
        """List a record of which nothing is used."""
        self.rejects.append({"id": record.id, "audio": record.audio, "reason": reason, "detail": detail})

    def add(self, other: "Account") -> None:
        """Add in place."""
        self.kept.add(other.kept)
        for reason, tally in other.dropped.items():
            self.dropped.setdefault(reason, Tally()).add(tally)
        self.rejects += other.rejects
        self.num_rejected += other.num_rejected
        self.num_scaled += other.num_scaled

    def table(self) -> dict[str, Any]:
        """JSON-ready counts; of the rejects only their number."""
        table = asdict(self)
        table["num_reject_lines"] = len(table.pop("rejects"))
        return table


@dataclass(frozen=True)
class Piece:
    """Some files of a shard, made by themselves so that several processes can work on one shard."""

    number: int
    path: Path
    index: NDArray[Any]
    lines: bytes
    account: Account
    hours: float


def make_shard(task: Task, tick: Callable[[float], None] | None = None) -> float:
    """Write the shard, its parts of the tables, and last the marker that it is done. Returns hours of audio."""
    with ShardWriter(task.folder, task.number, task.splits) as writer:
        account, hours = _fill(task, writer, tick, task.part.with_suffix(READING))
        _finish(task, writer, account)
    return hours


def split_shard(task: Task, most: int) -> list[Task]:
    """At most so many tasks for ``make_piece``, each with consecutive files of the shard; few files stay together."""
    files = [list(group) for _, group in groupby(task.records, key=lambda record: record.audio)]
    count = min(most, len(files) // PIECE_FILES)
    if count <= 1:
        return [task]
    bounds = [len(files) * k // count for k in range(count + 1)]
    return [replace(task, records=tuple(chain(*files[a:b]))) for a, b in pairwise(bounds)]


def make_piece(task: Task, number: int) -> Piece:
    """Like ``make_shard`` for a piece of it, into a file that ``join_pieces`` deletes."""
    folder = task.part.with_suffix(".pieces")
    folder.mkdir(exist_ok=True)
    with ShardWriter(folder, number, task.splits) as writer:
        account, hours = _fill(task, writer, None, folder / f"{number}{READING}")
        index, lines, _ = writer.close()
    return Piece(number, folder / shard_name(number), index, lines, account, hours)


def join_pieces(task: Task, pieces: Sequence[Piece]) -> None:
    """What ``make_shard`` would have written, byte for byte, from all its pieces, in whatever order they come."""
    account = Account()
    with ShardWriter(task.folder, task.number, task.splits) as writer:
        for piece in sorted(pieces, key=lambda piece: piece.number):
            writer.append(piece.path, piece.index, piece.lines)
            account.add(piece.account)
            piece.path.unlink()
        _finish(task, writer, account)


def make_alone(task: Task) -> None:
    """All that is done with the files of ``task``, for nothing: to see whether it can be done."""
    load_splitter()
    limit_cpu(cpu_limit_s(task.config.max_duration_s))
    with ShardWriter(task.part.parent, task.number, task.splits) as writer:  # where what a kill leaves goes in the end
        for _, group in groupby(task.records, key=lambda record: record.audio):
            _read_file(list(group), task, writer)


def _fill(task: Task, writer: ShardWriter, tick: Callable[[float], None] | None, note: Path) -> tuple[Account, float]:
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


def _finish(task: Task, writer: ShardWriter, account: Account) -> None:
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


def _read_file(records: list[Record], task: Task, writer: ShardWriter) -> Account:
    """Chunks of all records of one file into ``writer``; a damaged file leaves nothing there but its count."""
    config = task.config
    rate = config.features.sample_rate_hz
    account, position = Account(), 0
    cutters = [_Cutter(record, config, writer, account) for record in records]
    try:
        if records[0].audio in task.crashing:
            raise AudioError("decoder crash", task.crashing[records[0].audio])
        waiting, active = deque(cutters), list[_Cutter]()  # a long file may hold thousands of parts, sorted by start
        for block in stream_mono(task.root / records[0].audio, rate, max_duration_s=config.max_duration_s):
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
    asked = _union([cutter.span(position) for cutter in cutters])
    account.drop("not in any part", position - sum(end - start for start, end in asked))
    if account.kept.chunks:
        account.kept.files = 1
    elif len(account.rejects) == len(records):
        account.num_rejected = 1
        account.drop(account.rejects[0]["reason"], 0, files=1)
    else:
        reasons = ("too short", *sorted(account.dropped, key=lambda name: -account.dropped[name].samples))
        account.drop(next(reason for reason in reasons if reason in account.dropped), 0, files=1)
    return account


def _union(spans: Sequence[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


class _Cutter:
    """Gathers the samples of one record as blocks of its file go by, and makes chunks of them."""

    def __init__(self, record: Record, config: PrepareConfig, writer: ShardWriter, account: Account) -> None:
        self.record, self.config, self.writer, self.account = record, config, writer, account
        self.rate = config.features.sample_rate_hz
        self.start = round(record.offset_s * self.rate)
        self.end = None if record.duration_s is None else self.start + round(record.duration_s * self.rate)
        self.window = round(max(WINDOW_S, 4 * config.max_chunk_s) * self.rate)
        self.held: list[Samples] = []
        self.num_held = 0
        self.first = self.start  # position in the file of the first sample held
        self.overlong = self.finished = False

    def span(self, num_samples: int) -> Span:
        """What the record asks for of a file of ``num_samples``."""
        end = num_samples if self.end is None else min(self.end, num_samples)
        return min(self.start, end), end

    def push(self, block: Samples, position: int) -> None:
        """Take what belongs to the record of a block that starts at ``position`` of the file."""
        if self.finished:
            return
        end = len(block) if self.end is None else max(0, self.end - position)
        part = block[max(0, self.start - position) : end]
        if len(part) and not self.overlong:
            self.held.append(part)
            self.num_held += len(part)
        if self.record.text is None and self.num_held >= self.window:
            self._cut(last=False)
        elif self.record.text is not None and self.num_held > self.config.max_utterance_s * self.rate:
            self.overlong, self.held = True, []
        if self.end is not None and position + len(block) >= self.end:
            self.finish(self.end)

    def finish(self, num_samples: int) -> None:
        """Make the last chunks; the file has at least ``num_samples``, or just these where the record goes on."""
        if self.finished:
            return
        self.finished = True
        start, end = self.span(num_samples)
        missing_s = (max(self.end or 0, self.start) - num_samples) / self.rate
        if start >= end or (self.record.text is not None and missing_s > OVERHANG_S):
            self._reject("outside the file", f"the part ends {missing_s:.3f} s after the end of its file", end - start)
        elif self.overlong:
            limit = self.config.max_utterance_s
            self._reject("utterance too long", f"{(end - start) / self.rate:.1f} s, at most {limit:g} s", end - start)
        elif self.record.text is None:
            self._cut(last=True)
        elif num_units(end - start, self.config.features) < 1:
            self._reject("utterance too short", f"{(end - start) / self.rate:.4f} s", end - start)
        else:
            self._keep(self._samples(), self.start, self.record.id)
        self.held = []

    def _reject(self, reason: str, detail: str, num_samples: int) -> None:
        self.account.reject(self.record, reason, detail)
        self.account.drop(reason, num_samples)

    def _samples(self) -> Samples:
        return np.concatenate(self.held) if self.held else np.zeros(0, np.float32)

    def _cut(self, last: bool) -> None:
        """Chunks of what is held; unless it is the last, what may go on is held for the next window."""
        samples, config = self._samples(), self.config
        speech, chunks, used = settled_chunks(
            samples, self.rate, config.min_chunk_s, config.max_chunk_s, last, config.top_db
        )
        chunks = [(a, b) for a, b in chunks if num_units(b - a, config.features) >= 1]
        for start, end in chunks:
            at = self.first + start
            self._keep(samples[start:end], at, f"{self.record.id}@{at}")
        kept = sum(end - start for start, end in chunks)
        spoken = [(a, min(b, used)) for a, b in speech if a < used]
        left_out = sum(end - start for start, end in _union([*spoken, *chunks])) - kept
        self.account.drop("too short", left_out)
        self.account.drop("silence", used - kept - left_out)
        self.held, self.num_held = [samples[used:].copy()], len(samples) - used
        self.first += used

    def _keep(self, samples: Samples, position: int, name: str) -> None:
        peak = float(np.abs(samples).max())
        if peak > 1:
            samples = samples / np.float32(peak)
            self.account.num_scaled += 1
        record = self.record
        chunk = Chunk(
            id=name,
            audio=record.audio,
            offset_s=position / self.rate,
            duration_s=len(samples) / self.rate,
            num_samples=len(samples),
            text=record.text,
            speaker=record.speaker,
            split=str(record.split),
        )
        self.writer.add(featurise(samples, self.config.features), chunk)
        self.account.kept.add(Tally(0, 1, len(samples)))
