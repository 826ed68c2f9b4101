"""A manifest: the recordings or utterances of a corpus, checked and in a fixed order."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from speechssl.audio.reader import AUDIO_SUFFIXES
from speechssl.errors import ManifestError
from speechssl.storage.atomic import write_atomic
from speechssl.storage.json_text import json_line

UNUSED = "unused"  # a split that no verb takes unasked


@dataclass(frozen=True, slots=True)
class Record:
    """One recording or a part of one.

    Attributes:
        id: unique and stable: the path without its suffix, ``@offset`` behind it for a part, or the source's own.
        audio: path below the manifest's root, with ``/``; bytes that are not UTF-8 are surrogates (``os.fsdecode``).
        offset_s, duration_s: the part, seconds; a duration of None goes to the end of the file.
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
    ordered = tuple(sorted(_named(records), key=lambda record: record.id))
    if not ordered:
        raise ManifestError(
            f"{root}: no recordings found; known suffixes are {' '.join(sorted(AUDIO_SUFFIXES))}"
        )
    for a, b in pairwise(ordered):
        if a.id == b.id:
            same = (
                "is listed twice"
                if a.audio == b.audio
                else f"stands for both {a.audio!r} and {b.audio!r}"
            )
            raise ManifestError(f"{root}: id {a.id!r} {same}")
    return Manifest(root, ordered)


def printable(name: str) -> str:
    """What is not UTF-8 written as backslash escapes, so that it fits into any file."""
    return name.encode("utf-8", "backslashreplace").decode()


def _named(records: Iterable[Record]) -> list[Record]:
    """Ids where there is none: path without suffix, ``@offset`` for a part, with suffix where two would be equal."""
    listed = list(records)
    if all(record.id for record in listed):
        return listed

    def identify(record: Record, path: str) -> str:
        part = record.offset_s > 0 or (record.duration_s is not None and shared[record.audio] > 1)
        return printable(path) + (f"@{record.offset_s:g}" if part else "")

    shared = Counter(record.audio for record in listed)
    paths = {printable(record.audio) for record in listed}
    short = [identify(record, os.path.splitext(record.audio)[0]) for record in listed]
    count = Counter(short)
    return [
        record
        if record.id
        else replace(
            record, id=identify(record, record.audio) if count[name] > 1 or name in paths else name
        )
        for record, name in zip(listed, short, strict=True)
    ]


def write_jsonl(manifest: Manifest, path: str | os.PathLike[str]) -> None:
    """Write a JSONL manifest that ``scan`` reads back; the same records give the same bytes.

    ``audio_filepath`` starts at the folder of ``path`` where the audio lies below it; otherwise it starts at the
    manifest's root, and ``scan(path, root=...)`` reads it.
    """
    target = Path(path)
    folder, root = target.parent.resolve(), manifest.root.resolve()
    prefix = root.relative_to(folder) if root.is_relative_to(folder) else Path()
    lines = []
    for record in manifest.records:
        row = {
            "id": record.id,
            "audio_filepath": (prefix / record.audio).as_posix(),
            "offset": record.offset_s or None,
            "duration": record.duration_s,
            "text": record.text,
            "speaker": record.speaker,
            "split": record.split,
        }
        lines.append(json_line({name: value for name, value in row.items() if value is not None}))
    write_atomic(target, "".join(lines))
