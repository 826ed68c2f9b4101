"""Confidences: how far they are from the truth, and the scaling that brings them nearer."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize

from speechssl.scoring.calibration import Scaling, fit_scaling
from speechssl.scoring.score import score


@given(
    st.lists(
        st.tuples(st.text("ab ", max_size=8), st.text("ab ", max_size=8)), min_size=1, max_size=8
    ),
    st.data(),
)
def test_calibration_is_the_mean_distance_of_confidence_from_truth(
    pairs: list[tuple[str, str]], data: st.DataObject
) -> None:
    """By a plain loop, over texts of a word at most, so that there is but one alignment."""
    references = {f"u{i}": "".join(a.split())[:1] for i, (a, _) in enumerate(pairs)}
    hypotheses = {f"u{i}": "".join(b.split())[:1] for i, (_, b) in enumerate(pairs)}
    confidences = {
        name: [data.draw(st.floats(0, 1)) for _ in text.split()]
        for name, text in hypotheses.items()
    }
    found = score(references, hypotheses, confidences, num_bootstrap=1).calibration
    words = [(c, references[n] == hypotheses[n]) for n, row in confidences.items() for c in row]
    if not words:
        assert found is None
        return
    assert found is not None
    bins: dict[int, list[tuple[float, bool]]] = {}
    for c, right in words:
        bins.setdefault(min(int(c * 10), 9), []).append((c, right))
    ece = sum(
        abs(sum(c for c, _ in b) - sum(right for _, right in b)) for b in bins.values()
    ) / len(words)
    assert found.ece == pytest.approx(ece, abs=1e-9)
    assert found.num_words == len(words)
    assert [b.count for b in found.bins] == [len(bins[k]) for k in sorted(bins)]


def test_a_word_is_right_where_it_stands_in_the_reference() -> None:
    said, heard = {"a": "one two three four"}, {"a": "one two three zero four"}
    found = score(said, heard, {"a": [0.96, 0.94, 0.55, 0.15, 1.0]}).calibration
    assert found is not None
    assert [(b.low, b.confidence, b.right) for b in found.bins] == [
        (0.1, 0.15, 0), (0.5, 0.55, 1), (0.9, pytest.approx(2.9 / 3), 1)
    ]  # fmt: skip
    assert found.ece == pytest.approx((0.15 + 0.45 + 0.1) / 5)


def test_scaling_undoes_what_made_confidences_wrong() -> None:
    """Words that are right with probability p and have confidence sigmoid(2 logit(p) + 1)."""
    rng = np.random.default_rng(0)
    true = rng.uniform(0.02, 0.98, 20_000)
    right = (rng.random(len(true)) < true).tolist()
    confidences = [Scaling(2.0, 1.0)(p) for p in true]
    found = fit_scaling(confidences, right)
    assert (found.slope, found.offset) == pytest.approx((0.5, -0.5), abs=0.03)
    assert [found(c) for c in confidences] == pytest.approx(true.tolist(), abs=0.02)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=30))
def test_scaling_is_the_least_of_its_loss_and_never_turns_confidences_round(
    words: list[tuple[float, bool]],
) -> None:
    """Beside scipy's minimiser, of the same loss written down again."""
    confidences, right = [c for c, _ in words], [r for _, r in words]

    def loss(weights: NDArray[np.float64]) -> float:
        total = ((weights - [1, 0]) ** 2).sum() / 2
        for c, r in words:
            clipped = min(max(c, 1e-6), 1 - 1e-6)
            z = weights[0] * math.log(clipped / (1 - clipped)) + weights[1]
            total += math.log1p(math.exp(-abs(z))) + max(z, 0) - z * r
        return float(total)

    found = fit_scaling(confidences, right)
    if len(set(right)) < 2:
        assert found == Scaling()
    else:
        how = {
            "method": "L-BFGS-B",
            "bounds": [(0, None), (None, None)],
            "options": {"ftol": 1e-14, "gtol": 1e-9},
        }
        assert (
            loss(np.array([found.slope, found.offset]))
            <= minimize(loss, [1.0, 0.0], **how).fun + 1e-6
        )
    assert found.slope >= 0
    scaled = [found(c) for c in sorted(confidences)]
    assert scaled == sorted(scaled)
    assert all(0 <= p <= 1 for p in scaled)


def test_confidences_that_say_nothing_become_the_share_that_is_right() -> None:
    """And those that are surer where they are wrong; a steep scaling stays finite at both ends."""
    found = fit_scaling(
        [0.98] * 100 + [0.88] * 100, [True] * 60 + [False] * 40 + [True] * 80 + [False] * 20
    )
    assert found.slope == 0
    assert found(0.98) == found(0.1) == pytest.approx(0.7, abs=0.01)
    assert [Scaling(100.0, 0.0)(p) for p in (0.0, 0.5, 1.0)] == [0.0, 0.5, 1.0]


def test_no_scaling_changes_nothing() -> None:
    assert [Scaling()(p) for p in (0.0, 0.3, 1.0)] == [0.0, 0.3, 1.0]
