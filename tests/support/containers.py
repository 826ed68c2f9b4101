"""Bytes of containers as other programs write them, put together by hand."""

import io
import struct

import numpy as np
import soundfile
from numpy.typing import NDArray

from speechssl.audio.containers.mp3_frame import mp3_frame_bytes
from speechssl.audio.containers.ogg import ogg_checksum
from support.audio_bytes import encode
from support.speech import RATE

FORMATS = {
    "wav": {"format": "WAV", "subtype": "PCM_16"},
    "wav float": {"format": "WAV", "subtype": "FLOAT"},
    "wav 8 bit": {"format": "WAV", "subtype": "PCM_U8"},
    "wav extensible": {"format": "WAVEX", "subtype": "PCM_24"},
    "rf64": {"format": "RF64", "subtype": "PCM_16"},
    "wave64": {"format": "W64", "subtype": "PCM_16"},
    "aiff": {"format": "AIFF", "subtype": "PCM_16"},
    "caf": {"format": "CAF", "subtype": "PCM_16"},
    "au": {"format": "AU", "subtype": "PCM_16"},
    "sphere": {"format": "NIST", "subtype": "PCM_16"},
    "flac": {"format": "FLAC", "subtype": "PCM_16"},
    "vorbis": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {"format": "MP3"},
}


def chunk(name: bytes, body: bytes, size: int | None = None, padded: bool = True) -> bytes:
    """A chunk of RIFF; its size may lie."""
    length = len(body) if size is None else size
    padding = bytes(len(body) % 2) if padded else b""
    return name + struct.pack("<I", length) + body + padding


def wave_format(coding: int = 1, bits: int = 16, rate: int = RATE) -> bytes:
    """The chunk that says how mono samples are coded."""
    width = bits // 8
    return chunk(b"fmt ", struct.pack("<HHIIHH", coding, 1, rate, rate * width, width, bits))


def mp3_format() -> bytes:
    """The same as encoders write it for MP3 in WAV."""
    coded = struct.pack("<HHIIHH", 0x55, 1, RATE, 8000, 1, 0)
    return chunk(b"fmt ", coded + struct.pack("<HHIHHH", 12, 1, 2, 288, 1, 1393))


def riff(*chunks: bytes, magic: bytes = b"RIFF", size: int | None = None) -> bytes:
    """A WAV file of chunks."""
    body = b"WAVE" + b"".join(chunks)
    return magic + struct.pack("<I", len(body) if size is None else size) + body


def long_sizes(num_bytes: int, total: int = 0) -> bytes:
    """The chunk of RF64 and BW64 that holds the size of the samples."""
    return chunk(b"ds64", struct.pack("<QQQI", total, num_bytes, 0, 0))


def pcm(seed: int, num_samples: int) -> tuple[bytes, NDArray[np.float32]]:
    """Samples of 16 bits: their bytes, and what should be heard."""
    samples = np.random.default_rng(seed).integers(-3000, 3000, num_samples).astype("<i2")
    return samples.tobytes(), (samples / 32768).astype(np.float32)


def pcm_8_bit(seed: int, num_samples: int) -> tuple[bytes, NDArray[np.float32]]:
    """Samples of 8 bits: their bytes, and what should be heard."""
    samples = np.random.default_rng(seed).integers(0, 256, num_samples).astype(np.uint8)
    return samples.tobytes(), ((samples.astype(np.float32) - 128) / 128)


def mp3_frames(samples: NDArray[np.float32], rate: int = RATE) -> list[bytes]:
    """The frames of an MP3. The first one holds no sound, but their number."""
    return _frames_of(encode(samples, rate, format="MP3"))


def mp3_frames_of_one_length(
    samples: NDArray[np.float32], rate: int = RATE, compression: float = 0.5
) -> list[bytes]:
    """The same of a constant bit rate, which is lower with more compression (0 to 1)."""
    file = io.BytesIO()
    soundfile.write(
        file,
        samples,
        rate,
        format="MP3",
        bitrate_mode="CONSTANT",
        compression_level=compression,
    )
    return _frames_of(file.getvalue())


def of_free_bit_rate(frames: list[bytes]) -> list[bytes]:
    """The same frames, whose headers do not tell their length, as lame --freeformat writes them."""
    return [frame[:2] + bytes([frame[2] & 0x0F]) + frame[3:] for frame in frames]


def _frames_of(data: bytes) -> list[bytes]:
    frames: list[bytes] = []
    while data:
        length = mp3_frame_bytes(data)
        assert length is not None
        frames.append(data[:length])
        data = data[length:]
    return frames


def with_vbri(frames: list[bytes]) -> list[bytes]:
    """The frames of an MP3, of which the first tells their number as Fraunhofer's encoders do."""
    first, *sound = frames
    num_bytes = sum(map(len, frames))
    header = b"VBRI" + struct.pack(">HHHII", 1, 0, 75, num_bytes, len(sound))
    vbri_frame = first[:4] + bytes(32) + header
    return [vbri_frame.ljust(len(first), b"\0"), *sound]


def layer_2_frame() -> bytes:
    """A silent frame of MPEG 1 layer II: 192 kbit/s, 44100 Hz, mono. No bits are allocated."""
    return bytes([0xFF, 0xFD, 0xA0, 0xC4]) + bytes(144 * 192_000 // 44_100 - 4)


def ogg_page(body: bytes, sequence: int, flags: int, granule: int) -> bytes:
    """A page of one packet, or of a part of one."""
    lacing = bytes([255] * (len(body) // 255))
    if len(body) % 255:
        lacing += bytes([len(body) % 255])

    fields = (b"OggS", 0, flags, granule, 7, sequence, 0, len(lacing))
    page = struct.pack("<4sBBqIIIB", *fields) + lacing + body
    checksum = ogg_checksum(page)
    return page[:22] + struct.pack("<I", checksum) + page[26:]


def flac_in_ogg(flac: bytes, num_samples: int, page_bytes: int) -> bytes:
    """A FLAC file in pages of Ogg, the first of which holds its first block of metadata."""
    first_end = 4 + 4 + 34  # name, header of the block, STREAMINFO
    pages = [ogg_page(b"\x7fFLAC\1\0\0\0" + flac[:first_end], 0, flags=2, granule=0)]

    rest = flac[first_end:]
    for start in range(0, len(rest), page_bytes):
        is_last = start + page_bytes >= len(rest)
        flags = 4 if is_last else 0
        granule = num_samples if is_last else -1
        body = rest[start : start + page_bytes]
        pages.append(ogg_page(body, len(pages), flags, granule))
    return b"".join(pages)


# ---- tags ----------------------------------------------------------------------------------------


def id3v1() -> bytes:
    return b"TAG" + b"A title".ljust(30, b"\0") + bytes(60) + b"1999" + bytes(31)


def id3v2(num_bytes: int = 11) -> bytes:
    """A tag of ID3v2.4, whose size has seven bits a byte."""
    size = bytes(num_bytes >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\4\0\0" + size + b"\xff" * num_bytes  # as if sync marks of MP3 stood in it


def id3v2_with_footer() -> bytes:
    tag = id3v2()
    flagged = tag[:5] + b"\x10" + tag[6:]
    return flagged + b"3DI" + flagged[3:10]


def ape(has_header: bool = True) -> bytes:
    """A tag of APEv2; version 1 has no header."""
    item = struct.pack("<II", 5, 0) + b"Title\0Hello"
    numbers = (2000, len(item) + 32, 1)
    header = b"APETAGEX" + struct.pack("<IIII8x", *numbers, 0xA000_0000)
    flags = 0x8000_0000 if has_header else 0
    footer = b"APETAGEX" + struct.pack("<IIII8x", *numbers, flags)
    return (header if has_header else b"") + item + footer


def lyrics() -> bytes:
    """A tag of Lyrics3, which ID3v1 must follow."""
    body = b"LYRICSBEGININD0000200"
    return body + b"%06d" % len(body) + b"LYRICS200" + id3v1()
