"""Resampling in blocks gives the samples that torchaudio gives for the whole signal."""

import numpy as np
import torch
import torchaudio.functional
from hypothesis import given, settings
from hypothesis import strategies as st
from support.audio_bytes import noise
from support.speech import RATE

from speechssl.audio.resampling import Resampler


@given(
    st.lists(st.integers(1, 3000), min_size=1, max_size=12),
    st.sampled_from([8000, 22050, 44100, 48000]),
)
@settings(max_examples=40, deadline=None)
def test_the_cut_into_blocks_never_matters(lengths: list[int], rate: int) -> None:
    samples = noise(sum(lengths) / rate, rate)
    resampler = Resampler(rate, RATE)
    blocks = [resampler.push(part) for part in np.split(samples, np.cumsum(lengths)[:-1])]
    heard = np.concatenate([*blocks, resampler.finish()])
    expected = torchaudio.functional.resample(torch.from_numpy(samples), rate, RATE).numpy()
    assert heard.shape == expected.shape
    np.testing.assert_allclose(heard, expected, atol=1e-6)
