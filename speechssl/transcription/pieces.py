"""Pieces of recordings that go through the encoder at once, cut at silences, read ahead of the model."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from speechssl.audio.features import featurise, input_length
from speechssl.audio.reader import AUDIO_SUFFIXES, UNREADABLE_SUFFIXES, Samples, Span, stream_mono
from speechssl.audio.silence import SILENCE_PEAK, WINDOW_S, is_steady, settled_chunks
from speechssl.errors import AudioError, ConfigError
from speechssl.recognition.model import CtcModel

LONGEST_S = 7 * 86400.0  # a file that never ends is refused at last
WHOLE_BELOW_S = 15.0  # as training hears it; longer files are cut at silences
CHUNK_S = (0.4, 20.0)
CONTEXT_S = 1.0  # heard beyond a cut through speech; no more than is there when a window ends (audio.UNFINISHED_S)
AHEAD = 32  # pieces that are read while the model computes


def find_audio(paths: Iterable[Path]) -> list[Path]:
    """Files as given, folders searched at any depth for audio suffixes, in sorted order.

    Also for suffixes such as .m4a, which no reader here knows: such a file fails by name and is not passed over.

    Raises:
        ConfigError: a path does not exist, or a folder cannot be read.
    """
    suffixes = UNREADABLE_SUFFIXES.union(AUDIO_SUFFIXES)
    found: list[Path] = []

    def fail(error: OSError) -> None:
        raise ConfigError(f"{error.filename}: {error.strerror}") from error

    for path in paths:
        if path.is_dir():
            below = [
                Path(folder, name)
                for folder, _, names in os.walk(path, onerror=fail)
                for name in names
            ]
            found += sorted(file for file in below if file.suffix.lower() in suffixes)
        elif path.exists():
            found.append(path)
        else:
            raise ConfigError(f"no such file or folder: {path}")
    return found


@dataclass(frozen=True)
class Piece:
    """A stretch of a file, in seconds, and what goes through the encoder at once: the stretch with what surrounds it.

    Attributes:
        array: features of all of it.
        lead, frames: encoder frames before the stretch, and of the stretch.
        goes_on: the stretch begins where the one before it ends, perhaps in the middle of a word.
    """

    start: float
    end: float
    array: NDArray[Any]
    lead: int
    frames: int
    goes_on: bool


@dataclass(frozen=True)
class End:
    """No more pieces of a file: it was read to its end, or ``error`` says why not."""

    path: str
    duration_s: float = 0.0
    silence_s: float = 0.0  # of it, in no piece
    error: str | None = None


def read_pieces(model: CtcModel, paths: Sequence[str | Path]) -> Iterator[Piece | End]:
    """The pieces of each file, then its end."""
    rate = model.encoder.config.features.sample_rate_hz
    context = round(CONTEXT_S * rate)
    for path in map(Path, paths):
        position, heard, last_end = 0, 0, -1
        try:
            for samples, position, speech, chunks in _windows(path, rate):
                for start, end in chunks:
                    if is_steady(samples[max(0, start - context) : end + context], rate):
                        continue
                    # Surroundings only where a cut went through speech. Silence would change the mean and the variance
                    # that features are normalised by: on dev of kathleen, 38.3 became 45.7 % CER.
                    before = context if any(a < start <= b for a, b in speech) else 0
                    after = context if any(a <= end < b for a, b in speech) else 0
                    piece = _piece(
                        model,
                        samples,
                        (start, end),
                        (before, after),
                        position,
                        position + start == last_end,
                    )
                    if piece:
                        yield piece
                        heard, last_end = heard + end - start, position + end
                position += len(samples)
            yield End(str(path), position / rate, (position - heard) / rate)
        except AudioError as error:
            yield End(str(path), error=str(error).replace(f": {path.name}: ", ": "))


def _piece(
    model: CtcModel, samples: Samples, span: Span, context: Span, position: int, goes_on: bool
) -> Piece | None:
    """What is recognised of a window's span with as much as ``context`` around it; None for too little for a frame."""
    config, per_frame = model.encoder.config.features, model.encoder.config.samples_per_frame
    (start, end), (before, after), rate = span, context, config.sample_rate_hz
    lead = (
        min(start, before) // per_frame
    )  # so that the frames of the span are as if it began there
    heard = samples[start - lead * per_frame : end + after]
    frames = _frames(model, len(heard)) - lead
    if after:
        frames = min(frames, round((end - start) / per_frame))
    if frames < 1:
        return None
    array = featurise(heard, config)
    return Piece((position + start) / rate, (position + end) / rate, array, lead, frames, goes_on)


def ahead(items: Iterator[Piece | End]) -> Iterator[Piece | End]:
    """The same items, up to ``AHEAD`` of them made in advance by a thread, which decodes while the model computes."""
    with ThreadPoolExecutor(1) as thread:
        coming = deque(thread.submit(next, items, None) for _ in range(AHEAD))
        try:
            while item := coming.popleft().result():
                coming.append(thread.submit(next, items, None))
                yield item
        finally:
            thread.shutdown(cancel_futures=True)  # where nobody wants the rest


def _windows(path: Path, rate: int) -> Iterator[tuple[Samples, int, list[Span], list[Span]]]:
    """A file in flat memory: samples, the place of the first one in the file, speech in them, chunks to recognise.

    Every chunk comes once; around it there is as much of the file as ``CONTEXT_S`` asks for.
    """
    held, position, used = np.zeros(0, np.float32), 0, 0  # used: of the samples held, context only
    is_first, context = True, round(CONTEXT_S * rate)

    def moved(spans: list[Span]) -> list[Span]:
        return [(used + start, used + end) for start, end in spans]

    for block in stream_mono(path, rate, max_duration_s=LONGEST_S):
        held = np.concatenate([held, block])
        if len(held) - used >= WINDOW_S * rate:
            speech, chunks, more = settled_chunks(held[used:], rate, *CHUNK_S, last=False)
            yield held, position, moved(speech), moved(chunks)
            used += more
            drop = max(0, used - context)
            held, position, used, is_first = held[drop:], position + drop, used - drop, False
    if is_first and len(held) <= WHOLE_BELOW_S * rate:
        yield (
            held,
            position,
            [],
            [(0, len(held))] if max(held.max(), -held.min()) >= SILENCE_PEAK else [],
        )
    else:
        speech, chunks, _ = settled_chunks(held[used:], rate, *CHUNK_S, last=True)
        yield held, position, moved(speech), moved(chunks)


def _frames(model: CtcModel, num_samples: int) -> int:
    units = torch.tensor([input_length(num_samples, model.encoder.config.features)])
    return int(model.encoder.num_frames(units))
