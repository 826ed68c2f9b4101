"""Normalised log-mel rows: what a recording's loudness and its neighbours may change."""

from types import SimpleNamespace
from typing import Any

import librosa
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.signal import butter, lfilter
from torch import Tensor

from speechssl.audio.feature_config import FeatureConfig
from speechssl.audio.features import featurise
from speechssl.encoder.mel_norm import (
    EPS,
    CorpusMelNorm,
    SpeechMelNorm,
    UtteranceMelNorm,
    learn_mel_norm,
    num_low_bins,
)

LOGMEL = FeatureConfig()


def utterances() -> list[Tensor]:
    """Of 6 bins, each with its own mean and spread; no two utterances are equally loud."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.arange(1.0, 7.0)
    return [
        10 * loudness + spread * (3 + torch.randn(count, 6, generator=generator))
        for loudness, count in enumerate((40, 25, 60))
    ]


def as_batch(rows: list[Tensor]) -> Any:
    """What a batch has of them, with padding that must not count."""
    lengths = torch.tensor([len(own) for own in rows])
    inputs = torch.full((len(rows), int(lengths.max()) + 3, rows[0].shape[1]), 77.0)
    for place, own in enumerate(rows):
        inputs[place, : len(own)] = own
    return SimpleNamespace(inputs=inputs, input_lengths=lengths)


class Corpus:
    """A dataset of utterances."""

    def __init__(self, rows: list[Tensor], seconds: float = 10.0) -> None:
        self.rows = rows
        self.seconds = seconds
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, positions: list[int]) -> Any:
        self.read += positions
        return as_batch([self.rows[position] for position in positions])


def test_a_corpus_norm_takes_level_and_statistics_away() -> None:
    rows = utterances()
    norm = CorpusMelNorm(6)
    learn_mel_norm(norm, Corpus(rows))  # type: ignore[arg-type]
    batch = as_batch(rows)

    found = norm(batch.inputs, batch.input_lengths)

    levelled = [own.double().numpy() - own.double().numpy().mean() for own in rows]
    together = np.concatenate(levelled)
    scale = np.sqrt(together.var(0) + EPS)
    for own, result in zip(levelled, found, strict=True):
        expected = (own - together.mean(0)) / scale
        np.testing.assert_allclose(result[: len(own)].numpy(), expected, atol=1e-4)
        assert not result[len(own) :].any()


def speech() -> NDArray[np.float32]:
    """Three seconds of syllables: noise with the spectrum and the rhythm of a voice."""
    seconds = np.arange(3 * 16_000) / 16_000
    white = np.random.default_rng(0).standard_normal(len(seconds))
    coloured = lfilter(*butter(2, [200, 3000], "bandpass", fs=16_000), white)
    rhythm = 0.01 + np.sin(2 * np.pi * 2 * seconds).clip(0) ** 2
    return (0.9 * coloured * rhythm).astype(np.float32)


def heard_by(norm: torch.nn.Module, samples: NDArray[np.float32]) -> Tensor:
    rows = torch.from_numpy(featurise(samples, LOGMEL)).float()
    result: Tensor = norm(rows[None], torch.tensor([len(rows)]))[0]
    return result


def trained(norm: torch.nn.Module) -> torch.nn.Module:
    rows = torch.from_numpy(featurise(speech(), LOGMEL)).float()
    learn_mel_norm(norm, Corpus([rows]))  # type: ignore[arg-type]
    return norm


def test_silence_around_the_speech_changes_little_of_what_is_heard_of_it() -> None:
    """Digital silence for as long again as the speech on both sides."""
    samples = speech()
    around = np.zeros(len(samples), np.float32)
    longer = np.concatenate([around, samples, around])
    first = len(samples) // LOGMEL.hop

    changes = {}
    for norm in (SpeechMelNorm(LOGMEL), CorpusMelNorm(80)):
        alone = heard_by(trained(norm), samples)
        within = heard_by(norm, longer)[first : first + len(alone)]
        changes[type(norm)] = float((within - alone).abs().max())

    # A third of the rows are speech, and the level is half a logarithm.
    assert changes[SpeechMelNorm] < 0.7
    assert changes[CorpusMelNorm] > 3 * changes[SpeechMelNorm]


@pytest.mark.parametrize("hum_hz", [50, 60])
def test_hum_below_the_speech_changes_little_of_what_is_heard_of_it(hum_hz: int) -> None:
    """20 dB below the peak of the speech."""
    samples = speech()
    seconds = np.arange(len(samples)) / 16_000
    hum = 0.1 * np.abs(samples).max() * np.sin(2 * np.pi * hum_hz * seconds)

    changes = {}
    for norm in (SpeechMelNorm(LOGMEL), CorpusMelNorm(80)):
        alone = heard_by(trained(norm), samples)
        with_hum = heard_by(norm, samples + hum.astype(np.float32))
        changes[type(norm)] = float((with_hum - alone).abs().mean())

    assert changes[SpeechMelNorm] < 0.5 * changes[CorpusMelNorm]


def test_low_bins_are_those_that_are_loudest_below_the_limit() -> None:
    """librosa's centres of the bins: 37 Hz apart at the low end."""
    centres_hz = librosa.mel_frequencies(82, fmin=0, fmax=8000, htk=False)[1:-1]
    assert num_low_bins(LOGMEL) == (centres_hz < 170).sum() == 4
    assert num_low_bins(FeatureConfig(sample_rate_hz=300, num_mels=4)) <= 3


def norms(num_mels: int) -> list[torch.nn.Module]:
    speech_norm = SpeechMelNorm(FeatureConfig(num_mels=num_mels))
    return [UtteranceMelNorm(), CorpusMelNorm(num_mels), speech_norm]


@pytest.mark.parametrize("norm", norms(6))
def test_no_norm_hears_how_loud_a_recording_is(norm: torch.nn.Module) -> None:
    """A gain adds one number to all log-mel values."""
    learn_mel_norm(norm, Corpus(utterances()))  # type: ignore[arg-type]
    (rows, *_), lengths = utterances(), torch.tensor([40])

    quiet = norm(rows[None], lengths)
    loud = norm(rows[None] + 6.9, lengths)

    torch.testing.assert_close(loud, quiet, atol=1e-4, rtol=0)


def test_much_audio_is_sampled_evenly() -> None:
    corpus = Corpus(utterances() * 4, seconds=3 * 3600.0)
    learn_mel_norm(CorpusMelNorm(6), corpus)  # type: ignore[arg-type]
    assert corpus.read == [0, 3, 6, 9]


def test_a_norm_of_utterances_learns_nothing() -> None:
    corpus = Corpus(utterances())
    learn_mel_norm(UtteranceMelNorm(), corpus)  # type: ignore[arg-type]
    assert corpus.read == []
