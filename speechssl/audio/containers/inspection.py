"""Check the container of an audio file from its bytes, before anything is decoded.

libsndfile believes headers. It stops at a length that is too small, clips one that is too large to
the file and says nothing, skips a damaged Ogg page, plays only the first of several chained
streams, and guesses the length of an MP3 without a Xing header from its first frame. So each
container is walked here first. What is broken is reported as a fault. What is merely unknown, or
wrong in a way that can be repaired, becomes a patch that the decoder sees in place of the bytes.
"""

import os
from typing import BinaryIO

from speechssl.audio.containers.au import walk_au
from speechssl.audio.containers.flac import walk_flac
from speechssl.audio.containers.layout import Layout, read_at
from speechssl.audio.containers.mp3 import mp3_frame_bytes, walk_mp3
from speechssl.audio.containers.ogg import OGG_CAPTURE, walk_ogg
from speechssl.audio.containers.riff import CHUNKED, walk_chunks
from speechssl.audio.containers.tags import skip_id3

_HEAD_BYTES = 64  # enough for every fixed header below


def inspect(raw: BinaryIO) -> Layout:
    """Walk the container of an open binary file; an unknown format gives an empty ``Layout``."""
    size = raw.seek(0, os.SEEK_END)
    start = skip_id3(raw, size)
    head = read_at(raw, start, _HEAD_BYTES)

    if head.startswith(b"fLaC"):
        return walk_flac(head, start)
    if head.startswith(OGG_CAPTURE):
        return walk_ogg(raw, start, size)
    if head.startswith(b".snd"):
        return walk_au(head, size)

    for magic, chunks in CHUNKED.items():
        if head.startswith(magic):
            return walk_chunks(raw, size, chunks)

    if mp3_frame_bytes(head) is not None:
        return walk_mp3(raw, start, size)

    return Layout()
