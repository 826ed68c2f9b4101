"""Subtitles: the words of a transcript in groups that are shown together, for SRT and VTT."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from speechssl.errors import ConfigError
from speechssl.text.line_breaks import may_break
from speechssl.transcription.transcript import Transcript, Word, milliseconds


@dataclass(frozen=True)
class CueLimits:
    """How much a subtitle may hold.

    Attributes:
        line_chars: characters of a line.
        lines: lines of a cue.
        seconds: longest time that a cue stays.
        least_seconds: shortest time that a cue stays, unless the next one begins before.
        pause_s: a pause between two words, from which on another cue begins.

    Raises:
        ConfigError: a limit is not above 0, or the least time is below 0.
    """

    line_chars: int = 42
    lines: int = 2
    seconds: float = 7.0
    pause_s: float = 0.8
    least_seconds: float = 0.7

    def __post_init__(self) -> None:
        if self.line_chars < 1 or self.lines < 1 or not self.seconds > 0:
            raise ConfigError(
                f"subtitles of {self.lines} lines, {self.line_chars} characters, {self.seconds} s: "
                "each must be above 0"
            )
        if not self.least_seconds >= 0:
            raise ConfigError(f"subtitles of at least {self.least_seconds} s: it must be 0 or more")


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
    own. Of scripts without spaces, characters that must stand on one line stay together. A segment
    without words is one cue. A cue that would be too short to read stays longer, but
    never into the next one.
    """
    found: list[Cue] = []

    for segment in transcript.segments:
        words: Sequence[Word] = segment.words
        if not words:
            words = [Word(segment.start, segment.end, segment.text, 1.0)]

        group: list[Word] = []
        for word in _unbreakable(words, limits):
            if group and _begins_another_cue(group, word, limits):
                found.append(_cue(group, limits))
                group = []
            group.append(word)
        found.append(_cue(group, limits))

    return _readable([cue for cue in found if cue.lines], limits, transcript.duration_s)


def _unbreakable(words: Sequence[Word], limits: CueLimits) -> list[Word]:
    """Join characters between which no line may end, as far as the limits and pauses let them."""
    joined: list[Word] = []
    for word in words:
        before = joined[-1] if joined else None
        if before is not None and _belong_together(before, word, limits):
            text = before.text + word.text
            probability = min(before.probability, word.probability)
            joined[-1] = replace(before, end=word.end, text=text, probability=probability)
        else:
            joined.append(word)

    return joined


def _belong_together(before: Word, word: Word, limits: CueLimits) -> bool:
    """Whether no line may end between two words, and one cue can hold both."""
    if not word.follows or may_break(before.text, word.text):
        return False

    fits = len(before.text) + len(word.text) <= limits.line_chars
    is_at_once = word.start - before.end < limits.pause_s
    return fits and is_at_once and word.end - before.start <= limits.seconds


def _readable(found: Sequence[Cue], limits: CueLimits, duration_s: float) -> list[Cue]:
    """Let short cues stay for the least time, up to the next one and the end of the recording."""
    least = milliseconds(min(limits.least_seconds, limits.seconds))
    last_end = milliseconds(duration_s)

    longer: list[Cue] = []
    for cue, following in pairwise([*found, None]):
        assert cue is not None
        free_until = last_end if following is None else following.start
        end = min(cue.start + least, free_until)
        longer.append(replace(cue, end=max(cue.end, end)))
    return longer


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
    """Put words into lines, as many into each as fit; none is parted."""
    lines: list[str] = []
    for word in words:
        for place, part in enumerate(word.text.split()):
            space = "" if word.follows and place == 0 else " "
            if lines and len(lines[-1]) + len(space) + len(part) <= limits.line_chars:
                lines[-1] += space + part
            else:
                lines.append(part)

    return lines
