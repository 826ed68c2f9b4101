"""VOC of Sound Blaster: recordings in one block of sound, or in several."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.audio_bytes import encode, load, noise, reason
from support.containers import ape, id3v1, id3v2
from support.speech import RATE

HEAD = b"Creative Voice File\x1a" + struct.pack("<HHH", 26, 0x0114, 0x1233 - 0x0114)
END = b"\0"
PCM_16 = 4


def block(kind: int, content: bytes) -> bytes:
    return bytes([kind]) + len(content).to_bytes(3, "little") + content


def new_sound(channels: int = 1, rate: int = RATE) -> bytes:
    """What stands in front of the samples of 16 bits in a block of kind 9."""
    return struct.pack("<IBBHI", rate, 16, channels, PCM_16, 0)


def some_samples(rng: np.random.Generator, channels: int) -> np.ndarray:
    return rng.integers(-9000, 9000, (int(rng.integers(2000, 9000)), channels)).astype("<i2")


@pytest.mark.parametrize("seed", range(8))
def test_blocks_of_sound_are_joined_to_the_sample(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    channels = int(rng.integers(1, 3))
    parts = [some_samples(rng, channels) for _ in range(rng.integers(1, 5))]

    data = HEAD
    for number, part in enumerate(parts):
        if rng.random() < 0.3:
            data += block(5, b"a note\0") if rng.random() < 0.5 else block(4, b"\1\0")
        if number and rng.random() < 0.5:
            data += block(2, part.tobytes())
        else:
            data += block(9, new_sound(channels) + part.tobytes())

    expected = np.concatenate(parts).mean(axis=1) / 32768
    for end in (END, b""):
        np.testing.assert_allclose(load(tmp_path, data + end), expected, atol=1e-6)
    assert reason(tmp_path, data[:-9]) == "truncated"


def test_sounds_of_8_bits_are_joined_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    code = 256 - 1_000_000 // 8000
    parts = [rng.integers(0, 256, 3000 + k).astype(np.uint8) for k in range(3)]
    header = bytes([code, 0])
    first, second, third = [part.tobytes() for part in parts]
    data = HEAD + block(1, header + first) + block(2, second) + block(1, header + third) + END

    expected = (np.concatenate(parts).astype(float) - 128) / 128
    np.testing.assert_allclose(load(tmp_path, data, 8000), expected, atol=1e-6)


def test_a_recording_of_more_than_a_block_holds_is_heard_to_the_sample(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    samples = rng.integers(-9000, 9000, 8_500_000).astype("<i2")
    sound = samples.tobytes()
    most = (1 << 24) - 2 - len(new_sound())
    data = HEAD + block(9, new_sound() + sound[:most]) + block(2, sound[most:]) + END
    heard = load(tmp_path, data)
    np.testing.assert_array_equal(heard, samples.astype(np.float32) / 32768)


# Of mono u-law and A-law libsndfile writes a length that also counts the terminator.
@pytest.mark.parametrize(
    ("coding", "channels"),
    [("PCM_16", 1), ("PCM_16", 2), ("PCM_U8", 1), ("PCM_U8", 2), ("ULAW", 2), ("ALAW", 2)],
)
@pytest.mark.parametrize("has_terminator", [True, False])
def test_what_is_behind_a_single_block_is_not_heard(
    tmp_path: Path, coding: str, channels: int, has_terminator: bool
) -> None:
    """Tags were heard as samples, and so were zeros."""
    rng = np.random.default_rng([channels, *coding.encode()])
    num_samples = 2 * int(rng.integers(4000, 4500))
    data = encode(noise(1, channels=channels)[:num_samples], format="VOC", subtype=coding)
    rate = soundfile.info(io.BytesIO(data)).samplerate  # the format rounds it
    expected = load(tmp_path, data, rate)
    assert len(expected) == num_samples

    alone = data if has_terminator else data[:-1]
    np.testing.assert_array_equal(load(tmp_path, alone, rate), expected)
    zeros = bytes(int(rng.integers(2, 4000)))
    for behind in (b"\n", b"\r\n", b"\0", zeros, id3v1(), ape(), ape() + id3v1(), id3v2() + b"\0"):
        np.testing.assert_array_equal(load(tmp_path, alone + behind, rate), expected)
    in_front = id3v2(int(rng.integers(1, 3000)))
    np.testing.assert_array_equal(load(tmp_path, in_front + alone + id3v1(), rate), expected)

    # A block that begins and does not end is more than a few bytes.
    assert reason(tmp_path, data[:-1] + b"\2\x50\0\0" + rng.bytes(3)) == "truncated"
    assert reason(tmp_path, data + b"x" * 50) == "header mismatch"


@pytest.mark.parametrize(
    "other",
    [
        block(3, struct.pack("<HB", 1599, 200)),
        block(6, b"\2\0"),
        block(9, new_sound(rate=8000) + bytes(2000)),
        block(9, new_sound(channels=2) + bytes(2000)),
        block(8, struct.pack("<HBB", 60_000, 0, 0)),
    ],
)
def test_what_cannot_be_joined_is_named(tmp_path: Path, other: bytes) -> None:
    """Their headers were heard as sound."""
    sound = some_samples(np.random.default_rng(3), 1).tobytes()
    data = HEAD + block(9, new_sound() + sound) + other + END
    assert reason(tmp_path, data) == "unsupported format"
