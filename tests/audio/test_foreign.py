"""Files that we do not read: each is named, with the command that helps."""

from pathlib import Path

import numpy as np
import pytest
from support.audio_bytes import encode, load, noise
from support.containers import chunk, id3v2, mp3_frames, riff, wave_format
from support.speech import RATE

from speechssl.audio.reader import load_audio
from speechssl.errors import AudioError

ADTS = bytes([0xFF, 0xF1, 0x50, 0x80, 0x0C, 0x9F, 0xFC]) + bytes(93)  # a frame of 100 bytes


def deep_flac() -> bytes:
    """A FLAC file whose header says 32 bits a sample."""
    data = bytearray(encode(noise(0.1), format="FLAC"))
    data[20] |= 1
    data[21] |= 0xF0
    return bytes(data)


FOREIGN = {
    "m4a": (b"\0\0\0\x20ftypM4A " + bytes(400), "m4a"),
    "mov": (b"\0\0\0\x20ftypqt  " + bytes(400), "mov"),
    "aac": (ADTS * 5, "AAC"),
    "aac behind a tag": (id3v2() + ADTS * 5, "AAC"),
    "wma": (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + bytes(400), "wma"),
    "webm": (bytes.fromhex("1a45dfa3") + bytes(400), "webm"),
    "amr": (b"#!AMR-WB\n" + bytes(400), "AMR"),
    "shorten": (b"ajkg\2" + bytes(400), "shorten"),
    "wma in wav": (riff(wave_format(0x161), chunk(b"data", bytes(400))), "Windows Media"),
    "unknown coding in wav": (riff(wave_format(0x99), chunk(b"data", bytes(400))), "0x99"),
    "aac in caf": (encode(noise(0.1), format="CAF").replace(b"lpcm", b"aac "), "coding"),
    "adpcm of a mac": (
        encode(noise(0.1), format="AIFF", subtype="ULAW").replace(b"ulaw", b"MAC6"),
        "coding",
    ),
    "avi": (b"RIFF\x10\0\0\0AVI LIST" + bytes(400), "AVI"),
    "flac of 32 bits": (deep_flac(), "32 bits"),
    "mp3 that changes": (
        b"".join(mp3_frames(noise(0.3)) + mp3_frames(noise(0.3, 22_050), 22_050)[1:]),
        "16000 to 22050 Hz",
    ),
}
# Their sound is lost or elsewhere: no converter helps.
NO_SOUND = {
    "mac": (bytes.fromhex("00051607") + bytes(400), "Mac"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "page": (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
    "gzip": (b"\x1f\x8b\x08" + bytes(400), "gzip"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_recording_that_we_do_not_read_is_named_with_the_command(
    tmp_path: Path, name: str
) -> None:
    data, what = FOREIGN[name]
    with pytest.raises(AudioError) as caught:
        load(tmp_path, data)
    assert caught.value.reason == "unsupported format"
    assert what in caught.value.detail
    assert caught.value.detail.endswith("ffmpeg -i x.bin x.bin.wav")


@pytest.mark.parametrize("name", NO_SOUND)
def test_what_is_no_recording_is_named(tmp_path: Path, name: str) -> None:
    data, what = NO_SOUND[name]
    with pytest.raises(AudioError) as caught:
        load(tmp_path, data)
    assert caught.value.reason == "not audio"
    assert what in caught.value.detail
    assert "ffmpeg" not in caught.value.detail


def test_the_command_can_be_pasted_whatever_the_name(tmp_path: Path) -> None:
    path = tmp_path / "two words; $(x).m4a"
    path.write_bytes(FOREIGN["m4a"][0])
    with pytest.raises(AudioError) as caught:
        load_audio(path)
    assert "ffmpeg -i 'two words; $(x).m4a' 'two words; $(x).m4a.wav'" in caught.value.detail


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["MAT4", "MAT5", "WVE", "XI"])
def test_formats_that_hold_no_recordings_are_refused_whole_or_cut(
    tmp_path: Path, name: str, seed: int
) -> None:
    """libsndfile clips what their headers declare to the file, and says nothing."""
    draws = np.random.default_rng(seed)
    codings = {"WVE": ["ALAW"], "XI": ["DPCM_8", "DPCM_16"]}.get(name, ["PCM_16", "FLOAT"])
    rate = 8000 if name == "WVE" else RATE
    samples = noise(draws.uniform(0.1, 0.5), rate, seed=seed)
    data = encode(samples, rate, format=name, subtype=str(draws.choice(codings)))
    cut = int(draws.integers(1, len(data) // 2))
    for file in (data, data[:-cut]):
        with pytest.raises(AudioError) as caught:
            load(tmp_path, file)
        assert caught.value.reason == "unsupported format"
        assert name in caught.value.detail
