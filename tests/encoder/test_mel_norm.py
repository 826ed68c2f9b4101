"""Normalised log-mel rows: what a recording's loudness and its neighbours may change."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from speechssl.encoder.mel_norm import EPS, CorpusMelNorm, UtteranceMelNorm, learn_mel_norm


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
    inputs = torch.full((len(rows), int(lengths.max()) + 3, 6), 77.0)
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


@pytest.mark.parametrize("norm", [UtteranceMelNorm(), CorpusMelNorm(6)])
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
