"""BEST-RQ: codes by brute force, cross-entropy by hand, blind to padding, and it learns."""

import math

import pytest
import torch
from reference.models import batch_of, noise, tiny_encoder
from reference.tasks import LENGTHS, assert_blind_to_padding_and_split, losses_of_a_short_run

from speechssl.encoder.masking import MaskConfig
from speechssl.errors import ConfigError
from speechssl.pretraining.masked_prediction import MaskDecoderConfig
from speechssl.pretraining.random_projection import RandomProjection, RandomProjectionConfig

CONFIG = RandomProjectionConfig(num_codebooks=3, num_codes=11, width=4)
MASK = MaskConfig(prob=0.5, length=3)


def make(layers: int = 0, seed: int = 3) -> RandomProjection:
    torch.manual_seed(2)
    return RandomProjection(
        tiny_encoder("logmel-4"), CONFIG, MASK, seed, MaskDecoderConfig(num_layers=layers, groups=4)
    )


def test_the_code_is_the_nearest_on_the_sphere() -> None:
    task, rows = make(), torch.randn(40, 24)
    found = task.codes(rows)
    for n in range(40):
        for g in range(3):
            placed = rows[n] @ task.projection[g]
            placed = placed / placed.norm()
            distances = [float((placed - code).norm()) for code in task.codebook[g]]
            assert int(found[n, g]) == min(range(11), key=distances.__getitem__)


def test_codebooks_are_a_function_of_the_seed_and_are_saved_with_the_model() -> None:
    assert torch.equal(make().codebook, make().codebook)
    assert not torch.equal(make().codebook, make(seed=4).codebook)
    assert {"codebook", "projection"} <= set(make().state_dict())
    assert all(
        not name.startswith(("codebook", "projection")) for name, _ in make().named_parameters()
    )


def test_the_loss_of_an_ignorant_head_is_chance() -> None:
    task = make().eval()
    torch.nn.init.zeros_(task.head.weight)
    output = task(batch_of(noise(task.encoder.config, LENGTHS)), 0)
    assert float(output.total.detach()) / output.weight == pytest.approx(math.log(11), rel=1e-5)
    assert float(output.metrics["chance"]) == pytest.approx(output.weight * math.log(11))
    num_masked, num_frames = output.shares["masked_share"]
    assert num_masked / num_frames == pytest.approx(0.4, abs=0.15)


def test_a_head_that_knows_the_codes_has_no_loss() -> None:
    task = make().eval()
    batch = batch_of([torch.ones(100, 6) + torch.arange(100)[:, None] % 2])
    codes: list[torch.Tensor] = []
    plain = task.codes
    task.codes = lambda rows: codes.append(plain(rows)) or codes[-1].fill_(5)  # type: ignore[assignment, func-returns-value]
    torch.nn.init.zeros_(task.head.weight)
    with torch.no_grad():
        task.head.bias.view(3, 11)[:, 5] = 50.0
    output = task(batch, 0)
    assert float(output.total.detach()) == pytest.approx(0, abs=1e-4)
    assert float(output.metrics["accuracy"]) == pytest.approx(output.weight)


@pytest.mark.parametrize("layers", [0, 2])
def test_padding_and_split_change_nothing(layers: int) -> None:
    assert_blind_to_padding_and_split(lambda: make(layers), make().encoder.config)


@pytest.mark.parametrize("layers", [0, 1])
def test_it_learns_what_can_be_learned(layers: int) -> None:
    task = make(layers)
    losses = losses_of_a_short_run(task, task.encoder.config)
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_waveforms_have_no_log_mel_rows() -> None:
    with pytest.raises(ConfigError, match="log-mel"):
        RandomProjection(tiny_encoder("base"), CONFIG, MASK)


def test_a_batch_without_a_masked_frame_counts_nothing() -> None:
    task = make()
    output = task(batch_of(noise(task.encoder.config, [7])), 0)  # a single frame stays visible
    assert output.weight == 0
    assert float(output.total.detach()) == 0
    assert all(float(torch.as_tensor(value)) == 0 for value in output.metrics.values())
