"""Noise that talks and pauses, and files with one fault each."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from speechssl.audio.feature_config import FeatureConfig
from speechssl.data.prepare import PrepareConfig, PrepareReport
from support.speech import RATE


def replace_config(config: PrepareConfig, **values: object) -> PrepareConfig:
    return PrepareConfig.model_validate({**config.model_dump(), **values})


WAVEFORM = PrepareConfig(features=FeatureConfig(kind="waveform"))
SMALL = replace_config(WAVEFORM, shard_files=2)


def talk(
    pattern: list[tuple[float, float]], rate: int = RATE, seed: int = 0
) -> NDArray[np.float32]:
    """Noise of the given (level, seconds), end to end."""
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [level * rng.standard_normal(round(s * rate)) for level, s in pattern]
    ).astype(np.float32)


def damage(corpus: Path) -> dict[str, str]:
    """Plant one file of each fault; audio path -> reason."""
    good = talk([(0.1, 3)])

    def encoded(samples: NDArray[np.float32], **kind: str) -> bytes:
        file = io.BytesIO()
        soundfile.write(file, samples, RATE, **kind)
        return file.getvalue()

    wav, flac = encoded(good, format="WAV"), bytearray(encoded(good, format="FLAC"))
    ogg = encoded(good, format="OGG", subtype="OPUS")

    lying = flac.copy()
    lying[22:26] = (10).to_bytes(4, "big")

    huge = flac.copy()
    huge[21] |= 15

    bad = good.copy()
    bad[5] = np.nan

    planted = {
        "empty.wav": (b"", "empty file"),
        "text.wav": (b"this is no audio\n" * 30, "not audio"),
        "half.wav": (wav[: len(wav) // 2], "truncated"),
        "half.ogg": (ogg[: len(ogg) // 2], "truncated"),
        "half.flac": (bytes(flac[: len(flac) // 2]), "decode error"),
        "lying.flac": (bytes(lying), "header mismatch"),
        "huge.flac": (bytes(huge), "truncated"),
        "nan.wav": (encoded(bad, format="WAV", subtype="FLOAT"), "non-finite samples"),
        "none.wav": (encoded(good[:0], format="WAV"), "no samples"),
        "twice.ogg": (ogg + ogg, "chained stream"),
        "long.flac": (encoded(np.zeros(61 * RATE, np.float32), format="FLAC"), "too long"),
        "phone.m4a": (b"\0\0\0\x20ftypM4A " + bytes(300), "unsupported format"),
    }

    for name, (data, _) in planted.items():
        (corpus / name).write_bytes(data)
    return {name: reason for name, (_, reason) in planted.items()}


def adds_up(report: PrepareReport) -> None:
    (_, *total), *parts = report.rows()
    for column in range(3):
        assert total[column] == sum(part[column + 1] for part in parts)
    assert total[3] == pytest.approx(total[2] / RATE / 3600)
