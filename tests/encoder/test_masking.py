"""Masks have the paper's statistics and stay inside their utterance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import masks

from speechssl.config import build
from speechssl.encoder.config import WAV2VEC2_CONVS
from speechssl.encoder.masking import MaskConfig, span_mask
from speechssl.errors import ConfigError

PAPER = MaskConfig(prob=0.65, length=10)


def frames_of(num_samples: int) -> int:
    for _, kernel, stride in WAV2VEC2_CONVS:
        num_samples = (num_samples - kernel) // stride + 1
    return num_samples


def test_the_papers_masked_share_and_mean_run_at_15_6_seconds() -> None:
    assert frames_of(round(15.6 * 16_000)) == 779
    rng = np.random.default_rng(0)
    share, mean_run = masks.statistics(span_mask(779, PAPER, rng) for _ in range(2000))
    assert share == pytest.approx(0.49, abs=0.004)
    assert mean_run == pytest.approx(14.7, abs=0.15)
    masked, num_runs = masks.expectation(779, 0.65, 10)
    assert (round(masked.mean(), 2), round(masked.sum() / num_runs, 1)) == (0.49, 14.7)


@pytest.mark.parametrize(
    ("num_frames", "prob", "length"), [(779, 0.65, 10), (97, 0.65, 10), (60, 0.3, 4), (49, 0.9, 3)]
)
def test_masks_have_the_exact_expectation(num_frames: int, prob: float, length: int) -> None:
    """Of each frame, of the whole, and of the runs, within about four standard errors."""
    rng, count = np.random.default_rng(6), 3000
    drawn = [span_mask(num_frames, MaskConfig(prob=prob, length=length), rng) for _ in range(count)]
    masked, num_runs = masks.expectation(num_frames, prob, length)
    np.testing.assert_allclose(np.mean(drawn, axis=0), masked, atol=4.5 * 0.5 / count**0.5)
    for found, expected in (
        ([mask.mean() for mask in drawn], masked.mean()),
        ([len(masks.runs(mask)) for mask in drawn], num_runs),
    ):
        assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / count**0.5)
    simulated = masks.statistics(masks.sample(num_frames, prob, length, rng) for _ in range(count))
    assert masks.statistics(drawn) == pytest.approx(simulated, rel=0.02)


def test_the_masked_share_does_not_depend_on_the_length() -> None:
    rng = np.random.default_rng(1)
    for num_frames in (100, 400, 1500):
        share = np.mean([span_mask(num_frames, PAPER, rng).mean() for _ in range(600)])
        assert share == pytest.approx(0.49, abs=0.02), num_frames


def test_the_number_of_spans_has_the_exact_expectation() -> None:
    """Spans of one frame cannot overlap: their number can be counted."""
    rng = np.random.default_rng(2)
    counts = [int(span_mask(33, MaskConfig(prob=0.3, length=1), rng).sum()) for _ in range(4000)]
    assert set(counts) == {9, 10}
    assert np.mean(counts) == pytest.approx(0.3 * 33, abs=0.03)


def test_every_start_is_equally_likely_up_to_the_last_frame() -> None:
    rng = np.random.default_rng(3)
    config = MaskConfig(prob=0.1, length=5, min_spans=1)
    masked = sum(span_mask(50, config, rng).astype(int) for _ in range(9200)) / 9200
    # One span of 5 in 46 places: 1/46 at the ends, 5/46 in the middle.
    expected = np.minimum(np.minimum(np.arange(1, 51), np.arange(50, 0, -1)), 5) / 46
    np.testing.assert_allclose(masked, expected, atol=0.015)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 300),
    st.floats(0, 1),
    st.integers(1, 40),
    st.integers(0, 4),
    st.integers(0, 2**32),
)
def test_spans_are_whole_inside_and_leave_a_frame(
    num_frames: int, prob: float, length: int, min_spans: int, seed: int
) -> None:
    config = MaskConfig(prob=prob, length=length, min_spans=min_spans)
    mask = span_mask(num_frames, config, np.random.default_rng(seed))
    assert mask.shape == (num_frames,)
    assert mask.dtype == bool
    assert not num_frames or not mask.all()
    own = min(length, max(1, num_frames // 3))
    assert all(run >= own for run in masks.runs(mask))
    if prob > 0 and min_spans and num_frames >= 2:
        assert mask.sum() >= own
    if prob == 0:
        assert not mask.any()
    assert (mask == span_mask(num_frames, config, np.random.default_rng(seed))).all()


def test_two_spans_at_least() -> None:
    rng = np.random.default_rng(4)
    drawn = [span_mask(60, MaskConfig(prob=0.01, length=10), rng) for _ in range(500)]
    assert max(mask.sum() for mask in drawn) == 20
    assert all(mask.sum() > 10 for mask in drawn)


@pytest.mark.parametrize(
    "wrong", [{"prob": 1.2}, {"prob": -0.1}, {"length": 0}, {"min_spans": -1}, {"share": 0.5}]
)
def test_wrong_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        build(MaskConfig, wrong)
