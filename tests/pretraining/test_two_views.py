"""TwoViews: the loss by brute force, blind to padding and split, and it learns."""

import pytest
import torch
import torch.nn.functional as F
from reference.models import batch_of, noise, tiny_encoder
from reference.tasks import LENGTHS, assert_blind_to_padding_and_split, losses_of_a_short_run

from speechssl.encoder.augment import AugmentConfig
from speechssl.encoder.masking import MaskConfig
from speechssl.errors import ConfigError
from speechssl.pretraining.masked_prediction import MaskDecoderConfig
from speechssl.pretraining.two_views import TwoViews, TwoViewsConfig

MASK = MaskConfig(prob=0.5, length=3)


def make(layers: int = 0) -> TwoViews:
    torch.manual_seed(2)
    config = TwoViewsConfig(
        width=12, augment=AugmentConfig(mel_stretch=0.1, mel_masks=1, mel_mask_bins=2)
    )
    return TwoViews(
        tiny_encoder("logmel-4"), config, MASK, 3, MaskDecoderConfig(num_layers=layers, groups=4)
    )


def test_each_masked_frame_is_told_from_the_other_frames_of_the_other_view() -> None:
    task = make().eval()
    batch = batch_of(noise(task.encoder.config, LENGTHS))
    output = task(batch, 4)

    (first, counts, masked), (second, _, masked_too) = (
        task._view(batch, 4, which) for which in range(2)
    )

    loss, weight = 0.0, 0
    for row, count in enumerate(counts.tolist()):
        for own, other, mask in ((first, second, masked.mask), (second, first, masked_too.mask)):
            for frame in mask[row].nonzero()[0].tolist():
                similar = torch.stack(
                    [F.cosine_similarity(own[row, frame], other[row, t], 0) for t in range(count)]
                )
                loss -= float((similar / 0.1).log_softmax(0)[frame].detach())
                weight += 1

    assert output.weight == weight
    assert float(output.total.detach()) == pytest.approx(loss, rel=1e-4)
    assert (masked.mask != masked_too.mask).any()
    assert not torch.allclose(first, second, atol=1e-2)


@pytest.mark.parametrize("layers", [0, 2])
def test_padding_and_split_change_nothing(layers: int) -> None:
    assert_blind_to_padding_and_split(lambda: make(layers), make().encoder.config)


def test_it_learns_what_can_be_learned() -> None:
    task = make()
    losses = losses_of_a_short_run(task, task.encoder.config)
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_waveforms_have_no_rows_to_change() -> None:
    with pytest.raises(ConfigError, match="this encoder reads waveforms"):
        TwoViews(tiny_encoder("base"), TwoViewsConfig(), MASK)


def test_a_tempo_would_tear_the_views_apart() -> None:
    with pytest.raises(ValueError, match="tempo"):
        TwoViewsConfig(augment=AugmentConfig(tempo=0.1))
