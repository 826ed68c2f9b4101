"""Bytes behind a recording that are no audio: it is heard as without them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.audio_bytes import encode, load, noise, reason
from support.containers import FORMATS, ape, id3v1, id3v2

# Containers that tell their length, or of which each piece does.
COUNTED = {
    **FORMATS,
    "avr": {"format": "AVR", "subtype": "PCM_16"},
    "mpc": {"format": "MPC2K", "subtype": "PCM_16"},
    "sds": {"format": "SDS", "subtype": "PCM_16"},
    "svx": {"format": "SVX", "subtype": "PCM_16"},
}


def some_bytes_behind(rng: np.random.Generator) -> Iterator[bytes]:
    """Zeros, line ends, tags and a few unknown bytes, alone and together."""
    line_ends = [b"\n", b"\r\n", b"\n" * int(rng.integers(2, 9))]
    zeros = [bytes(1), bytes(2), bytes(int(rng.integers(3, 4000)))]
    unknown = b"x" + rng.bytes(int(rng.integers(0, 7)))

    yield from line_ends
    yield from zeros
    yield unknown
    yield rng.choice(line_ends) + unknown
    yield rng.choice(line_ends) + id3v1()
    yield zeros[2] + ape() + id3v1()
    yield ape() + rng.choice(line_ends)
    yield id3v2() + rng.choice(zeros)


@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.parametrize("seed", range(2))
def test_a_few_bytes_behind_change_no_sample(tmp_path: Path, name: str, seed: int) -> None:
    rng = np.random.default_rng([seed, *name.encode()])
    data = encode(noise(1, seed=seed)[: int(rng.integers(8000, 9000))], **COUNTED[name])
    expected = load(tmp_path, data)

    for behind in some_bytes_behind(rng):
        np.testing.assert_array_equal(load(tmp_path, data + behind), expected, str(behind[:20]))

    for behind in (b"unknown " + rng.bytes(100), b"\n" + b"x" * 200, bytes(5000)):
        reasons = ("header mismatch", "decode error", "unsupported format")
        assert reason(tmp_path, data + behind) in reasons


@pytest.mark.parametrize("seed", range(4))
def test_what_is_cut_off_behind_a_recording_is_more_than_a_few_bytes(
    tmp_path: Path, seed: int
) -> None:
    """The first bytes of a second stream belong to a file that was cut short."""
    rng = np.random.default_rng(seed)
    data = encode(noise(rng.uniform(0.5, 1), seed=seed), format="OGG", subtype="OPUS")
    assert reason(tmp_path, data + data[: int(rng.integers(1, 27))]) == "truncated"
