"""Decoding against soundfile, resampling against torchaudio, and every reason to refuse a file."""

import io
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio.functional
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.audio_bytes import declare, encode, load, noise, reason
from support.containers import FORMATS
from support.speech import RATE

from speechssl.audio.containers.inspection import inspect
from speechssl.audio.formats import AUDIO_SUFFIXES
from speechssl.audio.reader import declared_seconds, load_audio, stream_mono, write_wav
from speechssl.errors import AudioError, ConfigError


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_decodes_as_soundfile_does(tmp_path: Path, name: str, channels: int) -> None:
    data = encode(noise(3.3, channels=channels), **FORMATS[name])
    expected = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0].mean(axis=1)
    heard = load(tmp_path, data)
    assert heard.dtype == np.float32
    np.testing.assert_allclose(heard, expected, atol=1e-7)


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_cut_in_half_is_refused_in_every_format(tmp_path: Path, name: str) -> None:
    data = encode(noise(5), **FORMATS[name])
    assert reason(tmp_path, data[: len(data) // 2]) in ("truncated", "decode error")
    if name not in ("flac", "caf"):  # there the decoder itself notices first
        assert reason(tmp_path, data[: len(data) // 2]) == "truncated"


@pytest.mark.parametrize("name", [n for n in FORMATS if n not in ("wav extensible", "wav float")])
def test_a_file_twice_in_one_is_never_half_heard(tmp_path: Path, name: str) -> None:
    data = encode(noise(2), **FORMATS[name])
    if name in ("mp3", "flac"):
        assert len(load(tmp_path, data + data)) == 4 * RATE
        return
    assert reason(tmp_path, data + data) in ("header mismatch", "chained stream", "decode error")


@pytest.mark.parametrize("name", ["flac", "vorbis", "opus"])
def test_a_flipped_bit_and_a_hole_are_noticed(tmp_path: Path, name: str) -> None:
    data = encode(noise(5), **FORMATS[name])
    middle = len(data) // 2
    assert (
        reason(tmp_path, data[:middle] + bytes([data[middle] ^ 64]) + data[middle + 1 :])
        == "decode error"
    )
    assert reason(tmp_path, data[: len(data) // 3] + data[middle:]) == "decode error"


# ---- how much is read ----------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_no_more_is_asked_for_than_is_there(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libsndfile clears what it cannot fill.

    To ask for a minute each time would cost more than decoding a short file.
    """
    soundfile.write(tmp_path / f"x.{suffix}", np.full(20_000, 0.1, np.float32), 16_000)
    asked: list[int] = []
    read = soundfile.SoundFile.read

    def spy(self: soundfile.SoundFile, frames: int, **how: object) -> NDArray[np.float32]:
        asked.append(frames)
        samples: NDArray[np.float32] = read(self, frames, **how)
        return samples

    monkeypatch.setattr(soundfile.SoundFile, "read", spy)
    assert len(load_audio(tmp_path / f"x.{suffix}")) == 20_000
    assert sum(asked) < 1.5 * 20_000


def test_memory_depends_neither_on_a_header_nor_on_the_length(tmp_path: Path) -> None:
    path = tmp_path / "zeros.flac"
    path.write_bytes(
        declare(
            encode(np.zeros(1800 * RATE, np.float32), format="FLAC", subtype="PCM_16"), 2**36 - 1
        )
    )
    assert path.stat().st_size < 100_000  # half an hour
    tracemalloc.start()
    with pytest.raises(AudioError, match="truncated"):
        for _ in stream_mono(path, RATE, block_s=5):
            pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000
    with pytest.raises(AudioError, match=r"too long: zeros\.flac"):
        load_audio(path, max_duration_s=60)


# ---- reasons -------------------------------------------------------------------------------------


def test_every_other_reason(tmp_path: Path) -> None:
    assert reason(tmp_path, b"") == "empty file"
    assert reason(tmp_path, b"no audio at all\n" * 50) == "not audio"
    assert reason(tmp_path, np.random.default_rng(0).bytes(5000)) == "not audio"
    assert reason(tmp_path, encode(np.zeros(0, np.float32), format="WAV")) == "no samples"
    assert reason(tmp_path, encode(noise(1), 500, format="WAV")) == "bad sample rate"
    for value in (np.nan, np.inf, -np.inf):
        bad = noise(1)
        bad[777] = value
        assert reason(tmp_path, encode(bad, format="WAV", subtype="FLOAT")) == "non-finite samples"
    for missing in (
        tmp_path / "nothing.wav",
        tmp_path,
        tmp_path / "x.bin" / "below",
        tmp_path / "nul\0",
    ):
        with pytest.raises(AudioError, match="missing file"):
            load_audio(missing)


@given(st.binary(max_size=300), st.sampled_from(sorted(FORMATS)), st.integers(0, 2000))
@settings(max_examples=150, deadline=None)
def test_no_bytes_stop_the_walk_through_a_container(junk: bytes, name: str, at: int) -> None:
    """No decoder sees them: what broken files do to decoders, the sandbox's tests plant.

    Nobody knows what drawn bytes would do to a library.
    """
    data = _encoded(name)
    damaged = data[:at] + junk + data[at + len(junk) :]
    found = inspect(io.BytesIO(damaged))
    assert bool(found.reason) == bool(found.detail)
    assert all(0 <= start <= end <= len(damaged) for start, end in found.spans)
    assert all(0 <= offset < len(damaged) for offset in found.patches)


_cache: dict[str, bytes] = {}


def _encoded(name: str) -> bytes:
    if name not in _cache:
        _cache[name] = encode(noise(0.5), **FORMATS[name])
    return _cache[name]


def test_names_of_any_bytes(tmp_path: Path) -> None:
    for name in (
        b"new\nline.wav",
        b"'q\" $(x).wav",
        b"-f.wav",
        b"\xff\xfe.wav",
        b"n" * 251 + b".wav",
    ):
        path = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name)))
        write_wav(path, noise(0.1), RATE)
        assert len(load_audio(path)) == 1600
        path.write_bytes(b"junk")
        with pytest.raises(AudioError) as caught:
            load_audio(path)
        caught.value.detail.encode()


def test_suffixes_cover_what_people_have() -> None:
    assert {
        ".wav",
        ".flac",
        ".ogg",
        ".opus",
        ".mp3",
        ".aif",
        ".aiff",
        ".au",
        ".caf",
        ".w64",
    } <= AUDIO_SUFFIXES
    assert not {".raw", ".mat4", ".txt", ".json", ".csv"} & AUDIO_SUFFIXES


# ---- resampling, parts ---------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 32000, 37800, 44100, 48000, 96000])
def test_blocks_equal_resampling_the_whole_file(tmp_path: Path, rate: int) -> None:
    samples = noise(2.7183, rate, channels=2)
    path = tmp_path / "x.wav"
    path.write_bytes(encode(samples, rate, format="WAV", subtype="FLOAT"))
    expected = torchaudio.functional.resample(
        torch.from_numpy(samples.mean(axis=1)), rate, RATE
    ).numpy()
    for block_s in (0.01, 0.37, 60.0):
        blocks = list(stream_mono(path, RATE, block_s=block_s))
        assert all(block.ndim == 1 and block.dtype == np.float32 for block in blocks)
        heard = np.concatenate(blocks)
        assert heard.shape == expected.shape
        np.testing.assert_allclose(heard, expected, atol=1e-6)


def test_odd_rates_keep_pitch_and_length(tmp_path: Path) -> None:
    rate = 24_414  # in lowest terms 12207 : 8000, a bank of 400 MB
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(4 * rate) / rate).astype(np.float32)
    heard = load(tmp_path, encode(tone, rate, format="WAV", subtype="FLOAT"))
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(heard)) / RATE)
    assert abs(len(heard) - 4 * RATE) <= 1
    np.testing.assert_allclose(heard[500:-500], expected[500:-500], atol=5e-3)


def test_a_part_is_a_slice_of_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    write_wav(path, noise(10, 44100), 44100)
    whole = load_audio(path)
    for offset, duration in ((0.0, 1.0), (2.5, 3.25), (9.0, None), (9.5, 4.0), (11.0, None)):
        part = np.concatenate(
            [
                np.zeros(0, np.float32),
                *stream_mono(path, RATE, offset_s=offset, duration_s=duration, block_s=0.7),
            ]
        )
        end = None if duration is None else round(offset * RATE) + round(duration * RATE)
        np.testing.assert_allclose(part, whole[round(offset * RATE) : end], atol=1e-6)
    with pytest.raises(ConfigError, match="negative"):
        load_audio(path, offset_s=-1)


def test_written_wav_reads_back(tmp_path: Path) -> None:
    samples = noise(1, channels=2)
    write_wav(tmp_path / "x.wav", samples, RATE)
    np.testing.assert_allclose(load_audio(tmp_path / "x.wav"), samples.mean(axis=1), atol=1 / 32768)


# ---- lengths -------------------------------------------------------------------------------------


@pytest.mark.speech
def test_the_damaged_recordings_are_all_refused(speech_folder: Path) -> None:
    broken = sorted((speech_folder / "broken").glob("*.flac"))
    assert len(broken) == 14
    for path in broken:
        with pytest.raises(AudioError, match=r"decode error|truncated"):
            load_audio(path)


def test_what_declares_no_length_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "x.raw").write_bytes(bytes(100))  # libsndfile wants to be told its rate
    os.mkfifo(tmp_path / "pipe.wav")
    assert [declared_seconds(tmp_path / name) for name in ("x.raw", "pipe.wav", "missing.wav")] == [
        None
    ] * 3


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3"])
def test_the_declared_length_is_about_the_real_one(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    soundfile.write(path, np.zeros(22_050, np.float32), 44_100)
    assert declared_seconds(path) == pytest.approx(0.5, abs=0.06)
    path.write_bytes(b"no audio")
    assert declared_seconds(path) is None
    assert declared_seconds(tmp_path / "missing.wav") is None
