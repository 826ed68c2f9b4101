"""Linear probes read the frames, judge held-out recordings only, and leave the encoder alone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.models import batch_of, noise, tiny_encoder
from support.models import SMALL_ENCODER
from support.speech import RATE, speak

from speechssl.analysis import probe_examples, probe_report, probing
from speechssl.analysis.probe_examples import Examples, choose_examples
from speechssl.analysis.probe_frames import log_mel_frames
from speechssl.analysis.probe_heads import character_errors
from speechssl.analysis.probe_targets import PROBE_TARGETS
from speechssl.analysis.probing import MIX, Probed, probe, watch
from speechssl.audio.reader import write_wav
from speechssl.config import build
from speechssl.data.dataset import Dataset
from speechssl.data.prepare import PrepareConfig, prepare
from speechssl.data.store import Store
from speechssl.encoder.config import EncoderConfig
from speechssl.encoder.encoder import Encoder, layer_outputs
from speechssl.errors import ConfigError


def small_encoder(seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    return Encoder(build(EncoderConfig, SMALL_ENCODER))


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of words in folders of their names, with text: three classes."""
    folder, rng = tmp_path_factory.mktemp("letters"), np.random.default_rng(0)
    rows = ["file_name,transcription,speaker,split"]
    for word in ("aab", "cdc", "bf"):
        (folder / word).mkdir()
        for n in range(32):
            write_wav(folder / word / f"{n}.wav", np.tile(speak(word, rng), 2), RATE)
            rows.append(f"{word}/{n}.wav,{word},s{word},{'dev' if n % 4 == 3 else 'train'}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    prepare(folder, folder.parent / f"{folder.name}-store")
    return folder.parent / f"{folder.name}-store"


@pytest.mark.parametrize("kind", ["base", "logmel-4"])
def test_layers_are_those_of_the_encoder_and_nothing_of_it_changes(kind: str) -> None:
    encoder = tiny_encoder(kind).train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    batch = batch_of(noise(encoder.config, [700, 500] if kind == "base" else [90, 60]))

    layers, num_frames = layer_outputs(encoder, batch.inputs, batch.input_lengths)
    assert encoder.training
    assert len(layers) == 3
    assert num_frames.tolist() == encoder.num_frames(batch.input_lengths).tolist()

    with torch.no_grad():
        frames, _ = encoder.extract(batch.inputs, batch.input_lengths)
        projected = encoder.projection(encoder.norm(frames))
        last, _ = encoder.eval()(batch.inputs, batch.input_lengths)

    assert torch.allclose(layers[0], projected)
    expected = encoder.context.norm(layers[-1]) if encoder.config.norm == "pre" else layers[-1]
    assert torch.allclose(expected, last, atol=1e-6)

    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert not any(module._forward_hooks for module in encoder.modules())


@pytest.mark.parametrize("kind", ["base", "logmel-2", "logmel-4"])
def test_log_mel_has_as_many_frames_as_the_encoder_and_padding_changes_none(kind: str) -> None:
    encoder = tiny_encoder(kind)
    lengths = [3000, 1700] if kind == "base" else [90, 60]
    utterances = noise(encoder.config, lengths)
    (together,), counts = log_mel_frames(
        encoder, batch_of(utterances, more_padding=40, fill=float("nan"))
    )
    for row, count, own in zip(together, counts.tolist(), utterances, strict=True):
        (alone,), _ = log_mel_frames(encoder, batch_of([own]))
        assert alone.shape[1] == count
        assert torch.allclose(row[:count], alone[0], atol=1e-5)


def test_tones_are_told_apart_and_the_results_are_complete(letters: Path, tmp_path: Path) -> None:
    encoder = small_encoder()
    results = probe(encoder, {"keyword": letters, "digit": letters, "speaker": letters})
    assert {r.system for r in results} == {"model", "random", "log-mel"}

    for target in ("keyword", "digit", "speaker"):
        own = [r for r in results if r.target == target]
        assert [r.layer for r in own] == [*"012", MIX, *"012", MIX, "log-mel"]
        assert all(r.chance > 0.4 for r in own)
        assert min(r.error for r in own if r.system == "model") < 0.25, own
    assert {r.examples for r in results if r.target == "digit"} == {24}

    probe_report.write_probes(results, tmp_path / "out", {"model": "m"})
    written = json.loads((tmp_path / "out" / "probe.json").read_text(encoding="utf-8"))
    assert [Probed(**row) for row in written["results"]] == results
    assert (tmp_path / "out" / "probe.png").read_bytes().startswith(b"\x89PNG")

    lines = probe_report.as_text(results).splitlines()
    assert len(lines) == 2 + 9
    assert lines[0].split("|")[3].strip() == "log-mel"


def test_labels_without_a_relation_to_the_sound_stay_at_chance(
    letters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is measured was not learned from."""

    def shuffled(*args: object) -> Examples:
        found = choose_examples(*args)  # type: ignore[arg-type]
        labels = np.random.default_rng(1).permutation(found.labels).tolist()
        return Examples(found.dataset, labels, found.train)

    monkeypatch.setattr(probing, "choose_examples", shuffled)
    results = probe(small_encoder(), {"digit": letters})
    assert all(r.error > 0.3 for r in results)


@pytest.mark.slow
def test_characters_are_read_better_than_by_chance_and_the_same_twice(labelled_store: Path) -> None:
    """Alone, as ``watch`` does it, the mix learns what it learns beside the layers."""
    encoder = small_encoder()
    examples = choose_examples("characters", Dataset([Store(labelled_store)]), encoder, 10.0, 0)
    read_frames = probing._layers_of(encoder)
    errors, chance = character_errors(examples, encoder, read_frames, 0, only_mix=False)
    *layers, mix = errors
    assert len(layers) == 3
    assert chance == 1
    assert all(0 < error < 0.8 for error in errors), errors
    (alone,) = probe(small_encoder(), {"characters": labelled_store}, only_mix=True)
    assert (alone.layer, alone.error) == (MIX, pytest.approx(mix, abs=0.03))
    assert probe(small_encoder(), {"characters": labelled_store}, only_mix=True) == [alone]


def test_no_recording_is_on_both_sides(tmp_path: Path) -> None:
    """Pieces of one recording stay together."""
    rng = np.random.default_rng(0)
    for word in "ab":
        (tmp_path / "in" / word).mkdir(parents=True)
        for n in range(12):
            wave = np.concatenate(
                [np.pad(np.tile(speak(word, rng), 8), (0, RATE)) for _ in range(2)]
            )
            write_wav(tmp_path / "in" / word / f"{n}.wav", wave, RATE)

    prepare(tmp_path / "in", tmp_path / "store", PrepareConfig(min_chunk_s=0.5, max_chunk_s=2.0))
    dataset = Dataset([Store(tmp_path / "store")])

    found = choose_examples("keyword", dataset, small_encoder(), 10.0, 0)
    audio = [found.dataset.stores[0].record(int(i)).audio for i in found.dataset.index_of]
    learned, held_out = set(audio[: found.train]), set(audio[found.train :])

    assert len(audio) > len(learned | held_out)  # several pieces of a recording
    assert held_out
    assert not learned & held_out


def test_a_store_that_cannot_answer_says_what_is_needed(letters: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for n in range(3):
        write_wav(tmp_path / "in" / f"{n}.wav", np.tile(speak("abc", rng), 6), RATE)
    prepare(tmp_path / "in", tmp_path / "store")

    for target in PROBE_TARGETS:
        with pytest.raises(ConfigError, match=f"cannot answer for {target}"):
            probe(small_encoder(), {target: tmp_path / "store"})
        # A run says it before its first update.
        with pytest.raises(ConfigError, match=f"cannot answer for {target}"):
            watch({target: tmp_path / "store"}, small_encoder().config)

    with pytest.raises(ConfigError, match="prepare it anew"):
        probe(tiny_encoder("base"), {"digit": letters})


def test_characters_hold_a_part_of_a_large_dev_split(
    labelled_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All layers of all its frames would not fit into memory."""
    dataset = Dataset([Store(labelled_store)])
    whole, seconds = choose_examples("characters", dataset, small_encoder(), 10.0, 0), 8.0
    monkeypatch.setattr(probe_examples, "HELD_OUT_MINUTES", seconds / 60)
    part = choose_examples("characters", dataset, small_encoder(), 10.0, 0)
    assert (part.train, part.labels[: part.train]) == (whole.train, whole.labels[: whole.train])
    held_out = part.dataset.num_samples[part.train :] / RATE
    assert (
        seconds / 2
        < held_out.sum()
        <= seconds
        < (whole.dataset.num_samples[whole.train :] / RATE).sum()
    )
    assert set(part.labels[part.train :]) < set(whole.labels[whole.train :])


def test_classes_that_are_as_many_as_recordings_are_refused(labelled_store: Path) -> None:
    with pytest.raises(
        ConfigError, match="recordings to learn from are of 40 classes, at least two of each"
    ):
        probe(small_encoder(), {"digit": labelled_store})


def test_what_is_watched_is_the_mix_of_each_target_and_their_mean(letters: Path) -> None:
    encoder = small_encoder()
    stores = {"digit": letters, "speaker": letters}
    found = watch(stores, encoder.config)(encoder)  # type: ignore[arg-type]
    mixes = {r.target: r.error for r in probe(encoder, stores, only_mix=True)}  # type: ignore[arg-type]
    assert found == {
        "probe_digit": mixes["digit"],
        "probe_speaker": mixes["speaker"],
        "probe_mean": pytest.approx(np.mean(list(mixes.values()))),
    }
