"""A bang beside speech changes little of what is heard of the speech."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt
from support.speech import RATE, sentence, speak

from speechssl.audio.bangs import bang_gain_db
from speechssl.audio.feature_config import FeatureConfig
from speechssl.audio.features import featurise
from speechssl.audio.level import speech_level_db, without_lows
from speechssl.audio.levelling import levelled
from speechssl.encoder.loudness import speech_level

Samples = NDArray[np.float32]


def make_bang(draws: np.random.Generator, kind: str) -> NDArray[np.float64]:
    """A short sound with a peak of 1."""
    length = round(draws.uniform(0.01, 0.12) * RATE)
    time = np.arange(length) / RATE
    if kind == "door":
        bang = draws.standard_normal(length) * np.exp(-20 * time)
    elif kind == "thump":
        bang = np.sin(2 * np.pi * draws.uniform(120, 300) * time)
    elif kind == "beep":
        bang = np.sin(2 * np.pi * draws.uniform(800, 3000) * time)
    else:
        bang = np.zeros(length)
        bang[: length // 10] = 1
    return bang / np.abs(bang).max()


def quiet_speech(draws: np.random.Generator, highest_hz: float = 5000) -> Samples:
    """Noise with the spectrum and the rhythm of a voice, peaks of 0.02, in noise of -80 dBFS."""
    length = round(draws.uniform(3, 8) * RATE)
    sections = butter(2, [200, highest_hz], "bandpass", fs=RATE, output="sos")
    coloured = sosfilt(sections, draws.standard_normal(length))
    syllables = np.sin(2 * np.pi * draws.uniform(1.5, 3) * np.arange(length) / RATE)
    voice = coloured * syllables.clip(0) ** 2

    voice *= 0.02 / np.abs(voice).max()
    return (voice + 1e-4 * draws.standard_normal(length)).astype(np.float32)


def level_of_rows(samples: Samples) -> float:
    rows = torch.from_numpy(featurise(samples, FeatureConfig())).float()
    return float(speech_level(rows[None], torch.tensor([len(rows)])))


@pytest.mark.parametrize("kind", ["door", "thump", "beep", "click"])
@pytest.mark.parametrize("seed", range(2))
def test_a_bang_leaves_the_level_of_the_speech_as_it_is(kind: str, seed: int) -> None:
    draws = np.random.default_rng([seed, len(kind)])
    clean = quiet_speech(draws)
    with_bangs = clean.copy()
    is_bang = np.zeros(len(clean), bool)
    for _ in range(draws.integers(1, 3)):
        bang = draws.uniform(0.3, 0.95) * make_bang(draws, kind)
        start = draws.integers(0, len(clean) - len(bang))
        with_bangs[start : start + len(bang)] += bang.astype(np.float32)
        is_bang[max(0, start - RATE // 2) : start + len(bang) + RATE // 2] = True

    expected, _ = levelled(clean, RATE)
    found, _ = levelled(with_bangs, RATE)
    assert abs(level_of_rows(found) - level_of_rows(expected)) < 0.7
    # A gain of its own for the whole chunk is all that the speech elsewhere may have.
    away = ~is_bang
    ratio = np.vdot(found[away], expected[away]) / np.vdot(expected[away], expected[away])
    assert 0.7 < ratio < 1.4
    np.testing.assert_allclose(found[away], ratio * expected[away], atol=0.003)


@pytest.mark.parametrize("seed", range(6))
def test_a_noise_of_all_frequencies_need_not_be_loud(seed: int) -> None:
    """In log-mel rows it is far louder than a voice of the same energy."""
    draws = np.random.default_rng(seed)
    clean = quiet_speech(draws, highest_hz=1000)
    length = round(draws.uniform(0.05, 0.2) * RATE)
    start = draws.integers(0, len(clean) - length)

    level = speech_level_db(without_lows(clean, RATE), RATE)
    rise = draws.uniform(6, 11)
    burst = 10 ** ((level + rise) / 20) * draws.standard_normal(length)
    with_burst = clean.copy()
    with_burst[start : start + length] += burst.astype(np.float32)
    assert level_of_rows(with_burst) - level_of_rows(clean) > 0.7

    expected, _ = levelled(clean, RATE)
    found, change = levelled(with_burst, RATE)
    assert change.lowered_db > 12
    assert abs(level_of_rows(found) - level_of_rows(expected)) < 0.7


@pytest.mark.parametrize("rate", [2000, 8000, 11_025, 22_050, 48_000])
def test_bangs_are_found_at_every_rate(rate: int) -> None:
    """At low rates the usual bins would be empty, which is a warning and so a failure here."""
    draws = np.random.default_rng(rate)
    voice = 0.01 * draws.standard_normal(3 * rate)
    voice[: rate // 2] /= 100  # a pause
    assert bang_gain_db(voice, rate) is None

    with_bang = voice.copy()
    with_bang[rate : rate + rate // 10] *= 30
    gain_db = bang_gain_db(with_bang, rate)
    assert gain_db is not None
    assert gain_db.shape == voice.shape
    assert gain_db[rate + rate // 20] < -20
    assert (gain_db[2 * rate :] == 0).all()


def test_without_it_a_bang_would_move_the_level() -> None:
    draws = np.random.default_rng(5)
    clean = quiet_speech(draws)
    with_bang = clean.copy()
    with_bang[20_000:21_500] += 0.9 * draws.uniform(-1, 1, 1500).astype(np.float32)
    assert level_of_rows(with_bang) - level_of_rows(clean) > 3


@pytest.mark.parametrize("seed", range(3))
def test_no_speech_is_taken_for_a_bang(seed: int) -> None:
    """A word alone, a nearer voice, and a bang where nobody speaks."""
    draws = np.random.default_rng(seed)
    noise = 1e-4 * draws.standard_normal(4 * RATE)
    word = speak("ab"[: draws.integers(1, 3)], draws)

    word_alone = noise.copy()
    word_alone[RATE : RATE + len(word)] += word

    near = 30 * speak(sentence(draws, words=1), draws)
    two_voices = np.concatenate([quiet_speech(draws), near, quiet_speech(draws)])

    nobody = noise.copy()
    nobody[2 * RATE : 2 * RATE + 800] += 0.5 * draws.uniform(-1, 1, 800)

    for samples in (word_alone, two_voices, nobody, quiet_speech(draws), np.zeros(RATE), noise[:9]):
        heard = without_lows(samples.astype(np.float32), RATE)
        assert bang_gain_db(heard, RATE) is None
