"""What a transcription looks like on disk: text, subtitles, tables, JSON, in a folder tree that mirrors the input."""

import html
import json
import re
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from speechssl.errors import ConfigError
from speechssl.transcription.transcript import DIGITS, Transcript, Word


@dataclass(frozen=True)
class CueLimits:
    """Of subtitles: characters of a line, lines and seconds of a cue, and the pause that ends one."""

    line_chars: int = 42
    lines: int = 2
    seconds: float = 7.0
    pause_s: float = 0.8

    def __post_init__(self) -> None:
        if self.line_chars < 1 or self.lines < 1 or not self.seconds > 0:
            raise ConfigError(
                f"subtitles of {self.lines} lines, {self.line_chars} characters, {self.seconds} s: each must be above 0"
            )


@dataclass(frozen=True)
class Cue:
    """What is shown at once: lines of text from ``start`` to ``end``, in milliseconds."""

    start: int
    end: int
    lines: tuple[str, ...]


def cues(transcript: Transcript, limits: CueLimits) -> list[Cue]:
    """Words in groups that end at pauses and segments, and before a limit is passed; in order, without overlap.

    A word that is longer than a line by itself has a line of its own, and a word longer than a cue a cue. A segment
    without words is one cue.
    """
    found = []
    for segment in transcript.segments:
        group: list[Word] = []
        for word in segment.words or (Word(segment.start, segment.end, segment.text, 1.0),):
            if group and _ends(group, word, limits):
                found.append(_cue(group, limits))
                group = []
            group.append(word)
        found.append(_cue(group, limits))
    return [cue for cue in found if cue.lines]


def _ends(group: list[Word], word: Word, limits: CueLimits) -> bool:
    return (
        word.start - group[-1].end >= limits.pause_s
        or word.end - group[0].start > limits.seconds
        or len(_wrapped([*group, word], limits)) > limits.lines
    )


def _cue(group: list[Word], limits: CueLimits) -> Cue:
    start, end = _ms(group[0].start), _ms(group[-1].end)
    return Cue(start, max(end, start + 1), tuple(_wrapped(group, limits)))


def _wrapped(words: Iterable[Word], limits: CueLimits) -> list[str]:
    text = " ".join(" ".join(word.text for word in words).split())
    return textwrap.wrap(text, limits.line_chars, break_long_words=False, break_on_hyphens=False)


def _ms(seconds: float) -> int:
    return round(1000 * seconds)


def _clock(ms: int, point: str) -> str:
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{point}{ms % 1000:03}"


def to_txt(transcript: Transcript, _limits: CueLimits = CueLimits()) -> str:
    """One line per segment, or the whole text where there are no segments; nothing at all for silence."""
    texts = [segment.text for segment in transcript.segments] or [transcript.text]
    lines = (" ".join(text.split()) for text in texts)
    return "".join(f"{line}\n" for line in lines if line)


def to_srt(transcript: Transcript, limits: CueLimits = CueLimits()) -> str:
    """SubRip: numbered cues with a blank line between them."""
    blocks = [
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{chr(10).join(cue.lines)}\n"
        for number, cue in enumerate(cues(transcript, limits), 1)
    ]
    return "\n".join(blocks)


def to_vtt(transcript: Transcript, limits: CueLimits = CueLimits()) -> str:
    """WebVTT (W3C, section 4); what would be markup is escaped."""
    blocks = [
        f"\n{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{html.escape(chr(10).join(cue.lines), quote=False)}\n"
        for cue in cues(transcript, limits)
    ]
    return "".join(["WEBVTT\n", *blocks])


def to_tsv(transcript: Transcript, _limits: CueLimits = CueLimits()) -> str:
    """A header, then start and end in whole milliseconds and the text of each segment."""
    rows = [
        f"{_ms(s.start)}\t{_ms(s.end)}\t{' '.join(s.text.split())}\n" for s in transcript.segments
    ]
    return "".join(["start\tend\ttext\n", *rows])


def to_json(transcript: Transcript, _limits: CueLimits = CueLimits()) -> str:
    """One indented JSON object, see ``Transcript.as_dict``; always valid UTF-8."""
    return _json(transcript, indent=2)


def to_jsonl(transcript: Transcript, _limits: CueLimits = CueLimits()) -> str:
    """The same object on one line, so that the results of many files can be put behind each other."""
    return _json(transcript, indent=None)


def _json(transcript: Transcript, indent: int | None) -> str:
    text = (
        json.dumps(transcript.as_dict(), indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
    )
    # A file name that is not UTF-8 holds lone surrogates; ``\udcff`` is how JSON writes one, and it reads back equal.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def to_ctm(transcript: Transcript, _limits: CueLimits = CueLimits()) -> str:
    """NIST's time-marked words: recording, channel, start and length in seconds, word, confidence.

    The recording is the file's name without its suffix, white space in it made ``_``.
    """
    name = re.sub(r"\s", "_", Path(transcript.path).stem).encode("utf-8", "replace").decode("utf-8")
    words = [word for segment in transcript.segments for word in segment.words]
    rows = [
        (_ms(w.start) / 1000, (_ms(w.end) - _ms(w.start)) / 1000, w.text, w.probability)
        for w in words
    ]
    return "".join(
        f"{name} 1 {start:.3f} {length:.3f} {text} {p:.{DIGITS}f}\n"
        for start, length, text, p in rows
    )


FORMATS: dict[str, Callable[[Transcript, CueLimits], str]] = {
    "txt": to_txt,
    "srt": to_srt,
    "vtt": to_vtt,
    "tsv": to_tsv,
    "json": to_json,
    "jsonl": to_jsonl,
    "ctm": to_ctm,
}
