"""Changed log-mel rows: tempo, stretch and masks as configured, per utterance, blind to padding."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from speechssl.encoder.augment import AugmentConfig, augment


def rngs(*seeds: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in seeds]


def ramp(length: int, bins: int = 6) -> Tensor:
    """Rows whose values say where they come from: 100 x row + bin."""
    return 100.0 * torch.arange(length)[:, None] + torch.arange(bins)


def test_nothing_is_changed_by_default() -> None:
    assert not AugmentConfig().active
    inputs = torch.randn(2, 9, 6)
    found, lengths = augment(inputs, torch.tensor([9, 5]), [1, 1], AugmentConfig(), rngs(0, 1))
    assert lengths.tolist() == [9, 5]
    assert torch.equal(found[0], inputs[0])
    assert torch.equal(found[1, :5], inputs[1, :5])
    assert not found[1, 5:].any()


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 200), st.floats(0.01, 0.4), st.integers(0, 1000))
def test_tempo_keeps_order_ends_and_bounds(length: int, tempo: float, seed: int) -> None:
    config = AugmentConfig(tempo=tempo)
    found, lengths = augment(ramp(length)[None], torch.tensor([length]), [1], config, rngs(seed))
    count = int(lengths[0])
    assert round(length / (1 + tempo)) <= count <= round(length / (1 - tempo))
    rows = found[0, :, 0] / 100
    assert float(rows[0]) == 0
    if count > 1:
        assert float(rows[-1]) == pytest.approx(length - 1, rel=1e-5)
        assert bool((rows.diff() >= 0).all())
    bins = found[0] - found[0, :, :1]  # a linear ramp is interpolated exactly
    assert bins.numpy() == pytest.approx(np.broadcast_to(np.arange(6), bins.shape), abs=2e-2)


def test_the_tempo_varies_both_ways_and_never_below_what_is_needed() -> None:
    config, count = AugmentConfig(tempo=0.3), 200
    inputs, lengths = ramp(100).expand(count, -1, -1), torch.full((count,), 100)
    _, free = augment(inputs, lengths, [1] * count, config, rngs(*range(count)))
    assert int(free.min()) < 80
    assert int(free.max()) > 130
    _, bound = augment(inputs, lengths, [95] * count, config, rngs(*range(count)))
    assert bound.tolist() == free.clamp_min(95).tolist()


def test_noise_adds_power_to_the_share_asked_for_and_to_nothing_else() -> None:
    """Rows of one power: what is added lies where the docstring says, and varies by utterance."""
    count, level = 400, 2.0
    inputs = torch.full((count, 50, 80), level)
    lengths = torch.full((count,), 50)
    found, _ = augment(inputs, lengths, [1] * count, AugmentConfig(noise=0.3), rngs(*range(count)))

    is_changed = (found != inputs).flatten(1).any(1)
    assert 0.24 < float(is_changed.float().mean()) < 0.36

    added = (found[is_changed].double().exp() - np.exp(level)).mean((1, 2))
    below_db = 10 * np.log10(np.exp(level) / added.numpy())
    # The bends and the slope of the spectrum move the mean power by a few dB.
    assert 20 < np.median(below_db) < 25
    assert below_db.min() > 0
    assert below_db.max() < 45
    assert below_db.std() > 8


def test_a_stretch_moves_every_bin_by_one_factor() -> None:
    config = AugmentConfig(mel_stretch=0.2)
    found, _ = augment(ramp(4, 50)[None], torch.tensor([4]), [1], config, rngs(3))
    factor = 1 + 0.2 * np.random.default_rng(3).uniform(-1, 1)
    expected = np.minimum(np.arange(50) * factor, 49)
    assert (found[0] - ramp(4, 1)).numpy() == pytest.approx(
        np.broadcast_to(expected, (4, 50)), abs=1e-3
    )


def test_masked_bins_have_their_mean_in_whole_bands_no_wider_than_allowed() -> None:
    config = AugmentConfig(mel_masks=1, mel_mask_bins=5)
    # Every bin is -1, 0 or 1 off its mean, and the padding is anything.
    rows = torch.tensor([-1.0, 1.0, 0.0, -1.0, 1.0, 0.0, 99.0])
    bins = torch.arange(20.0)
    inputs = (rows[:, None] + bins).expand(300, -1, -1).clone()

    found, _ = augment(inputs, torch.full((300,), 6), [1] * 300, config, rngs(*range(300)))
    found = found[:, :2]

    hidden = found == bins
    assert torch.equal(found[~hidden], inputs[:, :2][~hidden])
    assert bool((hidden == hidden[:, :1]).all())  # in all rows alike

    widths = hidden[:, 0].sum(1)
    assert set(widths.tolist()) == set(range(6))

    outside = torch.zeros(300, 1)
    changes = hidden[:, 0].int().diff(dim=1, prepend=outside, append=outside)
    num_edges = changes.abs().sum(1)
    assert set(num_edges.tolist()) == {0, 2}  # one band

    assert float(inputs[:, -1].min()) == 99  # the caller's rows stay


def test_an_utterance_is_changed_alike_whatever_stands_beside_and_behind_it() -> None:
    config = AugmentConfig(tempo=0.2, mel_stretch=0.1, mel_masks=2)
    own = torch.randn(30, 20)
    alone, count = augment(own[None], torch.tensor([30]), [1], config, rngs(5))
    inputs = torch.full((2, 50, 20), torch.nan)
    inputs[1, :30] = own
    inputs[0] = 1.0
    beside, counts = augment(inputs, torch.tensor([50, 30]), [1, 1], config, rngs(9, 5))
    assert int(counts[1]) == int(count[0])
    # But for rounding: a mean is a sum in another order.
    torch.testing.assert_close(beside[1, : int(count[0])], alone[0], atol=1e-6, rtol=0)


def test_hidden_spans_have_the_means_of_their_bins() -> None:
    config = AugmentConfig(time_masks=3, time_mask_rows=9)
    rows = 5 + torch.randn(1, 100, 4, generator=torch.Generator().manual_seed(0))

    found, lengths = augment(rows, torch.tensor([100]), [1], config, rngs(1))

    changed = (found != rows).all(-1)[0]
    assert lengths.tolist() == [100]
    assert 0 < int(changed.sum()) <= 3 * 9
    means = rows.mean(1).expand(int(changed.sum()), -1)
    torch.testing.assert_close(found[0, changed], means)


def test_a_shift_cuts_rows_off_the_beginning_and_leaves_what_is_needed() -> None:
    config = AugmentConfig(shift_rows=2)
    inputs = ramp(20).expand(40, -1, -1)
    needed = [18, 19] * 20

    found, lengths = augment(inputs, torch.full((40,), 20), needed, config, rngs(*range(40)))

    assert set(lengths[0::2].tolist()) == {18, 19, 20}
    assert set(lengths[1::2].tolist()) == {19, 20}
    for rows, count in zip(found, lengths.tolist(), strict=True):
        assert torch.equal(rows[:count], inputs[0, 20 - count :])
        assert not rows[count:].any()
