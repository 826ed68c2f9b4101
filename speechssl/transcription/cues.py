"""Subtitles: the words of a transcript in groups that are shown together, for SRT and VTT."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from speechssl.errors import ConfigError
from speechssl.transcription.transcript import Transcript, Word, milliseconds


@dataclass(frozen=True)
class CueLimits:
    """How much a subtitle may hold.

    Attributes:
        line_chars: characters of a line.
        lines: lines of a cue.
        seconds: longest time that a cue stays.
        pause_s: a pause between two words, from which on another cue begins.

    Raises:
        ConfigError: a limit is not above 0.
    """

    line_chars: int = 42
    lines: int = 2
    seconds: float = 7.0
    pause_s: float = 0.8

    def __post_init__(self) -> None:
        if self.line_chars < 1 or self.lines < 1 or not self.seconds > 0:
            raise ConfigError(
                f"subtitles of {self.lines} lines, {self.line_chars} characters, {self.seconds} s: "
                "each must be above 0"
            )


@dataclass(frozen=True)
class Cue:
    """What is shown at once: lines of text from ``start`` to ``end``, in milliseconds."""

    start: int
    end: int
    lines: tuple[str, ...]


def cues(transcript: Transcript, limits: CueLimits) -> list[Cue]:
    """Group the words of a transcript, in order and without overlap.

    A group ends at a pause, at the end of a segment, and before it would pass a limit. A word that
    is longer than a line has a line of its own, and a word that is longer than a cue a cue of its
    own. A segment without words is one cue.
    """
    found: list[Cue] = []

    for segment in transcript.segments:
        words: Sequence[Word] = segment.words
        if not words:
            words = [Word(segment.start, segment.end, segment.text, 1.0)]

        group: list[Word] = []
        for word in words:
            if group and _begins_another_cue(group, word, limits):
                found.append(_cue(group, limits))
                group = []
            group.append(word)
        found.append(_cue(group, limits))

    return [cue for cue in found if cue.lines]


def _begins_another_cue(group: Sequence[Word], word: Word, limits: CueLimits) -> bool:
    after_a_pause = word.start - group[-1].end >= limits.pause_s
    too_long = word.end - group[0].start > limits.seconds
    if after_a_pause or too_long:
        return True

    return len(_wrapped([*group, word], limits)) > limits.lines


def _cue(group: Sequence[Word], limits: CueLimits) -> Cue:
    start = milliseconds(group[0].start)
    end = milliseconds(group[-1].end)
    # A cue that ends when it begins would never be shown.
    return Cue(start, max(end, start + 1), tuple(_wrapped(group, limits)))


def _wrapped(words: Iterable[Word], limits: CueLimits) -> list[str]:
    text = " ".join(word.text for word in words)
    one_line = " ".join(text.split())
    return textwrap.wrap(
        one_line, limits.line_chars, break_long_words=False, break_on_hyphens=False
    )
