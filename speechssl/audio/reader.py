"""Audio files to mono float32 at one rate, decoded in blocks under a cap; speech chunks between silences.

Only ``bench`` imports soundfile beside it. Headers are not believed: ``containers`` walks the file first, libsndfile
then decodes to the end of the data, and what came out is compared with what was declared.
"""

import math
import os
import stat
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from speechssl.audio import containers
from speechssl.errors import AudioError, ConfigError

Samples = NDArray[np.float32]
Span = tuple[int, int]

MAX_DURATION_S = 6 * 3600.0
SAMPLE_RATES_HZ = (1_000, 768_000)  # what a header may say

_BLOCK_VALUES = (
    1 << 22
)  # of all channels: bounds memory whatever rate and channel count a header gives
_NO_COUNT = 1 << 62  # libsndfile's number of frames when it does not know
_STEP = 4096  # samples per channel that are asked for beyond the end that the header gives
_UNRECOGNISED = 1  # libsndfile's SF_ERR_UNRECOGNISED_FORMAT
_MAX_RATIO = 2000  # largest term of a resampling ratio: the filter bank stays below 64 MiB

_NOT_AUDIO = {
    "RAW",
    "MAT4",
    "MAT5",
    "SD2",
    "XI",
    "WVE",
    "WAVEX",
}  # no suffix of their own, or no recordings
_MORE_SUFFIXES = {".aif", ".aifc", ".oga", ".opus", ".snd", ".wave", ".sph", ".sf"}
AUDIO_SUFFIXES: frozenset[str] = frozenset(
    {f".{name.lower()}" for name in soundfile.available_formats() if name not in _NOT_AUDIO}
    | _MORE_SUFFIXES
)


def load_audio(
    path: str | os.PathLike[str],
    sample_rate_hz: int = 16000,
    *,
    offset_s: float = 0.0,
    duration_s: float | None = None,
    max_duration_s: float = MAX_DURATION_S,
) -> Samples:
    """A whole recording, or a part of it: the concatenated blocks of ``stream_mono``.

    Returns:
        (S,) float32, about -1..1, at ``sample_rate_hz``.

    Raises:
        AudioError: as ``stream_mono``.
    """
    blocks = list(
        stream_mono(
            path,
            sample_rate_hz,
            offset_s=offset_s,
            duration_s=duration_s,
            max_duration_s=max_duration_s,
        )
    )
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def stream_mono(
    path: str | os.PathLike[str],
    sample_rate_hz: int,
    *,
    offset_s: float = 0.0,
    duration_s: float | None = None,
    max_duration_s: float = MAX_DURATION_S,
    block_s: float = 60.0,
) -> Iterator[Samples]:
    """Blocks of a recording: channels averaged, resampled, in flat memory.

    The blocks laid end to end equal resampling the whole file at once. Damage may show only at the end of a file, so
    blocks already given belong to a rejected file if the iteration raises. With ``duration_s`` decoding stops there
    and what follows goes unchecked.

    Args:
        path: any file that libsndfile reads; its suffix is not looked at.
        sample_rate_hz: rate of the result, Hz.
        offset_s: start in the file, seconds, rounded to a sample of the result.
        duration_s: length, seconds; None = to the end.
        max_duration_s: a recording that decodes to more is refused, seconds.
        block_s: length of a block before resampling, seconds.

    Returns:
        (n,) float32 each, about -1..1, at ``sample_rate_hz``.

    Raises:
        AudioError: with reason missing file, unreadable file, empty file, not audio, decode error, truncated, header
            mismatch, chained stream, bad sample rate, non-finite samples, too long, no samples.
    """
    if offset_s < 0 or (duration_s is not None and duration_s <= 0) or sample_rate_hz < 1:
        raise ConfigError(
            f"offset {offset_s} s, duration {duration_s} s, {sample_rate_hz} Hz: none may be negative"
        )
    skip = round(offset_s * sample_rate_hz)
    wanted = None if duration_s is None else round(duration_s * sample_rate_hz)
    for block in _resampled(Path(path), sample_rate_hz, max_duration_s, block_s):
        part = block[skip:] if wanted is None else block[skip : skip + wanted]
        skip = max(0, skip - len(block))
        if len(part):
            yield part
        if wanted is not None:
            wanted -= len(part)
            if wanted <= 0:
                return


def declared_seconds(path: Path) -> float | None:
    """The length that a file's header gives, for progress alone: nothing is decoded or checked. None = none found."""
    if not path.is_file():  # to open a pipe is to wait for it
        return None
    try:
        with soundfile.SoundFile(path) as file:
            return int(file.frames) / int(file.samplerate) if file.frames < _NO_COUNT else None
    except (
        soundfile.LibsndfileError,
        OSError,
        ValueError,
        TypeError,
    ):  # TypeError: .raw, whose rate must be told
        return None


def write_wav(path: str | os.PathLike[str], samples: Samples, sample_rate_hz: int) -> None:
    """Write (S,) or (S, channels) samples in -1..1 as a 16-bit WAV file, block by block."""
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(
        os.fsencode(path), "w", sample_rate_hz, channels, "PCM_16", format="WAV"
    ) as file:
        for start in range(0, len(samples), _BLOCK_VALUES):
            file.write(samples[start : start + _BLOCK_VALUES])


# ---- decoding ---------------------------------------------------------------------------------------------------


class _SoundDecoder(soundfile.SoundFile):  # type: ignore[misc]
    """A SoundFile that only reads onward: its seek after every read fails where headers lie, and costs time."""

    def seekable(self) -> bool:
        return False


class _View:
    """A file as a ``Layout`` wants it seen: from ``start``, behind ``prefix``, with patched bytes."""

    def __init__(self, raw: BinaryIO, layout: containers.Layout) -> None:
        self._raw, self._layout, self._position = raw, layout, 0
        self._shift = len(layout.prefix) - layout.start  # position here - offset in the file
        self._size = raw.seek(0, os.SEEK_END) + self._shift

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = max(
            0,
            offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence],
        )
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, count: int) -> bytes:
        start = self._position
        data = bytearray(self._layout.prefix[start : start + count])
        if len(data) < count:
            self._raw.seek(start + len(data) - self._shift)
            data += self._raw.read(count - len(data))
        for offset, patch in self._layout.patches.items():
            at = offset + self._shift - start
            for k in range(max(0, -at), min(len(patch), len(data) - at)):
                data[at + k] = patch[k]
        self._position += len(data)
        return bytes(data)


def _open_file(path: Path) -> BinaryIO:
    name = _name(path)
    try:
        about = path.stat()
        if stat.S_ISREG(about.st_mode) and about.st_size:
            return path.open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AudioError("missing file", f"{name}: no such file") from error
    except OSError as error:
        raise AudioError("unreadable file", f"{name}: {error.strerror}") from error
    except ValueError as error:  # a NUL byte
        raise AudioError("missing file", f"{name!r}: {error}") from error
    if not stat.S_ISREG(about.st_mode):
        raise AudioError("missing file", f"{name}: not a regular file")
    raise AudioError("empty file", f"{name}: 0 bytes")


def _name(path: Path) -> str:
    """The last part only: details go into stores, which hold no path of this machine."""
    return path.name.encode("utf-8", "backslashreplace").decode()


def _decoded(path: Path, max_duration_s: float, block_s: float) -> Iterator[tuple[int, Samples]]:
    """(rate in Hz, mono block) of a file from its first sample to its last."""
    name, count = _name(path), 0
    with _open_file(path) as raw:
        try:
            layout = containers.inspect(raw)
            if layout.reason:
                raise AudioError(layout.reason, f"{name}: {layout.detail}")
            source = _View(raw, layout) if layout.patches or layout.prefix else raw.fileno()
            if isinstance(source, int):
                os.lseek(
                    source, 0, os.SEEK_SET
                )  # where Python's buffered reader left it is anyone's guess
            with _SoundDecoder(source, closefd=False) as file:
                rate = int(file.samplerate)
                if not SAMPLE_RATES_HZ[0] <= rate <= SAMPLE_RATES_HZ[1]:
                    low, high = SAMPLE_RATES_HZ
                    raise AudioError(
                        "bad sample rate", f"{name}: {rate} Hz, allowed are {low} to {high} Hz"
                    )
                most = max(1, min(round(block_s * rate), _BLOCK_VALUES // file.channels))
                for block in _blocks(file, most, layout.declared or int(file.frames)):
                    count += len(block)
                    if count > max_duration_s * rate:
                        raise AudioError("too long", f"{name}: more than {max_duration_s:g} s")
                    if not np.isfinite(block).all():
                        raise AudioError("non-finite samples", f"{name}: NaN or infinity")
                    yield rate, block
                declared = layout.declared or (
                    int(file.frames) if file.frames < _NO_COUNT else count
                )
        except soundfile.LibsndfileError as error:
            reason = "not audio" if error.code == _UNRECOGNISED else "decode error"
            raise AudioError(
                reason, f"{name}: {error.error_string} (after {count} samples)"
            ) from error
        except OSError as error:
            raise AudioError("unreadable file", f"{name}: {error.strerror}") from error
    if declared != count:
        reason = "truncated" if count < declared else "header mismatch"
        raise AudioError(
            reason, f"{name}: the header declares {declared} samples, the file holds {count}"
        )
    if count == 0:
        raise AudioError("no samples", f"{name}: 0 samples")


def _blocks(file: Any, num_frames: int, declared: int) -> Iterator[Samples]:
    """Blocks of at most ``num_frames``. libsndfile clears what it cannot fill, so no more is asked for than is left:
    as declared, and in small steps beyond, for headers err."""
    while len(
        block := file.read(
            min(num_frames, max(declared, 0) + _STEP), dtype="float32", always_2d=True
        )
    ):
        declared -= len(block)
        with np.errstate(over="ignore", invalid="ignore"):  # checked for by the caller
            yield block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)


# ---- resampling -------------------------------------------------------------------------------------------------


def _resampled(
    path: Path, sample_rate_hz: int, max_duration_s: float, block_s: float
) -> Iterator[Samples]:
    resampler: _Resampler | None = None
    for rate, block in _decoded(path, max_duration_s, block_s):
        if rate == sample_rate_hz:
            yield block
            continue
        resampler = resampler or _Resampler(rate, sample_rate_hz)
        yield resampler.push(block)
    if resampler is not None:
        yield resampler.finish()


class _Resampler:
    """``torchaudio.functional.resample`` over a stream.

    torchaudio maps each group of ``old`` samples to ``new`` samples by one bank of filters that reach ``reach``
    samples beyond the group on either side. So a block that starts on the grid of groups, with whole groups of
    context before it and ``reach`` samples after it, gives the same samples as the whole signal::

        [ context | groups that are ready ... | reach ]     context and reach are computed again, never given twice
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self.old, self.new = _ratio(from_hz, to_hz)
        self.reach = math.ceil(
            6 * self.old / (min(self.old, self.new) * 0.99)
        )  # torchaudio's width, rolloff
        self.context = math.ceil(self.reach / self.old) * self.old
        self.held = torch.zeros(0)
        self.lead = 0  # samples of context at the front of `held`

    def push(self, block: Samples) -> Samples:
        self.held = torch.cat([self.held, torch.from_numpy(block)])
        ready = max(0, (len(self.held) - self.lead - self.reach) // self.old)
        if not ready:
            return np.zeros(0, np.float32)
        start = self.lead // self.old * self.new
        samples = _resample(self.held, self.old, self.new)[start : start + ready * self.new]
        done = self.lead + ready * self.old
        self.lead = min(done, self.context)
        self.held = self.held[done - self.lead :].clone()
        return samples

    def finish(self) -> Samples:
        return _resample(self.held, self.old, self.new)[self.lead // self.old * self.new :]


def _ratio(from_hz: int, to_hz: int) -> Span:
    """Rates in lowest terms; for odd rates (24414 Hz) the nearest short ratio, off by less than a clock's error."""
    down = Fraction(min(from_hz, to_hz), max(from_hz, to_hz)).limit_denominator(_MAX_RATIO)
    short, long = down.numerator, down.denominator
    return (long, short) if from_hz > to_hz else (short, long)


def _resample(samples: torch.Tensor, old: int, new: int) -> Samples:
    try:
        from torchaudio.functional import resample
    except OSError as error:  # a torch of another build: libc10_cuda.so is missing
        raise ConfigError(
            "torch and torchaudio do not fit: install both together, pip install torch torchaudio"
        ) from error
    result: Samples = resample(samples, old, new).numpy()
    return result


# ---- silence ----------------------------------------------------------------------------------------------------


# Recordings that libsndfile cannot read: listed all the same, so that they are rejected by name, not passed over.
UNREADABLE_SUFFIXES = {
    ".m4a",
    ".mp4",
    ".aac",
    ".wma",
    ".webm",
    ".amr",
    ".mka",
    ".ape",
    ".wv",
    ".tta",
    ".mp2",
}
