"""Sound without words, beside a count of every hundredth of a second."""

import numpy as np
import pytest

from speechssl.transcription.transcript import Word
from speechssl.transcription.wordless import sound_without_words

STEPS_PER_S = 100


def drawn_stretches(rng: np.random.Generator, num: int) -> list[tuple[int, int]]:
    """Disjoint stretches in order, in hundredths of a second."""
    places = np.sort(rng.choice(3000, 2 * num, replace=False)).tolist()
    return list(zip(places[::2], places[1::2], strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_every_second_of_sound_between_words_is_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sounds = drawn_stretches(rng, rng.integers(1, 20))
    said = drawn_stretches(rng, rng.integers(0, 12))

    is_sound = np.zeros(3001, bool)
    for start, end in sounds:
        is_sound[start:end] = True
    expected = []
    last = 0
    for start, end in [*said, (3001, 3001)]:
        places = last + np.flatnonzero(is_sound[last:start])
        if len(places) >= STEPS_PER_S:
            expected.append((places[0] / STEPS_PER_S, (places[-1] + 1) / STEPS_PER_S))
        last = end

    in_seconds = [(start / STEPS_PER_S, end / STEPS_PER_S) for start, end in sounds]
    words = [Word(start / STEPS_PER_S, end / STEPS_PER_S, "a", 1.0) for start, end in said]
    found = sound_without_words(in_seconds, words)
    assert np.allclose(found, expected)
    assert len(found) == len(expected)


def test_no_sound_and_no_words() -> None:
    assert sound_without_words([], []) == []
    assert sound_without_words([(0.5, 2.0)], []) == [(0.5, 2.0)]
    assert sound_without_words([(0.5, 1.4)], []) == []
