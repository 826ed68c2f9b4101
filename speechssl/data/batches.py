"""Which chunks make up update ``step`` of a training, and their padded batches.

The order is a function of (seed, step) alone.
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from speechssl.audio.features import input_length
from speechssl.config import Settings
from speechssl.data.collate import Batch, collate, length_batches, utterance_key
from speechssl.data.dataset import Dataset, Positions
from speechssl.runtime.seeds import generator

# Updates that each bucket gives an epoch at least. With fewer, a bucket is so small that its chunks
# meet the same others in every epoch.
_MIN_BATCHES_PER_BUCKET = 4


class BatchConfig(Settings):
    """How much audio an update sees."""

    seconds: float = Field(
        100.0, gt=0, description="audio per update at most, seconds (a longer utterance goes alone)"
    )
    micro_seconds: float | None = Field(
        None, gt=0, description="audio held in memory at once; None = all of an update"
    )
    crop_s: float | None = Field(
        None, gt=0, description="longer chunks are cut to a random window of this, seconds"
    )
    num_buckets: int = Field(
        32, ge=1, description="groups of like length, at most; each holds four batches or more"
    )


class Batches:
    """Updates over a dataset; ``step`` is all that is needed to resume.

    Chunks are sorted by length once and cut into buckets. Each epoch shuffles within buckets, cuts
    every bucket into its fixed number of batches, and shuffles those. So every chunk comes once an
    epoch, and every epoch has the same number of updates. Update 0 takes the batch with the most
    audio: if memory is too small, it runs out in the first minute.
    """

    def __init__(self, dataset: Dataset, config: BatchConfig, seed: int) -> None:
        self.dataset = dataset
        self.config = config
        self.seed = seed

        rate = dataset.features.sample_rate_hz
        self.crop = round(config.crop_s * rate) if config.crop_s else None
        lengths = dataset.num_samples
        if self.crop is not None:
            lengths = np.minimum(lengths, self.crop)
        self.lengths = np.asarray(lengths, dtype=np.int64)

        # Ties are broken by position, so the order never depends on the sorting algorithm.
        by_length = np.argsort(self.lengths, kind="stable")
        limit = config.seconds * rate
        least_of_bucket = _MIN_BATCHES_PER_BUCKET * limit
        most_buckets = max(1, self.lengths.sum() // least_of_bucket)
        num_buckets = int(min(config.num_buckets, most_buckets, len(by_length)))
        self.buckets = np.array_split(by_length, num_buckets)

        batch_sizes: list[NDArray[np.int64]] = []
        for bucket in self.buckets:
            longest_chunk = bucket[-1]
            longest = self.lengths[longest_chunk]
            most_chunks = max(1, int(limit // longest))

            num_chunks = len(bucket)
            num_batches = -(-num_chunks // most_chunks)
            sizes_of_bucket = _even_sizes(num_chunks, num_batches)
            batch_sizes.append(sizes_of_bucket)

        # The order of an epoch has all chunks of batch 0, then all of batch 1, and so on. These are
        # the positions in it at which the batches begin, and its end.
        sizes = np.concatenate(batch_sizes)
        ends = np.cumsum(sizes)
        self.steps_per_epoch = len(sizes)
        self._bounds = np.concatenate([[0], ends])

        # Drawn for one epoch at a time, when it is first asked for.
        self._epoch = -1
        self._chunks = np.zeros(0, np.int64)
        self._batch_order = np.zeros(0, np.int64)

    @property
    def mean_seconds(self) -> float:
        """Seconds of audio in an update on average.

        An update has less than it may have: its utterances have like lengths, and there are few.
        """
        seconds = float(self.lengths.sum()) / self.dataset.features.sample_rate_hz
        return seconds / self.steps_per_epoch

    def summary(self, steps: int) -> str:
        """Say how much audio an update has, and how many epochs ``steps`` updates are."""
        epochs = steps / self.steps_per_epoch
        return (
            f"{self.mean_seconds:.1f} s of audio an update, "
            f"{self.steps_per_epoch} updates an epoch, {epochs:.1f} epochs"
        )

    def positions(self, step: int) -> Positions:
        """Return the positions in the dataset that update ``step`` uses."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if self._epoch != epoch:
            self._shuffle(epoch)

        batch = self._batch_order[index]
        start = self._bounds[batch]
        stop = self._bounds[batch + 1]
        return self._chunks[start:stop]

    def share(self, step: int, rank: int, ranks: int) -> Positions:
        """Return the positions of update ``step`` that process ``rank`` of ``ranks`` works on.

        They are dealt out by length, so that no two shares differ by more audio than the longest
        utterance. Where there are fewer utterances than processes, some shares are empty.
        """
        positions = self.positions(step)
        if ranks == 1:
            return positions

        lengths = self.lengths[positions]
        longest_first = np.argsort(-lengths, kind="stable")
        positions = positions[longest_first]
        return positions[rank::ranks]

    def micro_batches(self, step: int, rank: int = 0, ranks: int = 1) -> list[Batch]:
        """Return the batches of update ``step``.

        Each holds at most ``micro_seconds`` of audio, but one utterance at least.

        Args:
            rank: of this process among ``ranks`` that share the update. Together they take what one
                alone would.
        """
        positions = self.share(step, rank, ranks)
        if not len(positions):
            return []
        if self.config.micro_seconds is None:
            return [self._load(positions, step)]

        rate = self.dataset.features.sample_rate_hz
        limit = self.config.micro_seconds * rate
        groups = length_batches(self.lengths[positions], limit)
        return [self._load(positions[group], step) for group in groups]

    def _shuffle(self, epoch: int) -> None:
        """Draw which chunks make up an epoch's batches, and which batch comes when."""
        rng = generator("order", self.seed, epoch)
        self._chunks = np.concatenate([rng.permutation(bucket) for bucket in self.buckets])
        self._batch_order = rng.permutation(self.steps_per_epoch)

        if epoch == 0:
            self._put_largest_first()
        self._epoch = epoch

    def _put_largest_first(self) -> None:
        """Move the batch with the most audio, padding included, to the front of the epoch."""
        lengths = self.lengths[self._chunks]
        starts = self._bounds[:-1]
        longest = np.maximum.reduceat(lengths, starts)
        sizes = np.diff(self._bounds)
        padded_lengths = sizes * longest

        in_order = padded_lengths[self._batch_order]
        largest = int(np.argmax(in_order))
        stop = largest + 1
        self._batch_order[:stop] = np.roll(self._batch_order[:stop], 1)

    def _load(self, positions: Positions, step: int) -> Batch:
        ids = []
        texts = []
        arrays = []
        weights = []
        for position in positions.tolist():
            utterance_id, text = self.dataset.id_text(position)
            array = self._cropped(position, utterance_id, step)
            ids.append(utterance_id)
            texts.append(text)
            arrays.append(array)
            weights.append(self.dataset.weight(position))

        return collate(ids, arrays, texts, self.dataset.features, weights)

    def _cropped(self, position: int, utterance_id: str, step: int) -> NDArray[np.generic]:
        """Return a chunk's array, or a random window of it where it is longer than ``crop_s``."""
        array = self.dataset.array(position)
        if self.crop is None:
            return array

        length = input_length(self.crop, self.dataset.features)
        if len(array) <= length:
            return array

        key = utterance_key(utterance_id)
        rng = generator("crop", self.seed, step, key)
        num_starts = len(array) - length + 1
        start = int(rng.integers(num_starts))
        stop = start + length
        return array[start:stop]


def _even_sizes(total: int, parts: int) -> NDArray[np.int64]:
    """Divide ``total`` into whole numbers that differ by one at most, the larger first."""
    size = total // parts
    num_larger = total % parts
    is_larger = np.arange(parts) < num_larger
    return size + is_larger
