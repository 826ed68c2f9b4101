"""A transcript: words and segments with times."""

from dataclasses import dataclass
from typing import Any

# Of a confidence: the digits that follow depend on what else was in the batch, and a rerun shall write the same bytes.
DIGITS = 2


@dataclass(frozen=True)
class Word:
    """A word: ``start`` and ``end`` in seconds from the start of the file, ``probability`` 0..1 (see ``align``)."""

    start: float
    end: float
    text: str
    probability: float


@dataclass(frozen=True)
class Segment:
    """A stretch of speech: ``start`` and ``end`` in seconds from the start of the file, ``0 <= start <= end``.

    ``words``: those of ``text``, in order of time and inside the segment.
    """

    start: float
    end: float
    text: str
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Transcript:
    """The result for one file.

    Attributes:
        path: the input as the user named it.
        text: all that was said, on one line; empty when nothing was.
        segments: in order of time.
        duration_s: length of the audio in seconds.
        model: name of the model.
    """

    path: str
    text: str
    segments: tuple[Segment, ...]
    duration_s: float
    model: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, under whisper's key names, with ours beside them; seconds are rounded to milliseconds."""
        return {
            "text": self.text,
            "segments": [
                {"id": i, "start": round(s.start, 3), "end": round(s.end, 3), "text": s.text}
                | {"words": [word_dict(word) for word in s.words]}
                for i, s in enumerate(self.segments)
            ],
            "path": self.path,
            "duration_s": round(self.duration_s, 3),
            "model": self.model,
        }


def word_dict(word: Word) -> dict[str, Any]:
    times = {"start": round(word.start, 3), "end": round(word.end, 3)}
    return {"word": word.text, **times, "probability": round(word.probability, DIGITS)}


@dataclass(frozen=True)
class Failure:
    """A file that could not be transcribed, and why."""

    path: str
    error: str
