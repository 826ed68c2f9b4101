"""RIFF and its relatives: sizes that are unknown, too large or elsewhere, and missing padding."""

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.audio_bytes import encode, load, noise, reason
from support.containers import (
    chunk,
    id3v1,
    long_sizes,
    mp3_format,
    mp3_frames,
    pcm,
    pcm_8_bit,
    riff,
    wave_format,
)
from support.speech import RATE

from speechssl.audio.containers.inspection import inspect
from speechssl.audio.containers.view import View
from speechssl.audio.reader import load_audio
from speechssl.errors import AudioError

SIZE_IS_ELSEWHERE = 0xFFFFFFFF
# What writers that cannot seek back leave, of the samples, the RIFF chunk or the whole file.
UNKNOWN = [0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
UNKNOWN += [size - header for size in UNKNOWN[1:] for header in (36, 44)]


@pytest.mark.parametrize("size", UNKNOWN)
def test_a_stream_is_heard_to_its_end_whatever_size_it_was_given(tmp_path: Path, size: int) -> None:
    data, expected = pcm(seed=size % 1000, num_samples=4000 + size % 7)
    stream = riff(wave_format(), chunk(b"data", data, size), size=size)
    np.testing.assert_array_equal(load(tmp_path, stream), expected)
    np.testing.assert_array_equal(load(tmp_path, stream + id3v1()), expected)


@pytest.mark.parametrize("name", ["CAF", "W64", "AU"])
def test_streams_of_other_containers(tmp_path: Path, name: str) -> None:
    data = encode(noise(0.7), format=name, subtype="PCM_16")
    expected = load(tmp_path, data)
    if name == "AU":
        at, size = 8, b"\xff" * 4
    else:
        at, size = data.index(b"data") + (4 if name == "CAF" else 16), b"\xff" * 8
    stream = data[:at] + size + data[at + len(size) :]
    np.testing.assert_array_equal(load(tmp_path, stream), expected)
    np.testing.assert_array_equal(load(tmp_path, stream + id3v1()), expected)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_aiff_of_a_stream_has_sizes_of_whole_samples(
    tmp_path: Path, subtype: str, channels: int
) -> None:
    """SoX leaves the most that it could have written."""
    data = encode(noise(0.7, channels=channels), format="AIFF", subtype=subtype)
    expected = load(tmp_path, data)

    sample_bytes = channels * {"PCM_16": 2, "PCM_24": 3, "FLOAT": 4}[subtype]
    num_samples = 0x7F000000 // sample_bytes
    size = 8 + num_samples * sample_bytes
    at = data.index(b"SSND") + 4
    counted = data.index(b"COMM") + 10
    stream = bytearray(data)
    stream[4:8] = (0x7F000050).to_bytes(4, "big")
    stream[at : at + 4] = size.to_bytes(4, "big")
    stream[counted : counted + 4] = num_samples.to_bytes(4, "big")
    np.testing.assert_array_equal(load(tmp_path, bytes(stream)), expected)
    np.testing.assert_array_equal(load(tmp_path, bytes(stream) + id3v1()), expected)


def wave64_chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of Wave64: its identifier is a GUID, and its size counts itself."""
    identifier = name + bytes.fromhex("f3acd3118cd100c04f8edb8a")
    header = identifier + struct.pack("<Q", 24 + len(body))
    return header + body + bytes(-len(body) % 8)


@pytest.mark.parametrize(("coding", "kind"), [(1, "<i2"), (1, "<i4"), (3, "<f4"), (3, "<f8")])
@pytest.mark.parametrize("channels", [1, 6])
def test_wave64_that_tells_its_coding_elsewhere_is_no_noise(
    tmp_path: Path, coding: int, kind: str, channels: int
) -> None:
    """ffmpeg writes floats, and more than two channels, in this way."""
    draws = np.random.default_rng([coding, channels])
    samples = draws.uniform(-0.5, 0.5, (3000, channels))
    is_whole = coding == 1
    width = np.dtype(kind).itemsize
    scale = 2.0 ** (8 * width - 1) if is_whole else 1.0
    data = (scale * samples).astype(kind).tobytes()

    frame = width * channels
    known = struct.pack("<HHIIHH", 0xFFFE, channels, RATE, RATE * frame, frame, 8 * width)
    true_coding = struct.pack("<H", coding) + bytes.fromhex("000000001000800000aa00389b71")
    layout = known + struct.pack("<HHI", 22, 8 * width, 0) + true_coding
    chunks = wave64_chunk(b"fmt ", layout) + wave64_chunk(b"data", data)
    magic = bytes.fromhex("726966662e91cf11a5d628db04c10000")
    file_type = bytes.fromhex("77617665f3acd3118cd100c04f8edb8a")
    size = struct.pack("<Q", 40 + len(chunks))

    heard = load(tmp_path, magic + size + file_type + chunks)
    np.testing.assert_allclose(heard, samples.mean(axis=1), atol=1e-4)


@pytest.mark.parametrize("size", [0x7FFFF000, 0xFFFFFFFF, 0, "0 in ds64"])
def test_a_stream_of_more_than_4_gib_is_seen_to_its_end(tmp_path: Path, size: int | str) -> None:
    """The file is sparse: it takes a few kilobytes of the disk."""
    end_bytes, end = pcm(seed=1, num_samples=1000)
    if size == "0 in ds64":
        head = riff(
            long_sizes(0), wave_format(), chunk(b"data", b"", SIZE_IS_ELSEWHERE), magic=b"RF64"
        )
    else:
        head = riff(wave_format(), chunk(b"data", b"", int(size)))
    path = tmp_path / "long.wav"
    path.write_bytes(head)
    num_samples = 2**31 + 12_345
    os.truncate(path, len(head) + 2 * num_samples - len(end_bytes))
    with path.open("ab") as file:
        file.write(end_bytes)

    with path.open("rb") as raw:
        layout = inspect(raw)
        assert layout.reason == ""
        with soundfile.SoundFile(View(raw, layout)) as sound:
            assert sound.frames == num_samples
            sound.seek(num_samples - 1001)
            heard = sound.read(dtype="float32")
    np.testing.assert_array_equal(heard, np.concatenate([np.zeros(1, np.float32), end]))


def test_more_than_4_gib_where_no_header_can_say_so_is_refused(tmp_path: Path) -> None:
    common = b"COMM" + struct.pack(">IhIh", 18, 1, 0, 16) + bytes.fromhex("400cfa00" + 12 * "0")
    head = b"FORM\xff\xff\xff\xffAIFF" + common + b"SSND\xff\xff\xff\xff" + bytes(8)
    path = tmp_path / "long.aiff"
    path.write_bytes(head)
    os.truncate(path, 2**32 + 100)
    with path.open("rb") as raw:
        assert inspect(raw).reason == "unsupported format"


def test_a_size_that_is_a_stream_s_by_chance_is_believed(tmp_path: Path) -> None:
    """A sparse file of 2 GiB whose samples are followed by a title."""
    path = tmp_path / "long.wav"
    size = 0x7FFFF000
    path.write_bytes(riff(wave_format(), chunk(b"data", b"", size)))
    os.truncate(path, 44 + size)
    with path.open("ab") as file:
        file.write(chunk(b"LIST", b"INFOISFT"))
    with path.open("rb") as raw:
        assert inspect(raw).is_plain


@pytest.mark.parametrize("magic", [b"RF64", b"BW64"])
@pytest.mark.parametrize("seed", range(4))
def test_long_forms_with_chunks_of_broadcasters(tmp_path: Path, magic: bytes, seed: int) -> None:
    rng = np.random.default_rng(seed)
    data, expected = pcm(seed, int(rng.integers(1000, 2000)))
    before = [chunk(name, rng.bytes(int(rng.integers(1, 30)))) for name in (b"chna", b"bext")]
    behind = [chunk(b"axml", b"<a/>"[: int(rng.integers(1, 5))])]
    size = SIZE_IS_ELSEWHERE if seed % 2 else len(data)
    file = riff(
        long_sizes(len(data)),
        *before,
        wave_format(),
        chunk(b"data", data, size),
        *behind,
        magic=magic,
        size=SIZE_IS_ELSEWHERE,
    )
    np.testing.assert_array_equal(load(tmp_path, file), expected)
    np.testing.assert_array_equal(load(tmp_path, file + id3v1()), expected)
    assert reason(tmp_path, file[: len(file) // 2]) == "truncated"


@pytest.mark.parametrize("seed", range(12))
def test_chunks_of_odd_lengths_need_no_padding(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)

    def others(names: list[bytes]) -> list[bytes]:
        chosen = [name for name in names if rng.random() < 0.7]
        bodies = [rng.bytes(int(rng.integers(1, 9))) for _ in chosen]
        pairs = zip(chosen, bodies, strict=True)
        return [chunk(name, body, padded=bool(rng.random() < 0.5)) for name, body in pairs]

    data, expected = pcm_8_bit(seed, 2 * int(rng.integers(500, 1000)) + 1)
    file = riff(
        *others([b"LIST", b"JUNK"]),
        wave_format(bits=8),
        *others([b"minf", b"elm1"]),
        chunk(b"data", data, padded=bool(seed % 2)),
        *others([b"LIST", b"cue "]),
    )
    np.testing.assert_array_equal(load(tmp_path, file), expected)
    np.testing.assert_array_equal(load(tmp_path, file + id3v1()), expected)


@pytest.mark.parametrize("order", ["before", "behind"])
def test_odd_samples_without_padding_in_aiff(tmp_path: Path, order: str) -> None:
    samples = np.random.default_rng(0).integers(-100, 100, 1001).astype(np.int8)
    about = struct.pack(">hIh", 1, len(samples), 8) + bytes.fromhex("400cfa00" + 12 * "0")
    common = b"COMM" + struct.pack(">I", len(about)) + about
    sound = b"SSND" + struct.pack(">III", 8 + len(samples), 0, 0) + samples.tobytes()
    name = b"NAME" + struct.pack(">I", 4) + b"abcd"
    body = b"AIFF" + (common + sound if order == "before" else sound + common) + name
    file = b"FORM" + struct.pack(">I", len(body)) + body
    np.testing.assert_array_equal(load(tmp_path, file), samples / np.float32(128))


def test_what_follows_the_samples_of_wave64_is_not_heard(tmp_path: Path) -> None:
    data = encode(noise(0.5), format="W64", subtype="PCM_16")
    level = b"levl" + bytes(12) + struct.pack("<Q", 32) + b"\x09" * 8
    np.testing.assert_array_equal(load(tmp_path, data + level), load(tmp_path, data))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", ["right", "stream"])
def test_mp3_in_wav_is_heard_as_the_mp3_alone(tmp_path: Path, size: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    counted, *frames = mp3_frames(noise(rng.uniform(1, 2), seed=seed))
    for mp3 in (b"".join(frames), b"".join([counted, *frames])):
        declared = 0xFFFFFFFF if size == "stream" else None
        fact = chunk(b"fact", struct.pack("<I", int(rng.integers(0, 20_000))))
        file = riff(mp3_format(), fact, chunk(b"data", mp3, declared))
        expected = load(tmp_path, mp3)
        assert len(expected) > RATE / 2
        np.testing.assert_array_equal(load(tmp_path, file), expected)
        if size == "right":
            tagged = file + chunk(b"LIST", b"INFOISFT") + id3v1()
            np.testing.assert_array_equal(load(tmp_path, tagged), expected)
            assert reason(tmp_path, file[: len(file) // 2]) == "truncated"


def test_wav_that_is_said_to_hold_mp3_and_does_not(tmp_path: Path) -> None:
    junk = np.random.default_rng(0).bytes(5000)
    assert reason(tmp_path, riff(mp3_format(), chunk(b"data", junk))) == "decode error"


# Codings in blocks, the containers that tell how many samples were recorded, and channels.
BLOCKS = [
    ("MS_ADPCM", "WAV", 2),
    ("GSM610", "WAV", 1),
    ("GSM610", "W64", 1),
    ("G721_32", "WAV", 1),
    ("NMS_ADPCM_16", "WAV", 1),
    ("NMS_ADPCM_32", "WAV", 1),
]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("coding", "container", "most_channels"), BLOCKS)
def test_what_fills_up_the_last_block_is_not_heard(
    coding: str, container: str, most_channels: int, seed: int, tmp_path: Path
) -> None:
    """After an offset it would be a step, and in GSM noise as loud as speech."""
    draws = np.random.default_rng(seed)
    length = int(draws.integers(20, 20_000))
    channels = int(draws.integers(1, most_channels + 1))
    samples = 0.1 * draws.standard_normal((length, channels)) + draws.uniform(0, 0.3)
    data = encode(samples, format=container, subtype=coding)

    decoded, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    assert len(decoded) > length
    heard = load(tmp_path, data)
    np.testing.assert_allclose(heard, decoded[:length].mean(axis=1), atol=1e-6)

    # Not the tag's bytes either, nor those of a stream that declares no size.
    np.testing.assert_array_equal(load(tmp_path, data + b"TAG" + bytes(125)), heard)


@pytest.mark.parametrize("seed", range(2))
def test_a_number_of_samples_that_lies_is_not_believed(seed: int, tmp_path: Path) -> None:
    """Some writers count the samples of all channels, or nothing."""
    draws = np.random.default_rng(seed)
    length = int(draws.integers(5_000, 20_000))
    data = encode(0.1 * draws.standard_normal(length), format="WAV", subtype="MS_ADPCM")
    decoded, _ = soundfile.read(io.BytesIO(data), dtype="float32")

    counted_at = data.index(b"fact") + 8
    for lie in (0, 1, length // 2, 2 * length, 2**32 - 1):
        patched = bytearray(data)
        patched[counted_at : counted_at + 4] = struct.pack("<I", lie)
        np.testing.assert_array_equal(load(tmp_path, bytes(patched)), decoded)


@pytest.mark.parametrize("seed", range(4))
def test_a_byte_of_padding_is_no_block_of_gsm(seed: int, tmp_path: Path) -> None:
    """Whether or not the file tells how much was recorded."""
    draws = np.random.default_rng(seed)
    blocks = 2 * int(draws.integers(1, 20)) + 1
    data = encode(0.05 * draws.standard_normal(320 * blocks), format="WAV", subtype="GSM610")
    decoded, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    assert len(decoded) == 320 * (blocks + 1)

    untold = data.replace(b"fact", b"LIST")
    for file in (data, untold):
        np.testing.assert_array_equal(load(tmp_path, file), decoded[: 320 * blocks])


@pytest.mark.parametrize(("form", "name"), [("WAV", b"data"), ("AIFF", b"SSND")])
@pytest.mark.parametrize("seed", range(3))
def test_samples_in_two_chunks_are_refused_by_name(
    form: str, name: bytes, seed: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(seed)
    path = tmp_path / f"parted.{form.lower()}"
    samples = 0.1 * rng.standard_normal(rng.integers(500, 5000))
    soundfile.write(path, samples, 16_000, format=form, subtype="PCM_16")

    order = "<" if form == "WAV" else ">"
    second = bytes(2 * rng.integers(100, 5000).item())
    header = name + struct.pack(f"{order}I", len(second))
    path.write_bytes(path.read_bytes() + header + second)
    with pytest.raises(AudioError, match="whose samples are parted into two chunks"):
        load_audio(path, 16_000)
