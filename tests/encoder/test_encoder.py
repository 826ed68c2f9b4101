"""Padding and batch mates change no output, frame counts are exact, outputs are transformers'."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.models import (
    KINDS,
    TINY,
    as_theirs,
    batch_of,
    their_config,
    tiny_config,
)
from support.encoders import make
from support.settings import PRETRAIN
from torch import Tensor
from transformers import Wav2Vec2Model

from speechssl.config import build
from speechssl.encoder.config import WAV2VEC2_CONVS, EncoderConfig
from speechssl.encoder.encoder import Encoder, load_encoder
from speechssl.encoder.padding import valid_mask
from speechssl.errors import CheckpointError
from speechssl.pretraining.pretrain import pretrain


def valid(hidden: Tensor, num_frames: Tensor) -> list[Tensor]:
    return [h[:t] for h, t in zip(hidden, num_frames.tolist(), strict=True)]


# --- counting frames ------------------------------------------------------------------------------


def test_the_released_convolutions_give_20_ms_frames_of_400_samples() -> None:
    config = build(
        EncoderConfig, TINY | {"features": {"kind": "waveform"}, "conv_layers": WAV2VEC2_CONVS}
    )
    assert config.samples_per_frame == 320
    narrow = build(EncoderConfig, TINY | {"conv_layers": [(2, k, s) for _, k, s in WAV2VEC2_CONVS]})
    counts = Encoder(narrow).num_frames(
        torch.tensor([0, 399, 400, 719, 720, 16_000, round(15.6 * 16_000)])
    )
    assert counts.tolist() == [0, 0, 1, 1, 2, 49, 779]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.just(2), st.integers(1, 6), st.integers(1, 4)), min_size=1, max_size=4),
    st.integers(1, 200),
)
def test_waveform_frame_counts_are_those_of_the_outputs(
    convs: list[tuple[int, int, int]], input_lengths: int
) -> None:
    config = build(
        EncoderConfig,
        TINY | {"features": {"kind": "waveform"}, "conv_layers": convs, "conv_norm": "layer"},
    )
    encoder = Encoder(config)
    units = torch.tensor([input_lengths])
    expected = int(encoder.num_frames(units))
    if expected == 0:
        with pytest.raises(RuntimeError):
            encoder.extract(torch.zeros(1, input_lengths), units)
    else:
        frames, num_frames = encoder.extract(torch.zeros(1, input_lengths), units)
        assert (frames.shape[1], int(num_frames)) == (expected, expected)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["logmel-2", "logmel-4"]), st.integers(1, 100))
def test_log_mel_frame_counts_are_those_of_the_outputs(kind: str, input_lengths: int) -> None:
    encoder = Encoder(tiny_config(kind))
    units = torch.tensor([input_lengths])
    expected = int(encoder.num_frames(units))
    assert encoder.config.samples_per_frame == 160 * encoder.config.subsampling
    if expected == 0:
        with pytest.raises(RuntimeError):
            encoder.extract(torch.zeros(1, input_lengths, 6), units)
    else:
        frames, num_frames = encoder.extract(torch.zeros(1, input_lengths, 6), units)
        assert (frames.shape[1], int(num_frames)) == (expected, expected)


# --- padding and batch mates ----------------------------------------------------------------------


@pytest.mark.parametrize("more", [0, 57])
@pytest.mark.parametrize("fill", [0.0, 100.0, float("nan"), float("inf")])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_no_valid_output(kind: str, fill: float, more: int) -> None:
    encoder, utterances = make(kind)
    batch = batch_of(utterances, more_padding=more, fill=fill)
    with torch.no_grad():
        together = encoder(batch.inputs, batch.input_lengths)
        assert torch.equal(together.num_frames, encoder.num_frames(batch.input_lengths))
        for utterance, found in zip(utterances, valid(*together), strict=True):
            alone = encoder(utterance[None], torch.tensor([len(utterance)])).hidden[0]
            torch.testing.assert_close(found, alone, atol=1e-5, rtol=0)
            assert alone.abs().max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_a_batch_changes_no_output(kind: str) -> None:
    encoder, utterances = make(kind)
    with torch.no_grad():
        batch = batch_of(utterances)
        expected = valid(*encoder(batch.inputs, batch.input_lengths))
        for order in permutations(range(4)):
            batch = batch_of([utterances[i] for i in order])
            for i, found in zip(
                order, valid(*encoder(batch.inputs, batch.input_lengths)), strict=True
            ):
                torch.testing.assert_close(found, expected[i], atol=1e-5, rtol=0)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_no_gradient_reaches_the_padding(kind: str, masked: bool) -> None:
    encoder, utterances = make(kind)
    batch = batch_of(utterances, more_padding=40, fill=3.0)
    inputs = batch.inputs.requires_grad_()
    frames, num_frames = encoder.extract(inputs, batch.input_lengths)
    mask = valid_mask(num_frames, frames.shape[1]) & (torch.arange(frames.shape[1]) % 3 == 1)
    hidden = encoder.contextualise(encoder.norm(frames), num_frames, mask if masked else None)
    torch.cat(valid(hidden, num_frames)).square().sum().backward()
    assert inputs.grad is not None
    for gradient, utterance, count in zip(inputs.grad, utterances, num_frames, strict=True):
        assert (gradient[len(utterance) :] == 0).all()
        # A single frame is its own mean: normalised over the utterance, it says nothing.
        if count > 1 or kind != "convolutions":
            assert gradient[: len(utterance)].abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_weights_get_the_same_gradient_padded_or_alone(kind: str) -> None:
    encoder, utterances = make(kind)

    def gradient(groups: list[list[Tensor]]) -> dict[str, Tensor]:
        encoder.zero_grad()
        for group in groups:
            batch = batch_of(group, fill=float("nan"))
            torch.cat(valid(*encoder(batch.inputs, batch.input_lengths))).square().sum().backward()
        return {n: p.grad.clone() for n, p in encoder.named_parameters() if p.grad is not None}

    together, alone = gradient([utterances]), gradient([[u] for u in utterances])
    assert (
        together.keys()
        == alone.keys()
        == {n for n, _ in encoder.named_parameters()} - {"mask_embedding"}
    )
    for name, expected in alone.items():
        torch.testing.assert_close(
            together[name], expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()) + 1e-5
        )


def test_log_mel_is_normalised_per_utterance_so_loudness_does_not_matter() -> None:
    encoder, utterances = make("logmel-4")
    louder = [u + 2.5 for u in utterances]  # a gain is a constant in the logarithm
    quiet, loud = batch_of(utterances), batch_of(louder)
    with torch.no_grad():
        one, other = (
            encoder(quiet.inputs, quiet.input_lengths),
            encoder(loud.inputs, loud.input_lengths),
        )
    for left, right in zip(valid(*one), valid(*other), strict=True):
        torch.testing.assert_close(left, right, atol=1e-4, rtol=0)


# --- masks and dropped layers ---------------------------------------------------------------------


def test_masked_frames_are_one_learned_vector_after_the_projection() -> None:
    encoder, utterances = make("base")
    frames, num_frames = encoder.extract(utterances[0][None], torch.tensor([700]))
    normed = encoder.norm(frames)
    mask = torch.zeros(1, frames.shape[1], dtype=torch.bool)
    mask[0, 5:9] = True
    channels = torch.zeros(1, 16, dtype=torch.bool)
    channels[0, 3:6] = True

    seen: list[Tensor] = []
    handle = encoder.context.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    encoder.contextualise(normed, num_frames, mask, channels)
    handle.remove()

    expected = encoder.projection(normed)
    expected[0, 5:9] = encoder.mask_embedding
    expected[..., 3:6] = 0
    torch.testing.assert_close(seen[0], expected)

    # What stood at the masked frames has no influence.
    changed = normed.clone()
    changed[0, 5:9] = 50.0
    before = encoder.contextualise(normed, num_frames, mask)
    after = encoder.contextualise(changed, num_frames, mask)
    torch.testing.assert_close(after, before, atol=0, rtol=0)


# --- the same as transformers ---------------------------------------------------------------------


def twin(encoder: Encoder) -> Wav2Vec2Model:
    theirs = Wav2Vec2Model(their_config(encoder.config)).eval()
    theirs.load_state_dict(as_theirs(encoder.state_dict(), encoder.config), strict=True)
    return theirs


def normalised(utterance: Tensor) -> Tensor:
    values = utterance.double().numpy()
    return torch.from_numpy(
        ((values - values.mean()) / np.sqrt(values.var() + 1e-7)).astype(np.float32)
    )


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("base", {}),
        ("base", {"pos_kernel": 7, "num_heads": 4}),
        ("base-pre", {}),
        ("large", {}),
        ("large", {"norm": "post", "num_layers": 1}),
    ],
)
def test_outputs_equal_transformers_with_the_same_weights(
    kind: str, changes: dict[str, object]
) -> None:
    encoder, utterances = make(kind, **changes)
    theirs = twin(encoder)
    for utterance in utterances:
        with torch.no_grad():
            found = encoder(utterance[None] * 3 + 1, torch.tensor([len(utterance)])).hidden
            # BASE reads what it gets. LARGE normalises itself, which theirs leaves to the caller.
            given_to_them = normalised(utterance * 3 + 1) if kind == "large" else utterance * 3 + 1
            expected = theirs(given_to_them[None]).last_hidden_state
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_large_equals_transformers_when_padded() -> None:
    encoder, utterances = make("large")
    batch = batch_of(utterances, fill=9.0)
    padded = batch_of([normalised(u) for u in utterances])
    attention = valid_mask(padded.input_lengths, padded.inputs.shape[1]).long()
    with torch.no_grad():
        found = encoder(batch.inputs, batch.input_lengths)
        expected = twin(encoder)(padded.inputs, attention_mask=attention).last_hidden_state
    for one, other in zip(valid(*found), valid(expected, found.num_frames), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_masked_outputs_equal_transformers() -> None:
    encoder, utterances = make("base")
    frames, num_frames = encoder.extract(utterances[0][None], torch.tensor([700]))
    mask = torch.arange(frames.shape[1])[None] % 5 < 2
    with torch.no_grad():
        found = encoder.contextualise(encoder.norm(frames), num_frames, mask)
        expected = twin(encoder)(utterances[0][None], mask_time_indices=mask).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


# --- loading --------------------------------------------------------------------------------------


def test_an_unfinished_run_is_no_model(labelled_store: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither a model folder"):
        load_encoder(tmp_path)
    run = tmp_path / "run"
    pretrain([labelled_store], run, PRETRAIN)
    (run / "model").rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="not finished"):
        load_encoder(run)
    # A model folder can be moved anywhere.
    assert isinstance(load_encoder(tmp_path / "elsewhere"), Encoder)
