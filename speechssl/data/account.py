"""Where every sample of the input went: kept, or dropped by reason."""

from dataclasses import asdict, dataclass, field
from typing import Any

from speechssl.audio.levelling import LevelChange
from speechssl.corpus.manifest import Record

# Reasons for which sound is left out of recordings that are whole. Where nothing else is in a
# recording, it is listed too, and is no bad file.
TOO_SHORT = "too short"
SILENCE = "silence"


@dataclass
class Tally:
    """Part of an account: files, chunks and samples at the store's rate under one label."""

    files: int = 0
    chunks: int = 0
    samples: int = 0

    def add(self, other: "Tally") -> None:
        """Add the counts of another tally to this one."""
        self.files += other.files
        self.chunks += other.chunks
        self.samples += other.samples


@dataclass
class Account:
    """Counts of one shard; also of one file, before it is known whether the file is good.

    Attributes:
        kept: what the store holds.
        dropped: reason -> what was left out for it.
        rejects: a row for each record of which nothing is used.
        num_rejected: files of which nothing could be used because they are broken.
        num_scaled: chunks whose peak lay above 1 and that were scaled down.
        num_raised: chunks in which quiet speech was raised.
        max_gain_db: the most that any of it was raised by, dB, to a tenth.
        num_lowered: chunks in which a bang was lowered.
        max_lowering_db: the most that any of these was lowered by, dB, to a tenth.
        num_dual_mono: readable files of several channels that are equal in every sample.
        num_averaged: readable files of several channels that differ, of which the mean was taken.
    """

    kept: Tally = field(default_factory=Tally)
    dropped: dict[str, Tally] = field(default_factory=dict)
    rejects: list[dict[str, str]] = field(default_factory=list)
    num_rejected: int = 0
    num_scaled: int = 0
    num_raised: int = 0
    max_gain_db: float = 0.0
    num_lowered: int = 0
    max_lowering_db: float = 0.0
    num_dual_mono: int = 0
    num_averaged: int = 0

    def drop(self, reason: str, samples: int, files: int = 0) -> None:
        """Count what is left out; nothing left out makes no entry."""
        if samples or files:
            tally = self.dropped.setdefault(reason, Tally())
            tally.add(Tally(files, 0, samples))

    def count_change(self, change: LevelChange) -> None:
        """Count a chunk whose speech was raised, or in which a bang was lowered."""
        # To a tenth, which no processor's way of adding up changes.
        if change.raised_db > 0:
            self.num_raised += 1
            self.max_gain_db = max(self.max_gain_db, round(change.raised_db, 1))
        if change.lowered_db > 0:
            self.num_lowered += 1
            self.max_lowering_db = max(self.max_lowering_db, round(change.lowered_db, 1))

    def reject(self, record: Record, reason: str, detail: str) -> None:
        """List a record of which nothing is used."""
        row = {"id": record.id, "audio": record.audio, "reason": reason, "detail": detail}
        self.rejects.append(row)

    def add(self, other: "Account") -> None:
        """Add the counts and rejects of another account to this one."""
        self.kept.add(other.kept)
        for reason, tally in other.dropped.items():
            self.dropped.setdefault(reason, Tally()).add(tally)

        self.rejects += other.rejects
        self.num_rejected += other.num_rejected
        self.num_scaled += other.num_scaled
        self.num_raised += other.num_raised
        self.max_gain_db = max(self.max_gain_db, other.max_gain_db)
        self.num_lowered += other.num_lowered
        self.max_lowering_db = max(self.max_lowering_db, other.max_lowering_db)
        self.num_dual_mono += other.num_dual_mono
        self.num_averaged += other.num_averaged

    def table(self) -> dict[str, Any]:
        """Return JSON-ready counts; of the rejects only their number."""
        table = asdict(self)
        rejects = table.pop("rejects")
        table["num_reject_lines"] = len(rejects)
        return table
