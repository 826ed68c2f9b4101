"""Tags before and behind every container: they change no sample."""

from pathlib import Path

import numpy as np
import pytest
from support.audio_bytes import encode, load, noise, reason
from support.containers import (
    FORMATS,
    ape,
    id3v1,
    id3v2,
    id3v2_with_footer,
    lyrics,
)

BEHIND = {
    "id3v1": id3v1(),
    "ape": ape(),
    "ape without header": ape(has_header=False),
    "lyrics": lyrics(),
    "ape and id3v1": ape() + id3v1(),
    "id3v2 with footer": id3v2_with_footer(),
}


@pytest.mark.parametrize("name", FORMATS)
def test_tags_behind_and_before_change_no_sample(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(sum(name.encode()))
    num_samples = int(rng.integers(8000, 9000))
    data = encode(noise(1)[:num_samples], **FORMATS[name])
    expected = load(tmp_path, data)

    for tag in BEHIND.values():
        np.testing.assert_array_equal(load(tmp_path, data + tag), expected)
    in_front = id3v2(int(rng.integers(1, 40_000)))
    np.testing.assert_array_equal(load(tmp_path, in_front + data + id3v1()), expected)


@pytest.mark.parametrize("name", FORMATS)
def test_what_only_looks_like_a_tag_is_no_tag(tmp_path: Path, name: str) -> None:
    """A tag without its end, or an end without a tag, may be what is left of something else."""
    data = encode(noise(0.5), **FORMATS[name])
    no_year = b"TAG" + bytes(90) + b"none" + bytes(31)
    for junk in (no_year, ape()[:-10], id3v1()[:-20], b"LYRICSBEGIN" + bytes(50)):
        assert reason(tmp_path, data + junk) in ("header mismatch", "decode error")


def test_samples_that_spell_a_tag_stay(tmp_path: Path) -> None:
    samples = np.frombuffer(bytes(1000) + id3v1() + id3v1(), "<i2")
    data = encode((samples / 32768).astype(np.float32), format="WAV", subtype="PCM_16")
    heard = load(tmp_path, data)
    np.testing.assert_array_equal(np.round(heard * 32768).astype("<i2"), samples)
