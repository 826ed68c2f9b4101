"""How log-mel rows are normalised before the first convolution.

Shapes:
    B  utterances of the batch
    U  mel frames of the padded batch, F mel bins
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from speechssl.audio.feature_config import FeatureConfig
from speechssl.audio.features import mel_filters
from speechssl.data.collate import Batch
from speechssl.data.dataset import Dataset
from speechssl.encoder.loudness import speech_level
from speechssl.encoder.padding import normalise_valid, valid_mask

# Added to each variance.
EPS = 1e-5
# Audio that the statistics of a corpus are made of at most, seconds. More changes no digit that
# counts.
MAX_CORPUS_S = 3600.0
# A recogniser needs nothing of what lies below, Hz: telephones carry 300 Hz and more. Hum of 50 and
# 60 Hz reaches up to here through the Hann window of 25 ms.
LOWEST_HZ = 170.0


class UtteranceMelNorm(nn.Module):
    """Zero mean and unit variance for each bin of each utterance."""

    def forward(self, inputs: Tensor, input_lengths: Tensor) -> Tensor:
        """(B, U, F) log-mel and (B,) valid rows -> (B, U, F); padded rows are zero."""
        return normalise_valid(inputs, input_lengths, eps=EPS)


class CorpusMelNorm(nn.Module):
    """Take the level of each utterance away, then what is usual for each bin in the corpus.

        level     = mean of an utterance's log-mel over its rows and bins
        x'(u, f)  = (x(u, f) - level - mean(f)) / sqrt(variance(f) + EPS)

    The mean and variance of a bin over three seconds of speech depend on which sounds are in them.
    Those of a corpus do not, and one number for each utterance still takes away how loud it was
    recorded. The statistics are buffers, so a model keeps them.

    Source: mean and variance normalisation of a speaker, as Kaldi's recipes do it. Differs: the
    level is the utterance's own, so no other recording of its speaker is needed.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, num_mels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_mels))
        self.register_buffer("variance", torch.ones(num_mels))

    def forward(self, inputs: Tensor, input_lengths: Tensor) -> Tensor:
        """(B, U, F) log-mel and (B,) valid rows -> (B, U, F); padded rows are zero."""
        levelled = self._levelled(inputs, input_lengths)
        normalised = (levelled - self.mean) * self._scale()

        valid = valid_mask(input_lengths, inputs.shape[1], inputs.device)
        return normalised * valid[..., None]

    @torch.no_grad()
    def learn(self, batches: Iterable[Batch]) -> None:
        """Take the mean and variance of each bin from these utterances."""
        count = 0
        total = torch.zeros(len(self.mean), dtype=torch.float64)
        total_of_squares = torch.zeros_like(total)

        for batch in batches:
            valid = valid_mask(batch.input_lengths, batch.inputs.shape[1])
            levelled = self._levelled(batch.inputs, batch.input_lengths)
            rows = levelled[valid].double()  # (all valid rows, F)
            count += len(rows)
            total += rows.sum(0)
            total_of_squares += rows.square().sum(0)

        mean = total / count
        self.mean.copy_(mean)
        self.variance.copy_(total_of_squares / count - mean.square())

    def _levelled(self, inputs: Tensor, input_lengths: Tensor) -> Tensor:
        """Take its level from each utterance."""
        level = self._level(inputs, input_lengths)
        return inputs - level[:, None, None]

    def _level(self, inputs: Tensor, input_lengths: Tensor) -> Tensor:
        """Return the mean (B,) of each utterance over its valid rows and all bins."""
        device = inputs.device
        valid = valid_mask(input_lengths, inputs.shape[1], device)
        count = input_lengths.to(device, non_blocking=True)
        count = count.clamp_min(1)

        of_rows = inputs.mean(2) * valid  # (B, U)
        return of_rows.sum(1) / count

    def _scale(self) -> Tensor:
        """Return what each bin (F,) is multiplied by."""
        return (self.variance + EPS).rsqrt()


class SpeechMelNorm(CorpusMelNorm):
    """``CorpusMelNorm`` that silence around the speech and hum below it hardly change.

    The level is that of the loud rows (``speech_level``), and bins below ``LOWEST_HZ`` become zero:
    mains hum is there, or it is not.
    """

    is_heard: Tensor

    def __init__(self, features: FeatureConfig) -> None:
        super().__init__(features.num_mels)
        self.num_low = num_low_bins(features)

        is_heard = torch.arange(features.num_mels) >= self.num_low
        self.register_buffer("is_heard", is_heard, persistent=False)

    def _level(self, inputs: Tensor, input_lengths: Tensor) -> Tensor:
        heard = inputs[..., self.num_low :]
        return speech_level(heard, input_lengths)

    def _scale(self) -> Tensor:
        return super()._scale() * self.is_heard


def num_low_bins(features: FeatureConfig) -> int:
    """Count the mel bins that are loudest below ``LOWEST_HZ``."""
    _, filters = mel_filters(features)
    spacing_hz = features.sample_rate_hz / features.window

    loudest_hz = filters.argmax(0) * spacing_hz  # (F,)
    # Bins of low rates can be so narrow that they hear nothing, and one must be left.
    num_low = int((loudest_hz < LOWEST_HZ).sum())
    return min(num_low, features.num_mels - 1)


def learn_mel_norm(norm: nn.Module, dataset: Dataset) -> None:
    """Give a norm the statistics of a corpus, if it is one that has any.

    Args:
        norm: of an encoder with random weights.
        dataset: what it will be trained on; of much audio, utterances spread evenly over it.
    """
    if not isinstance(norm, CorpusMelNorm):
        return

    step = max(1, round(dataset.seconds / MAX_CORPUS_S))
    norm.learn(dataset.batch([position]) for position in range(0, len(dataset), step))
