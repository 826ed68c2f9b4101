"""FLAC: where its frames end, and files that were joined."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.audio_bytes import declare, encode, load, noise, reason
from support.containers import ape, id3v1, id3v2
from support.speech import RATE

from speechssl.audio.containers.flac_frame import last_frame_end


def checksum(data: bytes, polynomial: int, bits: int) -> int:
    """The remainder of a division of polynomials, bit by bit."""
    register = 0
    for byte in data:
        for shift in range(7, -1, -1):
            top = register >> (bits - 1) ^ (byte >> shift & 1)
            register = (register << 1 & ((1 << bits) - 1)) ^ (polynomial if top else 0)
    return register


def verbatim_flac(samples: np.ndarray, number: int = 0) -> bytes:
    """A FLAC file of one frame of mono samples of 16 bits, whose checksum is 0.

    The last sample is changed for that.
    """
    count = len(samples)
    info = struct.pack(">HH6x", count, count)
    info += ((RATE << 12 | 15 << 4) << 32 | count).to_bytes(8, "big") + bytes(16)
    head = bytes([0xFF, 0xF8, 0x70, 0x08, number]) + struct.pack(">H", count - 1)
    head += bytes([checksum(head, 0x07, 8)])
    frame = head + b"\x02" + samples[:-1].astype(">i2").tobytes()
    frame += struct.pack(">H", checksum(frame, 0x8005, 16))
    return b"fLaC\x80\0\0\x22" + info + frame + b"\0\0"


@pytest.mark.parametrize("seed", range(4))
def test_a_frame_whose_checksum_is_0_is_not_taken_for_zeros_behind_it(
    tmp_path: Path, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    samples = rng.integers(-9000, 9000, int(rng.integers(100, 3000)))
    data = verbatim_flac(samples)
    for told in (data, declare(data, 0)):
        for behind in (b"", b"\n", id3v1()):
            heard = load(tmp_path, told + behind)
            assert len(heard) == len(samples)
            np.testing.assert_array_equal(heard[:-1], samples[:-1] / np.float32(32768))
    assert reason(tmp_path, declare(data, len(samples) - 1)) == "header mismatch"
    assert reason(tmp_path, declare(data, len(samples) + 1)) == "truncated"


@pytest.mark.parametrize(
    ("rate", "channels", "subtype"),
    [(RATE, 1, "PCM_16"), (44_100, 2, "PCM_24"), (8000, 1, "PCM_S8")],
)
@pytest.mark.parametrize("seed", range(3))
def test_a_flac_that_lies_or_is_cut_is_refused_with_bytes_behind_it_too(
    tmp_path: Path, rate: int, channels: int, subtype: str, seed: int
) -> None:
    rng = np.random.default_rng([seed, rate])
    num_samples = int(rng.integers(rate // 2, rate))
    data = encode(
        noise(1, rate, channels, seed)[:num_samples], rate, format="FLAC", subtype=subtype
    )
    expected = load(tmp_path, data, rate)
    assert len(expected) == num_samples

    zeros = bytes(int(rng.integers(3, 4000)))
    for behind in (
        b"",
        b"\n",
        b"\r\n",
        b"\0",
        b"\0\0",
        zeros,
        b"x" + rng.bytes(3),
        id3v2(9) + b"\n",
    ):
        np.testing.assert_array_equal(load(tmp_path, data + behind, rate), expected)
        np.testing.assert_array_equal(load(tmp_path, declare(data, 0) + behind, rate), expected)

        too_few = declare(data, int(rng.integers(1, num_samples)))
        assert reason(tmp_path, too_few + behind) == "header mismatch"
        assert reason(tmp_path, declare(data, num_samples + 1) + behind) == "truncated"
        cut = data[: -int(rng.integers(1, len(data) // 2))]
        assert reason(tmp_path, cut + behind) in ("decode error", "truncated")

    for behind in (rng.bytes(300), bytes(5000), data[:5], data[-3000:]):
        assert reason(tmp_path, data + behind) == "decode error"


@pytest.mark.parametrize("seed", range(40))
def test_the_last_frame_of_any_sound_is_found(tmp_path: Path, seed: int) -> None:
    """Of any way in which an encoder writes the samples of a frame."""
    rng = np.random.default_rng(seed)
    num_samples, channels = int(rng.integers(20, 9000)), int(rng.integers(1, 5))
    shape = (num_samples, channels)
    times = np.arange(num_samples)[:, None]
    sounds = [
        np.zeros(shape),
        np.full(shape, 0.25),
        0.5 * np.sin(times / rng.uniform(1, 200)) + 1e-3 * rng.standard_normal(shape),
        rng.uniform(-1, 1, shape),
        np.round(20 * rng.uniform(-1, 1, shape)) / 64,  # the lowest bits are not used
        0.2 * rng.standard_normal((num_samples, 1)) + 0.01 * rng.standard_normal(shape),
        np.where(times < num_samples // 2, 0, 0.9 * rng.standard_cauchy(shape).clip(-1, 1)),
    ]
    sound = sounds[seed % len(sounds)].astype(np.float32)
    file = io.BytesIO()
    soundfile.write(
        file,
        sound,
        int(rng.choice([8000, RATE, 22_050, 12_345, 96_000])),
        format="FLAC",
        subtype=str(rng.choice(["PCM_S8", "PCM_16", "PCM_24"])),
        compression_level=float(rng.uniform(0, 1)),
    )
    data = file.getvalue()
    sample_bits = int(soundfile.info(io.BytesIO(data)).subtype.removeprefix("PCM_").strip("S"))
    for behind in (b"", b"\0\0", b"\n", rng.bytes(7).replace(b"\xff", b"x")):
        raw = io.BytesIO(data + behind)
        assert last_frame_end(raw, 0, len(data + behind), sample_bits) == len(data)

    cut = data[: -int(rng.integers(1, 10))]
    assert last_frame_end(io.BytesIO(cut), 0, len(cut), sample_bits) is None


@pytest.mark.parametrize("seed", range(6))
def test_flac_files_joined_end_to_end_are_heard_one_after_another(
    tmp_path: Path, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    channels = int(rng.integers(1, 3))
    files, heard = [], []
    for number in range(int(rng.integers(2, 5))):
        samples = noise(rng.uniform(0.2, 1), channels=channels, seed=10 * seed + number)
        file = encode(samples, format="FLAC", subtype=str(rng.choice(["PCM_16", "PCM_24"])))
        files.append(declare(file, 0) if rng.random() < 0.3 else file)
        heard.append(load(tmp_path, files[-1]))

    for between in (b"", b"\n", bytes(2), bytes(40), id3v1(), ape(), id3v2(300)):
        for end in (b"", id3v1()):
            joined = id3v2(20) + between.join(files) + end
            np.testing.assert_array_equal(load(tmp_path, joined), np.concatenate(heard))

    # Cut short, the first or the last of them.
    cut = files[0][: -int(rng.integers(1, 900))]
    assert reason(tmp_path, cut + b"".join(files[1:])) == "decode error"
    assert reason(tmp_path, b"".join(files)[: -int(rng.integers(1, 900))]) == "decode error"
    assert reason(tmp_path, b"".join(files) + files[0][: int(rng.integers(1, 30))]) != ""
    unknown = b"unknown " * int(rng.integers(5, 900))
    assert reason(tmp_path, unknown.join(files)) == "decode error"


@pytest.mark.parametrize(("rate", "channels"), [(22_050, 1), (RATE, 2)])
def test_joined_flac_files_of_other_kinds_are_named(
    tmp_path: Path, rate: int, channels: int
) -> None:
    first = encode(noise(0.5), format="FLAC", subtype="PCM_16")
    other = encode(noise(0.5, rate, channels), rate, format="FLAC", subtype="PCM_16")
    assert reason(tmp_path, first + other) == "unsupported format"
    assert reason(tmp_path, other + first) == "unsupported format"
