"""Compute what a probe reads: the layers of a frozen encoder, or log-mel rows, for each frame.

Shapes: B utterances, S samples, U mel frames, F mel bins, T frames, L layers, D width, and n
log-mel rows for each frame.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from speechssl.audio.features import FeatureConfig, featurise
from speechssl.data.collate import Batch, length_batches
from speechssl.data.dataset import Dataset
from speechssl.encoder.encoder import Encoder

# A batch -> (B, T, D) of each layer, and (B,) valid frames.
ReadFrames = Callable[[Batch], tuple[list[Tensor], Tensor]]

# Audio that goes through the encoder at once, padding included, seconds.
_BATCH_S = 60.0

# Added to standard deviations, which are 0 in silence.
_STD_EPS = 1e-5


def log_mel_frames(encoder: Encoder, batch: Batch) -> tuple[list[Tensor], Tensor]:
    """Put the log-mel rows under each frame of the encoder side by side.

    Returns:
        layers: one, (B, T, n F) float32, normalised over each utterance.
        num_frames: (B,) int64, valid frames.
    """
    num_frames = encoder.num_frames(batch.input_lengths)
    length = int(num_frames.max())
    if encoder.config.features.kind == "logmel":
        stacked = encoder.stacked_log_mel(batch.inputs, batch.input_lengths, length)
        return [stacked], num_frames

    config = FeatureConfig(sample_rate_hz=encoder.config.features.sample_rate_hz)
    rows_per_frame = max(1, round(encoder.config.samples_per_frame / config.hop))
    out = torch.zeros(len(batch.ids), length, rows_per_frame * config.num_mels)

    num_samples = batch.input_lengths.tolist()
    for index, count in enumerate(num_frames.tolist()):
        samples = batch.inputs[index, : num_samples[index]].cpu().numpy()
        mel = torch.from_numpy(featurise(samples, config)).float()  # (U, F)
        mel = (mel - mel.mean(0)) / (mel.std(0) + _STD_EPS)

        # As many rows as the frames have room for: zeros behind, or some rows fewer.
        wanted = rows_per_frame * count
        missing = max(0, wanted - len(mel))
        mel = F.pad(mel, (0, 0, 0, missing))[:wanted]
        out[index, :count] = mel.view(count, -1)

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
    limit = round(_BATCH_S * dataset.features.sample_rate_hz)
    num_samples = np.asarray(dataset.num_samples, dtype=np.int64)
    found: dict[int, Tensor] = {}

    for positions in length_batches(num_samples, limit):
        layers, num_frames = read_frames(dataset.batch(positions).to(device))
        stacked = torch.stack(layers, 1)  # (B, L, T, D)

        for row, count, position in zip(stacked, num_frames.tolist(), positions, strict=True):
            valid = row[:, :count].float()
            if pool:
                found[position] = valid.mean(1).cpu()
            else:
                found[position] = valid.half().cpu()

    return [found[position] for position in range(len(dataset))]
