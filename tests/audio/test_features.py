"""Log-mel equals librosa's, units are counted exactly, and int16 loses half a step at most."""

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechssl.audio.feature_config import FeatureConfig
from speechssl.audio.features import (
    INT16_SCALE,
    LOG_FLOOR,
    featurise,
    input_length,
    log_mel,
    mel_filters,
)
from speechssl.config import build
from speechssl.errors import AudioError, ConfigError

LOGMEL = FeatureConfig()
WAVEFORM = FeatureConfig(kind="waveform")
SETTINGS = [
    LOGMEL,
    FeatureConfig(num_mels=40),
    FeatureConfig(sample_rate_hz=8000, num_mels=40),
    FeatureConfig(window_ms=32, hop_ms=20),
]


def sound(num_samples: int, seed: int = 0) -> np.ndarray:
    """Tones that rise, with noise, from loud to silent."""
    random = np.random.default_rng(seed)
    time = np.arange(num_samples) / 16_000
    tones = np.sin(2 * np.pi * (200 + 900 * time) * time) + 0.3 * np.sin(2 * np.pi * 3000 * time)
    wave = (tones + 0.1 * random.standard_normal(num_samples)) * np.linspace(
        0.5, 0, num_samples
    ) ** 2
    return wave.astype(np.float32)


@pytest.mark.parametrize("config", SETTINGS, ids=str)
def test_log_mel_equals_librosa(config: FeatureConfig) -> None:
    wave = sound(20_000)
    expected = librosa.feature.melspectrogram(
        y=wave.astype(np.float64),
        sr=config.sample_rate_hz,
        n_fft=config.window,
        hop_length=config.hop,
        window="hann",
        center=False,
        power=2.0,
        n_mels=config.num_mels,
        htk=False,
        norm="slaney",
    )
    found = log_mel(torch.from_numpy(wave), config).numpy()
    assert found.dtype == np.float32
    assert found.shape == (input_length(len(wave), config), config.num_mels)
    np.testing.assert_allclose(found, np.log(np.maximum(expected, LOG_FLOOR)).T, atol=2e-3)
    assert np.abs(found - np.log(np.maximum(expected, LOG_FLOOR)).T).mean() < 1e-5


def test_silence_is_the_floor_and_everything_fits_float16() -> None:
    silence = featurise(np.zeros(4000, dtype=np.float32), LOGMEL)
    assert silence.dtype == np.float16
    np.testing.assert_allclose(silence, np.log(LOG_FLOOR), rtol=1e-3)
    loudest = featurise(np.where(np.arange(4000) % 40 < 20, 1, -1).astype(np.float32), LOGMEL)
    assert np.isfinite(loudest).all()


def test_a_frame_depends_on_its_own_samples_only() -> None:
    wave = torch.from_numpy(sound(8000))
    before = log_mel(wave, LOGMEL)
    changed = wave.clone()
    changed[4000:] = 0.7
    after = log_mel(changed, LOGMEL)
    untouched = input_length(4000, LOGMEL)
    assert torch.equal(before[:untouched], after[:untouched])
    assert not torch.equal(before[untouched], after[untouched])
    # ... and the frame of a piece that starts at its first sample is the same frame.
    torch.testing.assert_close(log_mel(wave[160 * 7 :], LOGMEL), before[7:])


@pytest.mark.parametrize("config", [*SETTINGS, FeatureConfig(num_mels=3)], ids=str)
def test_blocks_and_bands_change_no_stored_value(config: FeatureConfig) -> None:
    """A recording much longer than a block equals one product with the whole filter matrix."""
    wave = sound(1500 * config.hop + 77)
    window, filters = (table.double() for table in mel_filters(config))
    frames = torch.from_numpy(wave).double().unfold(-1, config.window, config.hop) * window
    energies = torch.fft.rfft(frames).abs().square() @ filters
    np.testing.assert_array_equal(
        featurise(wave, config), energies.clamp_min(LOG_FLOOR).log().half().numpy()
    )
    several = torch.from_numpy(wave)[: 3 * 30_000].reshape(3, -1)
    torch.testing.assert_close(log_mel(several, config)[1], log_mel(several[1], config))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 5000), st.sampled_from([*SETTINGS, WAVEFORM]))
def test_units_are_the_windows_that_lie_inside(num_samples: int, config: FeatureConfig) -> None:
    window, hop = config.window, config.hop
    assert input_length(num_samples, config) == sum(
        t + window <= num_samples for t in range(0, num_samples, hop)
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4000), st.sampled_from([LOGMEL, WAVEFORM]))
def test_featurise_gives_exactly_that_many_units(num_samples: int, config: FeatureConfig) -> None:
    samples = np.full(num_samples, 0.1, dtype=np.float32)
    if input_length(num_samples, config) == 0:
        with pytest.raises(AudioError, match="too short"):
            featurise(samples, config)
    else:
        stored = featurise(samples, config)
        assert len(stored) == input_length(num_samples, config)
        assert stored.shape[1:] == ((config.width,) if config.kind == "logmel" else ())


@given(st.lists(st.floats(-1, 32767 / 32768, width=32), min_size=1, max_size=50))
def test_int16_loses_half_a_step_at_most(values: list[float]) -> None:
    samples = np.array(values, dtype=np.float32)
    stored = featurise(samples, WAVEFORM)
    assert stored.dtype == np.int16
    assert np.abs(stored / INT16_SCALE - samples.astype(np.float64)).max() <= 0.5 / INT16_SCALE


def test_int16_audio_survives_exactly_and_full_scale_does_not_wrap() -> None:
    every = np.arange(-32768, 32768).astype(np.int16)
    assert (featurise(every.astype(np.float32) / INT16_SCALE, WAVEFORM) == every).all()
    extremes = np.array([1.0, 1.5, -1.0, -1.5], dtype=np.float32)
    assert featurise(extremes, WAVEFORM).tolist() == [32767, 32767, -32768, -32768]


@pytest.mark.parametrize(
    "wrong", [{"hop_ms": 0.01}, {"window_ms": 0.02}, {"num_mels": 0}, {"sample_rate_hz": 0}]
)
def test_settings_without_a_whole_sample_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        build(FeatureConfig, wrong)
