"""The blockwise front end against the plain one, and the planes against numpy's windows."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor, nn

from speechssl.config import build
from speechssl.encoder import front_end
from speechssl.encoder.config import EncoderConfig
from speechssl.encoder.front_end import PlaneFrontEnd, WaveformFrontEnd

PUBLISHED = [(6, 10, 5), (6, 3, 2), (6, 3, 2), (4, 2, 2)]
ODD = [(7, 3, 3), (6, 5, 1), (5, 1, 1), (8, 4, 3), (6, 2, 3)]


def make(convs: list[tuple[int, int, int]], grouped: bool, bias: bool = False) -> WaveformFrontEnd:
    torch.manual_seed(0)
    module = WaveformFrontEnd(convs, grouped, bias, normalise_input=False)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def gradients(
    module: WaveformFrontEnd, frames: Tensor, above: Tensor, samples: Tensor
) -> dict[str, Tensor]:
    module.zero_grad()
    samples.grad = None
    frames.backward(above)  # type: ignore[no-untyped-call]
    leaves = [("samples", samples), *module.named_parameters()]
    return {name: leaf.grad.clone() for name, leaf in leaves if leaf.grad is not None}


@pytest.mark.parametrize("block", [1, 100, 1 << 20])
@pytest.mark.parametrize(
    ("convs", "grouped", "bias"),
    [
        (PUBLISHED, True, False),
        (PUBLISHED, True, True),
        (PUBLISHED, False, True),
        (PUBLISHED, False, False),
        (ODD, True, False),
        (ODD, False, True),
        (PUBLISHED[:1], True, False),
    ],
)
def test_blocks_of_any_size_give_the_frames_and_gradients_of_the_plain_way(
    convs: list[tuple[int, int, int]],
    grouped: bool,
    bias: bool,
    block: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(front_end, "BLOCK_VALUES", block)
    module = make(convs, grouped, bias)
    counts = torch.tensor([900, 411, 700])
    samples = (torch.randn(3, 930) * (torch.arange(930) < counts[:, None])).requires_grad_()

    found, expected = module(samples, counts), module._plain(samples, counts)
    assert found.shape == expected.shape

    num_frames = counts
    for kernel, stride in module.windows:
        num_frames = (num_frames - kernel) // stride + 1
    valid = (torch.arange(found.shape[1]) < num_frames[:, None])[..., None]
    torch.testing.assert_close(found * valid, expected * valid, atol=2e-5, rtol=1e-5)

    above = torch.randn_like(found) * valid
    left = gradients(module, found, above, samples)
    right = gradients(module, expected, above, samples)
    if grouped and bias:
        # It goes away with the mean: zero but for rounding, and not computed at all.
        assert right.pop("convs.0.bias").abs().max() < 1e-3

    assert left.keys() == right.keys()
    for name, gradient in right.items():
        largest = float(gradient.abs().max())
        torch.testing.assert_close(left[name], gradient, atol=1e-5 * largest + 1e-5, rtol=1e-4)


@pytest.mark.parametrize("learning", ["convs.0", "convs.2", "layer_norms.1", "layer_norms.3"])
def test_parameters_that_learn_alone_get_the_same_gradient(learning: str) -> None:
    module, counts = make(PUBLISHED, grouped=False, bias=True), torch.tensor([900])
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name.startswith(learning))
    samples = torch.randn(1, 900)
    found, expected = module(samples, counts), module._plain(samples, counts)
    left, right = (
        gradients(module, out, torch.ones_like(out), samples) for out in (found, expected)
    )
    assert sorted(left) == sorted(right) == [f"{learning}.bias", f"{learning}.weight"]
    for name, gradient in right.items():
        torch.testing.assert_close(left[name], gradient, atol=1e-4, rtol=1e-4)


def test_padded_outputs_give_no_gradient() -> None:
    module, counts = make(PUBLISHED, True, True), torch.tensor([900, 300])
    module(torch.randn(2, 900), counts)[1, -1].sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in module.convs[1:].parameters())


def test_the_largest_activations_are_never_kept() -> None:
    """The backward pass keeps less than one copy of the first layer's output, instead of three."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    module, samples = make([(64, 10, 5), (64, 3, 2), (64, 3, 2)], True), torch.randn(1, 50_000)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        module(samples, torch.tensor([50_000]))
    assert 0 < sum(kept.values()) < 10_000 * 64 * 4


@pytest.mark.parametrize("grouped", [True, False])
def test_no_utterance_has_a_gradient_of_the_whole_batch(grouped: bool) -> None:
    module = make(PUBLISHED, grouped)

    def num_gradients_of_an_index(batch: int) -> int:
        samples = torch.randn(batch, 900, requires_grad=True)
        frames = module(samples, torch.full((batch,), 900))
        seen: set[Any] = set()
        left: list[Any] = [frames.grad_fn]
        while left:
            node = left.pop()
            if node is not None and node not in seen:
                seen.add(node)
                left += [below for below, _ in node.next_functions]
        return sum(node.name() == "SelectBackward0" for node in seen)

    # Each takes as long as the batch is large: as many as utterances would take its square.
    assert num_gradients_of_an_index(batch=6) == num_gradients_of_an_index(batch=2)


def test_too_few_samples_for_a_frame_are_refused() -> None:
    with pytest.raises(RuntimeError):
        make(PUBLISHED, True)(torch.randn(1, 20), torch.tensor([20]))


class Unchanged(nn.Module):
    """In place of what normalises the rows."""

    def forward(self, inputs: Tensor, input_lengths: Tensor) -> Tensor:
        return inputs


@pytest.mark.parametrize("mel_stride", [2, 4])
@pytest.mark.parametrize("num_mels", [80, 39])
def test_the_planes_are_convolutions_over_time_and_mel(mel_stride: int, num_mels: int) -> None:
    config = build(
        EncoderConfig,
        {
            "features": {"kind": "logmel", "num_mels": num_mels},
            "front_end": "conv2d",
            "subsampling": 3,
            "channels": 2,
            "mel_stride": mel_stride,
            "width": 8,
            "num_heads": 2,
            "pos_groups": 2,
        },
    )

    torch.manual_seed(0)
    module = PlaneFrontEnd(Unchanged(), 2, config.frame_windows, config.mel_strides).double()
    rows = torch.randn(2, 20, num_mels, dtype=torch.float64)
    lengths = torch.tensor([20, 20])

    found = module(rows, lengths)

    planes = rows.detach().numpy()[:, None]
    for conv, (kernel, stride), own_mel_stride in zip(
        module.convs, config.frame_windows, config.mel_strides, strict=True
    ):
        half = kernel // 2
        padded = np.pad(planes, ((0, 0), (0, 0), (0, 0), (half, half)))
        weight = conv.weight.detach().numpy()
        bias = conv.bias.detach().numpy()
        windows = sliding_window_view(padded, (kernel, kernel), axis=(2, 3))
        windows = windows[:, :, ::stride, ::own_mel_stride]
        planes = np.einsum("bctfkl,dckl->bdtf", windows, weight) + bias[:, None, None]
        planes = planes.clip(0)

    assert found.shape[2] == config.front_width
    expected = planes.transpose(0, 2, 1, 3).reshape(2, found.shape[1], -1)
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-12)
