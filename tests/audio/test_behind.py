"""Bytes behind a recording that are no audio: it is heard as without them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.audio_bytes import encode, load, noise, reason
from support.containers import FORMATS, ape, id3v1, id3v2, lyrics

# Containers that tell their length, or of which each piece does.
COUNTED = {
    **FORMATS,
    "avr": {"format": "AVR", "subtype": "PCM_16"},
    "mpc": {"format": "MPC2K", "subtype": "PCM_16"},
    "sds": {"format": "SDS", "subtype": "PCM_16"},
    "htk": {"format": "HTK", "subtype": "PCM_16"},
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


UNCOUNTED = [
    ("PAF", "PCM_S8", "BIG"),
    ("PAF", "PCM_16", "LITTLE"),
    ("PAF", "PCM_24", "BIG"),
    ("PAF", "PCM_24", "LITTLE"),
    ("IRCAM", "PCM_16", "BIG"),
    ("IRCAM", "ULAW", "LITTLE"),
    ("IRCAM", "FLOAT", "LITTLE"),
    ("PVF", "PCM_S8", "FILE"),
    ("PVF", "PCM_16", "FILE"),
    ("PVF", "PCM_32", "FILE"),
]


@pytest.mark.parametrize(("name", "subtype", "endian"), UNCOUNTED)
@pytest.mark.parametrize("channels", [1, 2])
def test_tags_around_samples_that_no_header_counts_are_not_heard(
    tmp_path: Path, name: str, subtype: str, endian: str, channels: int
) -> None:
    rng = np.random.default_rng([channels, *(name + subtype).encode()])
    num_samples = 10 * int(rng.integers(800, 900))  # blocks of PAF have ten
    samples = noise(1, channels=channels)[:num_samples]
    data = encode(samples, format=name, subtype=subtype, endian=endian)
    expected = load(tmp_path, data)
    assert len(expected) == num_samples

    in_front = id3v2(int(rng.integers(1, 3000)))
    zeros = bytes(int(rng.integers(1, 4000)))
    tails = [id3v1(), ape(), ape(has_header=False), ape() + id3v1(), lyrics(), b""]
    padded = [id3v1() + zeros, ape() + b"\n", id3v2(9) + b"\r\n", ape() + zeros[:9] + id3v1()]
    for behind in tails + padded:
        np.testing.assert_array_equal(load(tmp_path, data + behind), expected)
        np.testing.assert_array_equal(load(tmp_path, in_front + data + behind), expected)


@pytest.mark.parametrize(
    ("name", "marker", "size_bytes"),
    [("wav", b"data", 4), ("aiff", b"SSND", 4), ("caf", b"data", 8), ("au", b"\0\0\0\x18", 4)],
)
def test_padding_behind_the_tags_of_a_stream_is_not_heard_either(
    tmp_path: Path, name: str, marker: bytes, size_bytes: int
) -> None:
    """Of a stream of unknown size, all but tags is samples."""
    rng = np.random.default_rng(len(name))
    data = encode(noise(1)[: int(rng.integers(8000, 9000))], **FORMATS[name])
    expected = load(tmp_path, data)
    at = data.index(marker) + 4
    stream = data[:at] + b"\xff" * size_bytes + data[at + size_bytes :]
    for tag in (id3v1(), ape(), id3v2(int(rng.integers(1, 3000)))):
        for padding in (b"", b"\n", bytes(int(rng.integers(1, 4000)))):
            np.testing.assert_array_equal(load(tmp_path, stream + tag + padding), expected)


@pytest.mark.parametrize("endian", ["BIG", "LITTLE"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_what_fills_no_block_of_paf_is_no_sound(tmp_path: Path, endian: str, channels: int) -> None:
    """Ten samples of what was in memory were heard for it."""
    rng = np.random.default_rng(channels)
    samples = noise(1, channels=channels)[: 10 * int(rng.integers(100, 900))]
    data = encode(samples, format="PAF", subtype="PCM_24", endian=endian)
    expected = load(tmp_path, data)
    zeros = bytes(int(rng.integers(1, 32)))
    for behind in (b"\n", b"\r\n", zeros, b"x" + rng.bytes(6), b"\n" + id3v1()):
        np.testing.assert_array_equal(load(tmp_path, data + behind), expected)

    for cut in rng.integers(1, 24, 3):
        assert reason(tmp_path, data[: -int(cut)]) == "truncated"


def test_an_htk_file_of_another_length_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = encode(noise(1), format="HTK", subtype="PCM_16")
    assert reason(tmp_path, data[: -int(rng.integers(1, 9000))]) == "truncated"
    assert reason(tmp_path, data + b"x" * int(rng.integers(8, 9000))) == "header mismatch"
