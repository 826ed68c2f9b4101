"""How audio becomes features: the settings, without the library that makes them."""

from typing import Literal

from pydantic import Field, model_validator

from speechssl.config import Settings


class FeatureConfig(Settings):
    """How audio becomes the units (samples or mel frames) that a front end reads."""

    kind: Literal["logmel", "waveform"] = Field("logmel", description="what the store holds")
    sample_rate_hz: int = Field(16000, gt=0, description="rate of the resampled audio, Hz")
    num_mels: int = Field(80, gt=0, description="mel bins (logmel)")
    window_ms: float = Field(25.0, gt=0, description="analysis window, milliseconds (logmel)")
    hop_ms: float = Field(10.0, gt=0, description="step between windows, milliseconds (logmel)")

    @model_validator(mode="after")
    def _whole_samples(self) -> "FeatureConfig":
        shortest = min(self.window, self.hop)
        if shortest < 1:
            raise ValueError(
                f"window_ms {self.window_ms:g} and hop_ms {self.hop_ms:g} "
                "must each be at least one sample"
            )
        return self

    @property
    def window(self) -> int:
        """Samples of one unit's window."""
        return self._unit_samples(self.window_ms)

    @property
    def hop(self) -> int:
        """Samples from one unit to the next."""
        return self._unit_samples(self.hop_ms)

    @property
    def width(self) -> int:
        """Values per unit."""
        return self.num_mels if self.kind == "logmel" else 1

    def _unit_samples(self, milliseconds: float) -> int:
        """Convert a length to samples; a unit of a waveform is always one sample."""
        if self.kind == "waveform":
            return 1

        samples = milliseconds * self.sample_rate_hz / 1000
        return round(samples)
