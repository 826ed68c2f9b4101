"""From recordings to the pieces that go through the encoder, cut at silences, read ahead of it.

A recording of up to 15 s is one piece, as in training. A longer one is read in windows of minutes;
what is settled in a window becomes pieces between silences. Where a cut had to go through speech,
the encoder also hears a second of what lies beyond it.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from speechssl.audio.channels import Mixer
from speechssl.audio.features import input_length
from speechssl.audio.level import is_silent
from speechssl.audio.levelling import featurise_chunk
from speechssl.audio.listing import is_recording
from speechssl.audio.reader import Samples, Span, stream_mono
from speechssl.audio.silence import WINDOW_S, is_steady, settled_chunks
from speechssl.audio.threshold import TOP_DB
from speechssl.errors import AudioError, ConfigError
from speechssl.recognition.model import CtcModel
from speechssl.storage.wrong_paths import check_exists

# A file that never ends is refused at last.
LONGEST_S = 7 * 86400.0
# Up to this length a recording is heard whole, as in training.
WHOLE_BELOW_S = 15.0
# The shortest and the longest piece of a longer recording, seconds.
CHUNK_S = (0.4, 20.0)
# Seconds of audio that the encoder also hears beyond a cut through speech. A window must hold them
# after its last chunk, so this may not exceed audio.silence.UNFINISHED_S.
CONTEXT_S = 1.0
# Pieces that are read while the model computes.
AHEAD = 32


@dataclass(frozen=True)
class Piece:
    """A stretch of a recording, with the features of it and of what the encoder hears around it.

    Attributes:
        start, end: of the stretch, seconds from the start of the file.
        array: features of the stretch with its surroundings, (S,) int16 or (U, F) float16.
        lead: encoder frames before the stretch.
        frames: encoder frames of the stretch.
        goes_on: whether the stretch begins where the piece before it ends, so that a word may go
            on from there.
        sounds: what is no silence in it: from and until, seconds from the start of the file.
    """

    start: float
    end: float
    array: NDArray[Any]
    lead: int
    frames: int
    goes_on: bool
    sounds: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class End:
    """The end of a file's pieces.

    Attributes:
        duration_s: length of the file, seconds.
        silence_s: seconds of it that are in no piece.
        is_dual_mono: whether it has several channels, equal in every sample.
        is_averaged: whether it has several channels that differ, whose mean was taken.
        error: why it could not be read to its end; None if it was.
    """

    path: str
    duration_s: float = 0.0
    silence_s: float = 0.0
    is_dual_mono: bool = False
    is_averaged: bool = False
    error: str | None = None


class Window(NamedTuple):
    """A part of a recording in memory.

    Attributes:
        samples: (S,) float32.
        position: place of the first sample in the file.
        speech: where in ``samples`` speech is.
        chunks: the parts of ``samples`` to recognise. Around each there is as much of the file
            as ``CONTEXT_S`` asks for.
    """

    samples: Samples
    position: int
    speech: list[Span]
    chunks: list[Span]


def find_audio(paths: Iterable[Path]) -> list[Path]:
    """List the files as given, and of folders the audio files at any depth, in sorted order.

    Files with suffixes that no reader here knows, such as .m4a, are among them: each then fails by
    name, and is not passed over in silence.

    Raises:
        ConfigError: a path does not exist, or a folder cannot be read.
    """
    found: list[Path] = []
    for path in paths:
        check_exists(path)
        if path.is_dir():
            found += _audio_below(path)
        else:
            found.append(path)
    return found


def _audio_below(folder: Path) -> list[Path]:
    found: list[Path] = []

    def fail(error: OSError) -> None:
        raise ConfigError(f"{error.filename}: {error.strerror}") from error

    for parent, _, names in os.walk(folder, onerror=fail):
        files = [Path(parent, name) for name in names]
        found += filter(is_recording, files)
    return sorted(found)


def read_pieces(
    model: CtcModel, paths: Sequence[str | Path], top_db: float = TOP_DB
) -> Iterator[Piece | End]:
    """Read the pieces of each file, and after them its end.

    Args:
        top_db: what lies this far below the loudest part around it is silence, dB.
    """
    rate = model.encoder.config.features.sample_rate_hz

    for path in map(Path, paths):
        mixer = Mixer()
        num_samples = 0
        num_heard = 0
        last_end = -1

        try:
            for window in _windows(path, rate, top_db, mixer):
                for chunk in window.chunks:
                    start = window.position + chunk[0]
                    piece = _piece(model, window, chunk, goes_on=start == last_end)
                    if piece is not None:
                        yield piece
                        num_heard += chunk[1] - chunk[0]
                        last_end = window.position + chunk[1]
                num_samples = window.position + len(window.samples)

            silence_s = (num_samples - num_heard) / rate
            yield End(
                str(path),
                num_samples / rate,
                silence_s,
                is_dual_mono=mixer.is_dual_mono,
                is_averaged=mixer.is_averaged,
            )
        except AudioError as error:
            # The path stands before each result, so the file's name need not be in the message.
            yield End(str(path), error=str(error).replace(f": {path.name}: ", ": "))


def _piece(model: CtcModel, window: Window, chunk: Span, goes_on: bool) -> Piece | None:
    """Featurise a chunk with what is heard around it; None for noise, or too little for a frame."""
    config = model.encoder.config.features
    rate = config.sample_rate_hz
    samples_per_frame = model.encoder.config.samples_per_frame
    samples = window.samples
    context = round(CONTEXT_S * rate)
    start, end = chunk

    if is_steady(samples[max(0, start - context) : end + context], rate):
        return None

    # Surroundings are heard only where a cut went through speech. Silence would change the mean
    # and the variance that features are normalised by: on dev of kathleen, 38.3 % of characters
    # wrong became 45.7 %.
    before = context if any(a < start <= b for a, b in window.speech) else 0
    after = context if any(a <= end < b for a, b in window.speech) else 0

    # A whole number of frames before the chunk, so that its own frames are as if it began there.
    lead = min(start, before) // samples_per_frame
    heard_from = start - lead * samples_per_frame
    heard = samples[heard_from : end + after]

    num_frames = _num_frames(model, len(heard)) - lead
    if after:
        num_frames = min(num_frames, round((end - start) / samples_per_frame))
    if num_frames < 1:
        return None

    array, change = featurise_chunk(heard, config)
    sounds = []
    for sound_from, sound_until in change.sounds:
        first = max(start, heard_from + sound_from)
        last = min(end, heard_from + sound_until)
        if first < last:
            sounds.append(((window.position + first) / rate, (window.position + last) / rate))

    return Piece(
        start=(window.position + start) / rate,
        end=(window.position + end) / rate,
        array=array,
        lead=lead,
        frames=num_frames,
        goes_on=goes_on,
        sounds=tuple(sounds),
    )


def _num_frames(model: CtcModel, num_samples: int) -> int:
    length = input_length(num_samples, model.encoder.config.features)
    return int(model.encoder.num_frames(torch.tensor([length])))


def _windows(path: Path, rate: int, top_db: float, mixer: Mixer) -> Iterator[Window]:
    """Read a file in flat memory, window by window; every chunk comes once."""
    context = round(CONTEXT_S * rate)
    held: Samples = np.zeros(0, np.float32)
    # Place of the first held sample in the file.
    position = 0
    # How many of the held samples belong to chunks that were given already: they are kept as the
    # context of the next chunk.
    used = 0
    is_first = True

    def window(speech: Sequence[Span], chunks: Sequence[Span]) -> Window:
        """Spans count from the first sample that is not only context."""
        return Window(held, position, _moved(speech, used), _moved(chunks, used))

    for block in stream_mono(path, rate, max_duration_s=LONGEST_S, mixer=mixer):
        held = np.concatenate([held, block])
        if len(held) - used < WINDOW_S * rate:
            continue

        speech, chunks, settled = settled_chunks(
            held[used:], rate, *CHUNK_S, last=False, top_db=top_db
        )
        yield window(speech, chunks)

        used += settled
        num_dropped = max(0, used - context)
        held = held[num_dropped:]
        position += num_dropped
        used -= num_dropped
        is_first = False

    if is_first and len(held) <= WHOLE_BELOW_S * rate:
        whole = [] if is_silent(held, rate) else [(0, len(held))]
        yield Window(held, position, [], whole)
    else:
        speech, chunks, _ = settled_chunks(held[used:], rate, *CHUNK_S, last=True, top_db=top_db)
        yield window(speech, chunks)


def _moved(spans: Sequence[Span], by: int) -> list[Span]:
    return [(start + by, end + by) for start, end in spans]


def ahead(items: Iterator[Piece | End]) -> Iterator[Piece | End]:
    """Give the same items, up to ``AHEAD`` of them made in advance by a thread.

    So the next files are decoded while the model computes.
    """
    with ThreadPoolExecutor(1) as thread:
        coming = deque(thread.submit(next, items, None) for _ in range(AHEAD))
        try:
            while item := coming.popleft().result():
                coming.append(thread.submit(next, items, None))
                yield item
        finally:
            # Where nobody wants the rest.
            thread.shutdown(cancel_futures=True)
