"""The context network: positions, convolutions, dropped layers, and frames that are wanted."""

import pytest
import torch
import torch.nn.functional as F
from reference.models import KINDS, batch_of, tiny_config
from support.encoders import make

from speechssl.encoder.context import ContextNetwork, ConvModule


def test_dropped_layers_are_skipped_in_training_only() -> None:
    encoder, utterances = make("base", layer_drop=0.5)
    inputs, units = utterances[0][None], torch.tensor([700])
    assert torch.equal(encoder(inputs, units).hidden, encoder(inputs, units).hidden)
    encoder.train()
    torch.manual_seed(0)
    outputs = {round(encoder(inputs, units).hidden.sum().item(), 3) for _ in range(40)}
    assert len(outputs) == 4  # each of two layers in or out


@pytest.mark.parametrize("kernel", [1, 7, 8])
def test_positions_are_centred_and_as_many_as_frames(kernel: int) -> None:
    """Frame t sees as many frames before as after it; an even kernel reaches one further back."""
    torch.manual_seed(0)
    network = ContextNetwork(tiny_config("base", pos_kernel=kernel, num_layers=1))
    hidden = torch.randn(1, 30, 16, requires_grad=True)
    positions = network.pos_conv(hidden.transpose(1, 2))[..., :30]
    positions[0, :, 15].sum().backward()
    assert hidden.grad is not None
    seen = hidden.grad[0].abs().sum(1).nonzero().ravel()
    assert (int(seen.min()), int(seen.max())) == (15 - kernel // 2, 15 + (kernel - 1) // 2)


def test_the_convolution_of_a_layer_is_gated_depthwise_and_sees_as_far_as_its_kernel() -> None:
    torch.manual_seed(0)
    module = ConvModule(4, 5, 0.0).eval()
    hidden = torch.randn(1, 12, 4)

    with torch.no_grad():
        found = module(hidden, None)[0]

        normed = F.layer_norm(hidden[0], (4,), module.norm_in.weight, module.norm_in.bias)
        value, gate = module.gate(normed).chunk(2, -1)
        padded = F.pad(value * torch.sigmoid(gate), (0, 0, 2, 2))

        kernel = module.depthwise.weight[:, 0].T
        for t in range(12):
            window = (padded[t : t + 5] * kernel).sum(0) + module.depthwise.bias
            around = F.layer_norm(window, (4,), module.norm.weight, module.norm.bias)
            expected = module.out(around * torch.sigmoid(around))
            assert torch.allclose(found[t], expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_frames_that_are_wanted_are_those_of_all_frames(kind: str, num_layers: int) -> None:
    """Values and gradients; any order, also a frame twice, also in padded batches."""
    encoder, utterances = make(kind, num_layers=num_layers)
    batch = batch_of(utterances)
    frames, num_frames = encoder.extract(batch.inputs, batch.input_lengths)
    normed = encoder.norm(frames)
    wanted = torch.stack([torch.randint(int(count), (5,)) for count in num_frames.clamp(min=1)])

    picked = encoder.contextualise(normed, num_frames, wanted=wanted)
    everything = encoder.contextualise(normed, num_frames)
    expected = everything.gather(1, wanted[..., None].expand(-1, -1, everything.shape[2]))
    torch.testing.assert_close(picked, expected, rtol=0, atol=1e-6)

    parameters = [p for p in encoder.parameters() if p.requires_grad]
    direction = torch.randn_like(expected)
    gradients = [
        torch.autograd.grad(
            (out * direction).sum(), parameters, retain_graph=True, allow_unused=True
        )
        for out in (picked, expected)
    ]

    for own, other in zip(*gradients, strict=True):
        assert (own is None) == (other is None)
        if own is not None and other is not None:
            torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)
