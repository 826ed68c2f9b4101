"""What a store holds of a recording: int16 waveform or float16 log-mel, and the rule from samples to units."""

from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from speechssl.config import Settings
from speechssl.errors import AudioError

INT16_SCALE = 32768.0
LOG_FLOOR = 1e-6  # least energy of a mel bin; digital silence becomes ln(1e-6) = -13.8, well inside float16


class FeatureConfig(Settings):
    """How audio becomes the units (samples or mel frames) that a front end reads."""

    kind: Literal["logmel", "waveform"] = Field("logmel", description="what the store holds")
    sample_rate_hz: int = Field(16000, gt=0, description="rate of the resampled audio, Hz")
    num_mels: int = Field(80, gt=0, description="mel bins (logmel)")
    window_ms: float = Field(25.0, gt=0, description="analysis window, milliseconds (logmel)")
    hop_ms: float = Field(10.0, gt=0, description="step between windows, milliseconds (logmel)")

    @model_validator(mode="after")
    def _whole_samples(self) -> "FeatureConfig":
        if self.window < 1 or self.hop < 1:
            raise ValueError(
                f"window_ms {self.window_ms:g} and hop_ms {self.hop_ms:g} must each be at least one sample"
            )
        return self

    @property
    def window(self) -> int:
        """Samples of one unit's window."""
        return round(self.window_ms * self.sample_rate_hz / 1000) if self.kind == "logmel" else 1

    @property
    def hop(self) -> int:
        """Samples from one unit to the next."""
        return round(self.hop_ms * self.sample_rate_hz / 1000) if self.kind == "logmel" else 1

    @property
    def width(self) -> int:
        """Values per unit."""
        return self.num_mels if self.kind == "logmel" else 1


def num_units(num_samples: int, config: FeatureConfig) -> int:
    """Units of ``num_samples`` samples: every window lies wholly inside the audio, nothing is padded."""
    return max(0, (num_samples - config.window) // config.hop + 1)


@lru_cache
def mel_filters(config: FeatureConfig) -> tuple[Tensor, Tensor]:
    """The analysis window (W,) and the mel filters (W // 2 + 1, F), both float32."""
    filters = torchaudio.functional.melscale_fbanks(
        n_freqs=config.window // 2 + 1,
        f_min=0.0,
        f_max=config.sample_rate_hz / 2,
        n_mels=config.num_mels,
        sample_rate=config.sample_rate_hz,
        norm="slaney",
        mel_scale="slaney",
    )
    return torch.hann_window(config.window), filters


def log_mel(waveforms: Tensor, config: FeatureConfig) -> Tensor:
    """Log-mel energies, one row per window, without padding at the ends.

    Frame t depends only on samples ``t * hop`` to ``t * hop + window``, so whatever follows a recording
    in a padded batch cannot change its frames.

    Args:
        waveforms: (..., S) float32 or float64 in about -1..1, at ``config.sample_rate_hz``.

    Returns:
        (..., T, F) of the same dtype, natural log of mel-weighted power, or of ``LOG_FLOOR`` where that is larger.

    Source: Slaney's mel scale and area normalisation, Hann window, power spectrum; checked against librosa
    in test_features.py.
    """
    window, filters = (table.to(waveforms.dtype) for table in mel_filters(config))
    frames = waveforms.unfold(-1, config.window, config.hop) * window
    power = torch.fft.rfft(frames).abs().square()
    energies: Tensor = power @ filters
    return energies.clamp_min(LOG_FLOOR).log()


def featurise(samples: NDArray[np.float32], config: FeatureConfig) -> NDArray[Any]:
    """What the store keeps of one chunk; transcription passes through here too, so both see equal values.

    Args:
        samples: (S,) float32 in -1..1 at ``config.sample_rate_hz``.

    Returns:
        (S,) int16 for ``waveform``, (T, F) float16 for ``logmel``.

    Raises:
        AudioError: shorter than one window.
    """
    if num_units(len(samples), config) < 1:
        raise AudioError("too short", f"{len(samples)} samples, one window needs {config.window}")
    if config.kind == "waveform":
        rounded: NDArray[np.int16] = np.clip(np.rint(samples * INT16_SCALE), -32768, 32767).astype(np.int16)
        return rounded
    # In float64, so that every processor and the ONNX graph round to the same float16: after float32 sums in another
    # order one value in 10,000 would be its neighbour, which moves log-probabilities by up to 1e-3.
    mel: NDArray[np.float16] = log_mel(torch.from_numpy(samples).double(), config).half().numpy()
    return mel
