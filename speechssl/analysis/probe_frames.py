"""Compute what a probe reads: the layers of a frozen encoder, or log-mel rows, for each frame.

Shapes: B utterances, S samples, U mel frames, F mel bins, T frames, L layers, D width, and n
log-mel rows for each frame.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from speechssl.audio.feature_config import FeatureConfig
from speechssl.audio.features import featurise
from speechssl.data.collate import Batch, length_batches
from speechssl.data.dataset import Dataset
from speechssl.encoder.encoder import Encoder

# (B, T, D) of each layer, and (B,) valid frames.
LayersAndFrames = tuple[list[Tensor], Tensor]
# Reads the layers of a batch.
ReadFrames = Callable[[Batch], LayersAndFrames]

# Audio that goes through the encoder at once, padding included, seconds.
_BATCH_S = 60.0

# Added to standard deviations, which are 0 in silence.
_STD_EPS = 1e-5


def log_mel_frames(encoder: Encoder, batch: Batch) -> LayersAndFrames:
    """Put the log-mel rows under each frame of the encoder side by side.

    Returns:
        layers: one, (B, T, n F) float32, normalised over each utterance.
        num_frames: (B,) int64, valid frames.
    """
    num_frames = encoder.num_frames(batch.input_lengths)
    length = int(num_frames.max())
    features = encoder.config.features
    if features.kind == "logmel":
        stacked = encoder.stacked_log_mel(batch.inputs, batch.input_lengths, length)
        return [stacked], num_frames

    # An encoder that reads samples has no mel rows of its own, so they are computed here.
    config = FeatureConfig(sample_rate_hz=features.sample_rate_hz)
    hops_per_frame = encoder.config.samples_per_frame / config.hop
    rows_per_frame = max(1, round(hops_per_frame))
    width = rows_per_frame * config.num_mels
    out = torch.zeros(len(batch.ids), length, width)

    all_samples = batch.inputs.cpu()
    counts = zip(batch.input_lengths.tolist(), num_frames.tolist(), strict=True)
    for index, (num_samples, count) in enumerate(counts):
        samples = all_samples[index, :num_samples].numpy()
        rows = featurise(samples, config)
        mel = torch.from_numpy(rows).float()  # (U, F)

        std = mel.std(0) + _STD_EPS
        mel = (mel - mel.mean(0)) / std

        # As many rows as the frames have room for: zeros behind, or some rows fewer.
        wanted = rows_per_frame * count
        missing = max(0, wanted - len(mel))
        padded = F.pad(mel, (0, 0, 0, missing))
        fitting = padded[:wanted]
        out[index, :count] = fitting.view(count, -1)

    return [out], num_frames


def frames_of_recordings(
    dataset: Dataset, encoder: Encoder, read_frames: ReadFrames, pool: bool
) -> list[Tensor]:
    """Read the frames of each recording, in the order of the dataset.

    Args:
        pool: average over the frames of a recording.

    Returns:
        (L, T, D) float16 of each recording on the host, or with ``pool`` (L, D) float32.
    """
    device = next(encoder.parameters()).device
    max_samples = round(_BATCH_S * dataset.features.sample_rate_hz)
    num_samples = np.asarray(dataset.num_samples, dtype=np.int64)

    # Batches hold recordings of like length, so results come in another order than the dataset's.
    found: dict[int, Tensor] = {}
    for positions in length_batches(num_samples, max_samples):
        batch = dataset.batch(positions)
        layers, num_frames = read_frames(batch.to(device))
        stacked = torch.stack(layers, 1)  # (B, L, T, D)

        counts = num_frames.tolist()
        for row, count, position in zip(stacked, counts, positions, strict=True):
            valid = row[:, :count].float()
            # All frames stay in memory, so they are kept in half of it; means are few.
            kept = valid.mean(1) if pool else valid.half()
            found[position] = kept.cpu()

    return [found[position] for position in range(len(dataset))]
