"""The recogniser: CTC loss by enumeration, what is frozen when, masks, and its folder."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import ctc
from reference.models import batch_of, gradients, noise, tiny_encoder
from reference.twins import ctc_twin, their_inputs
from support.folders import seal
from torch import Tensor
from transformers import Wav2Vec2CTCTokenizer

from speechssl.config import as_table
from speechssl.data.collate import Batch
from speechssl.decoding.greedy import greedy
from speechssl.encoder.augment import AugmentConfig
from speechssl.encoder.encoder import load_encoder
from speechssl.encoder.masking import MaskConfig
from speechssl.errors import CheckpointError, ConfigError
from speechssl.interop.convert import load_model
from speechssl.recognition.model import CtcConfig, CtcModel, load_ctc, save_ctc
from speechssl.scoring.calibration import Scaling
from speechssl.storage.checkpoint import load_record, save_folder
from speechssl.storage.saved_folders import RECORD
from speechssl.text.character_tokenizer import CharTokenizer
from speechssl.text.tokenizer import Tokenizer
from speechssl.text.tokenizers import train_tokenizer
from speechssl.training.optim import OptimConfig, make_optimizer

LENGTHS = {
    "base": [700, 431, 250],
    "large": [700, 431, 250],
    "logmel-2": [60, 41, 33],
    "logmel-4": [60, 41, 33],
}
TEXTS = ["ab a", "Ba!", "b"]
QUIET = CtcConfig(dropout=0.0, time_mask=MaskConfig(prob=0.0), channel_mask_prob=0.0)
MASKED = CtcConfig(
    dropout=0.0,
    time_mask=MaskConfig(prob=0.5, length=3),
    channel_mask_prob=0.5,
    channel_mask_length=4,
)


def make(
    kind: str = "base",
    tokenizer: Tokenizer | None = None,
    config: CtcConfig = QUIET,
    **changes: object,
) -> CtcModel:
    model = CtcModel(
        tiny_encoder(kind, **changes), tokenizer or CharTokenizer(" ab"), "basic-1", config, seed=5
    )
    with torch.no_grad():
        model.head.weight.normal_(std=0.3)
        model.head.bias.normal_(std=0.3)
    return model


def labelled(kind: str = "base", **more: object) -> Batch:
    return batch_of(noise(tiny_encoder(kind).config, LENGTHS[kind]), texts=TEXTS, **more)  # type: ignore[arg-type]


# --- the loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a", "ab", "aa", "aba", ""])
def test_the_loss_is_minus_the_log_of_the_sum_over_all_paths(text: str) -> None:
    """And the head's gradient is that of the reference's logits."""
    model = make(tokenizer=CharTokenizer("ab")).eval()
    batch = batch_of(noise(model.encoder.config, [130, 110]), texts=[text, "b"])
    hidden, num_frames = model.encoder(batch.inputs, batch.input_lengths)
    probs = model.log_probs(batch).hidden.detach().double().exp().numpy()
    assert num_frames.tolist() == [6, 5]

    expected, weight, bias = 0.0, np.zeros((4, 16)), np.zeros(4)
    for row, (length, own) in enumerate(zip(num_frames.tolist(), (text, "b"), strict=True)):
        target = [{"a": 2, "b": 3}[letter] for letter in own]
        expected += ctc.loss(probs[row, :length], target)
        gradient = ctc.gradient(probs[row, :length], target)
        weight += gradient.T @ hidden[row, :length].detach().double().numpy()
        bias += gradient.sum(0)

    output = model(batch, 0)
    assert output.total.item() == pytest.approx(expected, rel=1e-5)
    assert output.weight == len(text) + 1
    assert float(output.metrics["loss"]) == pytest.approx(expected, rel=1e-5)

    output.total.backward()
    found = gradients(model)
    np.testing.assert_allclose(found["head.weight"].numpy(), weight, atol=1e-5)
    np.testing.assert_allclose(found["head.bias"].numpy(), bias, atol=1e-5)


def test_transcripts_are_normalised_before_they_are_encoded() -> None:
    model = make()
    assert model.encode_text("  B,A! ") == model.encode_text("b a") == [4, 2, 3]


def test_the_blank_share_counts_valid_frames_only() -> None:
    model = make().eval()
    batch = labelled(more_padding=300)
    log_probs, num_frames = model.log_probs(batch)
    best = torch.cat(
        [row[:t] for row, t in zip(log_probs.argmax(-1), num_frames.tolist(), strict=True)]
    )
    output = model(batch, 0)
    expected = (best == 0).float().mean().item()
    assert 0 < expected < 1
    num_blank, num_outputs = output.shares["blank_share"]
    assert float(num_blank) / num_outputs == pytest.approx(expected)


# --- padding and batches --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(LENGTHS))
def test_padding_changes_neither_log_probabilities_nor_loss(kind: str) -> None:
    model = make(kind).eval()
    plain, padded = labelled(kind), labelled(kind, more_padding=77, fill=float("nan"))

    with torch.no_grad():
        one, other = model.log_probs(plain), model.log_probs(padded)
        assert torch.equal(one.num_frames, other.num_frames)
        assert one.hidden.dtype == torch.float32

        for row, t in enumerate(one.num_frames.tolist()):
            torch.testing.assert_close(
                one.hidden[row, :t], other.hidden[row, :t], atol=1e-5, rtol=0
            )
            torch.testing.assert_close(one.hidden[row, :t].exp().sum(-1), torch.ones(t))

            alone = batch_of([plain.inputs[row, : plain.input_lengths[row]]])
            torch.testing.assert_close(
                model.log_probs(alone).hidden[0], one.hidden[row, :t], atol=1e-5, rtol=0
            )

        first, second = model(plain, 0), model(padded, 0)
    assert second.total.item() == pytest.approx(first.total.item(), rel=1e-5)


@pytest.mark.parametrize("kind", list(LENGTHS))
def test_an_update_is_the_same_for_any_split_with_masks(kind: str) -> None:
    model = make(kind, config=MASKED).train()
    batch = labelled(kind)
    whole = model(batch, 3)
    whole.total.backward()
    expected = gradients(model)

    summed = 0.0
    weight = 0
    for rows in ([2, 0], [1]):
        utterances = [batch.inputs[r, : batch.input_lengths[r]] for r in rows]
        part = model(
            batch_of(utterances, [batch.ids[r] for r in rows], [TEXTS[r] for r in rows]), 3
        )
        part.total.backward()
        summed, weight = summed + part.total.item(), weight + part.weight

    assert (summed, weight) == (pytest.approx(whole.total.item(), rel=1e-5), whole.weight)
    for name, gradient in gradients(model).items():
        scale = float(expected[name].abs().max())
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-3 * scale + 1e-5)


# --- the same as transformers ---------------------------------------------------------------------


def for_both(kind: str) -> tuple[Batch, Tensor, Tensor | None]:
    """A labelled batch, and what transformers gets for it: inputs and attention mask.

    LARGE is padded and normalised by the caller. BASE has equal lengths: their group norm sees
    padding.
    """
    if kind == "base":
        batch = batch_of(noise(tiny_encoder(kind).config, [700, 700, 700]), texts=TEXTS)
        return batch, batch.inputs, None
    batch = labelled(kind)
    return batch, *their_inputs(batch, normalise=True)


@pytest.mark.parametrize("kind", ["base", "large"])
def test_logits_and_loss_equal_transformers(kind: str) -> None:
    model = make(kind).eval()
    theirs = ctc_twin(model)
    batch, inputs, attention = for_both(kind)
    targets = [model.encode_text(text) for text in TEXTS]
    labels = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(t) for t in targets], batch_first=True, padding_value=-100
    )

    result = theirs(inputs, attention_mask=attention, labels=labels)
    output, (log_probs, num_frames) = model(batch, 0), model.log_probs(batch)
    logits = model.head(model.encoder(batch.inputs, batch.input_lengths).hidden)

    for row, t in enumerate(num_frames.tolist()):
        torch.testing.assert_close(logits[row, :t], result.logits[row, :t], atol=1e-5, rtol=0)
        torch.testing.assert_close(
            log_probs[row, :t], result.logits[row, :t].log_softmax(-1), atol=1e-5, rtol=0
        )
    assert output.total.item() == pytest.approx(result.loss.item(), abs=1e-5 * output.weight)


@pytest.mark.parametrize("kind", ["base", "large"])
def test_greedy_transcripts_equal_transformers(kind: str, tmp_path: Path) -> None:
    tokens = {"<pad>": 0, "<unk>": 1, "|": 2, "a": 3, "b": 4}
    (tmp_path / "vocab.json").write_text(json.dumps(tokens))
    their_tokenizer = Wav2Vec2CTCTokenizer(tmp_path / "vocab.json", bos_token=None, eos_token=None)

    model = make(kind).eval()
    batch, inputs, attention = for_both(kind)

    with torch.no_grad():
        # Every token has its turn, except the unknown one, which the two write differently.
        model.head.bias.sub_(
            model.head(model.encoder(batch.inputs, batch.input_lengths).hidden).mean((0, 1))
        )
        model.head.bias[1] = -1000
        log_probs, num_frames = model.log_probs(batch)
        best = ctc_twin(model)(inputs, attention_mask=attention).logits.argmax(-1)

    ids = greedy(log_probs, num_frames)
    texts = [model.tokenizer.decode(row) for row in ids]
    assert {token for row in ids for token in row} == {2, 3, 4}

    for row, t in enumerate(num_frames.tolist()):
        path = best[row, :t].tolist()
        assert ids[row] == list(ctc.collapse(path))
        assert len(ids[row]) > 3
        assert texts[row].split() == their_tokenizer.decode(path).split()


# --- what learns ----------------------------------------------------------------------------------


def update(model: CtcModel, step: int) -> set[str]:
    """One update as the training loop does it; returns what changed."""
    before = {n: t.clone() for n, t in model.state_dict().items()}
    optimizer = make_optimizer(
        [p for p in model.parameters() if p.requires_grad], OptimConfig(weight_decay=0.1)
    )
    model.train()
    model(labelled(), step).total.backward()
    optimizer.step()
    model.zero_grad(set_to_none=True)
    return {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}


def test_the_front_end_stays_as_it_is_unless_asked_for() -> None:
    changed = update(make(config=MASKED), 0)
    assert not any(name.startswith("encoder.front_end.") for name in changed)
    assert {
        "head.weight",
        "encoder.norm.weight",
        "encoder.projection.weight",
        "encoder.mask_embedding",
    } <= changed
    everything = make(config=MASKED.model_copy(update={"train_front_end": True}))
    assert update(everything, 0) == set(everything.state_dict())


def test_only_the_head_learns_at_first() -> None:
    model = make(config=MASKED.model_copy(update={"head_only_steps": 10, "train_front_end": True}))
    for step in (0, 9):
        model.train()
        model(labelled(), step).total.backward()
        assert gradients(model).keys() == {"head.weight", "head.bias"}
        assert update(model, step) == {"head.weight", "head.bias"}
    assert update(model, 10) == set(model.state_dict())


def test_a_frozen_encoder_never_learns_and_gives_the_features_of_evaluation() -> None:
    config = MASKED.model_copy(update={"frozen": True, "train_front_end": True})
    model = make(config=config, dropout=0.5, layer_drop=0.5, attention_dropout=0.5)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        "head.weight",
        "head.bias",
    }
    model.train()
    losses = {model(labelled(), step).total.item() for step in range(5)}
    assert losses == {model.eval()(labelled(), 0).total.item()}
    assert update(model, 10**6) == {"head.weight", "head.bias"}


# --- several outputs a frame, changed inputs ------------------------------------------------------


def test_a_head_of_several_outputs_a_frame_gives_them_one_after_another() -> None:
    config = QUIET.model_copy(update={"tokens_per_frame": 3})
    model = make("logmel-4", config=config).eval()
    texts = ["a", "ab"]
    # One frame and two: few paths to enumerate.
    batch = batch_of(noise(model.encoder.config, [7, 12]), texts=texts)

    hidden, num_frames = model.encoder(batch.inputs, batch.input_lengths)
    found, outputs = model.log_probs(batch)
    assert outputs.tolist() == (3 * num_frames).tolist()
    assert outputs.tolist() == model.num_outputs(batch.input_lengths).tolist()

    size = model.tokenizer.size
    for part in range(3):
        rows = slice(part * size, (part + 1) * size)
        logits = hidden @ model.head.weight[rows].T + model.head.bias[rows]
        assert torch.allclose(found[:, part::3], logits.log_softmax(-1), atol=1e-6)

    expected = sum(
        ctc.loss(row[:count].detach().exp().double().numpy(), model.encode_text(text))
        for row, count, text in zip(found, outputs.tolist(), texts, strict=True)
    )
    assert float(model(batch, 0).total.detach()) == pytest.approx(expected, rel=1e-5)


def test_the_outputs_a_frame_are_part_of_the_model_folder(tmp_path: Path) -> None:
    model = make("logmel-4", config=QUIET.model_copy(update={"tokens_per_frame": 2})).eval()
    save_ctc(model, tmp_path / "model", {})
    batch = labelled("logmel-4")
    with torch.no_grad():
        assert torch.equal(
            load_ctc(tmp_path / "model").log_probs(batch).hidden, model.log_probs(batch).hidden
        )


def test_inputs_are_changed_while_training_only_and_hold_their_transcripts_at_any_tempo() -> None:
    change = AugmentConfig(tempo=0.45, mel_masks=1, mel_mask_bins=2)
    model = make("logmel-4", config=QUIET.model_copy(update={"augment": change})).train()
    # 9 frames for 9 tokens: a faster tempo would leave too few, and an infinite loss.
    batch = batch_of(noise(model.encoder.config, [7 + 4 * 8, 80]), texts=["ababababa", "ab"])
    losses = [float(model(batch, step).total.detach()) for step in range(30)]
    assert np.isfinite(losses).all()
    assert len(set(losses)) == 30
    assert losses[3] == float(model(batch, 3).total.detach())
    model.eval()
    assert float(model(batch, 0).total.detach()) == float(model(batch, 1).total.detach())
    with pytest.raises(ConfigError, match="this encoder reads waveforms"):
        make("base", config=QUIET.model_copy(update={"augment": change}))


# --- masks ----------------------------------------------------------------------------------------


def seen_masks(model: CtcModel, step: int) -> tuple[Tensor | None, Tensor | None]:
    found: list[tuple[Tensor | None, Tensor | None]] = []
    real = model.encoder.contextualise

    def spy(
        normed: Tensor, num_frames: Tensor, mask: Tensor | None, channel_mask: Tensor | None
    ) -> Tensor:
        found.append((mask, channel_mask))
        return real(normed, num_frames, mask, channel_mask)

    model.encoder.contextualise = spy  # type: ignore[assignment, method-assign]
    model(labelled(), step)
    model.encoder.contextualise = real  # type: ignore[method-assign]
    return found[0]


def test_masks_are_of_training_only_and_new_at_every_update() -> None:
    model = make(config=MASKED)
    assert seen_masks(model.eval(), 0) == (None, None)

    losses = {model(labelled(), step).total.item() for step in range(3)}
    assert len(losses) == 1

    model.train()
    drawn = [seen_masks(model, step) for step in (0, 1, 0)]
    num_frames = model.encoder.num_frames(labelled().input_lengths)

    for time, channel in drawn:
        assert time is not None
        assert channel is not None
        assert all(
            row[:t].any() and not row[t:].any()
            for row, t in zip(time, num_frames.tolist(), strict=True)
        )
        assert channel.shape == (3, 16)
        assert channel.any()
        assert not channel.all(1).any()

    for one, other, again in zip(*drawn, strict=True):
        assert one is not None
        assert other is not None
        assert again is not None
        assert torch.equal(one, again)
        assert not torch.equal(one, other)


def test_without_masks_and_dropout_training_and_evaluation_agree() -> None:
    model = make()
    assert model.train()(labelled(), 0).total.item() == model.eval()(labelled(), 0).total.item()


def test_channels_are_masked_with_the_configured_share() -> None:
    model = make(config=MASKED, width=256).train()
    shares = [seen_masks(model, step)[1].float().mean().item() for step in range(60)]  # type: ignore[union-attr]
    # 0.5 before overlap is 32 spans of 4 at different starts of 253: a channel escapes 4.
    assert np.mean(shares) == pytest.approx(1 - (1 - 32 / 253) ** 4, abs=0.01)


# --- the model folder -----------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["chars", "bpe:9"])
@pytest.mark.parametrize("kind", ["large", "logmel-4"])
def test_a_saved_model_loads_to_equal_log_probabilities(
    tmp_path: Path, kind: str, spec: str
) -> None:
    tokenizer = train_tokenizer(spec, ["ab a ab ba", "ba ab", "b a b", "abab"])
    model = make(kind, tokenizer, MASKED).eval()
    save_ctc(model, tmp_path / "model", {"preset": "tiny", "dev_wer": 0.25}, Scaling(0.5, -1.0))

    loaded = load_ctc(str(tmp_path))  # a run folder, and as text
    assert (model.scaling, loaded.scaling) == (Scaling(), Scaling(0.5, -1.0))

    assert not loaded.training
    assert loaded.encoder.config == model.encoder.config
    assert loaded.normaliser == "basic-1"
    assert loaded.encode_text("Ab a") == model.encode_text("Ab a")
    assert loaded.tokenizer.decode([2, 3, 4]) == model.tokenizer.decode([2, 3, 4])

    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in loaded.state_dict().items())

    with torch.no_grad():
        assert torch.equal(
            loaded.log_probs(labelled(kind)).hidden, model.log_probs(labelled(kind)).hidden
        )

    assert load_record(tmp_path / "model")["about"] == {"preset": "tiny", "dev_wer": 0.25}


def test_a_model_whose_replacement_was_killed_still_loads(tmp_path: Path) -> None:
    """Between the two renames of saving, only the old folder is there, under its hidden name."""
    model = make().eval()
    save_ctc(model, tmp_path / "model", {})
    (tmp_path / "model").rename(tmp_path / ".model.old")
    loaded = load_ctc(tmp_path / "model")
    assert torch.equal(loaded.head.weight, model.head.weight)


def test_a_pretrained_encoder_is_no_recogniser(tmp_path: Path) -> None:
    encoder = tiny_encoder("base")
    save_folder(
        tmp_path / "model",
        encoder.state_dict(),
        {"kind": "pretraining", "encoder": as_table(encoder.config)},
    )
    with pytest.raises(CheckpointError, match=r"without a CTC head: fine-tune it first"):
        load_ctc(tmp_path / "model")


def test_weights_that_lack_the_head_are_refused(tmp_path: Path) -> None:
    model = make()
    record = {"kind": "ctc", "encoder": as_table(model.encoder.config), "normaliser": "basic-1"}
    weights = {n: t for n, t in model.state_dict().items() if not n.startswith("head.")}
    save_folder(tmp_path / "model", weights, record, model.tokenizer.files())
    with pytest.raises(CheckpointError, match=r"missing head\.weight; missing head\.bias"):
        load_ctc(tmp_path / "model")


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=RECORD):
        load_ctc(tmp_path)


def test_the_inputs_of_a_frozen_encoder_stay_as_they_are() -> None:
    change = AugmentConfig(tempo=0.3, mel_masks=2, mel_mask_bins=3)
    model = make(
        "logmel-4", config=QUIET.model_copy(update={"augment": change, "frozen": True})
    ).train()
    batch = labelled("logmel-4")
    assert len({float(model(batch, step).total.detach()) for step in range(4)}) == 1


@pytest.mark.parametrize("load", [load_ctc, load_encoder, load_model])
def test_a_setting_of_a_newer_version_names_the_file_and_the_remedy(
    tmp_path: Path, load: Callable[[Path], object]
) -> None:
    save_ctc(make(), tmp_path / "model", {})
    record = dict(load_record(tmp_path / "model"))
    record["encoder"]["rotary"] = True
    seal(tmp_path / "model", record)

    wanted = (
        r"model/record\.json: unknown setting 'rotary'.*with the version of speechssl that wrote"
    )
    with pytest.raises(ConfigError, match=wanted):
        load(tmp_path / "model")
