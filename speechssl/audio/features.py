"""What a store holds of a recording: int16 waveform or float16 log-mel features.

The unit of a store is a sample of a waveform or a frame of log-mel features. ``input_length`` is
the rule from samples to units.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray
from torch import Tensor

from speechssl.audio.feature_config import FeatureConfig
from speechssl.errors import AudioError

INT16_SCALE = 32768.0
# Least energy of a mel bin: digital silence becomes ln(1e-6) = -13.8, well inside float16.
LOG_FLOOR = 1e-6
_BLOCK = 512  # windows that are worked on together: 1.6 MB in float64
# A mel filter hears few frequencies: a product with all of them would be mostly zeros. Ten parts
# are also so small that numpy's library does not start threads for them, which would disturb the
# other processes of ``prepare``.
_NUM_BANDS = 10


def input_length(num_samples: int, config: FeatureConfig) -> int:
    """Count the units of ``num_samples`` samples.

    Every window lies wholly inside the audio; nothing is padded.
    """
    # Negative, where not even the first window fits.
    hops_after_first = (num_samples - config.window) // config.hop
    return max(0, hops_after_first + 1)


def featurise(samples: NDArray[np.float32], config: FeatureConfig) -> NDArray[Any]:
    """Compute what the store keeps of one chunk.

    Transcription passes through here too, so both see equal values.

    Args:
        samples: (S,) float32 in -1..1 at ``config.sample_rate_hz``.

    Returns:
        (S,) int16 for ``waveform``, (T, F) float16 for ``logmel``.

    Raises:
        AudioError: shorter than one window.
    """
    num_samples = len(samples)
    if num_samples < config.window:
        raise AudioError("too short", f"{num_samples} samples, one window needs {config.window}")

    if config.kind == "waveform":
        rounded = np.rint(samples * INT16_SCALE)
        in_range = np.clip(rounded, -32768, 32767)
        waveform: NDArray[np.int16] = in_range.astype(np.int16)
        return waveform

    # In float64, so that every processor and the ONNX graph round to the same float16: after
    # float32 sums in another order one value in 10,000 would be its neighbour, which moves
    # log-probabilities by up to 1e-3.
    precise = torch.from_numpy(samples).double()
    mel = log_mel(precise, config)
    stored: NDArray[np.float16] = mel.half().numpy()
    return stored


def log_mel(waveforms: Tensor, config: FeatureConfig) -> Tensor:
    """Compute log-mel energies, one row per window, without padding at the ends.

    Frame t depends only on samples ``t * hop`` to ``t * hop + window``, so whatever follows a
    recording in a padded batch cannot change its frames.

    Args:
        waveforms: (..., S) float32 or float64 in about -1..1, at ``config.sample_rate_hz``.

    Returns:
        (..., T, F) of the same dtype, natural log of mel-weighted power, or of ``LOG_FLOOR`` where
        that is larger.

    Source: Slaney's mel scale and area normalisation, Hann window, power spectrum; checked against
    librosa in test_features.py.
    """
    windows = waveforms.unfold(-1, config.window, config.hop)  # (..., T, W)
    blocks = torch.split(windows, _BLOCK, dim=-2)
    rows = [_log_mel(block, config) for block in blocks]
    return torch.cat(rows, dim=-2)


@lru_cache
def mel_filters(config: FeatureConfig) -> tuple[Tensor, Tensor]:
    """Return the analysis window (W,) and the mel filters (W // 2 + 1, F), both float32."""
    num_frequencies = config.window // 2 + 1
    nyquist_hz = config.sample_rate_hz / 2
    filters = torchaudio.functional.melscale_fbanks(
        n_freqs=num_frequencies,
        f_min=0.0,
        f_max=nyquist_hz,
        n_mels=config.num_mels,
        sample_rate=config.sample_rate_hz,
        norm="slaney",
        mel_scale="slaney",
    )
    window = torch.hann_window(config.window)
    return window, filters


class _Band(NamedTuple):
    """A part of the mel filters: neighbours, without the frequencies that none of them hears.

    ``rows`` and ``columns`` are its place in the whole matrix: its frequencies and its mel bins.
    """

    rows: slice
    columns: slice
    filters: NDArray[Any]


def _log_mel(windows: Tensor, config: FeatureConfig) -> Tensor:
    """Compute rows (..., T, F) of windows (..., T, W) that are few enough to stay in the cache."""
    window, bands = _bands(config, windows.dtype)

    spectrum = torch.fft.rfft(windows * window)  # (..., T, W // 2 + 1)
    real, imaginary = torch.view_as_real(spectrum).unbind(-1)
    power = torch.addcmul(real * real, imaginary, imaginary).numpy()

    *leading, _ = power.shape
    energies = np.empty((*leading, config.num_mels), power.dtype)
    for rows, columns, filters in bands:
        heard = power[..., rows]
        # numpy's product: for so narrow a matrix torch's takes three times as long.
        np.matmul(heard, filters, out=energies[..., columns])

    mel = torch.from_numpy(energies)
    return mel.clamp_min_(LOG_FLOOR).log_()


@lru_cache
def _bands(config: FeatureConfig, dtype: torch.dtype) -> tuple[Tensor, list[_Band]]:
    """Part the mel filters into bands, and return the window (W,) and them."""
    window, filters = mel_filters(config)
    window = window.to(dtype)
    filters = filters.to(dtype)

    num_bands = min(_NUM_BANDS, config.num_mels)
    mel_bins = np.arange(config.num_mels)

    bands = []
    for part_of_bins in np.array_split(mel_bins, num_bands):
        numbers = part_of_bins.tolist()
        columns = slice(numbers[0], numbers[-1] + 1)

        is_heard = filters[:, columns].any(dim=1)
        heard = is_heard.nonzero().flatten().tolist()
        if not heard:
            # Narrow filters may hear no frequency at all: such a band gets one row of zeros.
            heard = [0]
        rows = slice(heard[0], heard[-1] + 1)

        part = filters[rows, columns].contiguous()
        band = _Band(rows, columns, part.numpy())
        bands.append(band)

    return window, bands
