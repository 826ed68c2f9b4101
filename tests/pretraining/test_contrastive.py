"""The contrastive task: values and gradients against float64 and transformers, and its draws."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from reference import negatives
from reference.contrastive import Terms, logits_of, terms
from reference.models import batch_of, gradients, noise, objective_as_theirs, tiny_encoder
from reference.objective import LENGTHS, QUANTIZER, drawn, make, masked_frames, utterances_of
from reference.twins import objective_twin, their_negatives, their_training
from torch import Tensor

from speechssl.data.collate import Batch
from speechssl.pretraining.contrastive import Contrastive, Draws, ScaleGradient, sample_negatives
from speechssl.pretraining.quantizer import QuantizerConfig


def reference(model: Contrastive, batch: Batch, step: int) -> Terms:
    """The loss of the batch in numpy, from the encoder's outputs and the model's draws."""
    draws, lengths = drawn(model, batch, step)
    masked = masked_frames(draws)
    counts = [len(m) for m in masked]

    with torch.no_grad():
        frames, num_frames = model.encoder.extract(batch.inputs, batch.input_lengths)
        context = model.encoder.contextualise(
            model.encoder.norm(frames), num_frames, torch.from_numpy(draws.mask)
        )

    split = (
        None
        if draws.noise is None
        else np.split(draws.noise.astype(np.float64), np.cumsum(counts)[:-1])
    )

    return terms(
        [f[:t].double().numpy() for f, t in zip(frames, lengths, strict=True)],
        [c[:t].double().numpy() for c, t in zip(context, lengths, strict=True)],
        masked,
        [draws.negatives[row, :count] for row, count in enumerate(counts)],
        {n: p.detach().double().numpy() for n, p in model.named_parameters()},
        model.config.logit_temp,
        split,
    )


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", LENGTHS)
def test_every_term_equals_a_float64_reference(kind: str, training: bool) -> None:
    model = make(kind).train(training)
    batch = batch_of(utterances_of(kind))
    for step in (0, 7):
        output, expected = model(batch, step), reference(model, batch, step)
        count = len(expected.codes)
        assert output.weight == count > 50

        metrics = {n: float(v) for n, v in output.metrics.items()}
        assert metrics["loss"] == pytest.approx(expected.contrastive, rel=1e-5)
        assert metrics["diversity"] / count == pytest.approx(expected.diversity, abs=1e-5)
        assert metrics["penalty"] / count == pytest.approx(expected.penalty, rel=1e-5)
        assert metrics["accuracy"] == expected.correct

        whole = expected.contrastive + count * (0.1 * expected.diversity + 10 * expected.penalty)
        assert output.total.item() == pytest.approx(whole, rel=1e-5)

        live = np.mean([len(set(column)) for column in zip(*expected.codes, strict=True)])
        assert (output.used["live_codes"] > 0).sum(1).float().mean() == pytest.approx(live)
        assert output.used["live_codes"].sum(1).tolist() == [count, count]


def test_the_loss_of_an_ignorant_model_is_chance() -> None:
    """Equal predictions for all give ln(1 + K), less what duplicates take away."""
    model = make().eval()
    with torch.no_grad():
        model.target_projection.weight.zero_()

    output = model(batch_of(utterances_of("base")), 0)
    loss, chance = float(output.metrics["loss"]), float(output.metrics["chance"])
    assert loss == pytest.approx(chance, rel=1e-5)
    assert chance < output.weight * math.log(11)  # 25 codes: some negatives equal the positive

    many = make(quantizer=QuantizerConfig(num_codes=320, width=8)).eval()
    with torch.no_grad():
        many.quantizer.logits.weight.mul_(10)
        many.target_projection.weight.zero_()

    draws, _ = drawn(many, batch_of(utterances_of("base")), 0)
    output = many(batch_of(utterances_of("base")), 0)
    assert float(output.metrics["chance"]) == pytest.approx(
        draws.valid.sum() * math.log(11), rel=0.05
    )
    assert float(output.metrics["loss"]) == pytest.approx(float(output.metrics["chance"]), rel=1e-5)


def handmade(negatives: list[list[int]], valid: list[bool] | None = None) -> Draws:
    """One utterance whose masked frames have these negatives."""
    choices = np.array(negatives, dtype=np.int64)[None]
    there = np.array([valid or [True] * choices.shape[1]])
    return Draws(
        np.zeros((1, 1), dtype=bool), np.zeros(there.shape, dtype=np.int64), there, choices, None
    )


def test_a_negative_with_the_codes_of_the_positive_is_minus_infinity_and_no_other() -> None:
    model = make(quantizer=QuantizerConfig(num_codebooks=2, num_codes=5, width=8))
    codes = torch.tensor([[1, 2], [2, 1], [1, 2], [1, 1]])
    predicted, targets = torch.randn(4, 6), torch.randn(4, 6)

    logits = model._logits(
        predicted[None], targets, codes, handmade([[1, 2, 3], [0, 2, 3], [0, 1, 0], [2, 1, 0]])
    )
    assert logits.isneginf().tolist() == [
        [False, False, True, False],
        [False, False, False, False],
        [False, True, False, True],
        [False, False, False, False],
    ]

    others = torch.tensor([[0, 1, 2, 3], [1, 0, 2, 3], [2, 0, 1, 0], [3, 2, 1, 0]])
    expected = torch.cosine_similarity(predicted[:, None], targets[others], dim=-1) / 0.1
    torch.testing.assert_close(logits.where(logits.isfinite(), expected), expected)


@pytest.mark.parametrize("num_codes", [1, 2, 5])
def test_logits_equal_the_reference_with_any_share_of_duplicates(num_codes: int) -> None:
    model, random = make().train(), np.random.default_rng(num_codes)
    draws, _ = drawn(model, batch_of(utterances_of("base")), 1)
    counts = draws.valid.sum(1)

    predicted, targets = random.standard_normal((2, counts.sum(), 6))
    codes = random.integers(num_codes, size=(counts.sum(), 2))

    packed = torch.randn(
        *draws.valid.shape, 6
    )  # what stands where no frame takes part must not matter
    packed[torch.from_numpy(draws.valid)] = torch.from_numpy(predicted).float()

    found = model._logits(packed, torch.tensor(targets).float(), torch.tensor(codes), draws)

    parts = [np.split(values, np.cumsum(counts)[:-1]) for values in (predicted, targets, codes)]
    negatives = [row[:count] for row, count in zip(draws.negatives, counts, strict=True)]
    expected = [logits_of(*own, 0.1) for own in zip(*parts, negatives, strict=True)]

    np.testing.assert_allclose(found.numpy(), np.concatenate(expected), atol=1e-5)
    assert bool(found[:, 1:].isneginf().all()) == (num_codes == 1)
    assert found[:, 0].isfinite().all()


@pytest.mark.parametrize("lengths", [[1], [1, 1], [1, 40]])
def test_utterances_of_a_single_frame_can_stand_in_a_batch(lengths: list[int]) -> None:
    """Nothing of them is masked; alone they give no loss, and no gradient that is not finite."""
    model = make().train()
    for layer in model.encoder.context.layers:
        layer.attention_dropout = 0.1  # type: ignore[assignment]
    samples = [torch.randn(30 + 20 * (length - 1)) for length in lengths]
    output = model(batch_of(samples), 0)
    output.total.backward()
    assert all(g.isfinite().all() for g in gradients(model).values())
    assert (output.weight == 0) == (max(lengths) == 1)


def test_a_collapsed_batch_has_loss_zero_accuracy_one_and_perplexity_one() -> None:
    model = make().train()
    with torch.no_grad():
        model.quantizer.logits.weight.zero_()
        model.quantizer.logits.bias.zero_()
        model.quantizer.logits.bias.view(2, 5)[:, 3] = 1000.0
    output = model(batch_of(utterances_of("base")), 0)
    means = {n: float(v) / output.weight for n, v in output.metrics.items()}
    assert (means["loss"], means["chance"], means["accuracy"]) == (0, 0, 1)
    assert (output.used["live_codes"] > 0).sum(1).tolist() == [1, 1]
    assert means["code_perplexity"] == pytest.approx(1)
    output.total.backward()
    assert all(g.isfinite().all() for g in gradients(model).values())


def test_metrics_say_the_masked_share_and_the_temperature() -> None:
    model = make().train()
    batch = batch_of(utterances_of("base"))
    output, (draws, lengths) = model(batch, 40_000), drawn(model, batch, 40_000)
    assert output.shares["masked_share"] == (draws.mask.sum(), sum(lengths))
    assert output.metrics["temperature"] / output.weight == pytest.approx(2 * 0.999995**40_000)


# --- the same as transformers ---------------------------------------------------------------------


def equal_lengths() -> Batch:
    return batch_of(noise(tiny_encoder("base").config, [900, 900, 900]))


def test_contrastive_loss_equals_transformers_in_evaluation() -> None:
    model, batch = make(penalty_weight=0.0).eval(), equal_lengths()
    output, (draws, _) = model(batch, 5), drawn(model, batch, 5)
    mask = torch.from_numpy(draws.mask)
    theirs = objective_twin(model)(
        batch.inputs, mask_time_indices=mask, sampled_negative_indices=their_negatives(draws)
    )
    assert float(output.metrics["loss"]) == pytest.approx(
        float(theirs.contrastive_loss.detach()), rel=1e-5
    )


def assert_equal_to_theirs(found: dict[str, Tensor], expected: dict[str, Tensor | None]) -> None:
    """No entry differs by more than 1e-4 of the largest entry of its parameter's gradient."""
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient is not None, name
        if name.endswith("k_proj.bias"):
            # It adds one number to all scores of a query: the softmax cancels it, but for rounding.
            scale = expected[name.replace("k_proj.bias", "k_proj.weight")].abs().max()  # type: ignore[union-attr]
            assert max(found[name].abs().max(), gradient.abs().max()) < 1e-5 * scale, name
            continue
        scale = gradient.abs().max()
        assert scale > 1e-3, name
        assert (found[name] - gradient).abs().max() <= 1e-4 * scale, name


@pytest.mark.parametrize(
    ("kind", "lengths"), [("base", [900] * 3), ("large", [900] * 3), ("large", [900, 700, 431])]
)
def test_training_loss_and_every_gradient_equal_transformers(kind: str, lengths: list[int]) -> None:
    """They have no feature penalty and no factor on gradients; their group norm sees padding."""
    model = make(kind, penalty_weight=0.0, front_end_gradient=1.0).train()
    batch = batch_of(noise(model.encoder.config, lengths))

    output = model(batch, 5)
    output.total.backward()
    ours = objective_as_theirs(gradients(model), model.encoder.config)
    theirs, result = their_training(model, batch, 5)

    assert float(output.metrics["loss"]) == pytest.approx(
        float(result.contrastive_loss.detach()), rel=1e-5
    )
    assert float(output.metrics["diversity"]) == pytest.approx(
        float(result.diversity_loss.detach()), rel=1e-5
    )
    assert output.total.item() == pytest.approx(float(result.loss.detach()), rel=1e-5)

    # Theirs is the sum over codebooks, ours the mean.
    perplexity = QUANTIZER.num_codebooks * float(output.metrics["code_perplexity"]) / output.weight
    assert perplexity == pytest.approx(float(result.codevector_perplexity.detach()), abs=1e-4)

    result.loss.backward()
    assert_equal_to_theirs(ours, {n: p.grad for n, p in theirs.named_parameters()})


# --- draws ----------------------------------------------------------------------------------------


def test_draws_depend_on_seed_step_and_utterance() -> None:
    model, utterance = make().train(), utterances_of("base")[0]

    def mask(name: str, step: int, seed: int) -> bytes:
        model.seed = seed
        return drawn(model, batch_of([utterance], [name]), step)[0].mask.tobytes()

    assert mask("a", 0, 0) == mask("a", 0, 0)
    assert len({mask("a", 0, 0), mask("b", 0, 0), mask("a", 1, 0), mask("a", 0, 1)}) == 4


# --- gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LENGTHS)
def test_everything_learns_from_the_contrastive_term_alone(kind: str) -> None:
    """Codebook and front end above all: a detached target leaves them as they were."""
    model = make(kind, diversity_weight=0.0, penalty_weight=0.0).train()
    model(batch_of(utterances_of(kind)), 0).total.backward()
    found = gradients(model)
    assert found.keys() == dict(model.named_parameters()).keys()
    for name, gradient in found.items():
        assert gradient.isfinite().all(), name
        assert gradient.abs().max() > 1e-6, name


def test_targets_that_are_only_negatives_send_gradients_to_the_codebook() -> None:
    model = make()
    targets = torch.randn(3, 6, requires_grad=True)
    codes = torch.tensor([[0, 0], [1, 1], [2, 2]])
    logits = model._logits(torch.randn(1, 3, 6), targets, codes, handmade([[2], [2], [0]]))
    (logits[:1].logsumexp(-1) - logits[0, 0]).sum().backward()
    assert targets.grad is not None
    assert targets.grad[2].abs().sum() > 0
    assert targets.grad[1].abs().sum() == 0


@pytest.mark.parametrize("factor", [0.1, 0.0])
def test_only_the_gradient_that_reaches_the_front_end_is_scaled(factor: float) -> None:
    batch = batch_of(utterances_of("base"))

    def found(value: float) -> dict[str, Tensor]:
        model = make(front_end_gradient=value).train()
        model(batch, 0).total.backward()
        return gradients(model)

    whole, scaled = found(1.0), found(factor)
    for name, gradient in whole.items():
        times = factor if name.startswith("encoder.front_end.") else 1.0
        torch.testing.assert_close(
            scaled[name], gradient * times, rtol=1e-4, atol=1e-5 * float(gradient.abs().max())
        )


def test_scaling_keeps_the_values() -> None:
    inputs = torch.randn(4, requires_grad=True)
    outputs = ScaleGradient.apply(inputs, 0.25)
    assert torch.equal(outputs, inputs)
    outputs.sum().backward()
    assert inputs.grad is not None
    assert inputs.grad.tolist() == [0.25] * 4


@pytest.mark.parametrize("training", [False, True])
def test_the_noise_is_of_training_only(training: bool) -> None:
    model, batch = make().train(training), batch_of(utterances_of("base"))
    assert (drawn(model, batch, 0)[0].noise is not None) == training


def test_gumbel_noise_has_its_distribution() -> None:
    draws, _ = drawn(make().train(), batch_of(noise(tiny_encoder("base").config, [60_000])), 0)
    assert draws.noise is not None
    values: NDArray[np.float32] = draws.noise
    assert values.mean() == pytest.approx(0.5772, abs=0.03)
    assert values.var() == pytest.approx(math.pi**2 / 6, abs=0.1)


def test_mixed_precision_changes_the_loss_little_and_keeps_gradients_finite() -> None:
    model, batch = make().train(), batch_of(utterances_of("base"))
    expected = model(batch, 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(batch, 0)
    output.total.backward()
    assert output.total.dtype == torch.float32
    assert output.total.item() == pytest.approx(expected.total.item(), rel=0.03)
    assert all(g.isfinite().all() for g in gradients(model).values())


def few_frames(num_frames: int) -> Batch:
    return batch_of(noise(tiny_encoder("base").config, [30 + 20 * (num_frames - 1)]))


@pytest.mark.parametrize("make_batch", [lambda: few_frames(1), lambda: few_frames(2)])
def test_an_utterance_without_two_masked_frames_counts_nothing(
    make_batch: Callable[[], Batch],
) -> None:
    model = make().train()
    batch = make_batch()
    output = model(batch, 0)
    assert (output.weight, output.total.item()) == (0, 0.0)
    output.total.backward()
    assert all((g == 0).all() for g in gradients(model).values())
    # ... and beside a long one it changes nothing of the contrastive term.
    long = utterances_of("base")[0]
    alone = model(batch_of([long], ["long"]), 0)
    both = model(batch_of([batch.inputs[0], long], ["short", "long"]), 0)
    assert both.weight == alone.weight
    assert float(both.metrics["loss"]) == pytest.approx(float(alone.metrics["loss"]), rel=1e-5)


def test_evaluation_does_not_depend_on_earlier_calls() -> None:
    model, batch = make().eval(), batch_of(utterances_of("base"))
    first = model(batch, 3).total.item()
    model(replace(batch, keys=tuple(k + 1 for k in batch.keys)), 9)
    assert model(batch, 3).total.item() == first


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 80), st.integers(1, 120), st.integers(0, 2**32))
def test_negatives_are_other_masked_frames_of_the_utterance(
    num_masked: int, count: int, seed: int
) -> None:
    drawn = sample_negatives(num_masked, count, np.random.default_rng(seed))
    if num_masked < 2:
        assert drawn.shape == (num_masked, 0)
        return
    assert drawn.shape == (num_masked, count)
    assert drawn.dtype == np.int64
    assert drawn.min() >= 0
    assert drawn.max() < num_masked
    assert (drawn != np.arange(num_masked)[:, None]).all()


def test_every_candidate_is_drawn_and_nothing_else() -> None:
    mask = np.array([[1, 1, 0, 1, 0, 1, 1]], dtype=bool)
    frames = np.flatnonzero(mask)
    drawn = sample_negatives(len(frames), 200, np.random.default_rng(7))
    found = {
        (0, int(t)): {(0, int(frames[i])) for i in row}
        for t, row in zip(frames, drawn, strict=True)
    }
    assert found == negatives.candidates(mask, [7])


def test_negatives_are_uniform_over_the_others() -> None:
    drawn = sample_negatives(7, 60_000, np.random.default_rng(5))
    for position, row in enumerate(drawn):
        counts = np.bincount(row, minlength=7)
        assert counts[position] == 0
        others = np.delete(counts, position)
        chi_square = float(((others - 10_000) ** 2 / 10_000).sum())
        assert chi_square < 20.5, (
            position,
            counts,
        )  # 5 degrees of freedom: exceeded once in a thousand
