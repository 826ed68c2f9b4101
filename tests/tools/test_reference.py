"""The references are right: against enumeration, finite differences, torch and torchaudio."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from reference import ctc, edit_distance, masks, negatives, quantizer
from reference.beam_search import prefix_beam_search
from reference.differences import numerical_gradient
from torchaudio.models.decoder import ctc_decoder

Array = NDArray[np.float64]
UNITS = st.lists(st.sampled_from("abc"), max_size=5)


def random_probs(num_frames: int, size: int, seed: int, peaky: float = 2.0) -> Array:
    return quantizer.softmax(
        peaky * np.random.default_rng(seed).standard_normal((num_frames, size))
    )


# --- masks ----------------------------------------------------------------------------------------


def test_runs_and_statistics_by_hand() -> None:
    one, other = np.array([1, 1, 0, 1, 0, 0, 1, 1, 1], dtype=bool), np.array([0, 1, 0], dtype=bool)
    assert masks.runs(one) == [2, 1, 3]
    assert masks.runs(~one) == [1, 2]
    assert masks.runs(np.ones(4, dtype=bool)) == [4]
    assert masks.statistics([one, other]) == (7 / 12, 7 / 4)


@pytest.mark.parametrize(
    ("num_frames", "count", "length"),
    [(9, 2, 3), (9, 3, 3), (8, 1, 1), (8, 4, 1), (10, 3, 2), (7, 2, 6)],
)
def test_the_expectation_of_masks_is_the_mean_over_every_choice_of_starts(
    num_frames: int, count: int, length: int
) -> None:
    every = []
    for starts in combinations(range(num_frames - length + 1), count):
        mask = np.zeros(num_frames, dtype=bool)
        for start in starts:
            mask[start : start + length] = True
        every.append(mask)
    masked, num_runs = masks.expectation(num_frames, count * length / num_frames, length)
    np.testing.assert_allclose(masked, np.mean(every, axis=0), atol=1e-12)
    assert num_runs == pytest.approx(np.mean([len(masks.runs(mask)) for mask in every]))


def test_sampled_masks_have_the_expectation() -> None:
    rng = np.random.default_rng(0)
    masked, num_runs = masks.expectation(60, 0.65, 7)  # 5.57 spans: rounded up and down
    drawn = [masks.sample(60, 0.65, 7, rng) for _ in range(6000)]
    np.testing.assert_allclose(np.mean(drawn, axis=0), masked, atol=0.03)
    share, mean_run = masks.statistics(drawn)
    assert share == pytest.approx(masked.mean(), abs=0.004)
    assert mean_run == pytest.approx(masked.sum() / num_runs, abs=0.15)


# --- negatives ------------------------------------------------------------------------------------

TWO_ROWS = np.array([[1, 0, 1, 1, 0], [0, 1, 1, 0, 0]], dtype=bool)
SLOTS = np.array([[0, 2, 3], [6, 7, 0]])
VALID = np.array([[True, True, True], [True, True, False]])
CHOSEN = np.array([[[1, 2], [0, 2], [0, 1]], [[1, 1], [0, 0], [0, 0]]])


def test_candidates_are_the_other_masked_frames_of_the_utterance() -> None:
    found = negatives.candidates(TWO_ROWS, [5, 3])
    assert found == {
        (0, 0): {(0, 2), (0, 3)},
        (0, 2): {(0, 0), (0, 3)},
        (0, 3): {(0, 0), (0, 2)},
        (1, 1): {(1, 2)},
        (1, 2): {(1, 1)},
    }


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        ((0, 0, 0), 0, "its own negative"),
        ((1, 0, 1), 2, "another utterance"),  # an empty place points to frame 0 of the batch
        ((1, 1, 0), 2, "an empty place"),
    ],
)
def test_faulty_negatives_are_found(place: tuple[int, int, int], value: int, fault: str) -> None:
    assert negatives.faults(TWO_ROWS, [5, 3], SLOTS, VALID, CHOSEN) == []
    wrong = CHOSEN.copy()
    wrong[place] = value
    assert any(fault in found for found in negatives.faults(TWO_ROWS, [5, 3], SLOTS, VALID, wrong))


def test_padding_and_left_out_frames_are_found() -> None:
    in_padding = negatives.faults(TWO_ROWS, [3, 3], SLOTS, VALID, CHOSEN)
    assert any("padding is masked" in found for found in in_padding)
    assert any("a negative in the padding" in found for found in in_padding)
    moved = np.where(SLOTS == 6, 5, SLOTS)  # frame 0 of the second utterance is not masked
    assert any(
        "not masked" in found for found in negatives.faults(TWO_ROWS, [5, 3], moved, VALID, CHOSEN)
    )
    fewer = VALID & (SLOTS != 7)
    assert any(
        "take part" in found for found in negatives.faults(TWO_ROWS, [5, 3], SLOTS, fewer, CHOSEN)
    )


# --- codes ----------------------------------------------------------------------------------------


def test_straight_through_gradients_are_those_of_the_soft_choice() -> None:
    """By finite differences, but for the codebook: the hard choice is linear in it."""
    random = np.random.default_rng(0)
    inputs = {
        "frames": random.standard_normal((4, 3)),
        "weight": random.standard_normal((10, 3)),
        "bias": random.standard_normal(10),
        "codebook": random.random((2, 5, 3)),
    }
    noise, upstream = random.gumbel(size=(4, 2, 5)), random.standard_normal((4, 6))
    found = quantizer.straight_through(**inputs, noise=noise, temperature=0.7, upstream=upstream)

    def soft(name: str, value: Array) -> float:
        return float(
            (
                upstream
                * quantizer.soft_vectors(**inputs | {name: value}, noise=noise, temperature=0.7)
            ).sum()
        )

    def hard(value: Array) -> float:
        rows = quantizer.straight_through(
            **inputs | {"codebook": value}, noise=noise, temperature=0.7, upstream=upstream
        )
        return float((upstream * rows.vectors).sum())

    for name in ("frames", "weight", "bias"):
        expected = numerical_gradient(lambda value, n=name: soft(n, value), inputs[name])
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(found.gradients[name], expected, atol=1e-8, err_msg=name)
    np.testing.assert_allclose(
        found.gradients["codebook"], numerical_gradient(hard, inputs["codebook"]), atol=1e-8
    )


def test_vectors_of_a_cold_soft_choice_are_the_hard_ones() -> None:
    random = np.random.default_rng(0)
    frames, weight, bias = (
        random.standard_normal((9, 3)),
        random.standard_normal((10, 3)),
        random.standard_normal(10),
    )
    codebook, noise = random.random((2, 5, 3)), random.gumbel(size=(9, 2, 5))
    found = quantizer.straight_through(frames, weight, bias, codebook, noise, 1.0, np.zeros((9, 6)))
    cold = quantizer.soft_vectors(frames, weight, bias, codebook, noise, 1e-3)
    np.testing.assert_allclose(cold, found.vectors, atol=1e-6)


# --- CTC ------------------------------------------------------------------------------------------


def test_everything_that_can_be_said_has_probability_one() -> None:
    probs = random_probs(5, 3, 0)
    every = ctc.labellings(probs)
    assert sum(every.values()) == pytest.approx(1, abs=1e-12)
    assert list(every.values()) == sorted(every.values(), reverse=True)
    for labelling, prob in every.items():
        assert ctc.loss(probs, labelling) == pytest.approx(-np.log(prob), abs=1e-12)
    assert ctc.loss(probs, (1, 1, 1, 1)) == np.inf


def test_collapse_by_hand() -> None:
    assert ctc.collapse([0, 1, 1, 0, 1, 2, 2, 0]) == (1, 1, 2)
    assert ctc.collapse([0, 1, 1, 0], blank_id=1) == (0, 0)
    assert ctc.collapse([]) == ()


@pytest.mark.parametrize("target", [(), (1,), (1, 2), (1, 1), (2, 1, 2)])
def test_ctc_loss_and_gradient_equal_finite_differences_and_torchs(target: tuple[int, ...]) -> None:
    logits = np.random.default_rng(1).standard_normal((5, 3))
    gradient = ctc.gradient(quantizer.softmax(logits), target)
    numerical = numerical_gradient(lambda moved: ctc.loss(quantizer.softmax(moved), target), logits)
    np.testing.assert_allclose(gradient, numerical, atol=1e-8)

    leaf = torch.from_numpy(logits).requires_grad_()
    loss = torch.nn.functional.ctc_loss(
        leaf.log_softmax(-1)[:, None],
        torch.tensor([target], dtype=torch.int64),
        [5],
        [len(target)],
        reduction="sum",
    )
    loss.backward()
    assert loss.item() == pytest.approx(ctc.loss(quantizer.softmax(logits), target), abs=1e-10)
    assert leaf.grad is not None
    np.testing.assert_allclose(leaf.grad.numpy(), gradient, atol=1e-10)


# --- beam search ----------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(2, 4), st.floats(0.1, 5), st.integers(0, 2**32))
def test_a_wide_beam_finds_every_labelling_and_its_probability(
    num_frames: int, size: int, peaky: float, seed: int
) -> None:
    probs = random_probs(num_frames, size, seed, peaky)
    every = ctc.labellings(probs)
    found = prefix_beam_search(np.log(probs), beam=10**6)
    assert dict(found) == pytest.approx(
        {labelling: np.log(p) for labelling, p in every.items()}, abs=1e-9
    )
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    assert found[0][0] == next(iter(every))


def test_a_narrow_beam_gives_lower_bounds() -> None:
    probs = random_probs(6, 4, 3, peaky=1.0)
    every = ctc.labellings(probs)
    for beam in (1, 2, 5, 20):
        found = prefix_beam_search(np.log(probs), beam)
        assert len(found) == beam
        assert all(score <= np.log(every[labelling]) + 1e-9 for labelling, score in found)
    assert prefix_beam_search(np.log(probs), 1)[0][1] < np.log(max(every.values())) - 1e-3


def test_the_best_labelling_is_not_that_of_the_best_path() -> None:
    probs = np.array([[0.6, 0.4], [0.6, 0.4]])
    assert prefix_beam_search(np.log(probs), 9) == [
        ((1,), pytest.approx(np.log(0.64))),
        ((), pytest.approx(np.log(0.36))),
    ]


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 6), st.integers(2, 4), st.floats(0.1, 3), st.integers(0, 2**32))
def test_torchaudios_decoder_finds_the_same(
    num_frames: int, size: int, peaky: float, seed: int
) -> None:
    """Without lexicon or language model, and with a beam that loses nothing: all labellings."""
    log_probs = np.log(random_probs(num_frames, size, seed, peaky))
    expected = prefix_beam_search(log_probs, beam=10**6)

    decoder = ctc_decoder(
        lexicon=None,
        tokens=["-", "a", "b", "c"][:size],
        nbest=len(expected),
        beam_size=10**4,
        beam_threshold=1e9,
        log_add=True,
        blank_token="-",
        sil_token="-",
    )

    (found,) = decoder(torch.from_numpy(log_probs[None].astype(np.float32)))
    assert dict(expected) == pytest.approx(
        {tuple(h.tokens.tolist()): h.score for h in found}, abs=1e-4
    )
    assert [h.score for h in found] == pytest.approx([score for _, score in expected], abs=1e-4)


# --- edit distance --------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(UNITS, UNITS)
def test_best_alignments_have_the_fewest_edits(reference: list[str], hypothesis: list[str]) -> None:
    fewest = edit_distance.distance(reference, hypothesis)
    every = edit_distance.best_alignments(reference, hypothesis)
    assert {e.substitutions + e.insertions + e.deletions for e in every} == {fewest}
    for e in every:
        assert e.hits + e.substitutions + e.deletions == len(reference)
        assert e.hits + e.substitutions + e.insertions == len(hypothesis)


def test_best_alignments_by_hand() -> None:
    edits = edit_distance.Edits
    assert edit_distance.best_alignments("ab", "bc") == {edits(0, 2, 0, 0), edits(1, 0, 1, 1)}
    assert edit_distance.best_alignments("abc", "abc") == {edits(3, 0, 0, 0)}
    assert edit_distance.best_alignments("", "ab") == {edits(0, 0, 2, 0)}
    assert edit_distance.distance("kitten", "sitting") == 3
