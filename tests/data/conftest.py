"""Recordings that the tests of this folder prepare."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.recordings import talk


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unlabelled recordings of several rates, formats and lengths in nested folders."""
    root = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(1)
    for k in range(12):
        rate, suffix = [(16000, "wav"), (44100, "wav"), (8000, "flac"), (16000, "ogg")][k % 4]
        pattern = [(level, rng.uniform(0.4, 4)) for _ in range(3) for level in (0.1, 1e-5)]
        folder = root / f"{k % 3}"
        folder.mkdir(exist_ok=True)
        soundfile.write(folder / f"{k}.{suffix}", talk(pattern, rate, k), rate)
    return root
