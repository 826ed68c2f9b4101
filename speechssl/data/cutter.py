"""Cuts one recording into the chunks of a store, window by window."""

from collections.abc import Sequence

import numpy as np

from speechssl.audio.features import input_length
from speechssl.audio.level import is_silent, peak_of
from speechssl.audio.levelling import featurise_chunk
from speechssl.audio.reader import Samples, Span
from speechssl.audio.silence import WINDOW_S, settled_chunks
from speechssl.corpus.manifest import Record
from speechssl.data.account import SILENCE, TOO_SHORT, Account, Tally
from speechssl.data.settings import PrepareConfig
from speechssl.data.store import Chunk
from speechssl.data.store_writer import ShardWriter

# By how much a part may reach beyond the end of its file, seconds. Times in manifests are rounded.
OVERHANG_S = 0.1


class Cutter:
    """Gathers the samples of one record as blocks of its file go by, and makes chunks of them.

    A record with a transcript becomes one chunk, at the end. A record without one is cut at
    silences whenever a window of it is held. Positions are samples at the store's rate, from the
    start of the file.
    """

    def __init__(
        self, record: Record, config: PrepareConfig, writer: ShardWriter, account: Account
    ) -> None:
        self.record = record
        self.config = config
        self.writer = writer
        self.account = account
        self.rate = config.features.sample_rate_hz

        # Where the record starts and ends; an end of None is the end of the file.
        self.start = round(record.offset_s * self.rate)
        self.end: int | None = None
        if record.duration_s is not None:
            self.end = self.start + round(record.duration_s * self.rate)

        # A window is long enough for several chunks. So the place where it ends changes few cuts.
        self.window = round(max(WINDOW_S, 4 * config.max_chunk_s) * self.rate)

        # The samples that no chunk has yet; ``first`` is the position of the first one.
        self.held: list[Samples] = []
        self.num_held = 0
        self.first = self.start

        # What became of it so far, where there is no transcript.
        self.num_chunks = 0
        self.num_too_short = 0

        self.overlong = False
        self.finished = False

    def span(self, num_samples: int) -> Span:
        """Return what the record covers of a file of ``num_samples``."""
        end = num_samples
        if self.end is not None:
            end = min(self.end, num_samples)
        return min(self.start, end), end

    def push(self, block: Samples, position: int) -> None:
        """Take what belongs to the record of a block that starts at ``position`` of the file."""
        if self.finished:
            return

        self._hold(block, position)

        longest_utterance = self.config.max_utterance_s * self.rate
        if self.record.text is None:
            if self.num_held >= self.window:
                self._cut(last=False)
        elif self.num_held > longest_utterance:
            # It is a reject already, and its samples would only take memory.
            self.overlong = True
            self.held = []

        block_end = position + len(block)
        if self.end is not None and block_end >= self.end:
            self.finish(self.end)

    def finish(self, num_samples: int) -> None:
        """Make the last chunks.

        Args:
            num_samples: samples of the file. Where the record ends before the file does, the file
                may have more.
        """
        if self.finished:
            return
        self.finished = True

        start, end = self.span(num_samples)
        length = end - start
        length_s = length / self.rate
        wanted_end = max(self.end or 0, self.start)
        missing_s = (wanted_end - num_samples) / self.rate
        is_transcribed = self.record.text is not None
        is_truncated = is_transcribed and missing_s > OVERHANG_S

        if length <= 0 or is_truncated:
            detail = f"the part ends {missing_s:.3f} s after the end of its file"
            self._reject("outside the file", detail, length)
        elif self.overlong:
            limit_s = self.config.max_utterance_s
            detail = f"{length_s:.1f} s, at most {limit_s:g} s"
            self._reject("utterance too long", detail, length)
        elif not is_transcribed:
            self._cut(last=True)
            self._list_if_unused(length_s)
        elif input_length(length, self.config.features) < 1:
            self._reject("utterance too short", f"{length_s:.4f} s", length)
        else:
            self._keep_utterance(length_s, length)

        self.held = []

    def _keep_utterance(self, length_s: float, length: int) -> None:
        """Make one chunk of a record with a transcript, unless nothing is said in it."""
        samples = self._samples()
        if is_silent(samples, self.rate):
            self._reject("silent utterance", f"{length_s:.1f} s with a transcript", length)
        else:
            self._keep(samples, self.start, self.record.id)

    def _list_if_unused(self, length_s: float) -> None:
        """List a record without a transcript that gave no chunk, and why."""
        if self.num_chunks:
            return

        if self.num_too_short:
            speech_s = self.num_too_short / self.rate
            shortest_s = self.config.min_chunk_s
            detail = f"{speech_s:.2f} s of speech, chunks last {shortest_s:g} s or more"
            self.account.reject(self.record, TOO_SHORT, detail)
        else:
            self.account.reject(self.record, SILENCE, f"{length_s:.1f} s without speech")

    def _hold(self, block: Samples, position: int) -> None:
        """Hold the samples of a block that are the record's."""
        begin = max(0, self.start - position)
        end = len(block)
        if self.end is not None:
            end = max(0, self.end - position)

        part = block[begin:end]
        if len(part) and not self.overlong:
            self.held.append(part)
            self.num_held += len(part)

    def _samples(self) -> Samples:
        if not self.held:
            return np.zeros(0, np.float32)
        return np.concatenate(self.held)

    def _cut(self, last: bool) -> None:
        """Make chunks of what is held, and account for all that they leave out.

        Unless the record ends here (``last``), speech that may go on is held for the next window.
        """
        config = self.config
        samples = self._samples()
        speech, found, num_used = settled_chunks(
            samples, self.rate, config.min_chunk_s, config.max_chunk_s, last, config.top_db
        )

        chunks: list[Span] = []
        for start, end in found:
            # Less than one frame of features is no chunk.
            if input_length(end - start, config.features) >= 1:
                chunks.append((start, end))

        for start, end in chunks:
            position = self.first + start
            name = f"{self.record.id}@{position}"
            self._keep(samples[start:end], position, name)

        speech_used: list[Span] = []
        for start, end in speech:
            if start < num_used:
                speech_used.append((start, min(end, num_used)))

        # Speech that no chunk has was too short for one; all else is silence.
        num_kept = _total_length(chunks)
        kept_or_speech = union([*speech_used, *chunks])
        num_too_short = _total_length(kept_or_speech) - num_kept
        num_silent = num_used - num_kept - num_too_short
        self.account.drop(TOO_SHORT, num_too_short)
        self.account.drop(SILENCE, num_silent)
        self.num_chunks += len(chunks)
        self.num_too_short += num_too_short

        # A copy, so that the window that it is cut from can be freed.
        self.held = [samples[num_used:].copy()]
        self.num_held = len(samples) - num_used
        self.first += num_used

    def _keep(self, samples: Samples, position: int, name: str) -> None:
        """Write one chunk, at a level that features hold; see ``levelled``."""
        if peak_of(samples) > 1:
            self.account.num_scaled += 1
        features, change = featurise_chunk(samples, self.config.features)
        self.account.count_change(change)

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
        self.writer.add(features, chunk)

        kept = Tally(0, 1, len(samples))
        self.account.kept.add(kept)

    def _reject(self, reason: str, detail: str, num_samples: int) -> None:
        self.account.reject(self.record, reason, detail)
        self.account.drop(reason, num_samples)


def union(spans: Sequence[Span]) -> list[Span]:
    """Merge spans that overlap or touch; the result is sorted and disjoint."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged:
            last_start, last_end = merged[-1]
            if start <= last_end:
                merged[-1] = (last_start, max(end, last_end))
                continue

        merged.append((start, end))

    return merged


def _total_length(spans: Sequence[Span]) -> int:
    return sum(end - start for start, end in spans)
