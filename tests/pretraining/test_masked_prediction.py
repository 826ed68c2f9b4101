"""Masked frames: nothing of a hidden frame or of padding reaches a prediction."""

import numpy as np
import pytest
import torch
from reference.models import noise, tiny_encoder
from torch import Tensor

from speechssl.config import build
from speechssl.encoder.context import Visible
from speechssl.encoder.masking import MaskConfig, span_mask
from speechssl.errors import ConfigError
from speechssl.pretraining.masked_prediction import (
    MaskDecoder,
    MaskDecoderConfig,
    MaskedFrames,
    draw_masks,
    make_decoder,
    masked_context,
)

MASK = MaskConfig(prob=0.6, length=3)
COUNTS = [20, 12, 1, 16]


def drawn(least: int = 1) -> MaskedFrames:
    return draw_masks(COUNTS, 22, MASK, [np.random.default_rng(i) for i in range(4)], least)


def test_masks_are_those_of_each_utterance_and_its_frames_are_listed_in_order() -> None:
    masked = drawn()
    for row, count in enumerate(COUNTS):
        own = span_mask(count, MASK, np.random.default_rng(row))
        assert masked.mask[row, :count].tolist() == own.tolist()
        assert not masked.mask[row, count:].any()
        assert masked.frames[row][masked.valid[row]].tolist() == np.flatnonzero(own).tolist()
    flat = masked.mask.ravel().nonzero()[0]
    assert masked.batch_positions.tolist() == flat.tolist()
    assert masked.valid.ravel()[masked.packed_positions].all()
    assert len(masked.packed_positions) == len(flat)


def test_an_utterance_with_too_few_masked_frames_has_none_to_answer_for() -> None:
    most = int(drawn().mask.sum(1).max())
    masked = drawn(least=most)
    assert masked.mask.tolist() == drawn().mask.tolist()
    assert masked.valid.sum(1).tolist() == [m if m >= most else 0 for m in masked.mask.sum(1)]


def context(
    layers: int, frames: Tensor, counts: Tensor, masked: MaskedFrames, everywhere: bool = False
) -> Tensor:
    encoder = tiny_encoder("logmel-4")
    torch.manual_seed(1)
    decoder = make_decoder(16, MaskDecoderConfig(num_layers=layers, kernel=5, groups=4))
    return masked_context(encoder, decoder, frames, counts, masked, everywhere)


@pytest.mark.parametrize("layers", [0, 2])
def test_nothing_of_a_masked_frame_or_of_padding_reaches_the_context(layers: int) -> None:
    masked, counts = drawn(), torch.tensor(COUNTS)
    frames = torch.randn(4, 22, 8)
    found = context(layers, frames, counts, masked)
    hidden = torch.from_numpy(masked.mask) | (torch.arange(22) >= counts[:, None])
    other = torch.where(hidden[..., None], torch.randn(4, 22, 8), frames)
    valid = torch.from_numpy(masked.valid)
    assert torch.equal(context(layers, other, counts, masked)[valid], found[valid])
    changed = frames.clone()
    changed[0][~hidden[0]] += 1.0  # what is visible does reach it
    assert not torch.allclose(
        context(layers, changed, counts, masked)[0][valid[0]], found[0][valid[0]], atol=1e-3
    )


@pytest.mark.parametrize("layers", [0, 2])
def test_an_utterance_alone_has_the_context_that_it_has_in_a_batch(layers: int) -> None:
    masked, frames = drawn(), torch.randn(4, 22, 8)
    together = context(layers, frames, torch.tensor(COUNTS), masked, everywhere=True)
    for row, count in enumerate(COUNTS):
        own = draw_masks([count], count, MASK, [np.random.default_rng(row)])
        alone = context(
            layers, frames[row : row + 1, :count], torch.tensor([count]), own, everywhere=True
        )
        assert torch.allclose(together[row, :count], alone[0], atol=1e-5)


@pytest.mark.parametrize("layers", [0, 2])
def test_everywhere_holds_what_is_asked_for_at_the_masked_frames(layers: int) -> None:
    masked, frames, counts = drawn(), torch.randn(4, 22, 8), torch.tensor(COUNTS)
    asked = context(layers, frames, counts, masked).flatten(0, 1)[masked.packed_positions]
    everywhere = context(layers, frames, counts, masked, everywhere=True).flatten(0, 1)[
        masked.batch_positions
    ]
    assert torch.allclose(asked, everywhere, atol=1e-5)


def test_without_layers_there_is_no_decoder_and_with_them_gaps_are_filled_in_place() -> None:
    assert make_decoder(16, None) is None
    assert make_decoder(16, MaskDecoderConfig()) is None

    torch.manual_seed(0)
    decoder = MaskDecoder(16, MaskDecoderConfig(num_layers=1, groups=4))
    with torch.no_grad():  # a decoder that does nothing but put frames where they belong
        decoder.convs[0].weight.zero_()
        decoder.convs[0].bias.zero_()
        decoder.norms[0].weight.zero_()
        decoder.out.weight.copy_(torch.eye(16))
        decoder.out.bias.zero_()

    hidden = torch.randn(2, 3, 16)
    visible = Visible(torch.tensor([[0, 2, 3], [1, 0, 0]]), torch.tensor([3, 1]))
    out = decoder(hidden, visible, torch.tensor([5, 4]), 5)

    expected = decoder.gap.detach().expand(2, 5, 16).clone()
    expected[0, [0, 2, 3]] = hidden[0]
    expected[1, 1] = hidden[1, 0]
    assert torch.equal(out, expected)


def test_gradients_reach_every_part() -> None:
    encoder = tiny_encoder("logmel-4")
    decoder = make_decoder(16, MaskDecoderConfig(num_layers=2, groups=4))
    assert decoder is not None

    inputs = torch.nn.utils.rnn.pad_sequence(noise(encoder.config, [90, 60]), batch_first=True)
    raw, counts = encoder.extract(inputs, torch.tensor([90, 60]))
    masked = draw_masks(
        counts.tolist(), raw.shape[1], MASK, [np.random.default_rng(i) for i in range(2)]
    )

    masked_context(encoder, decoder, encoder.norm(raw), counts, masked).square().sum().backward()
    silent = [
        n
        for m in (encoder, decoder)
        for n, p in m.named_parameters()
        if p.grad is None or not p.grad.any()
    ]
    assert silent == []


def test_shapes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"decoder kernel 8 must be odd"):
        build(MaskDecoderConfig, {"kernel": 8})
    with pytest.raises(ConfigError, match=r"decoder.groups 5 must divide the encoder's width, 16"):
        make_decoder(16, MaskDecoderConfig(num_layers=1, groups=5))
