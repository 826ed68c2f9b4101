"""Old containers whose headers count samples or bytes, against the file."""

from pathlib import Path

import numpy as np
import pytest
from support.audio_bytes import encode, load, noise, reason

KINDS = [
    ("AVR", "PCM_S8", 1),
    ("AVR", "PCM_16", 2),
    ("MPC2K", "PCM_16", 1),
    ("MPC2K", "PCM_16", 2),
    ("SDS", "PCM_S8", 1),
    ("SDS", "PCM_16", 1),
    ("SDS", "PCM_24", 1),
    ("SVX", "PCM_16", 1),
    ("HTK", "PCM_16", 1),
    ("VOC", "PCM_16", 1),
    ("VOC", "ALAW", 2),
]


@pytest.mark.parametrize(("name", "subtype", "channels"), KINDS)
def test_what_the_header_counts_is_there(
    tmp_path: Path, name: str, subtype: str, channels: int
) -> None:
    rng = np.random.default_rng(len(name) + channels)
    num_samples = int(rng.integers(8000, 16_000))
    data = encode(noise(1, channels=channels)[:num_samples], format=name, subtype=subtype)
    assert len(load(tmp_path, data)) == num_samples

    # libsndfile itself does not know HTK again whose length is not right.
    refusals = ("truncated", "header mismatch", "not audio")
    for cut in rng.integers(2, 7000, 4):
        assert reason(tmp_path, data[: len(data) - int(cut)]) in refusals
    assert reason(tmp_path, data + rng.bytes(500)) in refusals
