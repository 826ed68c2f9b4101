"""NIST SPHERE: the number of samples in its header against the file."""

from pathlib import Path

import numpy as np
import pytest
from support.audio_bytes import encode, load, noise, reason

FIELD = b"sample_coding -s3 pcm"


def with_header(data: bytes, old: bytes, new: bytes) -> bytes:
    """The same file with another field in its header, whose length stays."""
    header = data[:1024].replace(old, new)[:1024]
    return header.ljust(1024) + data[1024:]


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "ULAW", "ALAW"])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_header_of_sphere_is_walked(tmp_path: Path, subtype: str, channels: int) -> None:
    rng = np.random.default_rng(channels)
    data = encode(noise(0.5, channels=channels), format="NIST", subtype=subtype)
    assert len(load(tmp_path, data)) == 8000

    for cut in rng.integers(1, len(data) - 200, 5):
        assert reason(tmp_path, data[: len(data) - int(cut)]) == "truncated"
    assert reason(tmp_path, data + rng.bytes(100)) == "header mismatch"


def test_sphere_without_a_number_of_samples_is_heard_to_its_end(tmp_path: Path) -> None:
    data = encode(noise(0.5), format="NIST", subtype="PCM_16")
    unknown = with_header(data, b"sample_count", b"other_count!")
    np.testing.assert_array_equal(load(tmp_path, unknown), load(tmp_path, data))


@pytest.mark.parametrize("coding", [b"pcm,embedded-shorten-v2.00", b"ulaw,embedded-shorten-v1.1"])
def test_compressed_sphere_is_named(tmp_path: Path, coding: bytes) -> None:
    data = encode(noise(0.5), format="NIST", subtype="PCM_16")
    typed = b"sample_coding -s%d %s" % (len(coding), coding)
    compressed = with_header(data, FIELD, typed)
    assert reason(tmp_path, compressed) == "unsupported format"
