"""A folder that holds one file of each oddity: in = kept + dropped, to the sample."""

import json
import struct
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from support.audio_bytes import encode, noise
from support.containers import (
    ape,
    chunk,
    flac_in_ogg,
    id3v1,
    id3v2,
    long_sizes,
    lyrics,
    mp3_format,
    mp3_frames,
    pcm,
    pcm_8_bit,
    riff,
    wave_format,
)
from support.recordings import SMALL, WAVEFORM, adds_up, talk
from support.speech import RATE

from speechssl.audio.reader import write_wav
from speechssl.data.prepare import prepare
from speechssl.data.shards import ShardJob, make_shard
from speechssl.data.store import Store

FRAME_SAMPLES = 576  # of an MP3 of 16 kHz
DECODER_DELAY = 529  # samples, which the decoder takes off in front

# A kind of file -> its bytes, and how many samples are heard.
Kept = dict[str, tuple[bytes, int]]
# A kind of file -> its bytes, the reason why it is not kept, and how many samples it had.
Dropped = dict[str, tuple[bytes, str, int]]


def containers_that_are_kept(rng: np.random.Generator) -> Kept:
    """Good files of which each has something odd in its container."""
    length = int(rng.integers(20_000, 40_000))
    data, _ = pcm(int(rng.integers(100)), length)
    odd_data, _ = pcm_8_bit(int(rng.integers(100)), 2 * (length // 2) + 1)
    sound = noise(4)[:length]
    caf = encode(sound, format="CAF", subtype="PCM_16")
    size_at = caf.index(b"data") + 4
    unknown_size = struct.pack(">q", -1)
    au = encode(sound, format="AU", subtype="PCM_16")
    aiff = bytearray(encode(sound, format="AIFF", subtype="PCM_16"))
    struct.pack_into(">I", aiff, aiff.index(b"COMM") + 10, 0x7F000000 // 2)
    struct.pack_into(">I", aiff, aiff.index(b"SSND") + 4, 0x7F000008)
    coded = 0.05 * sound + rng.uniform(0, 0.2)

    return {
        "stream.wav": (riff(wave_format(), chunk(b"data", data, 0xFFFFFFFF)), length),
        "sox.wav": (riff(wave_format(), chunk(b"data", data, 0x7FFFF000)) + id3v1(), length),
        "stream.caf": (caf[:size_at] + unknown_size + caf[size_at + 8 :], length),
        "stream.au": (au[:8] + struct.pack(">I", 0xFFFFFFFF) + au[12:], length),
        "stream.aiff": (bytes(aiff), length),
        "flac.oga": (flac_in_ogg(encode(sound, format="FLAC"), length, 4096), length),
        "blocks.wav": (encode(coded, format="WAV", subtype="MS_ADPCM"), length),
        "phone.wav": (encode(coded, format="WAV", subtype="GSM610"), length),
        "broadcast.wav": (
            riff(
                long_sizes(len(data)),
                wave_format(),
                chunk(b"data", data, 0xFFFFFFFF),
                magic=b"BW64",
            ),
            length,
        ),
        "no padding.wav": (
            riff(
                wave_format(bits=8),
                chunk(b"data", odd_data, padded=False),
                chunk(b"LIST", b"INFOISFT"),
            ),
            len(odd_data),
        ),
        "tag.wav": (encode(sound, format="WAV") + id3v1(), length),
        "tag.flac": (encode(sound, format="FLAC") + ape() + id3v1(), length),
        "tag.ogg": (encode(sound, format="OGG", subtype="VORBIS") + lyrics(), length),
        "tag.sph": (id3v2(99) + encode(sound, format="NIST") + ape(), length),
    }


def mp3s_that_are_kept(rng: np.random.Generator) -> Kept:
    """MP3s that were joined, cut out of a stream, or put into WAV."""
    first = mp3_frames(noise(rng.uniform(1, 2)))[1:]
    second = mp3_frames(noise(rng.uniform(1, 2), seed=1))[1:]
    num_first = len(first) * FRAME_SAMPLES - DECODER_DELAY
    num_both = num_first + len(second) * FRAME_SAMPLES
    cut_in_front = second[0][100:]
    cut_behind = second[1][:77]
    whole = encode(noise(1), format="MP3")

    return {
        "two files.mp3": (whole + encode(noise(2), format="MP3"), 3 * RATE),
        "joined.mp3": (b"".join(first) + id3v2(300) + b"".join(second), num_both),
        "radio.mp3": (cut_in_front + b"".join(first) + cut_behind, num_first),
        "mp3.wav": (riff(mp3_format(), chunk(b"data", b"".join(first))), num_first),
    }


def sounds_that_are_kept(rng: np.random.Generator) -> Kept:
    """Speech-like sound beside what has misled searches for silence, levels and channels."""
    seconds = rng.uniform(0.6, 1)
    voice = talk([(0.05, seconds), (3e-5, 0.3), (0.05, 1)], seed=int(rng.integers(100)))
    length = len(voice)
    hum = np.sin(2 * np.pi * 50 / RATE * np.arange(length))
    quiet_half = np.where(np.arange(length) < length // 2, 1, 0.02)
    with_bang = voice.copy()
    with_bang[4000:4800] = 0.9
    other_channel = {"opposite": -voice, "dead": 0 * voice, "far": 0.01 * voice, "equal": voice}

    sounds = {
        "offset": voice + rng.uniform(0.1, 0.5),
        "hum": voice + 0.3 * hum,
        "two levels": voice * quiet_half,
        "bang": with_bang,
        "above one": 30 * voice,
        "whisper": 0.01 * voice,
    }
    for name, other in other_channel.items():
        sounds[name] = np.stack([voice, other], axis=1)
    return {
        f"{name}.wav": (encode(samples.astype(np.float32), format="WAV", subtype="FLOAT"), length)
        for name, samples in sounds.items()
    }


def dropped_files(rng: np.random.Generator) -> Dropped:
    """Files that are refused before a sample is decoded, and sound that nobody wants."""
    sound = noise(rng.uniform(1, 2), seed=int(rng.integers(100)))
    short = noise(rng.uniform(0.3, 0.6))
    silence = np.zeros(int(rng.integers(2 * RATE, 4 * RATE)), np.float32)
    # Sixteen bytes of header and nothing: the length stands across three bytes.
    frame_of_aac = bytes.fromhex("fff15080021ffc") + bytes(9)
    lost_bytes = int(rng.integers(1, 5000))
    bit = int(rng.integers(8))
    flac = encode(sound, format="FLAC")
    deep = flac[:20] + bytes([flac[20] | 1, flac[21] | 0xF0]) + flac[22:]
    sphere = encode(sound, format="NIST")
    shorten = sphere.replace(b"-s3 pcm", b"-s26 pcm,embedded-shorten-v2.00")
    mp3 = b"".join(mp3_frames(sound))
    other_rate = b"".join(mp3_frames(noise(1, 22_050), 22_050)[1:])
    ogg = encode(sound, format="OGG", subtype="VORBIS")
    flipped = bytes([ogg[-100] ^ 1 << bit])

    return {
        "silent.wav": (encode(silence, format="WAV"), "silence", len(silence)),
        "short.wav": (encode(short, format="WAV"), "too short", len(short)),
        "truncated.sph": (sphere[:-lost_bytes], "truncated", 0),
        "truncated.wav": (encode(sound, format="WAV")[:-lost_bytes], "truncated", 0),
        "truncated.flac": (flac[:-lost_bytes], "decode error", 0),
        "damaged.ogg": (ogg[:-100] + flipped + ogg[-99:], "decode error", 0),
        "phone.m4a": (b"\0\0\0\x20ftypM4A " + bytes(300), "unsupported format", 0),
        "radio.aac": (9 * frame_of_aac, "unsupported format", 0),
        "player.wma": (bytes.fromhex("3026b2758e66cf11") + bytes(300), "unsupported format", 0),
        "shorten.sph": (shorten, "unsupported format", 0),
        "deep.flac": (deep, "unsupported format", 0),
        "two rates.mp3": (mp3 + other_rate, "unsupported format", 0),
    }


@pytest.mark.parametrize("seed", range(2))
def test_one_file_of_each_kind_is_accounted_for_to_the_sample(
    tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(seed)
    kept = containers_that_are_kept(rng) | mp3s_that_are_kept(rng) | sounds_that_are_kept(rng)
    dropped = dropped_files(rng)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name, (data, *_) in {**kept, **dropped}.items():
        (corpus / name).write_bytes(data)

    # Written composed, stored with accents of their own; beside it what a Mac keeps about it.
    accented = "Café.wav"
    (corpus / unicodedata.normalize("NFD", accented)).write_bytes(encode(noise(2), format="WAV"))
    kept[accented] = (b"", 2 * RATE)
    (corpus / "._tag.wav").write_bytes(bytes.fromhex("00051607") + bytes(80))

    # A transcript keeps a file whole.
    rows = [f"{name},[noise] some words" for name in kept]
    # Texts that say nothing are no transcripts.
    rows += [f"{name},{rng.choice(['', '-', '...'])}" for name in dropped]

    # There is nothing to hear of what these say.
    tone_of_mains = 0.1 * np.sin(2 * np.pi * 50 / RATE * np.arange(2 * RATE))
    for name, level in {"zeros.wav": 0.0, "hum alone.wav": 1.0}.items():
        data = encode((level * tone_of_mains).astype(np.float32), format="WAV")
        (corpus / name).write_bytes(data)
        dropped[name] = (data, "silent utterance", 2 * RATE)
        rows.append(f"{name},some words")
    table = "\n".join(["file_name,transcription", *rows, ""])
    (corpus / "metadata.csv").write_text(table, encoding="utf-8")
    report = prepare(corpus, tmp_path / "store", WAVEFORM)

    adds_up(report)
    said = capsys.readouterr().err
    assert "radio.mp3: " in said
    assert "recordings are not in" not in said  # the Mac's file is none
    assert report.kept.files == len(kept)
    assert report.kept.samples == sum(num_samples for _, num_samples in kept.values())

    expected: dict[str, tuple[int, int]] = {}
    for _, reason, num_samples in dropped.values():
        files, samples = expected.get(reason, (0, 0))
        expected[reason] = (files + 1, samples + num_samples)
    assert {r: (t.files, t.samples) for r, t in report.dropped.items()} == expected

    lines = (tmp_path / "store/rejects.jsonl").read_text(encoding="utf-8").splitlines()
    rejects = {row["audio"]: row["reason"] for row in map(json.loads, lines)}
    assert rejects == {name: why for name, (_, why, _) in dropped.items()}

    store = Store(tmp_path / "store")
    lengths = {}
    for position in range(len(store)):
        record = store.record(position)
        lengths[unicodedata.normalize("NFC", record.audio)] = record.num_samples
    assert lengths == {name: num_samples for name, (_, num_samples) in kept.items()}


def test_segments_to_the_end_are_accounted_for_to_the_sample(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.wav").write_bytes(encode(noise(3), format="WAV"))
    (corpus / "wav.scp").write_text("rec a.wav\n")
    (corpus / "segments").write_text("u1 rec 0.5 1.5\nu2 rec 1.5 -1\n")
    (corpus / "text").write_text("u1 one\nu2 two\n")
    report = prepare(corpus, tmp_path / "store", WAVEFORM)
    adds_up(report)
    assert (report.kept.chunks, report.kept.samples) == (2, round(2.5 * RATE))
    assert report.dropped["not in any part"].samples == RATE // 2


@pytest.mark.slow
def test_counts_are_those_of_an_undisturbed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes divide the files, an interrupted run goes on, and a finished one is read again."""
    rng = np.random.default_rng(6)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    num_equal = 0
    for k in range(9):
        level = 0.1 if k % 2 else 0.001 * (k + 1)
        left = talk([(level, rng.uniform(2, 4))], seed=k)
        right = left if k % 3 else rng.permutation(left)
        num_equal += right is left
        write_wav(corpus / f"{k}.wav", np.stack([left, right], axis=1), RATE)
    write_wav(corpus / "mono.wav", talk([(0.1, 2.5)]), RATE)
    for k, peak in enumerate((0.3, 0.6, 0.9)):
        with_bang = talk([(0.02, 1.2), (1e-4, 0.5), (0.02, 1)], seed=k)
        with_bang[21_000:21_800] = talk([(peak / 2, 0.05)], seed=k)
        write_wav(corpus / f"bang {k}.wav", with_bang, RATE)
    damaged = (corpus / "1.wav").read_bytes()[:-4]
    (corpus / "damaged.wav").write_bytes(damaged)

    expected = prepare(corpus, tmp_path / "one process", SMALL)
    assert expected.num_dual_mono == num_equal == 6
    assert expected.num_averaged == 3
    assert expected.num_raised == 5
    assert 20 < expected.max_gain_db < 60
    assert expected.num_lowered == 3
    assert expected.max_lowering_db > 12

    monkeypatch.setattr("speechssl.data.shards.PART_FILES", 1)
    assert prepare(corpus, tmp_path / "two processes", SMALL, jobs=2) == expected

    num_made = 0

    def interrupted(task: ShardJob, tick: object) -> float:
        nonlocal num_made
        num_made += 1
        if num_made == 4:
            raise KeyboardInterrupt
        return make_shard(task)

    monkeypatch.setattr("speechssl.data.prepare.make_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(corpus, tmp_path / "resumed", SMALL)
    assert prepare(corpus, tmp_path / "resumed", SMALL) == expected
    assert num_made == 4 + 4  # seven shards, of which three were made before
    assert prepare(corpus, tmp_path / "resumed", SMALL) == expected
