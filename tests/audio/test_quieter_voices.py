"""Several voices of different level in one chunk, and one voice whose level moves."""

import numpy as np
import pytest
from numpy.typing import NDArray
from support.speech import RATE, sentence, speak

from speechssl.audio.level import without_lows
from speechssl.audio.levelling import levelled
from speechssl.audio.quieter_voices import quieter_voices_gain_db
from speechssl.audio.threshold import TOP_DB, loud_spans, loudness_db

Samples = NDArray[np.float32]
Spans = list[tuple[int, int]]


def conversation(
    rng: np.random.Generator, levels_db: list[float], pause_s: float, num_channels: int = 1
) -> tuple[Samples, Spans]:
    """Sentences, each at a level of its own, in a quiet room; each is on one of the channels."""
    parts: list[Samples] = []
    spans: Spans = []
    position = 0
    for level_db in levels_db:
        said = np.float32(10 ** (level_db / 20)) * speak(sentence(rng), rng)
        pause = np.zeros(round(pause_s * RATE), np.float32)
        parts += [said, pause]
        spans.append((position, position + len(said)))
        position += len(said) + len(pause)

    mono = np.concatenate(parts)
    channels = 1e-5 * rng.standard_normal((len(mono), num_channels))
    for number, (start, end) in enumerate(spans):
        channels[start:end, number % num_channels] += mono[start:end]
    return channels.mean(axis=1).astype(np.float32), spans


def moving_level(rng: np.random.Generator, num_samples: int) -> NDArray[np.float32]:
    """A gain (S,) that swells and fades, or fades once: a speaker who turns, or walks away."""
    time = np.arange(num_samples) / RATE
    if rng.random() < 0.5:
        moved_db = rng.uniform(4, 15) * np.sin(2 * np.pi * time / rng.uniform(2, 8))
    else:
        moved_db = rng.uniform(-45, 0) * time / time[-1]
        if rng.random() < 0.5:
            moved_db = moved_db[::-1]
    return (10 ** (moved_db / 20)).astype(np.float32)


def levels_db(samples: Samples, spans: Spans) -> list[float]:
    """The level of each span, dB of full scale."""
    powers = [np.square(samples[start:end].astype(np.float64)).mean() for start, end in spans]
    return (10 * np.log10(powers)).tolist()


def gain_of(samples: Samples) -> NDArray[np.float64]:
    heard = without_lows(samples, RATE)
    return quieter_voices_gain_db(heard, RATE, loud_spans(heard, RATE, TOP_DB))


@pytest.mark.parametrize("num_channels", [1, 2])
@pytest.mark.parametrize("seed", range(12))
def test_a_quieter_voice_is_raised_near_the_loudest(seed: int, num_channels: int) -> None:
    """From 8 dB below it on, whoever begins, and whether they leave a pause or not."""
    rng = np.random.default_rng(seed)
    below_db = rng.uniform(8, 40)
    pause_s = rng.choice([0.0, rng.uniform(0.05, 0.4), rng.uniform(0.4, 2)])
    levels = rng.permutation([0.0, -below_db]).tolist()
    samples, spans = conversation(rng, levels, pause_s, num_channels)
    assert len(samples) < 15 * RATE

    raised, change = levelled(samples, RATE)
    assert 0 < change.raised_db <= below_db
    first_db, second_db = levels_db(raised, spans)
    assert abs(first_db - second_db) < 8

    # The loud one stays as it is.
    start, end = spans[levels.index(0.0)]
    inside = slice(start + RATE // 4, end - RATE // 4)
    np.testing.assert_allclose(raised[inside], samples[inside], rtol=0.1)


@pytest.mark.parametrize("seed", range(8))
def test_a_quieter_voice_is_raised_out_of_hum(seed: int) -> None:
    """Of harmonics that are louder than it, though below the louder voice."""
    rng = np.random.default_rng(seed)
    below_db = rng.uniform(15, 30)
    samples, _ = conversation(rng, [0.0, -below_db], 0.5)
    time = np.arange(len(samples)) / RATE
    hum_hz = rng.choice([100, 120, 150])
    hum_level = 10 ** (rng.uniform(-40, -25) / 20)
    hum = hum_level * np.sin(2 * np.pi * hum_hz * time + rng.uniform(0, 6))

    _, change = levelled(samples, RATE)
    _, with_hum = levelled(samples + hum.astype(np.float32), RATE)
    assert with_hum.raised_db == pytest.approx(change.raised_db, abs=3)


@pytest.mark.parametrize("seed", range(6))
def test_three_levels_come_near_each_other(seed: int) -> None:
    rng = np.random.default_rng(seed)
    levels = rng.permutation([0.0, -15.0, -30.0]).tolist()
    pause_s = rng.choice([0.0, 0.15, 0.6])
    samples, spans = conversation(rng, levels, pause_s)

    raised, _ = levelled(samples, RATE)
    raised_levels_db = levels_db(raised, spans)
    assert max(raised_levels_db) - min(raised_levels_db) < 9


@pytest.mark.parametrize("seed", range(12))
def test_a_voice_whose_level_moves_comes_out_more_even(seed: int) -> None:
    """Whatever its course, and however short the pauses: no part is lost, none is overdriven."""
    rng = np.random.default_rng(seed)
    samples, spans = conversation(rng, [0.0] * 5, rng.uniform(0, 0.6))
    samples *= moving_level(rng, len(samples))

    raised, _ = levelled(samples, RATE)
    before_db = levels_db(samples, spans)
    after_db = levels_db(raised, spans)
    range_before_db = max(before_db) - min(before_db)
    range_after_db = max(after_db) - min(after_db)
    assert range_after_db < max(9, range_before_db + 0.1)
    assert np.abs(raised).max() < 1.05 * np.abs(samples).max()


@pytest.mark.parametrize("seed", range(30))
def test_a_gain_lifts_nothing_above_the_loudest_and_never_jumps(seed: int) -> None:
    """Of any levels, courses, pauses and noise."""
    rng = np.random.default_rng(seed)
    levels = rng.uniform(-40, 0, size=rng.integers(1, 6)).tolist()
    samples, _ = conversation(rng, levels, rng.choice([0.0, rng.uniform(0, 1.5)]))
    if rng.random() < 0.5:
        samples *= moving_level(rng, len(samples))
    noise_level = 10 ** (rng.uniform(-80, -40) / 20)
    samples += (noise_level * rng.standard_normal(len(samples))).astype(np.float32)

    gain_db = gain_of(samples)
    assert gain_db.shape == samples.shape
    assert gain_db.min() >= 0
    assert np.abs(np.diff(gain_db)).max() * RATE < 60.01

    heard = without_lows(samples, RATE)
    before_db = loudness_db(heard, RATE)
    after_db = loudness_db(heard * 10 ** (gain_db / 20), RATE)
    is_raised = after_db > before_db + 0.1
    loudest_db = np.sort(before_db)[-30]
    assert after_db[is_raised].max(initial=-np.inf) < loudest_db - 3


@pytest.mark.parametrize("seed", range(6))
def test_one_voice_stays_as_it_is_with_its_weak_words(seed: int) -> None:
    """A reader lets words fall, and speaks phrases at levels that differ a little."""
    rng = np.random.default_rng(seed)
    levels = rng.uniform(-4, 0, size=3).tolist()
    samples, spans = conversation(rng, levels, 0.2)
    weak_from = rng.integers(spans[1][0], spans[1][1] - RATE // 3)
    samples[weak_from : weak_from + RATE // 3] *= 0.3

    same, change = levelled(samples, RATE)
    assert same is samples
    assert change[:2] == (0, 0)


@pytest.mark.parametrize("seed", range(8))
def test_noise_alone_is_no_quieter_voice(seed: int) -> None:
    """Not even where it comes and goes a little, or ends before the recording does."""
    rng = np.random.default_rng(seed)
    samples, _ = conversation(rng, [0.0], 0.0)
    noise = 10 ** (rng.uniform(-70, -40) / 20) * rng.standard_normal(6 * RATE)
    time = np.arange(len(noise)) / RATE
    noise *= 10 ** (0.1 * np.sin(2 * np.pi * time / rng.uniform(0.2, 2)))
    noise[rng.integers(4 * RATE, 6 * RATE) :] = 0
    whole = np.concatenate([samples, noise.astype(np.float32)])

    assert gain_of(whole).max() == 0


def test_nothing_is_raised_of_silence() -> None:
    assert quieter_voices_gain_db(np.zeros(RATE), RATE, []).max() == 0
