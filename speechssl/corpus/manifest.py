"""A manifest: the recordings or utterances of a corpus, checked and in a fixed order."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from speechssl.audio.formats import AUDIO_SUFFIXES
from speechssl.corpus.unicode_forms import composed
from speechssl.errors import ManifestError
from speechssl.storage.atomic import write_atomic
from speechssl.storage.json_text import json_line
from speechssl.storage.wrong_paths import what_instead

# The split of records that no command uses unless it is asked for them by this name.
UNUSED = "unused"

# Seconds that no recording reaches: 31 years.
MAX_SECONDS = 1e9


@dataclass(frozen=True, slots=True)
class Record:
    """One recording or a part of one.

    Attributes:
        id: unique and stable. It is the source's own id or, where there is none, the path without
            its suffix, followed by ``@offset`` for a part.
        audio: path below the manifest's root, with ``/``. Bytes of it that are not UTF-8 are
            surrogates, as ``os.fsdecode`` makes them.
        offset_s, duration_s: the part, seconds. A duration of None goes to the end of the file.
        text: transcript; None = unlabelled.
        speaker: None = unknown.
        split: such as train, dev, test; None = not assigned yet.
    """

    id: str
    audio: str
    offset_s: float = 0.0
    duration_s: float | None = None
    text: str | None = None
    speaker: str | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """Records of one source, sorted by id, their audio below ``root``."""

    root: Path
    records: tuple[Record, ...]

    @property
    def labelled(self) -> bool:
        """Whether any record has a transcript."""
        return any(record.text is not None for record in self.records)


def make_manifest(root: Path, records: Iterable[Record]) -> Manifest:
    """Sort records by id, after giving an id to those that have none.

    The names of speakers get one form of Unicode, so that nobody is two people.

    Raises:
        ManifestError: there is no record, or two have the same id.
    """
    named = _with_ids([_with_composed_speaker(record) for record in records])
    ordered = sorted(named, key=lambda record: record.id)

    if not ordered:
        known_suffixes = sorted(AUDIO_SUFFIXES)
        suffixes = " ".join(known_suffixes)
        what = what_instead(root)
        raise ManifestError(f"{root}: no recordings found; known suffixes are {suffixes}{what}")

    # Equal ids stand side by side after sorting.
    for first, second in pairwise(ordered):
        if first.id != second.id:
            continue

        if first.audio == second.audio:
            problem = "is listed twice: remove one of its two rows"
        else:
            problem = f"stands for both {first.audio!r} and {second.audio!r}"
        raise ManifestError(f"{root}: id {first.id!r} {problem}")

    return Manifest(root, tuple(ordered))


def write_jsonl(manifest: Manifest, path: str | os.PathLike[str]) -> None:
    """Write a JSONL manifest that ``scan`` reads back; the same records give the same bytes.

    ``audio_filepath`` starts at the folder of ``path`` where the audio lies below it. Otherwise it
    starts at the manifest's root, and ``scan(path, root=...)`` reads it.
    """
    target = Path(path)
    folder = target.parent.resolve()
    root = manifest.root.resolve()

    prefix = Path()
    if root.is_relative_to(folder):
        prefix = root.relative_to(folder)

    lines: list[str] = []
    for record in manifest.records:
        audio_path = prefix / record.audio
        row = {
            "id": record.id,
            "audio_filepath": audio_path.as_posix(),
            # An offset of 0 is left out, like everything that is not known.
            "offset": record.offset_s or None,
            "duration": record.duration_s,
            "text": record.text,
            "speaker": record.speaker,
            "split": record.split,
        }
        known = {name: value for name, value in row.items() if value is not None}
        line = json_line(known)
        lines.append(line)

    text = "".join(lines)
    write_atomic(target, text)


def printable(name: str) -> str:
    """Write bytes that are not UTF-8 as backslash escapes, so that a name fits into any file."""
    escaped = name.encode("utf-8", "backslashreplace")
    return escaped.decode()


def _with_composed_speaker(record: Record) -> Record:
    if record.speaker is None or record.speaker.isascii():
        return record
    return replace(record, speaker=composed(record.speaker))


def _with_ids(records: list[Record]) -> list[Record]:
    """Give an id to each record that has none: its path, without suffix where that is unique."""
    if all(record.id for record in records):
        return records

    uses = Counter(record.audio for record in records)
    paths = {printable(record.audio) for record in records}

    short_ids = []
    for record in records:
        path, _ = os.path.splitext(record.audio)
        short_ids.append(_id_from_path(path, record, uses))
    claims = Counter(short_ids)

    named = []
    for record, short_id in zip(records, short_ids, strict=True):
        # "a.wav" and "a.flac" both keep their suffix, and so does "a.wav.flac" beside "a.wav".
        ambiguous = claims[short_id] > 1 or short_id in paths

        if record.id:
            named.append(record)
        elif ambiguous:
            named.append(replace(record, id=_id_from_path(record.audio, record, uses)))
        else:
            named.append(replace(record, id=short_id))

    return named


def _id_from_path(path: str, record: Record, uses: Counter[str]) -> str:
    """Return ``path`` as an id, with the offset behind it where the record is a part of a file.

    A part from the start of its file needs no offset while it is the only record of that file.
    """
    starts_later = record.offset_s > 0
    is_one_of_several = record.duration_s is not None and uses[record.audio] > 1

    name = printable(path)
    if starts_later or is_one_of_several:
        return f"{name}@{record.offset_s:g}"
    return name
