"""Check the container of an audio file from its bytes, before anything is decoded.

libsndfile believes headers. It stops at a length that is too small, clips one that is too large to
the file and says nothing, skips a damaged Ogg page, plays only the first of several chained
streams, and guesses the length of an MP3 without a Xing header from its first frame. So each
container is walked here first. What is broken is reported as a fault. What is merely unknown, or
wrong in a way that can be repaired, is presented to the decoder as it should be.
"""

import os
from typing import BinaryIO

from speechssl.audio.containers.au import walk_au
from speechssl.audio.containers.chunks import CHUNK_FORMATS
from speechssl.audio.containers.counted import (
    AVR_MAGIC,
    MPC_MAGIC,
    SDS_MAGIC,
    is_htk,
    walk_avr,
    walk_htk,
    walk_mpc,
    walk_sds,
)
from speechssl.audio.containers.flac import walk_flac
from speechssl.audio.containers.flac_frame import FLAC_MAGIC
from speechssl.audio.containers.foreign import name_foreign
from speechssl.audio.containers.layout import Layout, read_at, spans_of
from speechssl.audio.containers.mp3 import walk_mp3
from speechssl.audio.containers.mp3_sync import find_mp3
from speechssl.audio.containers.ogg import OGG_CAPTURE, walk_ogg
from speechssl.audio.containers.paf import PAF_MAGIC, PAF_MAGIC_SWAPPED, walk_paf
from speechssl.audio.containers.riff import walk_chunks
from speechssl.audio.containers.sphere import SPHERE_MAGIC, walk_sphere
from speechssl.audio.containers.tags import skip_tags, tags_start
from speechssl.audio.containers.voc import VOC_MAGIC, walk_voc

_MAGIC_BYTES = 20  # enough for all below
_WALKS = {
    FLAC_MAGIC: walk_flac,
    OGG_CAPTURE: walk_ogg,
    b".snd": walk_au,
    SPHERE_MAGIC: walk_sphere,
    AVR_MAGIC: walk_avr,
    MPC_MAGIC: walk_mpc,
    SDS_MAGIC: walk_sds,
    VOC_MAGIC: walk_voc,
    PAF_MAGIC: walk_paf,
    PAF_MAGIC_SWAPPED: walk_paf,
}


def find_foreign(raw: BinaryIO) -> Layout | None:
    """Name an open binary file whose first bytes say that it is no audio of ours."""
    start, _ = _behind_tags(raw)
    return name_foreign(raw, start)


def inspect(raw: BinaryIO) -> Layout:
    """Walk the container of an open binary file; of an unknown format only tags are left out."""
    start, size = _behind_tags(raw)
    foreign = name_foreign(raw, start)
    if foreign is not None:
        return foreign

    magic = read_at(raw, start, _MAGIC_BYTES)
    for name, walk in _WALKS.items():
        if magic.startswith(name):
            return walk(raw, start, size)
    for name, form in CHUNK_FORMATS.items():
        if magic.startswith(name):
            return walk_chunks(raw, start, size, form)

    if find_mp3(raw, start, size) is not None:
        return walk_mp3(raw, start, size)
    if is_htk(magic):
        return walk_htk(raw, start, size)

    # IRCAM and PVF do not tell their length: all but tags is taken for samples.
    end = tags_start(raw, start, size)
    return Layout(spans=spans_of(start, end, size))


def _behind_tags(raw: BinaryIO) -> tuple[int, int]:
    """Return where a file begins behind its tags, and where it ends; a file of tags alone at 0."""
    size = raw.seek(0, os.SEEK_END)
    start = skip_tags(raw, 0, size)
    return (0 if start == size else start), size
