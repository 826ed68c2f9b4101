"""What was said in a recording: words and segments with their times, or why it cannot be told."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from speechssl.text.unicode_words import is_unspaced

# Decimals of a confidence. Those that follow depend on what else was in the batch, and a rerun is
# to write the same bytes.
DIGITS = 2


@dataclass(frozen=True)
class Word:
    """A word.

    Attributes:
        start, end: seconds from the start of the file.
        text: the word.
        probability: 0..1, that the word is right; see ``decoding.align.WordSpan``.
        follows: whether no space stands before it. In scripts without spaces between words, a word
            is a character.
    """

    start: float
    end: float
    text: str
    probability: float
    follows: bool = False


@dataclass(frozen=True)
class Segment:
    """A stretch of speech.

    Attributes:
        start, end: seconds from the start of the file, ``0 <= start <= end``.
        text: what was said, on one line.
        words: those of ``text``, in order of time and inside of the segment.
    """

    start: float
    end: float
    text: str
    words: tuple[Word, ...] = ()


def joined(words: Iterable[Word]) -> str:
    """Write words as a text, with spaces only where there are any."""
    text = ""
    for word in words:
        space = " " if text and not word.follows else ""
        text += space + word.text
    return text


def joined_segments(segments: Iterable[Segment]) -> str:
    """Write all that was said on one line, with no space where the text has none."""
    text = ""
    for segment in segments:
        follows = bool(segment.words) and segment.words[0].follows
        # A number or a Latin word behind Chinese needs no space either.
        follows = follows or (text != "" and is_unspaced(text[-1]))
        space = " " if text and segment.text and not follows else ""
        text += space + segment.text
    return text


@dataclass(frozen=True)
class Transcript:
    """The result for one file.

    Attributes:
        path: the input as the user named it.
        text: all that was said, on one line; empty when nothing was.
        segments: in order of time.
        duration_s: length of the audio, seconds.
        model: name of the model.
        silence_s: seconds of it that were left out as silence or steady noise.
        wordless: where no word was recognised in a second or more of sound: from and until,
            seconds from the start of the file, in order and disjoint.
        is_scaled: whether the probabilities of words were scaled so that they are probabilities;
            otherwise they are as the recogniser gives them.
        is_dual_mono: whether the file has several channels, equal in every sample.
        is_averaged: whether it has several channels that differ, whose mean was taken.
        recording: its name in a CTM; None takes that of the file, without the suffix.
    """

    path: str
    text: str
    segments: tuple[Segment, ...]
    duration_s: float
    model: str
    silence_s: float = 0.0
    wordless: tuple[tuple[float, float], ...] = ()
    is_scaled: bool = True
    is_dual_mono: bool = False
    is_averaged: bool = False
    recording: str | None = None

    @property
    def sound_s(self) -> float:
        """Seconds of the audio in which words were looked for."""
        return self.duration_s - self.silence_s

    @property
    def wordless_s(self) -> float:
        """Seconds of sound in which no word was recognised."""
        return sum(end - start for start, end in self.wordless)

    @property
    def num_words(self) -> int:
        """How many words were said; in scripts without spaces between words, characters."""
        with_times = sum(len(segment.words) for segment in self.segments)
        return with_times or len(self.text.split())

    def as_dict(self) -> dict[str, Any]:
        """Give JSON values under whisper's key names, with ours beside them.

        Seconds are rounded to milliseconds.
        """
        segments = [_segment_dict(number, one) for number, one in enumerate(self.segments)]
        return {
            "text": self.text,
            "segments": segments,
            "path": self.path,
            "duration_s": round(self.duration_s, 3),
            "model": self.model,
            "probabilities_scaled": self.is_scaled,
        }


@dataclass(frozen=True)
class Failure:
    """A file that could not be transcribed, and why."""

    path: str
    error: str


def milliseconds(seconds: float) -> int:
    """Round a time to whole milliseconds."""
    return round(1000 * seconds)


def _segment_dict(number: int, segment: Segment) -> dict[str, Any]:
    return {
        "id": number,
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        "words": [_word_dict(word) for word in segment.words],
    }


def _word_dict(word: Word) -> dict[str, Any]:
    return {
        "word": word.text,
        "start": round(word.start, 3),
        "end": round(word.end, 3),
        "probability": round(word.probability, DIGITS),
    }
