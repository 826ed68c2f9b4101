"""HiddenUnits by brute force, targets that are blind to what is hidden, and a task that learns."""

import math

import numpy as np
import pytest
import scipy.fft
import torch
from reference.models import batch_of, noise, tiny_encoder
from reference.tasks import LENGTHS, assert_blind_to_padding_and_split, losses_of_a_short_run

from speechssl.data.collate import Batch
from speechssl.encoder.augment import AugmentConfig
from speechssl.encoder.masking import MaskConfig
from speechssl.errors import ConfigError
from speechssl.pretraining.hidden_units import HiddenUnits, HiddenUnitsConfig
from speechssl.pretraining.kmeans import NEIGHBOURS, NUM_CEPSTRA
from speechssl.pretraining.masked_prediction import MaskDecoderConfig

MASK = MaskConfig(prob=0.5, length=3)
PLAIN = AugmentConfig()


class Utterances:
    """What ``HiddenUnits.fit`` asks of ``Dataset``."""

    def __init__(self, lengths: list[int]) -> None:
        torch.manual_seed(4)
        self.utterances = noise(tiny_encoder("logmel-4").config, lengths)

    def __len__(self) -> int:
        return len(self.utterances)

    def batch(self, positions: list[int]) -> Batch:
        return batch_of([self.utterances[p] for p in positions])


def make(teacher: bool = False, layers: int = 0, **settings: object) -> HiddenUnits:
    torch.manual_seed(2)
    encoder = tiny_encoder("logmel-4")
    guide = tiny_encoder("logmel-4") if teacher else None
    config = HiddenUnitsConfig.model_validate({"num_codes": (7, 3), "augment": PLAIN} | settings)
    task = HiddenUnits(
        encoder, guide, config, MASK, 3, MaskDecoderConfig(num_layers=layers, groups=4)
    )
    task.fit(Utterances(LENGTHS))  # type: ignore[arg-type]
    return task


def test_units_are_the_nearest_clusters() -> None:
    task = make()
    described, num_frames = task.describe(batch_of(noise(task.encoder.config, [80, 120])))
    units = task.units(described)
    assert units.shape == (*described.shape[:2], 2)
    for place in described[1, : int(num_frames[1])]:
        scaled = (place - task.mean) * task.scale
        found = task.units(place)
        for index in range(2):
            distances = [
                float((scaled - code).norm()) for code in task.get_buffer(f"codes_{index}")
            ]
            assert int(found[index]) == min(range(len(distances)), key=distances.__getitem__)


def test_cepstra_are_scipys_cosine_transform_of_each_half_frame() -> None:
    task = make(augment=PLAIN)
    encoder = task.encoder
    batch = batch_of(noise(encoder.config, [90]))
    described, num_frames = task.describe(batch)
    rows = encoder.stacked_log_mel(batch.inputs, batch.input_lengths, int(num_frames[0]))[0].numpy()
    bins = encoder.config.features.num_mels
    halves = rows.reshape(len(rows), 2, 2, bins).mean(2)
    wanted = scipy.fft.dct(halves, norm="ortho", axis=-1)[..., 1 : NUM_CEPSTRA + 1]
    per_frame = described[0].reshape(len(rows), -1, 2 * NEIGHBOURS + 1)[..., NEIGHBOURS].numpy()
    assert np.allclose(
        per_frame.reshape(len(rows), 2, -1)[..., : wanted.shape[-1]], wanted, atol=1e-4
    )


def test_the_teacher_is_neither_trained_nor_saved() -> None:
    task = make(teacher=True)
    assert not any("teacher" in name for name in task.state_dict())
    before = [p.clone() for p in task._teacher[0].parameters()]
    losses_of_a_short_run(task, task.encoder.config, steps=3)
    assert all(
        torch.equal(p, q) for p, q in zip(before, task._teacher[0].parameters(), strict=True)
    )
    assert not task._teacher[0].training


def test_a_teacher_describes_with_its_last_layers() -> None:
    task = make(teacher=True, layers=1)
    batch = batch_of(noise(task.encoder.config, [80, 120]))
    described, num_frames = task.describe(batch)

    teacher = task._teacher[0]
    outputs = []
    for layer in teacher.context.layers:
        layer.register_forward_hook(lambda _layer, _inputs, out: outputs.append(out))
    with torch.no_grad():
        teacher(batch.inputs, batch.input_lengths)

    last = outputs[-task.config.layers :]
    wanted = torch.stack(
        [
            (x - x.mean(-1, True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
            for x in last
        ]
    )

    for row, count in enumerate(num_frames.tolist()):
        assert torch.allclose(described[row, :count], wanted.mean(0)[row, :count], atol=1e-5)


def test_units_do_not_see_the_hidden_bands() -> None:
    """The same updates with and without them ask for the same units."""
    asked = []
    for bands in (0, 3):
        task = make(augment=AugmentConfig(tempo=0.2, mel_masks=bands, mel_mask_bins=3))
        seen: list[torch.Tensor] = []
        plain = task.units
        task.units = lambda described, plain=plain, seen=seen: (
            seen.append(plain(described)) or seen[-1]
        )  # type: ignore[misc, assignment, func-returns-value]
        task(batch_of(noise(task.encoder.config, LENGTHS)), 5)
        asked.append(seen[0])
    assert torch.equal(*asked)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_loss_of_an_ignorant_head_is_chance(weight: float) -> None:
    task = make(visible_weight=weight).eval()
    torch.nn.init.zeros_(task.head.weight)
    output = task(batch_of(noise(task.encoder.config, LENGTHS)), 0)
    num_masked, num_frames = output.shares["masked_share"]
    share = float(num_masked) / num_frames
    mean_weight = 1.0 if weight == 0 else share + weight * (1 - share)
    each = (math.log(7) + math.log(3)) / 2
    assert float(output.total.detach()) / output.weight == pytest.approx(
        each * mean_weight, rel=1e-5
    )
    assert float(output.metrics["chance"]) == pytest.approx(float(output.total.detach()), rel=1e-5)


@pytest.mark.parametrize(
    ("teacher", "layers", "weight"), [(False, 0, 0.5), (True, 0, 0.0), (True, 2, 0.5)]
)
def test_padding_and_split_change_nothing(teacher: bool, layers: int, weight: float) -> None:
    assert_blind_to_padding_and_split(
        lambda: make(teacher, layers, visible_weight=weight), make().encoder.config
    )


@pytest.mark.parametrize("teacher", [False, True])
def test_it_learns_what_can_be_learned(teacher: bool) -> None:
    task = make(teacher)
    losses = losses_of_a_short_run(task, task.encoder.config)
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_clusters_are_the_same_each_time_and_are_saved() -> None:
    first, second = make(), make()
    assert torch.equal(first.get_buffer("codes_0"), second.get_buffer("codes_0"))
    assert {"codes_0", "codes_1", "mean", "scale"} <= set(first.state_dict())
    assert first.get_buffer("codes_0").abs().sum() > 0


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="waveforms"):
        HiddenUnits(tiny_encoder("base"), None, HiddenUnitsConfig(), MASK)

    with pytest.raises(ConfigError, match="teacher"):
        HiddenUnits(
            tiny_encoder("logmel-4"),
            tiny_encoder("logmel-2"),
            HiddenUnitsConfig(augment=PLAIN),
            MASK,
        )

    task = HiddenUnits(tiny_encoder("logmel-4"), None, HiddenUnitsConfig(num_codes=(2000,)), MASK)
    with pytest.raises(ConfigError, match="2000 clusters of 42 frames"):
        task.fit(Utterances([90, 90]))  # type: ignore[arg-type]

    teacher = tiny_encoder("logmel-4")
    with pytest.raises(ConfigError, match=r"units\.layers is 99"):
        HiddenUnits(tiny_encoder("logmel-4"), teacher, HiddenUnitsConfig(layers=99), MASK)
