"""Which chunks make up update ``step``, and their padded batch. The order is a function of (seed, step) alone."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from speechssl.audio.features import input_length
from speechssl.config import Settings
from speechssl.data.dataset import Batch, Dataset, collate, utterance_key
from speechssl.errors import ConfigError
from speechssl.runtime.seeds import generator


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
    """Updates over a dataset: ``micro_batches(step)`` is the whole interface, and the resume state is ``step``.

    Chunks are sorted by length once and cut into buckets. Each epoch shuffles within buckets, cuts every bucket into
    its fixed number of batches, and shuffles those: every chunk once an epoch, the same number of updates every epoch.
    Update 0 takes the batch with the most audio, so that memory runs out in the first minute or never.
    """

    def __init__(self, dataset: Dataset, config: BatchConfig, seed: int) -> None:
        self.dataset, self.config, self.seed = dataset, config, seed
        rate = dataset.features.sample_rate_hz
        self.crop = round(config.crop_s * rate) if config.crop_s else None
        lengths = (
            dataset.num_samples if self.crop is None else np.minimum(dataset.num_samples, self.crop)
        )
        self.lengths = np.asarray(lengths, dtype=np.int64)
        # Ties are broken by position, so the order never depends on the sorting algorithm.
        by_length = np.argsort(self.lengths, kind="stable")
        limit = config.seconds * rate
        num_buckets = int(
            min(config.num_buckets, max(1, self.lengths.sum() // (4 * limit)), len(by_length))
        )
        self.buckets = np.array_split(by_length, num_buckets)
        per_batch = [max(1, int(limit // self.lengths[b[-1]])) for b in self.buckets]
        batches_of = [-(-len(b) // size) for b, size in zip(self.buckets, per_batch, strict=True)]
        self.steps_per_epoch = sum(batches_of)
        # Of all updates of an epoch as the buckets give them, one after another: the first place of each, then the end.
        sizes = np.concatenate(
            [_even(len(b), count) for b, count in zip(self.buckets, batches_of, strict=True)]
        )
        self._bounds = np.concatenate([[0], np.cumsum(sizes)])
        self._epoch = -1
        self._places = self._order = np.zeros(0, np.int64)

    def positions(self, step: int) -> NDArray[np.int64]:
        """Positions in the dataset that update ``step`` uses."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if self._epoch != epoch:
            self._shuffle(epoch)
        batch = self._order[index]
        return self._places[self._bounds[batch] : self._bounds[batch + 1]]

    def _shuffle(self, epoch: int) -> None:
        """Draw the chunks of an epoch's batches (``_places``, cut at ``_bounds``) and which batch comes when."""
        rng = generator("order", self.seed, epoch)
        self._places = np.concatenate([rng.permutation(bucket) for bucket in self.buckets])
        self._order = rng.permutation(self.steps_per_epoch)
        if epoch == 0:
            longest = np.maximum.reduceat(self.lengths[self._places], self._bounds[:-1])
            largest = int(np.argmax((np.diff(self._bounds) * longest)[self._order]))
            self._order[: largest + 1] = np.roll(self._order[: largest + 1], 1)
        self._epoch = epoch

    def share(self, step: int, rank: int, ranks: int) -> NDArray[np.int64]:
        """Positions of update ``step`` that process ``rank`` of ``ranks`` works on; none where there are too few.

        Dealt out by length, so that no two shares differ by more audio than the longest utterance.
        """
        positions = self.positions(step)
        if ranks == 1:
            return positions
        return positions[np.argsort(-self.lengths[positions], kind="stable")][rank::ranks]

    def micro_batches(self, step: int, rank: int = 0, ranks: int = 1) -> list[Batch]:
        """The batches of update ``step``, each of at most ``micro_seconds`` of audio (one utterance at least).

        Args:
            rank: of this process among ``ranks`` that share the update; together they take what one alone would.
        """
        positions = self.share(step, rank, ranks)
        if not len(positions):
            return []
        if self.config.micro_seconds is None:
            return [self._load(positions, step)]
        limit = self.config.micro_seconds * self.dataset.features.sample_rate_hz
        ordered = positions[np.argsort(-self.lengths[positions], kind="stable")]
        groups: list[list[int]] = [[]]
        for position in ordered.tolist():
            if groups[-1] and (len(groups[-1]) + 1) * self.lengths[groups[-1][0]] > limit:
                groups.append([])
            groups[-1].append(position)
        return [self._load(np.asarray(group), step) for group in groups]

    def _load(self, positions: NDArray[np.int64], step: int) -> Batch:
        dataset = self.dataset
        pairs = [dataset.id_text(int(p)) for p in positions]
        arrays = [
            self._cropped(int(p), i, step) for p, (i, _) in zip(positions, pairs, strict=True)
        ]
        return collate([i for i, _ in pairs], arrays, [t for _, t in pairs], dataset.features)

    def _cropped(self, position: int, utterance_id: str, step: int) -> NDArray[np.generic]:
        array = self.dataset.array(position)
        if self.crop is None:
            return array
        length = input_length(self.crop, self.dataset.features)
        if len(array) <= length:
            return array
        start = int(
            generator("crop", self.seed, step, utterance_key(utterance_id)).integers(
                len(array) - length + 1
            )
        )
        return array[start : start + length]


def _even(total: int, parts: int) -> NDArray[np.int64]:
    """``total`` in ``parts`` whole numbers that differ by one at most, the larger first."""
    return total // parts + (np.arange(parts) < total % parts)


def max_batch_length(batch_seconds: float, rate: float) -> int:
    """HiddenUnits, of ``rate`` a second, that a batch may hold.

    Raises:
        ConfigError: no number of seconds above 0.
    """
    if not 0 < batch_seconds < math.inf:
        raise ConfigError(f"batch_seconds must be a number above 0, not {batch_seconds}")
    return round(batch_seconds * rate)


def length_batches(lengths: NDArray[np.int64], limit: int) -> Iterator[list[int]]:
    """Positions sorted by length, the longest first, in groups whose padded size stays within ``limit``."""
    group: list[int] = []
    for position in np.argsort(-lengths, kind="stable").tolist():
        if group and (len(group) + 1) * int(lengths[group[0]]) > limit:
            yield group
            group = []
        group.append(position)
    if group:
        yield group
