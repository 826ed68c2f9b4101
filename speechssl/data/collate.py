"""Padded batches: which utterances go well together, and what a model is given of them."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speechssl.audio.feature_config import FeatureConfig
from speechssl.audio.features import INT16_SCALE
from speechssl.errors import ConfigError


@dataclass(frozen=True)
class Batch:
    """B utterances, padded with zeros at the end to the longest."""

    ids: tuple[str, ...]
    keys: tuple[int, ...]
    """One number for each utterance, made from its id. It seeds the masks and negatives of the
    utterance, so that they do not depend on the batch."""
    inputs: Tensor
    """(B, S) float32 samples in -1..1, or (B, U, F) float32 log-mel."""
    input_lengths: Tensor
    """(B,) int64, valid samples or mel frames. They stay on the host wherever ``inputs`` are, so
    that reading one does not wait for the device."""
    texts: tuple[str | None, ...]
    audio_s: float
    """Seconds of audio in all utterances together."""
    weights: Tensor | None = None
    """(B,) float32 on the host, how much the text of each utterance counts; None = 1 each."""

    def to(self, device: torch.device) -> "Batch":
        """Return the batch with its inputs on ``device``.

        They are copied from pinned memory, while the device computes.
        """
        if device.type == "cpu":
            return self

        pinned = self.inputs.pin_memory()
        return replace(self, inputs=pinned.to(device, non_blocking=True))


def collate(
    ids: Sequence[str],
    arrays: Sequence[NDArray[np.generic]],
    texts: Sequence[str | None],
    config: FeatureConfig,
    weights: Sequence[float] | None = None,
) -> Batch:
    """Pad stored arrays, (S,) int16 or (U, F) float16 each, into one float32 batch."""
    lengths = [len(array) for array in arrays]
    frame_shape = arrays[0].shape[1:]
    inputs = np.zeros((len(arrays), max(lengths), *frame_shape), dtype=np.float32)
    for row, array in zip(inputs, arrays, strict=True):
        row[: len(array)] = array

    if config.kind == "waveform":
        inputs /= INT16_SCALE

    # A frame covers a window, and each further frame moves it by one hop. For waveforms both are 1.
    num_samples = sum((length - 1) * config.hop + config.window for length in lengths)

    return Batch(
        ids=tuple(ids),
        keys=tuple(map(utterance_key, ids)),
        inputs=torch.from_numpy(inputs),
        input_lengths=torch.tensor(lengths),
        texts=tuple(texts),
        audio_s=num_samples / config.sample_rate_hz,
        weights=None if weights is None else torch.tensor(weights, dtype=torch.float32),
    )


def utterance_key(utterance_id: str) -> int:
    """Return a stable 63-bit number of an utterance's id."""
    digest = hashlib.sha256(utterance_id.encode("utf-8", "surrogatepass")).digest()

    # 63 bits fit into the signed 64-bit integers of PyTorch.
    return int.from_bytes(digest[:8], "little") >> 1


def max_batch_length(batch_seconds: float, rate: float) -> int:
    """Return how much a batch may hold, in whatever there are ``rate`` of in a second.

    Args:
        batch_seconds: audio in a batch, padding included, seconds.
        rate: samples or frames a second.

    Raises:
        ConfigError: ``batch_seconds`` is not a number above 0.
    """
    if not 0 < batch_seconds < math.inf:
        raise ConfigError(f"batch_seconds must be a number above 0, not {batch_seconds}")
    return round(batch_seconds * rate)


def length_batches(lengths: NDArray[np.int64], limit: float) -> Iterator[list[int]]:
    """Yield batches of similar length, the longest utterances first.

    Args:
        lengths: (N,) samples or frames of each utterance.
        limit: most samples or frames of a batch, padding included. An utterance that is longer is a
            batch of its own.

    Yields:
        positions in ``lengths``.
    """
    # The first utterance of a batch is its longest: all are padded to that.
    batch: list[int] = []
    for position in np.argsort(-lengths, kind="stable").tolist():
        if batch:
            padded_length = (len(batch) + 1) * int(lengths[batch[0]])
            if padded_length > limit:
                yield batch
                batch = []
        batch.append(position)

    if batch:
        yield batch
