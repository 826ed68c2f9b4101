"""Cuts one recording into the chunks of a store, window by window."""

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from speechssl.audio.features import FeatureConfig, featurise, input_length
from speechssl.audio.reader import MAX_DURATION_S, Samples, Span
from speechssl.audio.silence import WINDOW_S, settled_chunks
from speechssl.config import Settings
from speechssl.corpus.manifest import Record
from speechssl.data.account import Account, Tally
from speechssl.data.store import Chunk
from speechssl.data.store_writer import ShardWriter

OVERHANG_S = 0.1  # by which a part may reach beyond the end of its file (rounded times), seconds


class PrepareConfig(Settings):
    """How recordings become chunks."""

    features: FeatureConfig = Field(FeatureConfig(), description="what the store holds")
    min_chunk_s: float = Field(2.0, gt=0, description="shortest chunk of unlabelled audio, seconds")
    max_chunk_s: float = Field(
        15.0, gt=0, le=120, description="longest chunk of unlabelled audio, seconds"
    )
    top_db: float = Field(35.0, gt=0, description="silence is this far below the loudest part, dB")
    max_duration_s: float = Field(
        MAX_DURATION_S, gt=0, description="a file longer than this is rejected, seconds"
    )
    max_utterance_s: float = Field(
        300.0, gt=0, description="a transcribed utterance longer than this is rejected, s"
    )
    max_bad_fraction: float = Field(
        0.05, ge=0, le=1, description="share of rejected files that is still fine"
    )
    dev: float | None = Field(
        None, ge=0, lt=1, description="share for dev; None: 0.1 with transcripts, else 0"
    )
    test: float | None = Field(
        None, ge=0, lt=1, description="share for test; None: 0.1 with transcripts, else 0"
    )
    shard_files: int = Field(500, gt=0, description="most files in a shard")
    shard_bytes: int = Field(
        64_000_000, gt=0, description="source bytes after which a shard is full"
    )


def union(spans: Sequence[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


class Cutter:
    """Gathers the samples of one record as blocks of its file go by, and makes chunks of them."""

    def __init__(
        self, record: Record, config: PrepareConfig, writer: ShardWriter, account: Account
    ) -> None:
        self.record, self.config, self.writer, self.account = record, config, writer, account
        self.rate = config.features.sample_rate_hz
        self.start = round(record.offset_s * self.rate)
        self.end = (
            None if record.duration_s is None else self.start + round(record.duration_s * self.rate)
        )
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
        elif (
            self.record.text is not None and self.num_held > self.config.max_utterance_s * self.rate
        ):
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
            self._reject(
                "outside the file",
                f"the part ends {missing_s:.3f} s after the end of its file",
                end - start,
            )
        elif self.overlong:
            limit = self.config.max_utterance_s
            self._reject(
                "utterance too long",
                f"{(end - start) / self.rate:.1f} s, at most {limit:g} s",
                end - start,
            )
        elif self.record.text is None:
            self._cut(last=True)
        elif input_length(end - start, self.config.features) < 1:
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
        chunks = [(a, b) for a, b in chunks if input_length(b - a, config.features) >= 1]
        for start, end in chunks:
            at = self.first + start
            self._keep(samples[start:end], at, f"{self.record.id}@{at}")
        kept = sum(end - start for start, end in chunks)
        spoken = [(a, min(b, used)) for a, b in speech if a < used]
        left_out = sum(end - start for start, end in union([*spoken, *chunks])) - kept
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
