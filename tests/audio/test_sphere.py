"""NIST SPHERE: the number of samples in its header against the file."""

from pathlib import Path

import numpy as np
import pytest
from support.audio_bytes import encode, load, noise, reason
from support.speech import RATE

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


@pytest.mark.parametrize("num_bytes", [2, 3, 4])
@pytest.mark.parametrize("is_little", [True, False])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_order_of_bytes_is_read_as_the_format_names_it(
    tmp_path: Path, num_bytes: int, is_little: bool, channels: int
) -> None:
    rng = np.random.default_rng([num_bytes, channels])
    num_samples = int(rng.integers(3000, 9000))
    limit = 1 << (8 * num_bytes - 3)
    samples = rng.integers(-limit, limit, (num_samples, channels))
    lowest_first = samples.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :num_bytes]
    as_bytes = lowest_first if is_little else lowest_first[:, ::-1]

    order = "0123"[:num_bytes]
    fields = {
        "sample_count -i": num_samples,
        "channel_count -i": channels,
        "sample_rate -i": RATE,
        "sample_n_bytes -i": num_bytes,
        "sample_sig_bits -i": 8 * num_bytes,
        f"sample_byte_format -s{num_bytes}": order if is_little else order[::-1],
        "sample_coding -s3": "pcm",
    }
    lines = [f"{name} {value}\n" for name, value in fields.items()]
    rng.shuffle(lines)
    header = "".join(["NIST_1A\n   1024\n", *lines, "end_head\n"]).encode().ljust(1024)
    data = header + as_bytes.tobytes()

    expected = samples.mean(axis=1) / (1 << (8 * num_bytes - 1))
    np.testing.assert_allclose(load(tmp_path, data), expected, atol=1e-7)
    assert reason(tmp_path, data[:-1]) == "truncated"
    if num_bytes > 2:
        typed = f"-s{num_bytes} ".encode()
        named = data.index(typed + (order if is_little else order[::-1]).encode()) + len(typed)
        mixed = data[:named] + b"1" * num_bytes + data[named + num_bytes :]
        assert reason(tmp_path, mixed) == "unsupported format"
