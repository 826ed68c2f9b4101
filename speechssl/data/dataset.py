"""Chosen chunks of stores as one sequence."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from speechssl.audio.feature_config import FeatureConfig
from speechssl.config import build
from speechssl.data.collate import Batch, collate
from speechssl.data.store import Chunk, Store
from speechssl.errors import ConfigError
from speechssl.runtime.ranks import log_once
from speechssl.runtime.seeds import generator

# Positions of chunks in a dataset or in a store, counted from 0.
Positions = NDArray[np.int64]


class Place(NamedTuple):
    """Where a chunk of a dataset lies."""

    store: int
    """position of its store in ``Dataset.stores``"""
    row: int
    """its row in the index of that store"""


def open_stores(paths: Sequence[str | Path]) -> list[Store]:
    """Open stores whose chunks are used together, and say where one is named twice.

    Raises:
        ManifestError: a path is no store.
    """
    stores = [Store(path) for path in paths]

    paths_of_plan: dict[str, list[str]] = defaultdict(list)
    for store in stores:
        paths_of_plan[store.plan].append(str(store.path))

    for same in paths_of_plan.values():
        if len(same) > 1:
            log_once(
                f"{' and '.join(same)} hold the same recordings, which count {len(same)} times: "
                "name a store once, unless that is meant"
            )
    return stores


class Dataset:
    """Chosen chunks of one or more stores with equal features, as one sequence of N chunks.

    Attributes:
        features: what the arrays are.
        stores: where the chunks lie.
        store_of: (N,) int32, each chunk's store, as its position in ``stores``.
        index_of: (N,) int64, each chunk's position in its store.
        num_samples: (N,) int64, length of each chunk at the stores' sample rate.
        input_lengths: (N,) int64, rows of each chunk's array: samples or frames.
        texts: transcripts instead of the stores' own, by store and position in it.
        weights: how much the text of a chunk counts, by the same; 1 for all others.
    """

    def __init__(self, stores: Sequence[Store], splits: Sequence[str] | None = None) -> None:
        """Choose the chunks of some splits.

        Args:
            stores: in the order in which their chunks follow one another.
            splits: keep these only; None keeps all.

        Raises:
            ConfigError: no chunk, stores of different features, or arrays that are not of theirs.
        """
        self.features = _common_features(stores)
        self.stores = tuple(stores)

        chosen = [store.indices(splits) for store in stores]
        counts = [len(indices) for indices in chosen]
        store_numbers = np.arange(len(stores))
        self.store_of = np.repeat(store_numbers, counts).astype(np.int32)
        self.index_of = np.concatenate(chosen).astype(np.int64)

        num_samples = []
        input_lengths = []
        for store, indices in zip(stores, chosen, strict=True):
            num_samples.append(store.num_samples[indices])
            input_lengths.append(store.input_lengths[indices])
        self.num_samples = np.concatenate(num_samples)
        self.input_lengths = np.concatenate(input_lengths)

        self.texts: dict[tuple[int, int], str] = {}
        self.weights: dict[tuple[int, int], float] = {}

        if not len(self.index_of):
            raise _no_chunk(stores, splits)

    def __len__(self) -> int:
        return len(self.index_of)

    @property
    def identity(self) -> list[str]:
        """A digest of each store's recordings and settings, wherever the store lies."""
        return [store.plan[:16] for store in self.stores]

    @property
    def seconds(self) -> float:
        """Audio in all chunks, seconds."""
        return float(self.num_samples.sum()) / self.features.sample_rate_hz

    def subset(self, positions: Positions) -> "Dataset":
        """Return only the chunks at ``positions``, in that order."""
        part = object.__new__(Dataset)
        part.features = self.features
        part.stores = self.stores
        part.store_of = self.store_of[positions]
        part.index_of = self.index_of[positions]
        part.num_samples = self.num_samples[positions]
        part.input_lengths = self.input_lengths[positions]
        part.texts = self.texts
        part.weights = self.weights
        return part

    def with_texts(
        self, texts: Mapping[int, str], weights: Mapping[int, float] | None = None
    ) -> "Dataset":
        """Return the same chunks with other transcripts at some positions.

        Args:
            texts: the transcripts by position.
            weights: how much each of them counts, by position; 1 where nothing is said.
        """
        new_texts = {self._place(position): text for position, text in texts.items()}
        new_weights = {
            self._place(position): weight for position, weight in (weights or {}).items()
        }

        changed = self.subset(np.arange(len(self)))
        changed.texts = self.texts | new_texts
        changed.weights = self.weights | new_weights
        return changed

    def weight(self, position: int) -> float:
        """Return how much the text of one chunk counts."""
        return self.weights.get(self._place(position), 1.0)

    def record(self, position: int) -> Chunk:
        """Return what its store says of one chunk."""
        place = self._place(position)
        store = self.stores[place.store]
        return store.record(place.row)

    def key(self, position: int) -> tuple[str, int]:
        """Return the id of one chunk in its store, and the CRC-32 of the chunk's array."""
        place = self._place(position)
        store = self.stores[place.store]
        record = store.record(place.row)
        return record.id, store.checksum(place.row)

    def id_text(self, position: int) -> tuple[str, str | None]:
        """Return id and transcript of one chunk.

        With several stores the id starts with the number of the store.
        """
        place = self._place(position)
        record = self.record(position)

        name = record.id
        if len(self.stores) > 1:
            name = f"{place.store}:{record.id}"

        text = self.texts.get(place, record.text)
        return name, text

    def array(self, position: int) -> NDArray[np.generic]:
        """Return what the store holds of one chunk, its checksum verified."""
        place = self._place(position)
        store = self.stores[place.store]
        array: NDArray[np.generic] = store.array(place.row)
        return array

    def batch(self, positions: Sequence[int]) -> Batch:
        """Return whole chunks as a batch."""
        ids = []
        texts = []
        for position in positions:
            name, text = self.id_text(position)
            ids.append(name)
            texts.append(text)

        arrays = [self.array(position) for position in positions]
        return collate(ids, arrays, texts, self.features)

    def _place(self, position: int) -> Place:
        """Return where one chunk lies."""
        store = int(self.store_of[position])
        row = int(self.index_of[position])
        return Place(store, row)


def choose_minutes(dataset: Dataset, minutes: float, seed: int) -> Dataset:
    """Return the utterances that ``choose_positions`` chooses."""
    positions = choose_positions(dataset, minutes, seed)
    return dataset.subset(positions)


def choose_positions(dataset: Dataset, minutes: float, seed: int) -> Positions:
    """Choose utterances of about ``minutes`` at random.

    They are taken in a seeded random order until the next one would exceed the minutes; at least
    one is taken.

    Returns:
        their positions, ascending.

    Raises:
        ConfigError: the dataset holds less.
    """
    wanted_s = minutes * 60
    if dataset.seconds < wanted_s:
        present = dataset.seconds / 60
        raise ConfigError(
            f"--minutes {minutes:g} is more than the {present:.1f} minutes of train "
            "with transcripts: give fewer, or leave --minutes out to use them all"
        )

    rng = generator("subset", seed)
    order = rng.permutation(len(dataset))

    total_samples = np.cumsum(dataset.num_samples[order])
    total_s = total_samples / dataset.features.sample_rate_hz
    num_fitting = int(np.searchsorted(total_s, wanted_s, side="right"))
    num_chosen = max(1, num_fitting)

    chosen: Positions = np.sort(order[:num_chosen])
    return chosen


def check_features(dataset: Dataset, expected: FeatureConfig, otherwise: str = "") -> None:
    """See that a dataset holds what a model reads.

    Args:
        otherwise: what else to do about it, after how to prepare the store.

    Raises:
        ConfigError: it does not.
    """
    if dataset.features == expected:
        return

    paths = ", ".join(str(store.path) for store in dataset.stores)
    remedy = f"it with --features {expected.kind}"
    if dataset.features.kind == expected.kind:
        remedy = "the store anew"
    raise ConfigError(
        f"{paths} holds {dataset.features}, the model reads {expected}: prepare {remedy}{otherwise}"
    )


def _common_features(stores: Sequence[Store]) -> FeatureConfig:
    """Return the features that all stores have.

    Raises:
        ConfigError: they differ, or a store's arrays are not of its features.
    """
    tables = [store.features for store in stores]
    first_table = tables[0]

    if any(table != first_table for table in tables):
        described = []
        for store in stores:
            own_features = build(FeatureConfig, store.features, store.path / "store.json")
            described.append(f"{store.path}: {own_features}")

        listed = "; ".join(described)
        raise ConfigError(f"stores hold different features, prepare them alike: {listed}")

    features = build(FeatureConfig, first_table, stores[0].path / "store.json")
    expected_width = None
    if features.kind != "waveform":
        expected_width = features.width

    for store in stores:
        if store.width != expected_width:
            raise ConfigError(
                f"{store.path} holds arrays of width {store.width}, "
                f"its features have {expected_width}"
            )
    return features


def _no_chunk(stores: Sequence[Store], splits: Sequence[str] | None) -> ConfigError:
    """Explain why stores have no chunk of the splits that were asked for."""
    paths = ", ".join(str(store.path) for store in stores)
    names = sorted({name for store in stores for name in store.splits})
    num_chunks = {name: sum(len(store.indices([name])) for store in stores) for name in names}
    present = [name for name in names if num_chunks[name]]

    if not present:
        return ConfigError(
            f"no chunk at all in {paths}: prepare's table and rejects.jsonl there say why"
        )

    num_texts = {name: sum(1 for store in stores for _ in store.texts(name)) for name in present}
    listed = ", ".join(f"{name} ({num_texts[name]} transcripts)" for name in present)
    wanted = "any split" if splits is None else f"split {', '.join(splits)}"
    remedy = "give a store that has it, or another --split to a command that takes one"
    if not any(num_texts.values()):
        remedy = "recordings without transcripts are all train: prepare some with transcripts"
    elif splits is not None and splits[0] in ("dev", "test"):
        share = f"--{splits[0]}-share 0.1"
        remedy = f"prepare again with {share}, which takes it from train, or {remedy}"
    return ConfigError(f"no chunk of {wanted} in {paths}; splits there: {listed}; {remedy}")
