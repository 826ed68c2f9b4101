"""Read audio files as mono float32 at one rate, in blocks of bounded memory.

Besides the list of formats and the benchmark only this file imports soundfile. Headers are not
believed: ``containers`` walks the file first, libsndfile then decodes to the end of the data, and
the number of samples that came out is compared with the number that was declared.
"""

import os
import shlex
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from speechssl.audio.channels import STRETCH_S, Mixer
from speechssl.audio.containers.inspection import inspect
from speechssl.audio.containers.layout import CHAINED, UNSUPPORTED, Layout, unsupported
from speechssl.audio.containers.view import View
from speechssl.audio.formats import MAX_DURATION_S, NO_RECORDINGS, AnyPath
from speechssl.audio.resampling import Resampler
from speechssl.errors import AudioError, ConfigError
from speechssl.runtime.log import log

Samples = NDArray[np.float32]
Span = tuple[int, int]  # (start, end) in samples

SAMPLE_RATES_HZ = (1_000, 768_000)  # what a header may say

# Values of all channels in a block: bounds memory whatever rate and channel count a header gives.
_BLOCK_VALUES = 1 << 22
_NO_COUNT = 1 << 62  # libsndfile's number of frames when it does not know
_STEP = 4096  # samples per channel that are asked for beyond the end that the header gives
# What libsndfile answers: SF_ERR_UNRECOGNISED_FORMAT, SF_ERR_UNSUPPORTED_ENCODING and its internal
# SFE_UNIMPLEMENTED.
_UNRECOGNISED = 1
_UNSUPPORTED_CODINGS = (4, 18)


def load_audio(
    path: AnyPath,
    sample_rate_hz: int = 16000,
    *,
    offset_s: float = 0.0,
    duration_s: float | None = None,
    max_duration_s: float = MAX_DURATION_S,
) -> Samples:
    """Load a whole recording, or a part of it: the blocks of ``stream_mono`` in one array.

    Returns:
        (S,) float32, about -1..1, at ``sample_rate_hz``.

    Raises:
        AudioError: as ``stream_mono``.
    """
    stream = stream_mono(
        path,
        sample_rate_hz,
        offset_s=offset_s,
        duration_s=duration_s,
        max_duration_s=max_duration_s,
    )

    blocks = list(stream)
    if not blocks:
        return np.zeros(0, np.float32)

    return np.concatenate(blocks)


def stream_mono(
    path: AnyPath,
    sample_rate_hz: int,
    *,
    offset_s: float = 0.0,
    duration_s: float | None = None,
    max_duration_s: float = MAX_DURATION_S,
    block_s: float = 60.0,
    mixer: Mixer | None = None,
) -> Iterator[Samples]:
    """Yield the blocks of a recording: channels averaged, resampled, in flat memory.

    Where channels cancel each other, the strongest is taken in place of their average.

    The blocks laid end to end equal resampling the whole file at once. Damage may show only at the
    end of a file, so blocks already given belong to a rejected file if the iteration raises. With
    ``duration_s`` decoding stops there, and what follows is not checked.

    Args:
        path: any file that libsndfile reads; its suffix is not looked at.
        sample_rate_hz: rate of the result, Hz.
        offset_s: start in the file, seconds, rounded to a sample of the result.
        duration_s: length, seconds; None = to the end.
        max_duration_s: a recording that decodes to more is refused, seconds.
        block_s: length of a block before resampling, seconds.
        mixer: a new one. It tells, after the last block, what it noticed in the channels.

    Returns:
        (n,) float32 each, about -1..1, at ``sample_rate_hz``.

    Raises:
        AudioError: with reason missing file, unreadable file, empty file, not audio, decode error,
            truncated, header mismatch, chained stream, unsupported format, bad sample rate,
            non-finite samples, too long, no samples.
    """
    is_empty = duration_s is not None and duration_s <= 0
    if offset_s < 0 or is_empty or sample_rate_hz < 1:
        raise ConfigError(
            f"offset {offset_s} s, duration {duration_s} s, {sample_rate_hz} Hz: "
            "none may be negative"
        )

    skip = round(offset_s * sample_rate_hz)
    wanted = None
    if duration_s is not None:
        wanted = round(duration_s * sample_rate_hz)

    if mixer is None:
        mixer = Mixer()
    for block in _resampled(Path(path), sample_rate_hz, max_duration_s, block_s, mixer):
        end = len(block) if wanted is None else skip + wanted
        part = block[skip:end]
        skip = max(0, skip - len(block))

        if len(part):
            yield part

        if wanted is not None:
            wanted -= len(part)
            if wanted <= 0:
                return


def declared_seconds(path: Path) -> float | None:
    """Return the length that a file's header gives; None when it gives none.

    This is for showing progress alone: nothing is decoded or checked.
    """
    if not path.is_file():  # to open a pipe is to wait for it
        return None

    try:
        with soundfile.SoundFile(path) as file:
            if file.frames >= _NO_COUNT:
                return None
            return int(file.frames) / int(file.samplerate)
    except (soundfile.LibsndfileError, OSError, ValueError):
        return None
    except TypeError:  # soundfile wants to be told the rate of a .raw file
        return None


def write_wav(path: AnyPath, samples: Samples, sample_rate_hz: int) -> None:
    """Write (S,) or (S, channels) samples in -1..1 as a 16-bit WAV file, block by block."""
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with _create_sound_file(path, "WAV", sample_rate_hz, channels) as file:
        for start in range(0, len(samples), _BLOCK_VALUES):
            end = start + _BLOCK_VALUES
            file.write(samples[start:end])


def write_flac(path: AnyPath, blocks: Iterable[Samples], sample_rate_hz: int) -> None:
    """Write blocks of (n,) mono samples in -1..1, one after another, as a 16-bit FLAC file."""
    with _create_sound_file(path, "FLAC", sample_rate_hz, channels=1) as file:
        for block in blocks:
            file.write(block)


def _create_sound_file(
    path: AnyPath, file_format: str, sample_rate_hz: int, channels: int
) -> soundfile.SoundFile:
    """Open a new file of 16-bit samples, in a format that libsndfile names."""
    name = os.fsencode(path)
    return soundfile.SoundFile(name, "w", sample_rate_hz, channels, "PCM_16", format=file_format)


def _resampled(
    path: Path, sample_rate_hz: int, max_duration_s: float, block_s: float, mixer: Mixer
) -> Iterator[Samples]:
    """Yield the decoded blocks of a file at ``sample_rate_hz``."""
    resampler: Resampler | None = None

    for rate, block in _decoded(path, max_duration_s, block_s, mixer):
        if rate == sample_rate_hz:
            yield block
            continue

        if resampler is None:
            resampler = Resampler(rate, sample_rate_hz)
        yield resampler.push(block)

    if resampler is not None:
        yield resampler.finish()


def _decoded(
    path: Path, max_duration_s: float, block_s: float, mixer: Mixer
) -> Iterator[tuple[int, Samples]]:
    """Yield (rate in Hz, mono block) of a file, from its first sample to its last."""
    name = _name(path)
    count = 0

    with open_recording(path) as raw:
        try:
            layout = inspect(raw)
            if layout.reason:
                raise _refusal(name, layout)

            for part in layout.parts or (layout,):
                for rate, block in _decoded_part(name, raw, part, block_s, mixer):
                    count += len(block)
                    if count > max_duration_s * rate:
                        raise AudioError("too long", f"{name}: more than {max_duration_s:g} s")
                    yield rate, block
        except soundfile.LibsndfileError as error:
            if error.code in _UNSUPPORTED_CODINGS:
                refusal = unsupported("a coding of samples")
                raise _refusal(name, refusal) from error
            reason = "not audio" if error.code == _UNRECOGNISED else "decode error"
            detail = f"{name}: {error.error_string} (after {count} samples)"
            raise AudioError(reason, detail) from error
        except OSError as error:
            raise AudioError("unreadable file", f"{name}: {error.strerror}") from error

    remark = mixer.remark()
    if remark:
        log(f"{name}: {remark}")

    if count == 0:
        raise AudioError("no samples", f"{name}: 0 samples")


def _decoded_part(
    name: str, raw: BinaryIO, layout: Layout, block_s: float, mixer: Mixer
) -> Iterator[tuple[int, Samples]]:
    """Yield (rate in Hz, mono block) of what one decoder reads of a file."""
    if layout.note:
        log(f"{name}: {layout.note}")

    count = 0
    source = _source(raw, layout)
    with _SoundDecoder(source, closefd=False) as file:
        if file.format in NO_RECORDINGS:
            raise AudioError(
                UNSUPPORTED,
                f"{name}: this is a file of the format {file.format}, which holds no recordings: "
                "write its samples as WAV",
            )

        rate = int(file.samplerate)
        _check_rate(name, rate)

        wanted = round(block_s * rate)
        most = _BLOCK_VALUES // file.channels
        if file.channels > 1:
            # The same stretches whatever the caller asks for, as each is mixed by itself.
            wanted = round(STRETCH_S * rate)
        block_length = max(1, min(wanted, most))
        expected = layout.declared or int(file.frames)

        slack = 0 if layout.is_filled_up else _STEP
        for block in _blocks(file, block_length, expected, slack, mixer):
            count += len(block)
            are_finite = np.isfinite(block).all()
            if not are_finite:
                raise AudioError("non-finite samples", f"{name}: NaN or infinity")
            yield rate, block

        # Only after the last block: libsndfile may know more than before the first.
        declared = layout.declared
        if not declared:
            is_known = file.frames < _NO_COUNT
            declared = int(file.frames) if is_known else count

    if declared != count:
        reason = "truncated" if count < declared else "header mismatch"
        detail = f"{name}: the header declares {declared} samples, the file holds {count}"
        raise AudioError(reason, detail)


def _refusal(name: str, layout: Layout) -> AudioError:
    """Return the error of a file that was refused, with the command that helps where one does."""
    detail = f"{name}: {layout.detail}"
    if layout.reason in (UNSUPPORTED, CHAINED):
        # The name is not the recording's own, so that nothing is overwritten.
        given = shlex.quote(name)
        made = shlex.quote(f"{name}.wav")
        detail += f"; this command converts it: ffmpeg -i {given} {made}"
    return AudioError(layout.reason, detail)


def _name(path: Path) -> str:
    """Return the last part of a path: errors go into stores, which hold no path of this machine."""
    name = path.name.encode("utf-8", "backslashreplace")
    return name.decode()


def open_recording(path: Path) -> BinaryIO:
    """Open a regular file that is not empty.

    Raises:
        AudioError: with reason missing file, unreadable file, empty file.
    """
    name = _name(path)
    try:
        about = path.stat()
        is_file = stat.S_ISREG(about.st_mode)
        if is_file and about.st_size:
            return path.open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AudioError("missing file", f"{name}: no such file") from error
    except OSError as error:
        raise AudioError("unreadable file", f"{name}: {error.strerror}") from error
    except ValueError as error:  # a NUL byte
        raise AudioError("missing file", f"{name!r}: {error}") from error

    if not is_file:
        raise AudioError("missing file", f"{name}: not a regular file")
    raise AudioError("empty file", f"{name}: 0 bytes")


def _source(raw: BinaryIO, layout: Layout) -> int | View:
    """Return what libsndfile reads: the file's descriptor, or a view where bytes are patched."""
    if not layout.is_plain:
        return View(raw, layout)

    # Nobody knows where Python's buffered reader left the descriptor.
    descriptor = raw.fileno()
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _check_rate(name: str, rate: int) -> None:
    low, high = SAMPLE_RATES_HZ
    if not low <= rate <= high:
        raise AudioError("bad sample rate", f"{name}: {rate} Hz, allowed are {low} to {high} Hz")


def _blocks(
    file: Any, num_frames: int, declared: int, slack: int, mixer: Mixer
) -> Iterator[Samples]:
    """Yield mono blocks of at most ``num_frames`` samples.

    libsndfile clears what it cannot fill, so no more is asked for than is left: as declared, and in
    small steps of ``slack`` samples beyond that, because headers err; with a slack of 0, no more.
    """
    while True:
        left = max(declared, 0) + slack
        count = min(num_frames, left)
        if not count:
            return
        block = file.read(count, dtype="float32", always_2d=True)  # (samples, channels)
        if not len(block):
            return
        declared -= len(block)

        _, channels = block.shape
        if channels == 1:
            yield block[:, 0]
            continue

        yield mixer.mix(block, file.samplerate)


class _SoundDecoder(soundfile.SoundFile):  # type: ignore[misc]
    """A SoundFile that only reads onward.

    Its seek after every read fails where headers lie, and costs time.
    """

    def seekable(self) -> bool:
        return False
