"""Several voices of different level in one chunk, with and without a pause between them."""

import numpy as np
import pytest
from numpy.typing import NDArray
from support.speech import RATE, sentence, speak

from speechssl.audio.level import without_lows
from speechssl.audio.levelling import levelled
from speechssl.audio.threshold import TOP_DB, loud_spans
from speechssl.audio.turns import turns_of

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


def found_turns(samples: Samples) -> Spans:
    heard = without_lows(samples, RATE)
    return turns_of(heard, RATE, loud_spans(heard, RATE, TOP_DB))


def level_db(samples: Samples) -> float:
    return float(10 * np.log10(np.square(samples.astype(np.float64)).mean()))


@pytest.mark.parametrize("num_channels", [1, 2])
@pytest.mark.parametrize("seed", range(12))
def test_a_quieter_voice_is_raised_to_the_loudest(seed: int, num_channels: int) -> None:
    """From 12 dB below it on, whoever begins, and whether they leave a pause or not."""
    rng = np.random.default_rng(seed)
    below_db = rng.uniform(12, 28)
    pause_s = rng.choice([0.0, rng.uniform(0.05, 0.4), rng.uniform(0.4, 2)])
    levels = rng.permutation([0.0, -below_db]).tolist()
    samples, spans = conversation(rng, levels, pause_s, num_channels)
    assert len(samples) < 15 * RATE

    raised, change = levelled(samples, RATE)
    assert change.raised_db == pytest.approx(below_db, abs=3)
    first, second = (level_db(raised[start:end]) for start, end in spans)
    assert first == pytest.approx(second, abs=4)

    # The loud one stays as it is, to the last of its words.
    loud = slice(*spans[levels.index(0.0)])
    inside = slice(loud.start + RATE // 10, loud.stop - RATE // 10)
    np.testing.assert_allclose(raised[inside], samples[inside], rtol=1e-5)
    assert np.abs(raised).max() < 2 * np.abs(samples).max()


@pytest.mark.parametrize("seed", range(6))
def test_three_levels_are_three_turns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    levels = rng.permutation([0.0, -12.0, -24.0]).tolist()
    pause_s = rng.choice([0.0, 0.15, 0.6])
    samples, spans = conversation(rng, levels, pause_s)

    turns = found_turns(samples)
    assert len(turns) == 3
    for (start, end), (said_from, said_until) in zip(turns, spans, strict=True):
        assert start == pytest.approx(said_from, abs=0.35 * RATE)
        assert end == pytest.approx(said_until, abs=0.35 * RATE)


@pytest.mark.parametrize("seed", range(6))
def test_one_voice_is_one_turn_with_its_weak_words(seed: int) -> None:
    """A reader lets words fall, and speaks phrases at levels that differ a little."""
    rng = np.random.default_rng(seed)
    levels = rng.uniform(-4, 0, size=3).tolist()
    samples, spans = conversation(rng, levels, 0.2)
    weak_from = rng.integers(spans[1][0], spans[1][1] - RATE // 3)
    samples[weak_from : weak_from + RATE // 3] *= 0.3

    assert len(found_turns(samples)) == 1
    same, change = levelled(samples, RATE)
    assert same is samples
    assert change[:2] == (0, 0)
