"""Norms of valid frames against torch's."""

import pytest
import torch

from speechssl.encoder.norm import ValidBatchNorm, ValidGroupNorm


@pytest.mark.parametrize("length", [160, 16_000])
def test_the_folded_group_norm_is_torchs(length: int) -> None:
    """Also far from zero mean, where a variance from sums would lose its digits."""
    torch.manual_seed(1)
    conv, norm = torch.nn.Conv1d(1, 8, 10, 5, bias=False), ValidGroupNorm(8)
    samples = 3 + 0.01 * torch.randn(1, length)
    count = torch.tensor([(length - 10) // 5 + 1])
    weights, biases = norm.folded(samples, conv, count)
    found = samples[0].double().unfold(0, 10, 5) @ weights[0].double() + biases[0].double()
    expected = torch.nn.functional.group_norm(conv.double()(samples[None].double()), 8)[0].T
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)


def test_the_folded_group_norm_reads_valid_windows_only() -> None:
    torch.manual_seed(1)
    conv = torch.nn.Conv1d(1, 8, 10, 5, bias=False)
    norm = ValidGroupNorm(8)
    short, long = torch.randn(300), torch.randn(800)
    padded = torch.stack([torch.nn.functional.pad(short, (0, 500)), long])

    weights, biases = norm.folded(padded, conv, torch.tensor([59, 159]))

    for row, samples in enumerate((short, long)):
        num_windows = torch.tensor([(len(samples) - 10) // 5 + 1])
        own_weights, own_biases = norm.folded(samples[None], conv, num_windows)
        torch.testing.assert_close(weights[row], own_weights[0])
        torch.testing.assert_close(biases[row], own_biases[0])


def test_group_norm_of_full_batches_is_torchs_and_of_padded_ones_the_same() -> None:
    torch.manual_seed(0)
    frames, norm = 5 + 3 * torch.randn(3, 4, 50), ValidGroupNorm(4)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    theirs = torch.nn.GroupNorm(4, 4)
    theirs.load_state_dict(norm.state_dict())
    lengths = torch.tensor([50, 20, 2])
    found = norm(frames, lengths)
    for row, length in enumerate(lengths.tolist()):
        expected = theirs(frames[row : row + 1, :, :length])[0]
        torch.testing.assert_close(found[row, :, :length], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(norm(frames, torch.full((3,), 50)), theirs(frames))


def test_group_norm_computes_in_float32_under_mixed_precision() -> None:
    torch.manual_seed(0)
    frames, norm, lengths = (
        (20 + torch.randn(2, 4, 400)).bfloat16(),
        ValidGroupNorm(4),
        torch.tensor([400, 300]),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        padded, alone = norm(frames, lengths), norm(frames[:1], lengths[:1])
    assert padded.dtype == torch.float32
    torch.testing.assert_close(padded, norm(frames.float(), lengths), atol=0, rtol=0)
    torch.testing.assert_close(padded[:1], alone, atol=1e-4, rtol=0)


def test_a_single_frame_is_its_own_mean() -> None:
    """torch refuses it, as it has no variance; what is left is the bias."""
    norm = ValidGroupNorm(4)
    torch.nn.init.normal_(norm.bias)

    found = norm(torch.randn(1, 4, 1), torch.tensor([1]))

    torch.testing.assert_close(found[0, :, 0], norm.bias)


@pytest.mark.parametrize("inner", [(), (5,)])
def test_a_batch_norm_learns_from_valid_frames_only(inner: tuple[int, ...]) -> None:
    """With torch's, which sees the frames of all utterances one after another."""
    torch.manual_seed(0)
    lengths = torch.tensor([7, 3, 1])
    frames = 5 + 3 * torch.randn(3, 7, *inner, 4)
    valid = torch.arange(7) < lengths[:, None]
    frames[~valid] = 1e4
    ours, theirs = ValidBatchNorm(4), torch.nn.BatchNorm1d(4)
    for norm in (ours, theirs):
        torch.nn.init.constant_(norm.weight, 1.5)
        torch.nn.init.constant_(norm.bias, -0.5)

    found = ours(frames, valid)
    together = torch.cat([own[:count] for own, count in zip(frames, lengths, strict=True)])
    expected = theirs(together.movedim(-1, 1)).movedim(1, -1)

    torch.testing.assert_close(found[valid], expected)
    assert not found[~valid].any()
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)

    # Afterwards no frame depends on another.
    ours.eval()
    together, alone = ours(frames, valid), ours(frames[1:2, :3])
    torch.testing.assert_close(together[1, :3], alone[0])


def test_a_batch_norm_computes_in_float32_under_mixed_precision() -> None:
    norm = ValidBatchNorm(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert norm(torch.randn(2, 5, 4).bfloat16()).dtype == torch.float32


def test_a_single_frame_has_the_running_statistics_in_a_batch_norm() -> None:
    norm = ValidBatchNorm(4)
    frames = torch.randn(1, 2, 4)

    found = norm(frames, torch.tensor([[True, False]]))

    assert norm.training
    torch.testing.assert_close(found[0, 0], frames[0, 0], atol=1e-4, rtol=1e-4)
    assert not norm.running_mean.any()
