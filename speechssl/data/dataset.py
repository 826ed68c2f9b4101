"""Chosen chunks of stores as one sequence, and padded batches of them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speechssl.audio.features import INT16_SCALE, FeatureConfig
from speechssl.config import build
from speechssl.data.store import Chunk, Store
from speechssl.errors import ConfigError
from speechssl.runtime.seeds import generator


@dataclass(frozen=True)
class Batch:
    """B utterances, padded with zeros at the end to the longest."""

    ids: tuple[str, ...]
    keys: tuple[int, ...]
    """One number per utterance, from its id: seeds its masks and negatives whatever the batch."""
    inputs: Tensor
    """(B, S) float32 samples in -1..1, or (B, U, F) float32 log-mel."""
    input_lengths: Tensor
    """(B,) int64, valid samples or mel frames; on the host wherever ``inputs`` are, so that nothing waits for it."""
    texts: tuple[str | None, ...]
    audio_s: float
    """Seconds of audio in all utterances together."""

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its inputs on ``device``, copied from pinned memory while the device computes."""
        if device.type == "cpu":
            return self
        return replace(self, inputs=self.inputs.pin_memory().to(device, non_blocking=True))


def utterance_key(utterance_id: str) -> int:
    """A stable 63-bit number of an utterance's id."""
    digest = hashlib.sha256(utterance_id.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def collate(
    ids: Sequence[str],
    arrays: Sequence[NDArray[np.generic]],
    texts: Sequence[str | None],
    config: FeatureConfig,
) -> Batch:
    """Pad stored arrays, (S,) int16 or (U, F) float16 each, into one float32 batch."""
    lengths = [len(array) for array in arrays]
    inputs = np.zeros((len(arrays), max(lengths), *arrays[0].shape[1:]), dtype=np.float32)
    for row, array in zip(inputs, arrays, strict=True):
        row[: len(array)] = array
    if config.kind == "waveform":
        inputs /= INT16_SCALE
    audio_s = (
        sum((length - 1) * config.hop + config.window for length in lengths) / config.sample_rate_hz
    )
    keys = tuple(utterance_key(i) for i in ids)
    return Batch(
        tuple(ids), keys, torch.from_numpy(inputs), torch.tensor(lengths), tuple(texts), audio_s
    )


class Dataset:
    """Chosen chunks of one or more stores with equal features, as one sequence."""

    def __init__(self, stores: Sequence[Store], splits: Sequence[str] | None = None) -> None:
        """Args: splits: keep these only; None keeps all.

        Raises:
            ConfigError: no chunk, stores of different features, or arrays that are not of theirs.
        """
        kinds = [store.features for store in stores]
        if any(kind != kinds[0] for kind in kinds):
            named = "; ".join(
                f"{s.path}: {build(FeatureConfig, k)}" for s, k in zip(stores, kinds, strict=True)
            )
            raise ConfigError(f"stores hold different features, prepare them alike: {named}")
        self.features = build(FeatureConfig, kinds[0])
        width = None if self.features.kind == "waveform" else self.features.width
        for store in stores:
            if store.width != width:
                raise ConfigError(
                    f"{store.path} holds arrays of width {store.width}, its features have {width}"
                )
        self.stores = tuple(stores)
        chosen = [store.indices(splits) for store in stores]
        self.store_of = np.repeat(np.arange(len(stores)), [len(c) for c in chosen]).astype(np.int32)
        self.index_of = np.concatenate(chosen).astype(np.int64)
        self.num_samples = np.concatenate(
            [s.num_samples[c] for s, c in zip(stores, chosen, strict=True)]
        )
        self.input_lengths = np.concatenate(
            [s.input_lengths[c] for s, c in zip(stores, chosen, strict=True)]
        )
        self.texts: dict[
            tuple[int, int], str
        ] = {}  # instead of the stores' own, by store and place in it
        if not len(self.index_of):
            wanted = "any split" if splits is None else f"split {', '.join(splits)}"
            there = ", ".join(
                sorted({name for s in stores for name in s.splits if len(s.indices([name]))})
            )
            paths = ", ".join(str(store.path) for store in stores)
            advice = (
                ""
                if "dev" in there or "test" in there
                else " (recordings without transcripts are all train)"
            )
            if not there:
                raise ConfigError(
                    f"no chunk at all in {paths}: prepare's table and rejects.jsonl there say why"
                )
            raise ConfigError(f"no chunk of {wanted} in {paths}; splits there: {there}{advice}")

    def __len__(self) -> int:
        return len(self.index_of)

    @property
    def identity(self) -> list[str]:
        """A digest per store of the recordings and settings that it was made from, wherever it lies."""
        return [store.plan[:16] for store in self.stores]

    @property
    def seconds(self) -> float:
        """Audio in all chunks."""
        return float(self.num_samples.sum()) / self.features.sample_rate_hz

    def subset(self, positions: NDArray[np.int64]) -> "Dataset":
        """Only the chunks at ``positions``, in that order."""
        part = object.__new__(Dataset)
        part.features, part.stores = self.features, self.stores
        part.store_of, part.index_of = self.store_of[positions], self.index_of[positions]
        part.num_samples, part.input_lengths = (
            self.num_samples[positions],
            self.input_lengths[positions],
        )
        part.texts = self.texts
        return part

    def with_texts(self, texts: Mapping[int, str]) -> "Dataset":
        """The same chunks with other transcripts at some positions."""
        changed = self.subset(np.arange(len(self)))
        changed.texts = self.texts | {
            self._place(position): text for position, text in texts.items()
        }
        return changed

    def _place(self, position: int) -> tuple[int, int]:
        return int(self.store_of[position]), int(self.index_of[position])

    def record(self, position: int) -> Chunk:
        """What its store says of one chunk."""
        which, index = self._place(position)
        return self.stores[which].record(index)

    def key(self, position: int) -> tuple[str, int]:
        """Its store's name of one chunk, and the CRC-32 of what the store holds of it."""
        which, index = self._place(position)
        return self.stores[which].record(index).id, self.stores[which].checksum(index)

    def id_text(self, position: int) -> tuple[str, str | None]:
        """Id and transcript of one chunk; with several stores the id starts with the store's number."""
        place, record = self._place(position), self.record(position)
        name = record.id if len(self.stores) == 1 else f"{place[0]}:{record.id}"
        return name, self.texts.get(place, record.text)

    def array(self, position: int) -> NDArray[np.generic]:
        """What the store holds of one chunk, its checksum verified."""
        array: NDArray[np.generic] = self.stores[int(self.store_of[position])].array(
            int(self.index_of[position])
        )
        return array

    def batch(self, positions: Sequence[int]) -> Batch:
        """Whole chunks as a batch."""
        pairs = [self.id_text(p) for p in positions]
        return collate(
            [i for i, _ in pairs],
            [self.array(p) for p in positions],
            [t for _, t in pairs],
            self.features,
        )


def choose_minutes(dataset: Dataset, minutes: float, seed: int) -> Dataset:
    """The utterances that ``choose_positions`` chooses."""
    return dataset.subset(choose_positions(dataset, minutes, seed))


def choose_positions(dataset: Dataset, minutes: float, seed: int) -> NDArray[np.int64]:
    """A seeded random choice of about ``minutes``: utterances in random order until the next would exceed it.

    Returns:
        their positions, ascending.

    Raises:
        ConfigError: the dataset holds less.
    """
    wanted = minutes * 60
    if dataset.seconds < wanted:
        raise ConfigError(
            f"--minutes {minutes:g} is more than the {dataset.seconds / 60:.1f} minutes of train with transcripts: "
            "give fewer, or leave --minutes out to use them all"
        )
    order = generator("subset", seed).permutation(len(dataset))
    total = np.cumsum(dataset.num_samples[order]) / dataset.features.sample_rate_hz
    chosen: NDArray[np.int64] = np.sort(
        order[: max(1, int(np.searchsorted(total, wanted, side="right")))]
    )
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
