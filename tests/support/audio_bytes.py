"""Audio files as bytes, and what the reader says of them."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from speechssl.audio.reader import load_audio
from speechssl.errors import AudioError
from support.speech import RATE


def noise(
    seconds: float, rate: int = RATE, channels: int = 1, seed: int = 0
) -> NDArray[np.float32]:
    shape = (round(seconds * rate), channels) if channels > 1 else round(seconds * rate)
    return (0.1 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def encode(samples: NDArray[np.float32], rate: int = RATE, **format_: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **format_)
    return file.getvalue()


def load(tmp_path: Path, data: bytes, rate: int = RATE) -> NDArray[np.float32]:
    path = tmp_path / "x.bin"  # the name says nothing about the format
    path.write_bytes(data)
    return load_audio(path, rate)


def reason(tmp_path: Path, data: bytes) -> str:
    with pytest.raises(AudioError) as caught:
        load(tmp_path, data)
    assert str(tmp_path) not in caught.value.detail  # details go into stores
    return caught.value.reason


def declare(flac: bytes, total: int) -> bytes:
    """The same FLAC stream with another number of samples in its header."""
    changed = bytearray(flac)
    changed[21] = (changed[21] & 0xF0) | total >> 32
    changed[22:26] = (total & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(changed)
