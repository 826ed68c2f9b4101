"""Decisions by level: the same whatever offset, hum and loudness a recording has."""

import numpy as np
import pytest
from numpy.typing import NDArray
from support.speech import RATE, sentence, speak

from speechssl.audio.level import is_silent, peak_of, without_lows
from speechssl.audio.levelling import levelled
from speechssl.audio.silence import is_steady, speech_intervals

Samples = NDArray[np.float32]


def spoken(seed: int, pause_s: float = 1.0, num_turns: int = 2) -> tuple[Samples, list[int]]:
    """Sentences with pauses around them, and where each begins and ends."""
    rng = np.random.default_rng(seed)
    pause = 1e-4 * rng.standard_normal(round(pause_s * RATE))
    parts = [pause]
    bounds = []
    for _ in range(num_turns):
        start = sum(map(len, parts))
        parts += [speak(sentence(rng), rng), pause]
        bounds += [start, sum(map(len, parts)) - len(pause)]
    return np.concatenate(parts).astype(np.float32), bounds


def hum(num_samples: int, hz: float, level: float, phase: float) -> Samples:
    time = np.arange(num_samples) / RATE
    return (level * np.sin(2 * np.pi * hz * time + phase)).astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
def test_offset_and_hum_hide_no_pause_and_no_speech(seed: int) -> None:
    samples, _ = spoken(seed)
    rng = np.random.default_rng(seed)
    offset = rng.uniform(-1, 1)
    # A railway's mains and rumble of 25 Hz lie below speech as 50 and 60 Hz do.
    low = hum(len(samples), rng.choice([16.7, 25, 50, 60]), rng.uniform(0.1, 1), rng.uniform(0, 6))
    disturbed = samples + np.float32(offset) + low

    expected = speech_intervals(samples, RATE)
    found = speech_intervals(disturbed, RATE)
    assert len(found) == len(expected)
    assert np.abs(np.subtract(found, expected)).max() <= 0.03 * RATE
    assert not is_steady(disturbed, RATE)


def mains_hum(rng: np.random.Generator, num_samples: int, level: float) -> Samples:
    """Mains hum with harmonics, of which the second is the strongest, as behind a rectifier."""
    mains_hz = rng.choice([50, 60])
    total = np.zeros(num_samples, np.float32)
    for harmonic in range(1, 6):
        share = 1 if harmonic == 2 else rng.uniform(0, 0.5)
        # Within speech's own frequencies, but below what tells words apart.
        if harmonic * mains_hz < 290:
            total += hum(num_samples, harmonic * mains_hz, share * level, rng.uniform(0, 6))
    return total


@pytest.mark.parametrize("seed", range(8))
def test_speech_under_the_harmonics_of_hum_is_not_steady(seed: int) -> None:
    """Of a hum louder than the speech too; the hum alone is steady, and so is hiss."""
    rng = np.random.default_rng(seed)
    samples, _ = spoken(seed)
    disturbance = mains_hum(rng, len(samples), rng.uniform(0.3, 1))
    hiss = (1e-3 * rng.standard_normal(len(samples))).astype(np.float32)

    assert not is_steady(samples + disturbance, RATE)
    assert is_steady(disturbance + hiss, RATE)
    assert is_steady(hiss, RATE)


@pytest.mark.parametrize("seed", range(4))
def test_what_lies_below_speech_is_silence_by_itself(seed: int) -> None:
    rng = np.random.default_rng(seed)
    nothing = np.full(3 * RATE, rng.uniform(-1, 1), np.float32)
    only_hum = nothing + hum(len(nothing), rng.choice([20, 50, 60]), 0.5, rng.uniform(0, 6))
    for samples in (nothing, only_hum):
        assert is_silent(samples, RATE)
        assert speech_intervals(samples, RATE) == []


def test_without_lows_leaves_speech_as_it_is() -> None:
    for rate in (8000, 16_000, 44_100):
        for hz, least, most in (
            (50, 0, 0.001),
            (60, 0, 0.001),
            (151, 0.98, 1.02),
            (997, 0.99, 1.01),
        ):
            tone = np.sin(2 * np.pi * hz * np.arange(rate) / rate).astype(np.float32)
            assert least <= peak_of(without_lows(tone, rate)[rate // 5 :]) <= most
    # Rates at which nothing of a voice would be left, and channels.
    assert np.allclose(without_lows(np.full(50, 0.3, np.float32), 200), 0)
    both = np.stack([tone, -tone], axis=1)
    np.testing.assert_array_equal(without_lows(both, 44_100)[:, 0], without_lows(tone, 44_100))


@pytest.mark.parametrize("seed", range(4))
def test_a_quiet_speaker_beside_a_loud_one_is_speech(seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples, bounds = spoken(seed, pause_s=rng.uniform(0.3, 2), num_turns=5)
    factor = np.float32(10 ** (-rng.uniform(30, 40) / 20))
    turns = list(zip(bounds[::2], bounds[1::2], strict=True))
    for start, end in turns[1::2]:
        samples[start:end] *= factor

    is_speech = np.zeros(len(samples), bool)
    for start, end in speech_intervals(samples, RATE):
        is_speech[start:end] = True
    expected = np.zeros(len(samples), bool)
    for start, end in turns:
        expected[start:end] = True
    assert is_speech[expected].mean() > 0.97

    # Features hear both speakers at like levels.
    raised, change = levelled(samples, RATE)
    assert 20 < change.raised_db <= 60
    assert change.lowered_db == 0
    levels = [np.abs(raised[start:end]).max() for start, end in turns]
    assert max(levels) < 3 * min(levels)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("num_channels", [1, 2])
def test_a_quiet_speaker_near_the_noise_is_raised(seed: int, num_channels: int) -> None:
    """On a channel of her own too: the mean of both halves her voice, and adds up the noise."""
    rng = np.random.default_rng(seed)
    samples, bounds = spoken(seed, pause_s=rng.uniform(0.5, 1))
    quiet = slice(*bounds[2:])
    factor = 10 ** (-rng.uniform(35, 40) / 20)
    level = factor * np.sqrt(np.square(samples[quiet]).mean())
    channels = np.zeros((len(samples), num_channels))
    channels[: bounds[1], 0] = samples[: bounds[1]]
    channels[quiet, -1] = factor * samples[quiet]
    # The mean of two channels has 3 dB less of her above the noise.
    below_db = rng.uniform(10, 14) + 3 * (num_channels - 1)
    noise = level * 10 ** (-below_db / 20) * rng.standard_normal(channels.shape)
    mixed = (channels + noise).mean(axis=1).astype(np.float32)

    raised, change = levelled(mixed, RATE)
    assert change.raised_db == pytest.approx(-20 * np.log10(factor), abs=6)
    loud, soft = (np.square(raised[part]).mean() for part in (slice(*bounds[:2]), quiet))
    assert 0.2 < soft / loud < 5


@pytest.mark.parametrize("seed", range(3))
def test_one_bang_hides_no_quiet_speech(seed: int) -> None:
    samples, bounds = spoken(seed)
    quiet = np.float32(0.01) * samples
    with_bang = quiet.copy()
    middle = (bounds[1] + bounds[2]) // 2
    with_bang[middle : middle + 800] = 0.9

    is_speech = np.zeros(len(samples), bool)
    for start, end in speech_intervals(with_bang, RATE):
        is_speech[start:end] = True
    for start, end in zip(bounds[::2], bounds[1::2], strict=True):
        assert is_speech[start:end].mean() > 0.97
    # The bang does not decide the level of the speech either.
    raised, _ = levelled(with_bang, RATE)
    assert np.abs(raised[bounds[0] : bounds[1]]).max() > 0.02


def test_a_chunk_of_usual_level_stays_as_it_is() -> None:
    for seed in range(3):
        samples, _ = spoken(seed)
        result, change = levelled(samples, RATE)
        assert result is samples
        assert change[:2] == (0, 0)
    zeros = np.zeros(100, np.float32)
    result, change = levelled(zeros, RATE)
    assert result is zeros
    assert change[:2] == (0, 0)


@pytest.mark.parametrize("level", [1e-3, 1e-2, 1.0, 50.0, 3e4])
def test_any_level_gives_the_same_speech(level: float) -> None:
    samples, _ = spoken(1)
    scaled = np.float32(level) * samples
    heard = without_lows(samples, RATE)
    offset = np.float32(level)
    strong_hum = hum(len(samples), 50, 2 * level, 1.0)
    # Strong hum is taken out by the filter itself, which also moves the phases of speech.
    cases = [(scaled, samples), (scaled + offset, samples), (scaled + strong_hum, heard)]

    for disturbed, wanted in cases:
        result, _ = levelled(disturbed, RATE)
        assert 0.02 < peak_of(result) <= 1
        correlation = np.corrcoef(result[RATE:], wanted[RATE:])[0, 1]
        assert correlation > 0.99
