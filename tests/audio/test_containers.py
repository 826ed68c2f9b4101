"""Headers that lie in every way we know of, and streams that declare no length."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from support.audio_bytes import declare, encode, load, noise, reason
from support.containers import flac_in_ogg, id3v2
from support.speech import RATE

from speechssl.audio.containers.mp3_frame import mp3_frame_bytes
from speechssl.audio.containers.ogg import ogg_checksum


def test_flac_headers_that_lie(tmp_path: Path) -> None:
    flac = encode(noise(20), format="FLAC", subtype="PCM_16")
    whole = load(tmp_path, flac)
    assert len(whole) == 20 * RATE
    np.testing.assert_array_equal(load(tmp_path, declare(flac, 0)), whole)  # legal: a stream
    assert reason(tmp_path, declare(flac, 10)) == "header mismatch"
    assert reason(tmp_path, declare(flac, 2**36 - 1)) == "truncated"
    assert reason(tmp_path, declare(flac, 20 * RATE + 1)) == "truncated"
    tagged = b"ID3\x04\0\0\0\0\0\x0a" + bytes(10)
    np.testing.assert_array_equal(load(tmp_path, tagged + flac), whole)
    assert reason(tmp_path, tagged + declare(flac, 10)) == "header mismatch"


def wav(data: bytes, riff_size: int, data_size: int, extra: bytes = b"") -> bytes:
    header = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    return (
        b"RIFF"
        + struct.pack("<I", riff_size)
        + b"WAVEfmt \x10\0\0\0"
        + header
        + b"data"
        + struct.pack("<I", data_size)
        + data
        + extra
    )


@pytest.mark.parametrize("size", [0, 0x7FFF0000, 0x7FFFF000, 0x7FFFFF00, 0x7FFFFFFF, 0xFFFFFFFF])
@pytest.mark.parametrize("riff", ["zero", "right", "unknown"])
def test_wav_headers_of_streams_decode_to_the_end(tmp_path: Path, size: int, riff: str) -> None:
    pcm = (noise(2) * 32768).astype("<i2")
    data = wav(
        pcm.tobytes(), {"zero": 0, "right": 36 + len(pcm) * 2, "unknown": 0xFFFFFFFF}[riff], size
    )
    np.testing.assert_array_equal(load(tmp_path, data), pcm / np.float32(32768))


def test_wav_chunks_that_lie(tmp_path: Path) -> None:
    pcm = (noise(2) * 32768).astype("<i2").tobytes()
    size = len(pcm)
    listed = b"LIST" + struct.pack("<I", 6) + b"INFOxx"
    assert len(load(tmp_path, wav(pcm, size + 50, size, listed))) == 2 * RATE
    assert len(load(tmp_path, wav(pcm[:-1] + b"\0", size + 36, size - 1, b""))) in (
        2 * RATE - 1,
        2 * RATE,
    )
    assert reason(tmp_path, wav(pcm, size + 36, size + 2)) == "truncated"
    assert reason(tmp_path, wav(pcm, size + 36, 1000)) == "header mismatch"
    assert reason(tmp_path, wav(pcm, 36 + 14, 0, listed)[:44]) == "no samples"
    assert (
        reason(tmp_path, wav(b"", 36 + 14, 0, listed)) == "no samples"
    )  # truly empty, not a stream


@pytest.mark.parametrize("seed", range(3))
def test_au_sizes(tmp_path: Path, seed: int) -> None:
    """All that writers leave when they cannot seek back; libsndfile knows one of these only."""
    draws = np.random.default_rng(seed)
    data = encode(noise(draws.uniform(0.3, 1), seed=seed), format="AU", subtype="PCM_16")
    expected = load(tmp_path, data)
    for size in (0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        unknown = data[:8] + struct.pack(">I", size) + data[12:]
        np.testing.assert_array_equal(load(tmp_path, unknown), expected, hex(size))

    too_small = data[:8] + struct.pack(">I", int(draws.integers(1, 4000))) + data[12:]
    assert reason(tmp_path, too_small) == "header mismatch"


@given(st.binary(max_size=200))
def test_ogg_checksum_equals_its_definition(data: bytes) -> None:
    register = 0
    for byte in data:
        register ^= byte << 24
        for _ in range(8):
            register = (register << 1 ^ (0x04C11DB7 if register & 0x80000000 else 0)) & 0xFFFFFFFF
    assert ogg_checksum(data) == register


def test_ogg_without_its_last_page_is_truncated(tmp_path: Path) -> None:
    data = encode(noise(20), format="OGG", subtype="OPUS")
    last = data.rfind(b"OggS")
    assert data[last + 5] & 4  # the flag of the last page
    assert reason(tmp_path, data[:last]) == "truncated"
    assert reason(tmp_path, data + b"more than a few") == "header mismatch"


def test_mp3_without_a_length_is_heard_to_its_end(tmp_path: Path) -> None:
    data = encode(noise(20), format="MP3")
    first = mp3_frame_bytes(data)
    assert first is not None
    assert b"Xing" in data[:first] or b"Info" in data[:first]
    bare = data[first:]
    # A decoder that guesses the length from the first frame gets less than half of this file.
    assert soundfile.info(io.BytesIO(bare)).frames < 0.6 * 20 * RATE
    whole = load(tmp_path, bare)
    assert 20 * RATE <= len(whole) <= 20 * RATE + 4 * 576
    assert len(load(tmp_path, bare + b"TAG" + bytes(125))) == len(whole)
    # Nobody can tell a stream that was cut out from a file that was cut off.
    assert 9 * RATE < len(load(tmp_path, bare[: len(bare) // 2])) < 11 * RATE
    assert reason(tmp_path, data[: len(data) // 3] + data[len(data) // 2 :]) == "decode error"


@pytest.mark.parametrize(
    ("rate", "channels", "subtype"), [(16_000, 1, "PCM_16"), (44_100, 2, "PCM_24")]
)
def test_flac_in_ogg_is_heard_as_the_flac_in_it(
    tmp_path: Path, rate: int, channels: int, subtype: str
) -> None:
    """The decoder reads no FLAC in Ogg. A stream declares no number of samples."""
    draws = np.random.default_rng(rate)
    num_samples = int(draws.integers(rate // 2, rate))
    samples = noise(1, rate, channels)[:num_samples]
    flac = encode(samples, rate, format="FLAC", subtype=subtype)
    expected = load(tmp_path, flac, rate)
    assert len(expected) == num_samples

    page_bytes = int(draws.integers(2000, 65_000))
    for told in (flac, declare(flac, 0)):
        in_ogg = flac_in_ogg(told, num_samples, page_bytes)
        np.testing.assert_array_equal(load(tmp_path, in_ogg, rate), expected)
        np.testing.assert_array_equal(load(tmp_path, id3v2() + in_ogg, rate), expected)
        assert reason(tmp_path, in_ogg[: len(in_ogg) // 2]) == "truncated"

    too_many = flac_in_ogg(declare(flac, 0), num_samples + 1, page_bytes)
    assert reason(tmp_path, too_many) == "truncated"
