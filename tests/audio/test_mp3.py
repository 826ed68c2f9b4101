"""MP3s that were joined, cut out of a stream, or change on their way, and layers I and II."""

from pathlib import Path

import numpy as np
import pytest
from support.audio_bytes import load, noise, reason
from support.containers import (
    ape,
    chunk,
    id3v1,
    id3v2,
    layer_2_frame,
    lyrics,
    mp3_format,
    mp3_frames,
    mp3_frames_of_one_length,
    of_free_bit_rate,
    riff,
    with_vbri,
)
from support.speech import RATE

from speechssl.audio.reader import load_audio
from speechssl.errors import AudioError

FRAME_SAMPLES = 576  # of MPEG 2, so of 16 kHz
DECODER_DELAY = 529  # samples, which the decoder takes off in front

BETWEEN = {
    "id3v2": id3v2(),
    "large id3v2": id3v2(40_000),
    "id3v1": id3v1(),
    "ape": ape(),
    "lyrics": lyrics(),
    "id3v1 and id3v2": id3v1() + id3v2(300),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_a_tag_between_frames_is_cut_out(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(len(name))
    parts = [mp3_frames(noise(rng.uniform(0.5, 1), seed=k))[1:] for k in range(3)]
    joined = BETWEEN[name].join(b"".join(part) for part in parts)
    heard = load(tmp_path, id3v2() + joined + id3v1())

    num_frames = sum(map(len, parts))
    assert len(heard) == num_frames * FRAME_SAMPLES - DECODER_DELAY
    without_tags = load(tmp_path, b"".join(b"".join(part) for part in parts))
    np.testing.assert_array_equal(heard, without_tags)


@pytest.mark.parametrize("name", ["nothing", *BETWEEN])
def test_joined_mp3s_that_each_tell_their_length_are_heard_as_each_alone(
    tmp_path: Path, name: str
) -> None:
    """Each has a frame without sound in front, and loses the encoder's delay."""
    rng = np.random.default_rng(len(name))
    sounds = [noise(rng.uniform(0.3, 0.7), seed=k) for k in range(3)]
    files = [b"".join(mp3_frames(sound)) for sound in sounds]
    between = BETWEEN.get(name, b"")
    heard = load(tmp_path, id3v2() + between.join(files) + id3v1())

    assert len(heard) == sum(map(len, sounds))
    alone = [load(tmp_path, file) for file in files]
    np.testing.assert_array_equal(heard, np.concatenate(alone))


def without_length(frames: list[bytes]) -> list[bytes]:
    return frames[1:]


def with_checksum(frames: list[bytes]) -> list[bytes]:
    """The same frames, of which the first has a checksum, as lame -p writes it."""
    first, *sound = frames
    flagged = bytes([first[0], first[1] & 0xFE]) + first[2:4] + b"\xd1\x9c" + first[6:]
    return [flagged, *sound]


def telling(frames: list[bytes], count: int) -> bytes:
    """The same MP3, whose header tells another number of frames."""
    first, *sound = frames
    told = first.replace(len(sound).to_bytes(4, "big"), count.to_bytes(4, "big"), 1)
    return told + b"".join(sound)


KINDS = {
    "length": list,
    "no length": without_length,
    "vbri": with_vbri,
    "checksum": with_checksum,
}


@pytest.mark.parametrize("name", ["nothing", *BETWEEN])
@pytest.mark.parametrize(("rate", "channels"), [(RATE, 1), (44_100, 2)])
def test_mp3s_with_and_without_a_length_are_heard_in_any_order(
    tmp_path: Path, name: str, rate: int, channels: int
) -> None:
    rng = np.random.default_rng([len(name), rate])
    names = list(rng.permutation(list(KINDS)))
    files = []
    for kind in names:
        sound = noise(rng.uniform(0.3, 0.7), rate, channels, seed=int(rng.integers(1000)))
        frames = KINDS[kind](mp3_frames(sound, rate))
        files.append(b"".join(frames))

    alone = [load(tmp_path, file, rate) for file in files]
    heard = load(tmp_path, BETWEEN.get(name, b"").join(files) + id3v1(), rate)
    assert len(heard) == sum(map(len, alone)), names
    np.testing.assert_array_equal(heard, np.concatenate(alone), str(names))


@pytest.mark.parametrize("order", ["told, bare", "bare, told", "bare, told, bare"])
def test_what_follows_a_length_is_heard_or_refused(tmp_path: Path, order: str) -> None:
    """Sound of frames that were left out may stand in frames that begin no recording."""
    frames = mp3_frames(noise(0.8))
    told = b"".join(frames)
    for name, bare in [("whole", frames[1:]), ("part", frames[5:])]:
        parts = [told if part == "told" else b"".join(bare) for part in order.split(", ")]
        joined = b"".join(parts)
        if name == "part" and order.endswith("told, bare"):
            assert reason(tmp_path, joined) == "header mismatch"
            continue

        alone = [load(tmp_path, part) for part in parts]
        np.testing.assert_array_equal(load(tmp_path, joined), np.concatenate(alone))


@pytest.mark.parametrize("rate", [RATE, 44_100])
def test_one_frame_more_than_is_told_is_heard_and_0_tells_nothing(
    tmp_path: Path, rate: int
) -> None:
    frames = mp3_frames(noise(1, rate), rate)
    whole = load(tmp_path, b"".join(frames), rate)
    assert len(whole) == rate

    num_frames = len(frames) - 1
    for count in (num_frames - 1, 0):
        odd = telling(frames, count)
        np.testing.assert_array_equal(load(tmp_path, odd, rate), whole)
        np.testing.assert_array_equal(load(tmp_path, odd * 2, rate), np.tile(whole, 2))

    vbri = with_vbri(frames)
    expected = load(tmp_path, b"".join(vbri), rate)
    np.testing.assert_array_equal(load(tmp_path, telling(vbri, 0), rate), expected)


@pytest.mark.parametrize(("rate", "channels"), [(44_100, 1), (44_100, 2)])
def test_joined_mp3s_of_other_rates_and_channels_and_in_wav(
    tmp_path: Path, rate: int, channels: int
) -> None:
    sounds = [noise(seconds, rate, channels) for seconds in (0.4, 0.6)]
    files = [b"".join(mp3_frames(sound, rate)) for sound in sounds]
    alone = np.concatenate([load(tmp_path, file, rate) for file in files])
    assert len(alone) == rate
    joined = b"".join(files)
    np.testing.assert_array_equal(load(tmp_path, joined, rate), alone)

    in_wav = riff(mp3_format(), chunk(b"data", joined))
    np.testing.assert_array_equal(load(tmp_path, in_wav, rate), alone)


@pytest.mark.parametrize(("rate", "channels"), [(RATE, 1), (44_100, 1), (44_100, 2)])
def test_every_frame_behind_a_vbri_header_is_heard(
    tmp_path: Path, rate: int, channels: int
) -> None:
    """The decoder does not know such headers."""
    parts = [mp3_frames(noise(seconds, rate, channels), rate) for seconds in (0.5, 1.2)]
    files = [b"".join(with_vbri(frames)) for frames in parts]
    samples_per_frame = FRAME_SAMPLES if rate == RATE else 1152
    alone = []
    for frames, file in zip(parts, files, strict=True):
        heard = load(tmp_path, file, rate)
        assert len(heard) == samples_per_frame * (len(frames) - 1) - DECODER_DELAY

        bare = b"".join(frames[1:])
        np.testing.assert_array_equal(heard, load(tmp_path, bare, rate))
        np.testing.assert_array_equal(heard, load(tmp_path, id3v2() + file + ape(), rate))
        alone.append(heard)

    joined = id3v2(300).join(files)
    np.testing.assert_array_equal(load(tmp_path, joined, rate), np.concatenate(alone))
    assert reason(tmp_path, b"".join(with_vbri(parts[1])[:-2])) == "truncated"


def test_a_fault_in_any_of_joined_mp3s_is_noticed(tmp_path: Path) -> None:
    frames = mp3_frames(noise(1))
    good = b"".join(frames)
    too_few = b"".join(frames[:-2])
    too_many = good + b"".join(frames[-3:])
    for bad, why in [(too_few, "truncated"), (too_many, "header mismatch")]:
        assert reason(tmp_path, bad + good) == why
        assert reason(tmp_path, good + bad) == why
    assert reason(tmp_path, good + good[:-10]) == "truncated"
    assert reason(tmp_path, good[:-10] + good) != ""

    path = tmp_path / "x.bin"
    path.write_bytes(good * 3)
    with pytest.raises(AudioError, match="too long"):
        load_audio(path, max_duration_s=2.5)
    assert len(load_audio(path, max_duration_s=3.0)) == 3 * RATE


@pytest.mark.parametrize("seed", range(6))
def test_an_mp3_may_begin_and_end_inside_a_frame(
    tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(seed)
    frames = mp3_frames(noise(1.5, seed=seed))[1:]
    skipped = int(rng.integers(1, len(frames[0])))
    kept = int(rng.integers(1, len(frames[-1])))
    whole = frames[1:-1]
    stream = frames[0][skipped:] + b"".join(whole) + frames[-1][:kept]
    heard = load(tmp_path, stream)

    assert len(heard) == len(whole) * FRAME_SAMPLES - DECODER_DELAY
    said = capsys.readouterr().err
    assert f"{len(frames[0]) - skipped} bytes before the first whole MP3 frame" in said
    assert f"{kept} bytes of the last MP3 frame" in said
    np.testing.assert_array_equal(heard, load(tmp_path, b"".join(whole)))


@pytest.mark.parametrize("name", [".AppleDouble/", "._"])
@pytest.mark.parametrize("seed", range(2))
def test_a_mac_s_files_in_the_folder_of_the_command_hide_no_mp3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, seed: int
) -> None:
    """libsndfile looks there for the other half of a recording that it does not know at once."""
    here = tmp_path / "here"
    here.mkdir()
    if name.endswith("/"):
        (here / name).mkdir()
    else:
        (here / name).write_bytes(np.random.default_rng(seed).bytes(300))

    frames = mp3_frames(noise(0.5, seed=seed))
    files = [frames, with_vbri(frames), frames[1:], [layer_2_frame()] * 9]
    expected = [load(tmp_path, b"".join(file)) for file in files]
    monkeypatch.chdir(here)
    for file, heard in zip(files, expected, strict=True):
        np.testing.assert_array_equal(load(tmp_path, b"".join(file)), heard)
        in_front = id3v2(30) + b"".join(file)
        np.testing.assert_array_equal(load(tmp_path, in_front), heard)


@pytest.mark.parametrize("seed", range(3))
def test_what_stands_before_an_mp3_that_tells_its_length_is_left_out(
    tmp_path: Path, seed: int
) -> None:
    """As before one that does not: a server's answer in front, or the rest of another frame."""
    draws = np.random.default_rng(seed)
    data = b"".join(mp3_frames(noise(draws.uniform(0.5, 1), seed=seed)))
    in_front = b"x" * int(draws.integers(5, 2000))
    np.testing.assert_array_equal(load(tmp_path, in_front + data), load(tmp_path, data))


def test_an_mp3_that_tells_its_length_may_not_end_inside_a_frame(tmp_path: Path) -> None:
    data = b"".join(mp3_frames(noise(1)))
    assert reason(tmp_path, data[:-10]) == "truncated"
    assert reason(tmp_path, data[:-10] + id3v1()) != ""


def test_a_hole_of_zeros_is_no_end(tmp_path: Path) -> None:
    frames = mp3_frames(noise(2))[1:]
    first, second = b"".join(frames[:20]), b"".join(frames[20:])
    assert reason(tmp_path, first + bytes(5000) + second) == "decode error"
    np.testing.assert_array_equal(load(tmp_path, first + bytes(3000)), load(tmp_path, first))


@pytest.mark.parametrize(("rate", "channels"), [(22_050, 1), (44_100, 1), (16_000, 2)])
def test_an_mp3_that_changes_is_refused_with_what_changes(
    tmp_path: Path, rate: int, channels: int
) -> None:
    before = mp3_frames(noise(0.5))
    behind = mp3_frames(noise(0.5, rate, channels), rate)[1:]
    assert reason(tmp_path, b"".join(before + behind)) == "unsupported format"
    assert reason(tmp_path, b"".join(before[1:] + behind)) == "unsupported format"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("rate", "channels"), [(RATE, 1), (44_100, 2), (32_000, 1)])
def test_frames_of_a_free_bit_rate_are_heard_as_those_that_tell_their_length(
    tmp_path: Path, seed: int, rate: int, channels: int
) -> None:
    """The same frames with their bit rate in the header are what is compared with."""
    rng = np.random.default_rng([seed, rate])
    free, alone = [], []
    for kind in rng.permutation(list(KINDS)):
        sound = noise(rng.uniform(0.4, 0.7), rate, channels, seed=int(rng.integers(1000)))
        frames = mp3_frames_of_one_length(sound, rate, rng.uniform(0.1, 0.9))
        told = KINDS[kind](frames)
        alone.append(load(tmp_path, b"".join(told), rate))

        is_free = not free or rng.random() < 0.6
        # A checksum is set in the header of the first frame, and a free bit rate in all of them.
        free.append(b"".join(of_free_bit_rate(told) if is_free else told))
        np.testing.assert_array_equal(load(tmp_path, free[-1], rate), alone[-1], kind)

    for between in (b"", id3v2(300), id3v1()):
        heard = load(tmp_path, between.join(free) + id3v1(), rate)
        np.testing.assert_array_equal(heard, np.concatenate(alone))


def test_an_mp3_of_free_bit_rate_is_walked_like_any_other(tmp_path: Path) -> None:
    told = mp3_frames_of_one_length(noise(1, 44_100), 44_100)
    frames = of_free_bit_rate(told)
    bare = b"".join(frames[1:])
    heard = load(tmp_path, bare, 44_100)

    # Cut out of a stream, in a WAV, damaged, cut off, of more frames than are told.
    cut = frames[1][50:] + b"".join(frames[2:-1]) + frames[-1][:50]
    np.testing.assert_array_equal(
        load(tmp_path, cut, 44_100), load(tmp_path, b"".join(told[2:-1]), 44_100)
    )
    in_wav = riff(mp3_format(), chunk(b"data", bare))
    np.testing.assert_array_equal(load(tmp_path, in_wav, 44_100), heard)
    assert reason(tmp_path, bare + bytes(5000) + bare) == "decode error"
    assert reason(tmp_path, b"".join(frames)[:-10]) == "truncated"
    assert reason(tmp_path, b"".join(frames + frames[-3:])) == "header mismatch"

    other = of_free_bit_rate(mp3_frames_of_one_length(noise(1), RATE))
    assert reason(tmp_path, bare + b"".join(other)) == "unsupported format"


@pytest.mark.parametrize("padding", [0, 2])
def test_frames_of_layer_2_may_be_of_any_length(tmp_path: Path, padding: int) -> None:
    header = bytes([0xFF, 0xFD, padding, 0xC4])
    for num_bytes, other_bytes in [(700, 500), (3000, 700)]:
        frame = header.ljust(num_bytes, b"\0")
        other = header.ljust(other_bytes, b"\0")
        joined = frame * 9 + other * 7 + id3v1()
        assert len(load(tmp_path, joined, 44_100)) == 16 * 1152


@pytest.mark.parametrize("num_frames", [5, 31])
def test_layer_2_is_counted_too(tmp_path: Path, num_frames: int) -> None:
    frame = layer_2_frame()
    whole = frame * num_frames
    assert len(load(tmp_path, whole, 44_100)) == num_frames * 1152
    assert len(load(tmp_path, frame[300:] + whole + frame[:99], 44_100)) == num_frames * 1152
    assert len(load(tmp_path, whole + id3v2() + whole, 44_100)) == 2 * num_frames * 1152
    assert reason(tmp_path, whole + b"\x01" * 900 + whole) == "decode error"
