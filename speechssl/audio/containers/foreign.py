"""Files that are no audio of ours, told by their first bytes: what they are, and what helps."""

from typing import BinaryIO, NamedTuple

from speechssl.audio.containers.layout import Layout, read_at, unsupported
from speechssl.storage.file_kinds import kind_of_bytes

_HEAD_BYTES = 300


class _Signature(NamedTuple):
    """Bytes by which a kind of file is known, and where they stand."""

    magic: bytes
    what: str
    at: int = 0


# Recordings that a converter reads.
_RECORDINGS = (
    _Signature(b"ftyp3g", "a 3GP file (3gp, amr)", 4),
    _Signature(b"ftypqt", "a QuickTime file (mov)", 4),
    _Signature(b"ftyp", "MPEG-4 (m4a, mp4)", 4),
    _Signature(b"ADIF", "AAC"),
    _Signature(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media (wma, asf)"),
    _Signature(b"\x1a\x45\xdf\xa3", "Matroska or WebM (mka, webm)"),
    _Signature(b"#!AMR", "AMR speech"),
    _Signature(b"ajkg", "shorten (shn)"),
    _Signature(b"MAC ", "Monkey's Audio (ape)"),
    _Signature(b"wvpk", "WavPack (wv)"),
    _Signature(b"TTA1", "True Audio (tta)"),
    _Signature(b"MPCK", "Musepack (mpc)"),
    _Signature(b"MP+", "Musepack (mpc)"),
    _Signature(b".RMF", "RealMedia (rm, ra)"),
    _Signature(b".ra\xfd", "RealAudio (ra)"),
    _Signature(b"DSD ", "DSD audio (dsf)"),
    _Signature(b"FRM8", "DSD audio (dff)"),
    _Signature(b"FLV", "Flash video (flv)"),
    _Signature(b"AVI ", "AVI video", 8),
    _Signature(b"\x00\x00\x01\xba", "MPEG video (mpg)"),
)

_TRANSPORT_PACKET_BYTES = 188
_TRANSPORT_SYNC = 0x47
_ADTS_HEADER_BYTES = 7


def name_foreign(raw: BinaryIO, start: int) -> Layout | None:
    """Name a file that is no audio of ours; None where its first bytes say nothing."""
    head = read_at(raw, start, _HEAD_BYTES)

    for magic, what, at in _RECORDINGS:
        if head[at:].startswith(magic):
            return unsupported(what)

    kind = kind_of_bytes(head)
    if kind is not None:
        return Layout("not audio", f"this is {kind.name}: {kind.remedy}")

    packets = head[::_TRANSPORT_PACKET_BYTES]
    is_transport = len(packets) > 1 and set(packets) == {_TRANSPORT_SYNC}
    if is_transport:
        return unsupported("an MPEG transport stream (ts)")

    return unsupported("AAC (ADTS)") if _is_adts(raw, start) else None


def _is_adts(raw: BinaryIO, start: int) -> bool:
    """Whether two frames of AAC follow one another from ``start`` on."""
    head = read_at(raw, start, _ADTS_HEADER_BYTES)
    if len(head) < _ADTS_HEADER_BYTES or not _has_adts_sync(head):
        return False

    # The length has 13 bits, from the last two of one byte to the first three of another.
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length > 0 and _has_adts_sync(read_at(raw, start + length, 2))


def _has_adts_sync(head: bytes) -> bool:
    # Twelve bits of 1, and the layer that no MPEG audio has.
    return len(head) >= 2 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0
