"""Cuts at pauses: ordered, within their bounds, where it is quietest."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.audio_bytes import noise
from support.speech import RATE

from speechssl.audio.silence import MARGIN_S, PAUSE_S, speech_intervals, split_at_silence
from speechssl.errors import ConfigError


def speech_like(pattern: list[tuple[float, float]]) -> NDArray[np.float32]:
    """Noise of the given levels and lengths in seconds, end to end."""
    return np.concatenate(
        [level * noise(length, seed=k) * 10 for k, (level, length) in enumerate(pattern)]
    )


levels = st.tuples(st.sampled_from([0.0, 1e-4, 0.01, 0.1]), st.floats(0.01, 9))


def test_chunks_follow_the_pauses() -> None:
    quiet = 1e-5
    samples = speech_like(
        [(quiet, 2), (0.1, 3), (quiet, 0.3), (0.1, 2), (quiet, 3), (0.1, 0.4), (quiet, 3), (0.1, 4)]
    )
    chunks = split_at_silence(samples, RATE, 2.0, 15.0)
    seconds = [(a / RATE, b / RATE) for a, b in chunks]
    assert (
        len(seconds) == 2
    )  # the short pause is kept, the long ones are not, 0.4 s of speech cannot reach 2 s
    np.testing.assert_allclose(seconds, [(1.9, 7.4), (13.6, 17.7)], atol=0.05)
    assert len(split_at_silence(samples, RATE, 0.5, 15.0)) == 3


def test_a_short_utterance_takes_silence_around_it() -> None:
    samples = speech_like([(1e-5, 2), (0.1, 1.4), (1e-5, 2)])
    ((start, end),) = split_at_silence(samples, RATE, 2.0, 15.0)
    assert end - start == 2 * RATE
    assert start < 2 * RATE < 3.4 * RATE < end


def test_long_speech_is_cut_where_it_is_quietest() -> None:
    samples = speech_like(
        [(0.1, 13), (0.01, 0.1), (0.1, 12)]
    )  # 20 dB lower: no silence, but the best place
    chunks = split_at_silence(samples, RATE, 2.0, 15.0)
    assert len(chunks) == 2
    assert chunks[0][1] == chunks[1][0]
    assert chunks[0][1] / RATE == pytest.approx(13.05, abs=0.06)


@pytest.mark.parametrize("level", [0.0, 1e-6, 5e-4])
def test_silence_gives_nothing(level: float) -> None:
    samples = np.clip(level * noise(10) * 10, -level, level)
    assert split_at_silence(samples, RATE, 2.0, 15.0) == []
    assert split_at_silence(samples[:0], RATE, 2.0, 15.0) == []


@given(
    st.lists(levels, min_size=1, max_size=8),
    st.floats(0.1, 3),
    st.floats(1.0, 6),
    st.sampled_from([8000, 16000]),
)
@example([(0.01, 1.0)], 0.375, 1.09375, 8000)  # fewer than five frames to choose the cut from
@example([(0.0, 1.0), (0.0, 1.40625), (0.0001, 9.0), (0.0, 1.0), (0.01, 1.0)], 2.1640625, 1.0, 8000)
@settings(max_examples=60, deadline=None)
def test_chunks_are_ordered_disjoint_and_within_bounds(
    pattern: list[tuple[float, float]], low: float, factor: float, rate: int
) -> None:
    samples = speech_like(pattern)
    chunks = split_at_silence(samples, rate, low, low * factor)
    edges = [edge for chunk in chunks for edge in chunk]
    assert edges == sorted(edges)
    assert all(0 <= a < b <= len(samples) for a, b in chunks)
    assert all(round(low * rate) <= b - a <= round(low * factor * rate) for a, b in chunks)
    spans = speech_intervals(samples, rate)
    assert all(a < b for a, b in spans)
    assert all(x[1] <= y[0] for x, y in pairwise(spans))
    speech = np.zeros(len(samples), bool)
    for a, b in spans:
        speech[a:b] = True
    # Short pauses stay inside of speech.
    pause = round((PAUSE_S - 2 * MARGIN_S) * rate)
    for (_, end), (start, _) in pairwise(spans):
        if start - end < pause:
            speech[end:start] = True
    assert all(
        2 * speech[a:b].sum() >= b - a - 2 for a, b in chunks
    )  # never more silence than speech


def test_chunk_bounds_are_checked() -> None:
    bad: list[Callable[[], object]] = [
        lambda: split_at_silence(noise(1), RATE, 3.0, 2.0),
        lambda: split_at_silence(noise(1), RATE, -1.0, 2.0),
    ]
    for call in bad:
        with pytest.raises(ConfigError, match="minimum"):
            call()
