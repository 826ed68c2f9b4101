"""Padding, batch mates, order and micro-batches change nothing for an utterance.

Hypothesis draws the lengths, deals the utterances into micro-batches, and fills the padding.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from reference import negatives
from reference.models import batch_of, gradients, noise, tiny_encoder
from reference.objective import (
    LENGTHS,
    assert_same_gradients,
    drawn,
    ids_of,
    make,
    masked_frames,
    update,
    utterances_of,
)
from torch import Tensor

from speechssl.config import build
from speechssl.data.collate import Batch
from speechssl.decoding.greedy import greedy, min_ctc_frames
from speechssl.encoder.masking import MaskConfig
from speechssl.pretraining.contrastive import Contrastive, Draws
from speechssl.pretraining.quantizer import QuantizerConfig
from speechssl.recognition.model import CtcConfig, CtcModel
from speechssl.storage.json_text import read_json_lines
from speechssl.text.character_tokenizer import CharTokenizer
from speechssl.training.loop import fit
from speechssl.training.loss import LossOutput, UpdateMetrics
from speechssl.training.optim import OptimConfig
from speechssl.training.settings import TrainConfig

FIRST_AND_STEP = {
    "base": (30, 20),
    "large": (30, 20),
    "logmel-2": (3, 2),
    "logmel-4": (7, 4),
}  # units for a frame
KINDS = pytest.mark.parametrize("kind", list(FIRST_AND_STEP))
PROPERTY = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MASKED = CtcConfig(
    dropout=0.0,
    time_mask=MaskConfig(prob=0.5, length=3),
    channel_mask_prob=0.5,
    channel_mask_length=4,
    train_front_end=True,
)


@dataclass(frozen=True)
class Arrangement:
    """Utterances of an update, and how they come."""

    frames: list[int]
    more_units: list[int]
    """Of each utterance, beyond what its frames need."""
    parts: list[list[int]]
    """Utterances of each micro-batch, in order."""
    more_padding: int
    fill: float

    def whole(self, kind: str, texts: list[str] | None = None) -> Batch:
        """All in one batch, in order, without more padding than it takes."""
        return batch_of(self.utterances(kind), texts=texts)

    def batches(self, kind: str, texts: list[str] | None = None) -> list[Batch]:
        utterances = self.utterances(kind)
        return [
            batch_of(
                [utterances[i] for i in part],
                ids_of(part),
                [texts[i] for i in part] if texts else None,
                self.more_padding,
                self.fill,
            )
            for part in self.parts
        ]

    def utterances(self, kind: str) -> list[Tensor]:
        first, step = FIRST_AND_STEP[kind]
        units = [
            first + step * (frames - 1) + more % step
            for frames, more in zip(self.frames, self.more_units, strict=True)
        ]
        return noise(tiny_encoder(kind).config, units)


@st.composite
def arrangements(draw: st.DrawFn) -> Arrangement:
    frames = draw(st.lists(st.integers(1, 45), min_size=1, max_size=6))
    groups = draw(st.lists(st.integers(0, 2), min_size=len(frames), max_size=len(frames)))
    order = draw(st.permutations(range(len(frames))))
    return Arrangement(
        frames,
        draw(st.lists(st.integers(0, 19), min_size=len(frames), max_size=len(frames))),
        [part for group in range(3) if (part := [i for i in order if groups[i] == group])],
        draw(st.integers(0, 90)),
        draw(st.sampled_from([0.0, float("nan"), float("inf"), -1e30]) | st.floats(width=32)),
    )


@cache
def contrastive(kind: str, **objective: float) -> Contrastive:
    return make(kind, **objective).train()


@cache
def recogniser(kind: str) -> CtcModel:
    model = CtcModel(tiny_encoder(kind), CharTokenizer(" ab"), "basic-1", MASKED, seed=5)
    with torch.no_grad():
        model.head.weight.normal_(std=0.3)
    return model


def summed(outputs: list[LossOutput], name: str) -> float:
    return sum(float(output.metrics[name]) for output in outputs)


def logged(outputs: list[LossOutput]) -> dict[str, float]:
    """All metrics of an update that came in these parts."""
    metrics = UpdateMetrics()
    for output in outputs:
        metrics.add(output)
    weight = max(1, sum(output.weight for output in outputs))
    return {name: float(value) for name, value in metrics.row(weight).items()}


def total(outputs: list[LossOutput]) -> float:
    return sum(o.total.item() for o in outputs) / max(1, sum(o.weight for o in outputs))


# --- what is drawn --------------------------------------------------------------------------------


def places(draws: Draws) -> NDArray[np.int64]:
    """(B, M) masked frames in the flattened (B T)."""
    places: NDArray[np.int64] = (
        draws.frames + np.arange(len(draws.mask))[:, None] * draws.mask.shape[1]
    )
    return places


def own_draws(
    model: Contrastive, batch: Batch, step: int
) -> dict[str, tuple[list[int], list[object], list[object]]]:
    """By utterance: its masked frames, their negatives, their noise."""
    draws, lengths = drawn(model, batch, step)
    assert negatives.faults(draws.mask, lengths, places(draws), draws.valid, draws.negatives) == []
    counts = draws.valid.sum(1)
    shape = (0, 2, 5) if draws.noise is None else draws.noise.shape
    noise_of = np.split(
        np.zeros(shape) if draws.noise is None else draws.noise, np.cumsum(counts)[:-1]
    )
    assert sum(len(own) for own in noise_of) == counts.sum()
    return {
        name: (masked, draws.negatives[row, : counts[row]].tolist(), noise_of[row].tolist())
        for row, (name, masked) in enumerate(zip(batch.ids, masked_frames(draws), strict=True))
    }


@KINDS
@PROPERTY
@given(arrangement=arrangements(), step=st.integers(0, 10**6))
def test_masks_negatives_and_noise_are_the_utterances_own(
    kind: str, arrangement: Arrangement, step: int
) -> None:
    model, found = contrastive(kind), {}
    for batch in arrangement.batches(kind):
        found |= own_draws(model, batch, step)
    assert found == own_draws(model, arrangement.whole(kind), step)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 70), min_size=1, max_size=8),
    st.integers(0, 30),
    st.floats(0, 1),
    st.integers(1, 12),
    st.integers(0, 2**32),
)
def test_negatives_are_other_masked_frames_of_the_utterance_whatever_the_lengths(
    lengths: list[int], padding: int, prob: float, span: int, seed: int
) -> None:
    """Not padding, not the frame itself, not another utterance's, as the gathered frames show."""
    model = make(mask=MaskConfig(prob=prob, length=span))
    batch = batch_of([torch.zeros(1)] * len(lengths))
    draws = model.draw(batch, lengths, max(lengths) + padding, seed, noisy=False)
    assert negatives.faults(draws.mask, lengths, places(draws), draws.valid, draws.negatives) == []


# --- features and transcripts ---------------------------------------------------------------------


@KINDS
@PROPERTY
@given(arrangement=arrangements())
def test_features_log_probabilities_and_transcripts_are_the_utterances_own(
    kind: str, arrangement: Arrangement
) -> None:
    model = recogniser(kind).eval()

    def outputs(batches: list[Batch]) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, str]]:
        values, texts = {}, {}
        for batch in batches:
            frames, num_frames = model.encoder.extract(batch.inputs, batch.input_lengths)
            log_probs = model.log_probs(batch).hidden
            for name, t, *rows in zip(
                batch.ids, num_frames.tolist(), frames, log_probs, strict=True
            ):
                values[name] = (rows[0][:t], rows[1][:t])
            texts |= dict(
                zip(
                    batch.ids,
                    map(model.tokenizer.decode, greedy(*model.log_probs(batch))),
                    strict=True,
                )
            )
        return values, texts

    with torch.no_grad():
        (expected, expected_texts), (found, texts) = (
            outputs([arrangement.whole(kind)]),
            outputs(arrangement.batches(kind)),
        )
    for name, (frames, log_probs) in expected.items():
        torch.testing.assert_close(found[name][0], frames, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found[name][1], log_probs, atol=1e-5, rtol=1e-5)
        best = log_probs.topk(2).values
        assume(bool((best[:, 0] - best[:, 1] > 1e-4).all()))  # rounding may decide between equals
    assert texts == expected_texts


# --- updates --------------------------------------------------------------------------------------


@KINDS
@PROPERTY
@given(arrangement=arrangements(), step=st.integers(0, 1000))
def test_a_pretraining_update_is_the_same_however_it_comes(
    kind: str, arrangement: Arrangement, step: int
) -> None:
    """Loss and every gradient, with the diversity and the penalty of the whole update."""
    model = contrastive(kind, diversity_weight=5.0)
    expected, expected_gradients = update(model, [arrangement.whole(kind)], step)
    outputs, found = update(model, arrangement.batches(kind), step)
    assert sum(o.weight for o in outputs) == expected[0].weight
    assert total(outputs) == pytest.approx(total(expected), abs=1e-5)
    assert logged(outputs) == pytest.approx(logged(expected), rel=1e-4, abs=1e-4)
    assert_same_gradients(found, expected_gradients)


@KINDS
def test_the_diversity_of_the_parts_alone_would_be_another_update(kind: str) -> None:
    """The test above can fail: without statistics of the whole update the gradient differs."""
    model, utterances = contrastive(kind, diversity_weight=5.0), utterances_of(kind)
    _, expected = update(model, [batch_of(utterances)], 2)
    for i, utterance in enumerate(utterances):
        model(batch_of([utterance], ids_of([i])), 2).total.backward()
    weight = model(batch_of(utterances), 2).weight
    found = {n: g / weight for n, g in gradients(model).items()}
    with pytest.raises(AssertionError):
        assert_same_gradients(found, expected)


@KINDS
@PROPERTY
@given(arrangement=arrangements())
def test_codebook_and_front_end_learn_whatever_the_lengths(
    kind: str, arrangement: Arrangement
) -> None:
    model = contrastive(kind, diversity_weight=0.0, penalty_weight=0.0)
    outputs, found = update(model, arrangement.batches(kind), 0)
    assume(summed(outputs, "loss") > 0.01)  # else there was no negative but duplicates
    assert found["quantizer.codebook"].abs().max() > 1e-6
    front_end = {n: g for n, g in found.items() if n.startswith("encoder.front_end.")}
    assert front_end
    assert all(gradient.abs().max() > 1e-7 for gradient in front_end.values())


def texts_for(arrangement: Arrangement, seed: int) -> list[str]:
    """A random transcript for each utterance that its frames can hold; some are empty."""
    random = np.random.default_rng(seed)
    texts = [
        "".join(random.choice(["a", "b"], size=random.integers(min(4, f // 2) + 1)))
        for f in arrangement.frames
    ]
    tokenizer = CharTokenizer(" ab")
    assert all(
        min_ctc_frames(tokenizer.encode(t)) <= f
        for t, f in zip(texts, arrangement.frames, strict=True)
    )
    return texts


@KINDS
@PROPERTY
@given(arrangement=arrangements(), step=st.integers(0, 1000))
def test_a_ctc_update_is_the_same_however_it_comes(
    kind: str, arrangement: Arrangement, step: int
) -> None:
    """With time and channel masks, and the front end learning."""
    model, texts = recogniser(kind).train(), texts_for(arrangement, step)
    expected, expected_gradients = update(model, [arrangement.whole(kind, texts)], step)
    outputs, found = update(model, arrangement.batches(kind, texts), step)
    assert sum(o.weight for o in outputs) == expected[0].weight
    assert total(outputs) == pytest.approx(total(expected), rel=1e-5)
    assert_same_gradients(found, expected_gradients)


# --- the loop -------------------------------------------------------------------------------------


class Parts:
    """The same five utterances at every update, in micro-batches of these sizes."""

    def __init__(self, kind: str, sizes: list[int]) -> None:
        utterances, parts = utterances_of(kind), torch.arange(len(LENGTHS[kind])).split(sizes)
        self.batches = [
            batch_of([utterances[i] for i in part], ids_of(part.tolist())) for part in parts
        ]

    def micro_batches(self, step: int, *_ranks: int) -> list[Batch]:
        return self.batches


def test_the_loop_takes_one_temperature_per_update_and_the_same_step_for_any_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the Gumbel-softmax: an update has as many forward calls as micro-batches."""
    quantizer = QuantizerConfig(num_codes=5, width=8, temperature_decay=0.7)
    rows = []
    for name, sizes in (("whole", [5]), ("parts", [1, 3, 1])):
        model, used = make("logmel-4", quantizer=quantizer), list[float]()
        forward = model.quantizer.forward

        def spy(
            frames: Tensor, noise: Tensor | None, temperature: float, f=forward, u=used
        ) -> object:  # type: ignore[no-untyped-def]
            u.append(temperature)
            return f(frames, noise, temperature)

        monkeypatch.setattr(model.quantizer, "forward", spy)
        config = build(TrainConfig, {"steps": 6, "save_every": 6, "device": "cpu"})
        fit(model, Parts("logmel-4", sizes), OptimConfig(lr=1e-4), config, tmp_path / name)
        rows.append(read_json_lines(tmp_path / name / "metrics.jsonl"))
        expected = [max(2.0 * 0.7**step, 0.5) for step in range(6)]
        assert [row["temperature"] for row in rows[-1]] == pytest.approx(expected)
        assert used == pytest.approx([temperature for temperature in expected for _ in sizes])
    whole, parts = (row[0] for row in rows)
    for name in ("weight", "loss", "diversity", "penalty", "code_perplexity", "grad_norm"):
        assert parts[name] == pytest.approx(whole[name], rel=1e-4), name
