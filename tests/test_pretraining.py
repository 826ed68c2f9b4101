"""The objective: its value against float64 numpy and transformers, its independence of padding and micro-batches."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from reference.contrastive import Terms, terms
from reference.models import batch_of, gradients, noise, objective_as_theirs, their_config, tiny_encoder
from torch import Tensor
from transformers import Wav2Vec2ForPreTraining

from speechssl.batching import Batch
from speechssl.diagnostics import LossOutput
from speechssl.masking import MaskConfig
from speechssl.pretraining import Contrastive, ContrastiveConfig, Draws, ScaleGradient, StepStatistics
from speechssl.quantizer import QuantizerConfig

QUANTIZER = QuantizerConfig(num_codebooks=2, num_codes=5, width=8)
OBJECTIVE = ContrastiveConfig(num_negatives=10, width=6)
MASK = MaskConfig(prob=0.65, length=4)
LENGTHS = {
    "base": [1500, 900, 420, 1180, 700],
    "large": [1500, 900, 420, 1180, 700],
    "logmel-4": [190, 90, 60, 140, 99],
}
LENGTHS["logmel-2"] = LENGTHS["logmel-4"]


def make(
    kind: str = "base", mask: MaskConfig = MASK, quantizer: QuantizerConfig = QUANTIZER, **objective: float
) -> Contrastive:
    config = OBJECTIVE.model_copy(update=objective)
    model = Contrastive(tiny_encoder(kind), config, quantizer, mask, seed=3)
    with torch.no_grad():
        model.quantizer.logits.weight.mul_(0.3)
        for name, parameter in model.named_parameters():
            if not name.startswith("encoder."):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def utterances_of(kind: str) -> list[Tensor]:
    return noise(tiny_encoder(kind).config, LENGTHS[kind])


def ids_of(indices: list[int]) -> list[str]:
    return [f"utterance {i}" for i in indices]


def drawn(model: Contrastive, batch: Batch, step: int) -> tuple[Draws, list[int]]:
    frames, num_frames = model.encoder.extract(batch.inputs, batch.num_units)
    lengths = num_frames.tolist()
    return model.draw(batch, lengths, frames.shape[1], step, noisy=model.training), lengths


def masked_frames(draws: Draws) -> list[list[int]]:
    return [np.flatnonzero(row).tolist() for row in draws.mask]


def reference(model: Contrastive, batch: Batch, step: int) -> Terms:
    """The numpy loss of the batch, from the encoder's outputs and the draws that the model makes."""
    draws, lengths = drawn(model, batch, step)
    masked = masked_frames(draws)
    counts = [len(m) for m in masked]
    with torch.no_grad():
        frames, num_frames = model.encoder.extract(batch.inputs, batch.num_units)
        context = model.encoder.contextualise(model.encoder.norm(frames), num_frames, torch.from_numpy(draws.mask))
    split = None if draws.noise is None else np.split(draws.noise.astype(np.float64), np.cumsum(counts)[:-1])
    return terms(
        [f[:t].double().numpy() for f, t in zip(frames, lengths, strict=True)],
        [c[:t].double().numpy() for c, t in zip(context, lengths, strict=True)],
        masked,
        [draws.negatives[row, :count] for row, count in enumerate(counts)],
        {n: p.detach().double().numpy() for n, p in model.named_parameters()},
        model.config.logit_temp,
        split,
    )


# --- values ------------------------------------------------------------------------------------------------------


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
        assert metrics["live_codes"] / count == pytest.approx(live)


def test_the_loss_of_an_ignorant_model_is_chance() -> None:
    """Equal predictions for all: ln(1 + K) less what duplicates take away, as the reference sees it."""
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
    assert float(output.metrics["chance"]) == pytest.approx(draws.valid.sum() * math.log(11), rel=0.05)
    assert float(output.metrics["loss"]) == pytest.approx(float(output.metrics["chance"]), rel=1e-5)


def handmade(negatives: list[list[int]], valid: list[bool] | None = None) -> Draws:
    """One utterance whose masked frames have these negatives."""
    choices = np.array(negatives, dtype=np.int64)[None]
    there = np.array([valid or [True] * choices.shape[1]])
    return Draws(np.zeros((1, 1), dtype=bool), np.zeros(there.shape, dtype=np.int64), there, choices, None)


def test_a_negative_with_the_codes_of_the_positive_is_minus_infinity_and_no_other() -> None:
    model = make(quantizer=QuantizerConfig(num_codebooks=2, num_codes=5, width=8))
    codes = torch.tensor([[1, 2], [2, 1], [1, 2], [1, 1]])
    predicted, targets = torch.randn(4, 6), torch.randn(4, 6)
    logits = model._logits(predicted, targets, codes, handmade([[1, 2, 3], [0, 2, 3], [0, 1, 0], [2, 1, 0]]))
    assert logits.isneginf().tolist() == [
        [False, False, True, False],
        [False, False, False, False],
        [False, True, False, True],
        [False, False, False, False],
    ]
    others = torch.tensor([[0, 1, 2, 3], [1, 0, 2, 3], [2, 0, 1, 0], [3, 2, 1, 0]])
    expected = torch.cosine_similarity(predicted[:, None], targets[others], dim=-1) / 0.1
    torch.testing.assert_close(logits.where(logits.isfinite(), expected), expected)


def test_a_collapsed_batch_has_loss_zero_accuracy_one_and_perplexity_one() -> None:
    model = make().train()
    with torch.no_grad():
        model.quantizer.logits.weight.zero_()
        model.quantizer.logits.bias.zero_()
        model.quantizer.logits.bias.view(2, 5)[:, 3] = 1000.0
    output = model(batch_of(utterances_of("base")), 0)
    means = {n: float(v) / output.weight for n, v in output.metrics.items()}
    assert (means["loss"], means["chance"], means["accuracy"], means["live_codes"]) == (0, 0, 1, 1)
    assert means["code_perplexity"] == pytest.approx(1)
    output.total.backward()
    assert all(g.isfinite().all() for g in gradients(model).values())


def test_metrics_say_the_masked_share_and_the_temperature() -> None:
    model = make().train()
    batch = batch_of(utterances_of("base"))
    output, (draws, lengths) = model(batch, 40_000), drawn(model, batch, 40_000)
    assert output.metrics["masked_share"] / output.weight == pytest.approx(draws.mask.sum() / sum(lengths))
    assert output.metrics["temperature"] / output.weight == pytest.approx(2 * 0.999995**40_000)


# --- the same as transformers ------------------------------------------------------------------------------------


def twin(model: Contrastive) -> Wav2Vec2ForPreTraining:
    config = their_config(
        model.encoder.config,
        num_codevectors_per_group=QUANTIZER.num_codes,
        num_codevector_groups=QUANTIZER.num_codebooks,
        codevector_dim=QUANTIZER.width,
        proj_codevector_dim=OBJECTIVE.width,
        contrastive_logits_temperature=OBJECTIVE.logit_temp,
        diversity_loss_weight=0.1,
    )
    theirs = Wav2Vec2ForPreTraining(config)
    theirs.load_state_dict(objective_as_theirs(model.state_dict(), model.encoder.config), strict=True)
    return theirs.train(model.training)


def their_negatives(draws: Draws) -> Tensor:
    """(B, T, K) frames in the flattened (B T), as they take them; rows of unmasked frames do not matter."""
    rows, width = draws.mask.shape
    found = np.zeros((rows, width, draws.negatives.shape[2]), dtype=np.int64)
    for row in range(rows):
        slots = draws.slots[row]
        own = draws.valid[row]
        found[row, slots[own] - row * width] = slots[draws.negatives[row][own]]
    return torch.from_numpy(found)


def equal_lengths() -> Batch:
    return batch_of(noise(tiny_encoder("base").config, [900, 900, 900]))


def test_contrastive_loss_equals_transformers_in_evaluation() -> None:
    model, batch = make(penalty_weight=0.0).eval(), equal_lengths()
    output, (draws, _) = model(batch, 5), drawn(model, batch, 5)
    mask = torch.from_numpy(draws.mask)
    theirs = twin(model)(batch.inputs, mask_time_indices=mask, sampled_negative_indices=their_negatives(draws))
    assert float(output.metrics["loss"]) == pytest.approx(float(theirs.contrastive_loss.detach()), rel=1e-5)


@pytest.mark.parametrize("kind", ["base", "large"])
def test_training_loss_and_every_gradient_equal_transformers(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With their Gumbel-softmax given our noise; they have neither the feature penalty nor the factor on gradients."""
    model = make(kind, penalty_weight=0.0, front_end_gradient=1.0).train()
    batch = equal_lengths()
    output, (draws, _) = model(batch, 5), drawn(model, batch, 5)
    output.total.backward()
    config = model.encoder.config
    ours = objective_as_theirs(gradients(model), config)

    rows, width = draws.mask.shape
    assert draws.noise is not None
    everywhere = torch.zeros(rows * width, 2, 5)
    everywhere[torch.from_numpy(draws.mask.ravel())] = torch.from_numpy(draws.noise)

    def their_softmax(logits: Tensor, tau: float, hard: bool) -> Tensor:
        soft = ((logits + everywhere.view_as(logits)) / tau).softmax(-1)
        choice = torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0)
        return choice - soft.detach() + soft

    monkeypatch.setattr(torch.nn.functional, "gumbel_softmax", their_softmax)
    theirs = twin(model)
    theirs.set_gumbel_temperature(model.quantizer.temperature(5))
    inputs = batch.inputs
    if kind == "large":
        inputs = (inputs - inputs.mean(1, keepdim=True)) / (inputs.var(1, keepdim=True, unbiased=False) + 1e-7).sqrt()
    mask = torch.from_numpy(draws.mask)
    result = theirs(inputs, mask_time_indices=mask, sampled_negative_indices=their_negatives(draws))
    assert float(output.metrics["loss"]) == pytest.approx(float(result.contrastive_loss.detach()), rel=1e-5)
    assert float(output.metrics["diversity"]) == pytest.approx(float(result.diversity_loss.detach()), rel=1e-4)
    assert output.total.item() == pytest.approx(float(result.loss.detach()), rel=1e-5)

    result.loss.backward()
    expected = {n: p.grad for n, p in theirs.named_parameters()}
    assert ours.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient is not None, name
        scale = float(gradient.abs().max())
        assert scale > 0, name
        torch.testing.assert_close(
            ours[name], gradient, rtol=0, atol=2e-4 * scale + 1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


# --- padding, order, micro-batches -------------------------------------------------------------------------------


def split_losses(model: Contrastive, batches: list[Batch], step: int) -> tuple[list[LossOutput], dict[str, Tensor]]:
    """One update from micro-batches as the training loop does it: gradients of the sum over the summed weight."""
    whole: StepStatistics | None = None
    for batch in batches:
        part = model.statistics(batch, step)
        whole = part if whole is None else whole + part
    outputs = []
    for batch in batches:
        output = model(batch, step, whole if len(batches) > 1 else None)
        output.total.backward()
        outputs.append(output)
    weight = sum(o.weight for o in outputs)
    return outputs, {n: g / weight for n, g in gradients(model).items()}


def total(outputs: list[LossOutput]) -> float:
    return sum(o.total.item() for o in outputs) / sum(o.weight for o in outputs)


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(
            found[name], gradient, rtol=0, atol=2e-4 * scale + 1e-7, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("kind", LENGTHS)
def test_padding_changes_no_mask_no_negative_no_noise_and_not_the_loss(kind: str) -> None:
    model, utterances = make(kind).train(), utterances_of(kind)
    plain, padded = batch_of(utterances), batch_of(utterances, more_padding=333, fill=float("nan"))
    (one, lengths), (other, same_lengths) = drawn(model, plain, 4), drawn(model, padded, 4)
    assert lengths == same_lengths
    assert masked_frames(one) == masked_frames(other)
    assert all(not other.mask[row, length:].any() for row, length in enumerate(lengths))
    assert (one.negatives == other.negatives).all()
    assert (one.noise == other.noise).all()
    first, second = model(plain, 4), model(padded, 4)
    assert first.weight == second.weight
    assert abs(first.total.item() - second.total.item()) / first.weight < 1e-5
    first.total.backward()
    expected = gradients(model)
    second.total.backward()
    assert_same_gradients(gradients(model), expected)


def test_draws_of_an_utterance_do_not_depend_on_its_batch_mates() -> None:
    model, utterances = make().train(), utterances_of("base")
    together, _ = drawn(model, batch_of(utterances), 4)
    counts = together.valid.sum(1)
    starts = np.concatenate([[0], np.cumsum(counts)])
    assert together.noise is not None
    for i, utterance in enumerate(utterances):
        alone, lengths = drawn(model, batch_of([utterance], ids_of([i])), 4)
        assert (together.mask[i, : lengths[0]] == alone.mask[0]).all()
        assert (together.negatives[i, : counts[i]] == alone.negatives[0]).all()
        assert (together.noise[starts[i] : starts[i + 1]] == alone.noise).all()


def test_draws_depend_on_seed_step_and_utterance() -> None:
    model, utterance = make().train(), utterances_of("base")[0]

    def mask(name: str, step: int, seed: int) -> bytes:
        model.seed = seed
        return drawn(model, batch_of([utterance], [name]), step)[0].mask.tobytes()

    assert mask("a", 0, 0) == mask("a", 0, 0)
    assert len({mask("a", 0, 0), mask("b", 0, 0), mask("a", 1, 0), mask("a", 0, 1)}) == 4


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.permutations(range(5)), st.lists(st.integers(0, 3), min_size=5, max_size=5), st.sampled_from(list(LENGTHS)))
def test_a_step_is_the_same_in_any_order_and_any_split(order: list[int], groups: list[int], kind: str) -> None:
    """Loss and every gradient, with the diversity and the penalty of the whole update."""
    model, utterances = make(kind, diversity_weight=5.0).train(), utterances_of(kind)
    expected, expected_gradients = split_losses(model, [batch_of(utterances)], 2)
    parts = [[i for i, g in zip(order, groups, strict=True) if g == group] for group in sorted(set(groups))]
    batches = [batch_of([utterances[i] for i in part], ids_of(part)) for part in parts]
    outputs, found = split_losses(model, batches, 2)
    assert sum(o.weight for o in outputs) == expected[0].weight
    assert total(outputs) == pytest.approx(total(expected), abs=1e-5)
    for name in ("loss", "diversity", "penalty", "accuracy", "code_perplexity", "chance"):
        summed = sum(float(o.metrics[name]) for o in outputs)
        assert summed == pytest.approx(float(expected[0].metrics[name]), rel=1e-4), name
    assert_same_gradients(found, expected_gradients)


def test_the_diversity_of_the_parts_alone_would_be_another_step() -> None:
    """The test above can fail: without the statistics of the whole update the gradient is a different one."""
    model, utterances = make(diversity_weight=5.0).train(), utterances_of("base")
    _, expected = split_losses(model, [batch_of(utterances)], 2)
    for i, utterance in enumerate(utterances):
        model(batch_of([utterance], ids_of([i])), 2).total.backward()
    weight = float(model(batch_of(utterances), 2).weight)
    found = {n: g / weight for n, g in gradients(model).items()}
    with pytest.raises(AssertionError):
        assert_same_gradients(found, expected)


# --- gradients ---------------------------------------------------------------------------------------------------


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
    logits = model._logits(torch.randn(3, 6), targets, codes, handmade([[2], [2], [0]]))
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
        torch.testing.assert_close(scaled[name], gradient * times, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


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
def test_an_utterance_without_two_masked_frames_counts_nothing(make_batch: Callable[[], Batch]) -> None:
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
