"""A transcript as text, subtitles, table or JSON."""

import html
import json
from collections.abc import Callable
from pathlib import Path

from speechssl.scoring.score_files import nist_name
from speechssl.transcription.cues import Cue, CueLimits, cues
from speechssl.transcription.transcript import DIGITS, Transcript, milliseconds

# What a format without subtitles is called with too, so that all formats are called alike.
NO_LIMITS = CueLimits()


def to_txt(transcript: Transcript, _limits: CueLimits = NO_LIMITS) -> str:
    """Write one line per segment, or the whole text where there are no segments.

    A recording without speech gives no line at all.
    """
    texts = [segment.text for segment in transcript.segments] or [transcript.text]
    lines = [_one_line(text) for text in texts]
    return "".join(f"{line}\n" for line in lines if line)


def to_srt(transcript: Transcript, limits: CueLimits = NO_LIMITS) -> str:
    """Write SubRip: numbered cues with a blank line between them."""
    blocks = []
    for number, cue in enumerate(cues(transcript, limits), start=1):
        times = _times(cue, ",")
        text = "\n".join(cue.lines)
        blocks.append(f"{number}\n{times}\n{text}\n")
    return "\n".join(blocks)


def to_vtt(transcript: Transcript, limits: CueLimits = NO_LIMITS) -> str:
    """Write WebVTT (W3C, section 4); what would be markup is escaped."""
    blocks = ["WEBVTT\n"]
    for cue in cues(transcript, limits):
        times = _times(cue, ".")
        text = html.escape("\n".join(cue.lines), quote=False)
        blocks.append(f"\n{times}\n{text}\n")
    return "".join(blocks)


def to_tsv(transcript: Transcript, _limits: CueLimits = NO_LIMITS) -> str:
    """Write a header, then start and end in whole milliseconds and the text of each segment."""
    rows = ["start\tend\ttext\n"]
    for segment in transcript.segments:
        start = milliseconds(segment.start)
        end = milliseconds(segment.end)
        rows.append(f"{start}\t{end}\t{_one_line(segment.text)}\n")
    return "".join(rows)


def to_json(transcript: Transcript, _limits: CueLimits = NO_LIMITS) -> str:
    """Write one indented JSON object, see ``Transcript.as_dict``; always valid UTF-8."""
    return _json(transcript, indent=2)


def to_jsonl(transcript: Transcript, _limits: CueLimits = NO_LIMITS) -> str:
    """Write the same object on one line, so that the results of many files can be joined."""
    return _json(transcript, indent=None)


def to_ctm(transcript: Transcript, _limits: CueLimits = NO_LIMITS) -> str:
    """Write NIST's time-marked words: recording, channel, start, length, word, confidence.

    Times are in seconds. White space in the name of the recording becomes ``%20`` and the like.
    """
    name = transcript.recording or Path(transcript.path).stem
    recording = nist_name(name.encode("utf-8", "replace").decode("utf-8"))

    words = [word for segment in transcript.segments for word in segment.words]
    rows = []
    for word in words:
        # Both ends are rounded and then subtracted: a rounded length would make words overlap.
        start = milliseconds(word.start)
        length = milliseconds(word.end) - start
        times = f"{start / 1000:.3f} {length / 1000:.3f}"
        confidence = f"{word.probability:.{DIGITS}f}"
        rows.append(f"{recording} 1 {times} {word.text} {confidence}\n")
    return "".join(rows)


FORMATS: dict[str, Callable[[Transcript, CueLimits], str]] = {
    "txt": to_txt,
    "srt": to_srt,
    "vtt": to_vtt,
    "tsv": to_tsv,
    "json": to_json,
    "jsonl": to_jsonl,
    "ctm": to_ctm,
}
# Those that hold the confidences of words.
WITH_CONFIDENCES = ("json", "jsonl", "ctm")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _times(cue: Cue, point: str) -> str:
    start = _clock(cue.start, point)
    end = _clock(cue.end, point)
    return f"{start} --> {end}"


def _clock(ms: int, point: str) -> str:
    """Write milliseconds as hours:minutes:seconds, with ``point`` before the thousandths."""
    hours = ms // 3_600_000
    minutes = ms // 60_000 % 60
    seconds = ms // 1000 % 60
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{ms % 1000:03}"


def _json(transcript: Transcript, indent: int | None) -> str:
    text = json.dumps(transcript.as_dict(), indent=indent, ensure_ascii=False, allow_nan=False)
    # A file name that is not UTF-8 holds lone surrogates. JSON writes one as an escape, which
    # reads back equal.
    return f"{text}\n".encode("utf-8", "backslashreplace").decode("utf-8")
