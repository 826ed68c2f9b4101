"""What tables and manifests call their columns: recordings, transcripts, speakers, times."""

import re
from functools import lru_cache
from typing import NamedTuple

# Names of each column, as ``plain_name`` writes them; the first one that is there counts.
_AUDIO = ("audio_filepath", "file_name")
_TEXT = ("transcription", "text", "sentence", "transcript")
_SPEAKER = ("speaker", "speaker_id", "client_id")
_START = ("offset", "start", "start_time", "start_s", "start_seconds", "begin", "begin_time")
_END = ("end", "end_time", "end_s", "end_seconds")
_DURATION = ("duration", "duration_s", "duration_seconds", "dur")

# A place in a file in a name or in a unit that is not known: to pass it over would give the text of
# a part to the whole file.
_PLACE = re.compile(
    "(start|begin|onset|offset|end|stop)"
    "(_(time|position|s|secs?|seconds?|ms|msecs?|milliseconds?|samples?|frames?))*"
)

# Words in the names of columns that hold a transcript, and in those of columns that only say
# something of one.
_TRANSCRIPT_WORD = re.compile(
    "(text|transcript|transcription|sentence|utterance|prompt|caption|subtitle|lyric)s?"
    "|transcribed|orthography|orthographic"
)
_OTHER_WORD = re.compile(
    "id|path|file|filename|filepath|url|length|len|count|num|number|duration|domain|language|lang"
    "|locale|type|status|score|source|pred|predicted|hyp|hypothesis|wer|cer"
)


class Columns(NamedTuple):
    """The names under which a table has what we read; None where it has it not.

    ``others`` are the names of all columns that are not read.
    """

    audio: str | None
    text: str | None
    speaker: str | None
    split: str | None
    id: str | None
    start: str | None
    end: str | None
    duration: str | None
    others: tuple[str, ...]

    @property
    def place(self) -> str | None:
        """A column that tells a place within a file."""
        unknown = [name for name in self.others if _PLACE.fullmatch(plain_name(name))]
        found = [self.start, self.end, *unknown]
        return next((name for name in found if name is not None), None)

    @property
    def unknown_place(self) -> str | None:
        """A column that tells a place within a file in a way that is not known."""
        known = self._replace(start=None, end=None)
        return known.place


@lru_cache(maxsize=256)
def find_columns(names: tuple[str, ...], first_text: str = "transcription") -> Columns:
    """Find the columns of a table, or the keys of an object, whatever their case and spaces.

    Args:
        first_text: the name that counts where several columns may be the transcript.
    """
    given: dict[str, str] = {}
    for name in names:
        given.setdefault(plain_name(name), name)

    def first_of(known: tuple[str, ...]) -> str | None:
        return next((given[name] for name in known if name in given), None)

    read = (
        first_of(_AUDIO),
        first_of((first_text, *_TEXT)),
        first_of(_SPEAKER),
        first_of(("split",)),
        first_of(("id",)),
        first_of(_START),
        first_of(_END),
        first_of(_DURATION),
    )
    others = tuple(name for name in names if name not in read)
    return Columns(*read, others)


def plain_name(name: str) -> str:
    """Write the name of a column in one way: ``Start Time`` and ``startTime`` as ``start_time``."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[\s_-]+", "_", parted).lower()


def names_a_transcript(name: str) -> bool:
    """Whether a column's name says that it holds transcripts."""
    words = plain_name(name).split("_")
    says_transcript = any(map(_TRANSCRIPT_WORD.fullmatch, words))
    says_other = any(map(_OTHER_WORD.fullmatch, words))
    return says_transcript and not says_other
