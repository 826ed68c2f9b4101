"""Quantised targets from log-mel rows: the right rows, blind to padding, none to the front end."""

import pytest
import torch
from reference.models import batch_of, noise, tiny_encoder

from speechssl.encoder.masking import MaskConfig
from speechssl.encoder.padding import normalise_valid
from speechssl.errors import ConfigError
from speechssl.pretraining.contrastive import Contrastive, ContrastiveConfig
from speechssl.pretraining.quantizer import QuantizerConfig

LENGTHS = [190, 90, 60, 140, 99]


def make(kind: str = "logmel-4") -> Contrastive:
    config = ContrastiveConfig(num_negatives=10, width=6, targets="logmel", penalty_weight=0.0)
    quantizer = QuantizerConfig(num_codes=5, width=8, logits_std=0.25)
    return Contrastive(tiny_encoder(kind), config, quantizer, MaskConfig(length=4), seed=3)


@pytest.mark.parametrize(("kind", "subsampling"), [("logmel-2", 2), ("logmel-4", 4)])
def test_rows_are_the_middle_of_each_frames_window(kind: str, subsampling: int) -> None:
    encoder = tiny_encoder(kind)
    (mel,) = noise(encoder.config, [61])
    batch = batch_of([mel], ["x"])

    frames, num_frames = encoder.extract(batch.inputs, batch.input_lengths)
    stacked = encoder.stacked_log_mel(batch.inputs, batch.input_lengths, frames.shape[1])[0]
    rows = normalise_valid(batch.inputs, batch.input_lengths, 1e-5)[0]

    for t in range(int(num_frames)):
        expected = torch.cat([rows[subsampling * t + 1 + i] for i in range(subsampling)])
        assert torch.equal(stacked[t], expected)

        # The window of frame t reads these rows: changing them changes the frame.
        changed = batch.inputs.clone()
        changed[0, subsampling * t + 1 : subsampling * t + 1 + subsampling] += torch.randn(
            subsampling, rows.shape[1]
        )
        assert not torch.allclose(
            encoder.extract(changed, batch.input_lengths)[0][0, t], frames[0, t]
        )


@pytest.mark.parametrize("kind", ["logmel-2", "logmel-4"])
def test_neither_padding_nor_split_changes_a_step(kind: str) -> None:
    model = make(kind).eval()
    mels, ids = noise(model.encoder.config, LENGTHS), [str(i) for i in range(len(LENGTHS))]
    batch = batch_of(mels, ids)
    whole = model(batch, 7)

    wider = torch.nn.functional.pad(batch.inputs, (0, 0, 0, 37), value=float("nan"))
    padded = model(
        type(batch)(batch.ids, batch.keys, wider, batch.input_lengths, batch.texts, batch.audio_s),
        7,
    )
    assert padded.total.item() == pytest.approx(whole.total.item(), rel=1e-6)

    parts = [batch_of(mels[a:b], ids[a:b]) for a, b in ((0, 2), (2, 5))]
    statistics = model.statistics(parts[0], 7) + model.statistics(parts[1], 7)
    total = sum(model(part, 7, statistics).total.item() for part in parts)
    assert total == pytest.approx(whole.total.item(), rel=1e-5)


def test_targets_reach_the_codebook_and_never_the_front_end() -> None:
    model = make().train()
    batch = batch_of(noise(model.encoder.config, LENGTHS), list("abcde"))
    model.encoder.contextualise = lambda *_, wanted: torch.ones(
        *wanted.shape, model.encoder.config.width
    )  # type: ignore[assignment, method-assign, misc]
    model(batch, 0).total.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.encoder.parameters())
    assert model.quantizer.codebook.grad is not None
    assert model.quantizer.codebook.grad.any()
    assert model.quantizer.logits.weight.grad is not None
    assert model.quantizer.logits.weight.grad.any()


def test_a_waveform_encoder_has_no_rows() -> None:
    with pytest.raises(ConfigError, match="needs a log-mel front end"):
        make("base")
