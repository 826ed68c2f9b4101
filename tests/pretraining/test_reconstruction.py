"""Reconstruction: the error of log-mel rows by hand, blind to padding and split, and it learns."""

import pytest
import torch
from reference.models import batch_of, noise, tiny_encoder
from reference.tasks import LENGTHS, assert_blind_to_padding_and_split, losses_of_a_short_run

from speechssl.encoder.masking import MaskConfig, span_mask
from speechssl.encoder.padding import normalise_valid
from speechssl.pretraining.masked_prediction import MaskDecoderConfig
from speechssl.pretraining.reconstruction import Reconstruction, ReconstructionConfig
from speechssl.runtime.seeds import generator

MASK = MaskConfig(prob=0.5, length=3)


def make(layers: int = 0, power: int = 1) -> Reconstruction:
    torch.manual_seed(2)
    config = ReconstructionConfig(power=power)
    return Reconstruction(
        tiny_encoder("logmel-4"), config, MASK, 3, MaskDecoderConfig(num_layers=layers, groups=4)
    )


@pytest.mark.parametrize("power", [1, 2])
def test_loss_and_chance_are_the_mean_error_of_the_rows_under_the_masked_frames(power: int) -> None:
    task = make(power=power).eval()
    torch.nn.init.zeros_(task.head.weight)
    with torch.no_grad():
        task.head.bias.fill_(0.25)

    batch = batch_of(noise(task.encoder.config, LENGTHS))
    output = task(batch, 4)

    loss = chance = weight = 0.0
    for row, units, key in zip(batch.inputs, LENGTHS, batch.keys, strict=True):
        rows = normalise_valid(row[None, :units], torch.tensor([units]), 1e-5)[0]
        frames = int(task.encoder.num_frames(torch.tensor([units])))
        for frame in span_mask(frames, MASK, generator("masks", 3, 4, key)).nonzero()[0]:
            target = rows[1 + 4 * frame : 5 + 4 * frame]  # the middle of the frame's 7 rows
            loss += float((0.25 - target).abs().pow(power).mean())
            chance += float(target.abs().pow(power).mean())
            weight += 1

    assert output.weight == weight
    assert float(output.total.detach()) == pytest.approx(loss, rel=1e-4)
    assert float(output.metrics["chance"]) == pytest.approx(chance, rel=1e-4)


@pytest.mark.parametrize("layers", [0, 2])
def test_padding_and_split_change_nothing(layers: int) -> None:
    assert_blind_to_padding_and_split(lambda: make(layers), make().encoder.config)


@pytest.mark.parametrize("layers", [0, 1])
def test_it_learns_what_can_be_learned(layers: int) -> None:
    task = make(layers)
    losses = losses_of_a_short_run(task, task.encoder.config)
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
