"""Old containers of one header, which tells the number of samples: AVR, MPC 2000, SDS and HTK.

Sources: libsndfile's readers avr.c and mpc2k.c; the MIDI Sample Dump Standard; the HTK Book, 5.10.
"""

import struct
from typing import BinaryIO

from speechssl.audio.containers.layout import Layout, read_at, spans_of, too_long, too_short
from speechssl.audio.containers.tags import is_no_audio

AVR_MAGIC = b"2BIT"
_AVR_BYTES = 128
_AVR = struct.Struct(">12xHH10xI")  # whether there are two channels, bits, samples per channel

MPC_MAGIC = b"\x01\x04"
_MPC_BYTES = 42
_MPC = struct.Struct("<21x?8xI")  # whether there are two channels, samples per channel

SDS_MAGIC = b"\xf0\x7e"
_SDS_BYTES = 21
_SDS_PACKET_BYTES = 127
_SDS_SAMPLES_BYTES = 120  # of a packet
_SDS_DUMP = 1

_HTK_BYTES = 12
# Number of samples, how long one lasts, bytes of one, and what it is.
_HTK = struct.Struct(">IIHH")
_HTK_SAMPLE_BYTES = 2
_HTK_WAVEFORM = 0
_HTK_PERIODS = range(13, 10_001)  # in 100 ns: 1 kHz to 768 kHz


def walk_avr(raw: BinaryIO, start: int, size: int) -> Layout:
    """Compare the number of samples with the file, which ends at ``size``."""
    head = read_at(raw, start, _AVR_BYTES)
    if len(head) < _AVR_BYTES:
        return too_short(_AVR_BYTES - len(head))

    is_stereo, bits, num_samples = _AVR.unpack_from(head)
    channels = 2 if is_stereo else 1
    end = start + _AVR_BYTES + num_samples * channels * (bits // 8)
    return _compare(raw, start, end, size)


def walk_mpc(raw: BinaryIO, start: int, size: int) -> Layout:
    """Compare the number of samples with the file, which ends at ``size``."""
    head = read_at(raw, start, _MPC_BYTES)
    if len(head) < _MPC_BYTES:
        return too_short(_MPC_BYTES - len(head))

    is_stereo, num_samples = _MPC.unpack_from(head)
    channels = 2 if is_stereo else 1
    end = start + _MPC_BYTES + num_samples * channels * 2
    return _compare(raw, start, end, size)


def walk_sds(raw: BinaryIO, start: int, size: int) -> Layout:
    """Compare the number of packets with the file, which ends at ``size``.

    libsndfile puts zeros where packets are missing.
    """
    head = read_at(raw, start, _SDS_BYTES)
    if len(head) < _SDS_BYTES or head[3] != _SDS_DUMP:
        return Layout()

    # Numbers have seven bits a byte, the lowest first.
    bits = head[6]
    num_samples = head[10] | head[11] << 7 | head[12] << 14
    sample_bytes = max(1, -(-bits // 7))
    samples_per_packet = _SDS_SAMPLES_BYTES // sample_bytes
    num_packets = -(-num_samples // samples_per_packet)
    end = start + _SDS_BYTES + num_packets * _SDS_PACKET_BYTES
    return _compare(raw, start, end, size)


def is_htk(head: bytes) -> bool:
    """Whether a file begins with the header of a waveform of HTK, which has no magic number."""
    if len(head) < _HTK_BYTES:
        return False
    _, period, sample_bytes, kind = _HTK.unpack_from(head)
    is_waveform = sample_bytes == _HTK_SAMPLE_BYTES and kind == _HTK_WAVEFORM
    return is_waveform and period in _HTK_PERIODS


def walk_htk(raw: BinaryIO, start: int, size: int) -> Layout:
    """Compare the number of samples with the file, which ends at ``size``.

    libsndfile does not know the format again where the two differ.
    """
    num_samples, *_ = _HTK.unpack(read_at(raw, start, _HTK_BYTES))
    end = start + _HTK_BYTES + num_samples * _HTK_SAMPLE_BYTES
    return _compare(raw, start, end, size)


def _compare(raw: BinaryIO, start: int, end: int, size: int) -> Layout:
    """Compare where the samples end with the end of the file."""
    if end > size:
        return too_short(end - size)
    if not is_no_audio(raw, end, size):
        return too_long(size - end)
    return Layout(spans=spans_of(start, end, size))
