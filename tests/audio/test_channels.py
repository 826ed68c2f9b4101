"""Channels that cancel are noticed; all others are averaged, and it is said where they differ."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.speech import RATE, sentence, speak

from speechssl.audio.channels import Mixer
from speechssl.audio.reader import load_audio, stream_mono


@pytest.mark.parametrize("seed", range(4))
def test_channels_that_cancel_give_the_strongest(
    tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(seed)
    voice = np.concatenate([np.zeros(12 * RATE, np.float32), *(speak(sentence(rng), rng),) * 5])
    # Also where a quiet voice, or a word of it, fills a small part of the stretch that is judged.
    voice = voice[: len(voice) if seed % 2 else 12 * RATE + RATE // 2]
    level = 10 ** rng.uniform(-3, -1)
    voice *= level
    noise = 1e-3 * level * rng.standard_normal((2, len(voice)))
    # Hum that both channels have in common makes them look alike.
    hum = rng.uniform(0, 0.3) * np.sin(2 * np.pi * 50 * np.arange(len(voice)) / RATE)
    gain = rng.uniform(0.6, 1)
    channels = [voice + noise[0] + hum, -gain * voice + noise[1] + hum]
    soundfile.write(tmp_path / "x.wav", np.stack(channels, axis=1), RATE, subtype="FLOAT")

    samples = load_audio(tmp_path / "x.wav")
    assert "its channels cancel each other" in capsys.readouterr().err
    correlation = np.corrcoef(samples - hum, voice)[0, 1]
    assert correlation > 0.99


@pytest.mark.parametrize("seed", range(8))
def test_a_sentence_for_which_one_channel_was_turned_round_is_kept(
    tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is a small part of what is judged together, or lies across two such stretches."""
    rng = np.random.default_rng(seed)
    voice = np.concatenate([speak(sentence(rng), rng) for _ in range(12)])
    voice *= 10 ** rng.uniform(-3, -1) / np.abs(voice).max()
    length = int(rng.uniform(0.3, 3) * RATE)
    around = 10 * RATE - length // 2 if seed % 2 else rng.integers(len(voice) - length)
    turned = slice(int(around), int(around) + length)
    gain = np.full(len(voice), rng.uniform(0.7, 1))
    gain[turned] *= -1
    noise = 3e-3 * voice.std() * rng.standard_normal((len(voice), 2))
    channels = np.stack([voice, gain * voice], axis=1) + noise
    soundfile.write(tmp_path / "x.wav", channels, RATE, subtype="FLOAT")

    samples = load_audio(tmp_path / "x.wav")
    said = capsys.readouterr().err
    found = re.search(
        r"its channels cancel each other in (.*) s, where one of them was taken", said
    )
    assert found
    assert float(found[1]) == pytest.approx(length / RATE, abs=0.3)
    assert np.corrcoef(samples[turned], voice[turned])[0, 1] > 0.95
    np.testing.assert_allclose(samples.std(), voice.std(), rtol=0.2)


@pytest.mark.parametrize("seed", range(4))
def test_people_who_speak_at_once_on_their_own_channels_never_cancel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    voices = [np.concatenate([speak(sentence(rng), rng) for _ in range(8)]) for _ in range(2)]
    length = min(map(len, voices))
    call = np.stack([voice[:length] for voice in voices], axis=1)

    mixer = Mixer()
    np.testing.assert_array_equal(mixer.mix(call, RATE), call.mean(axis=1))
    assert mixer.cancelled_s == 0
    assert mixer.is_averaged


@pytest.mark.parametrize("seed", range(4))
def test_coarse_steps_of_a_coding_hide_no_channels_that_cancel(
    tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """An offset brings u-law to its coarse steps, whose noise both channels have in common."""
    rng = np.random.default_rng(seed)
    voice = speak(sentence(rng), rng)
    voice *= rng.uniform(0.011, 0.013) / np.abs(voice).max()
    hum = 0.018 * np.sin(2 * np.pi * 50 * np.arange(len(voice)) / RATE)
    channels = [sign * voice + hum + 0.187 for sign in (1, -1)]
    soundfile.write(tmp_path / "x.wav", np.stack(channels, axis=1), RATE, subtype="ULAW")

    samples = load_audio(tmp_path / "x.wav")
    assert "its channels cancel each other" in capsys.readouterr().err
    # Either channel may be the stronger one.
    assert abs(np.corrcoef(samples - hum, voice)[0, 1]) > 0.8


@pytest.mark.parametrize("seed", range(4))
def test_a_bang_that_all_channels_have_in_common_hides_no_channels_that_cancel(seed: int) -> None:
    """A click, or the first milliseconds of a coding that looks for its level."""
    rng = np.random.default_rng(seed)
    voice = speak(sentence(rng), rng)
    voice *= rng.uniform(0.01, 0.1) / np.abs(voice).max()
    bang = np.zeros_like(voice)
    length = int(rng.uniform(0.001, 0.1) * RATE)
    start = int(rng.choice([0, rng.integers(len(voice) - length)]))
    bang[start : start + length] = rng.uniform(-0.9, 0.9, length)

    block = np.stack([voice + bang, -voice + bang], axis=1).astype(np.float32)
    mixer = Mixer()
    mixed = mixer.mix(block, RATE)
    assert mixer.cancelled_s == len(mixed) / RATE
    np.testing.assert_array_equal(mixed, block[:, mixer.taken or 0])


@pytest.mark.parametrize("num_channels", range(2, 17))
def test_any_number_of_channels_that_have_nothing_in_common_is_averaged(num_channels: int) -> None:
    """So is any number of them beside dead ones; and half of them turned round still cancel."""
    rng = np.random.default_rng(num_channels)
    levels = rng.uniform(0.05, 0.1, num_channels)
    unrelated = (levels * rng.standard_normal((RATE, num_channels))).astype(np.float32)
    num_dead = int(rng.integers(1, num_channels))
    partly_dead = unrelated.copy()
    partly_dead[:, :num_dead] = 0
    for channels in (unrelated, partly_dead):
        mixer = Mixer()
        np.testing.assert_array_equal(mixer.mix(channels, RATE), channels.mean(axis=1))
        assert mixer.cancelled_s == 0

    signs = np.where(np.arange(num_channels) % 2, -1, 1)
    pairs = unrelated[:, :1] * signs[: num_channels - num_channels % 2]
    mixer = Mixer()
    np.testing.assert_array_equal(np.abs(mixer.mix(pairs, RATE)), np.abs(pairs[:, 0]))
    assert mixer.cancelled_s == 1


@pytest.mark.parametrize("seed", range(4))
def test_other_channels_are_averaged_and_very_different_levels_are_said(
    tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(seed)
    voice = speak(sentence(rng), rng)
    other = speak(sentence(rng), rng)
    other = np.resize(other, len(voice))
    silent = "nothing is in channel 2; the mean of all channels is taken"
    quiet = "channel 2 is more than 20 dB quieter than channel 1; the mean of all channels is taken"
    remarks = [(voice, ""), (0 * voice, silent), (0.01 * voice, quiet), (other, "")]

    for second, remark in remarks:
        both = np.stack([voice, second], axis=1)
        soundfile.write(tmp_path / "x.wav", both, RATE, subtype="FLOAT")
        expected = both.mean(axis=1, dtype=np.float32)
        np.testing.assert_allclose(load_audio(tmp_path / "x.wav"), expected, atol=1e-6)
        said = capsys.readouterr().err
        assert (remark in said) if remark else said == ""


def test_channels_that_are_equal_throughout_are_noticed_and_nothing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(7)
    voice = (0.1 * rng.standard_normal(25 * RATE)).astype(np.float32)
    differs_at_the_end = voice.copy()
    differs_at_the_end[-1] += 0.01
    differs_at_the_start = voice.copy()
    differs_at_the_start[0] += 0.01

    equal = np.stack([voice, voice, voice], axis=1)
    others = [np.stack([voice, x], axis=1) for x in (differs_at_the_end, differs_at_the_start)]
    for samples, is_dual_mono in [(equal, True), (voice, False), *((x, False) for x in others)]:
        soundfile.write(tmp_path / "x.wav", samples, RATE, subtype="FLOAT")
        mixer = Mixer()
        heard = np.concatenate(list(stream_mono(tmp_path / "x.wav", RATE, mixer=mixer)))
        assert mixer.is_dual_mono == is_dual_mono
        np.testing.assert_allclose(heard, voice, atol=0.006)
    assert capsys.readouterr().err == ""
