"""Manifests: which recordings there are, who speaks, what is said, and which split each belongs to.

``scan`` reads six layouts into one sorted tuple of records. A manifest is data: no path in it leads outside its root.
"""

import csv
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from speechssl.audio.reader import AUDIO_SUFFIXES, UNREADABLE_SUFFIXES
from speechssl.corpus.manifest import Manifest, Record, make_manifest, printable
from speechssl.corpus.splits import split_name
from speechssl.errors import ManifestError
from speechssl.runtime.log import log

_TEXT_COLUMNS = ("transcription", "text", "sentence")
_TIME_COLUMNS = (
    "start",
    "end",
    "offset",
    "begin",
    "start_time",
    "end_time",
)  # never passed over: texts of parts
_SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id")


def scan(source: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> Manifest:
    """Read a source, whatever its layout.

    A folder may be a Kaldi data directory (``wav.scp``), a folder with Hugging Face's ``metadata.csv`` (its own or in
    folders below; a table governs the folder that it lies in), a LibriSpeech tree (``*.trans.txt``) or just audio,
    nested in any way. A file may be a JSONL manifest, a ``metadata.csv``, a fairseq ``.tsv`` with ``.wrd`` or ``.ltr``
    beside it, or one recording. The order in which a file system lists never matters.

    Args:
        source: folder or file.
        root: where relative paths of a JSONL manifest or a Kaldi directory start and to where absolute ones may lead;
            default: the folder that the source lies in. Not for other layouts.

    Raises:
        ManifestError: nothing found, a malformed line (named by file and line number), a path that leaves the root, or
            a root for another layout.
    """
    _real_folder.cache_clear()
    path = Path(source)
    if (
        root is not None
        and path.suffix.lower() not in (".jsonl", ".json")
        and not (path / "wav.scp").is_file()
    ):
        raise ManifestError(
            f"{path}: a root is for JSONL manifests and Kaldi folders: leave it out"
        )
    if path.is_dir():
        if (path / "wav.scp").is_file():
            return make_manifest(Path(root or path), _read_kaldi(path, Path(root or path)))
        return make_manifest(path, _read_folder(path))
    if not path.is_file():
        raise ManifestError(f"{path}: no such file or folder")
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".json"):
        return make_manifest(
            Path(root or path.parent), _read_jsonl(path, Path(root or path.parent))
        )
    if suffix == ".csv":
        return make_manifest(path.parent, _read_whole_table(path, path.parent))
    if suffix == ".tsv":
        return _read_fairseq(path)
    if suffix in AUDIO_SUFFIXES:
        return make_manifest(path.parent, [Record("", path.name)])
    raise ManifestError(f"{path}: neither a folder, .jsonl, metadata.csv, fairseq .tsv nor audio")


# ---- paths and ids ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)


def _below(root: Path, audio: str, where: str) -> str:
    """``audio`` as a ``/`` path below ``root``; links are followed, and none may lead outside."""
    try:
        os.fsencode(audio)
    except UnicodeEncodeError as error:
        raise ManifestError(f"{where}: {audio!r} is no path") from error
    if not audio or "\0" in audio:
        raise ManifestError(f"{where}: {audio!r} is no path")
    full = os.path.normpath(os.path.join(root, audio))
    relative = os.path.relpath(full, os.path.normpath(root))
    home = _real_folder(str(root))
    real = os.path.join(_real_folder(os.path.dirname(full)), os.path.basename(full))
    if os.path.islink(real):
        real = os.path.realpath(real)
    if relative.split(os.sep)[0] == ".." or not real.startswith(home.rstrip(os.sep) + os.sep):
        raise ManifestError(
            f"{where}: {audio!r} leads outside {root}: give the audio's folder as --root, or move it"
        )
    return Path(relative).as_posix()


# ---- readers ------------------------------------------------------------------------------------------------------


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """("file:number", line) of a text file; only a newline ends a line, as in the tools that write these files."""
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                yield f"{path}:{number}", line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path} is not UTF-8: {error}") from error
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}") from error


def _read_folder(root: Path) -> list[Record]:
    tables: list[Path] = []
    transcripts: list[Path] = []
    found: list[str] = []

    def fail(error: OSError) -> None:
        raise ManifestError(f"{error.filename}: {error.strerror}") from error

    for folder, subfolders, files in os.walk(root, onerror=fail):
        for name in subfolders:
            if os.path.islink(
                os.path.join(folder, name)
            ):  # not followed: either it leaves, or it is here twice
                _below(root, os.path.relpath(os.path.join(folder, name, "x"), root), f"{root}")
        if "metadata.csv" in files:
            tables.append(Path(folder) / "metadata.csv")
            subfolders.clear()
            continue
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            if name.endswith(".trans.txt"):
                transcripts.append(Path(folder) / name)
            elif suffix in AUDIO_SUFFIXES or suffix in UNREADABLE_SUFFIXES:
                found.append(
                    _below(root, os.path.relpath(os.path.join(folder, name), root), f"{root}")
                )
    records = [Record("", audio) for audio in found]
    if transcripts:
        records = _join_librispeech(records, transcripts, root)
    for table in tables:
        records += _read_whole_table(table, root)
    return records


def _join_librispeech(records: list[Record], transcripts: list[Path], root: Path) -> list[Record]:
    """Texts by utterance from ``SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt``; the split from the folder at the top."""
    texts: dict[str, str] = {}
    for path in sorted(transcripts):
        folder = path.parent.relative_to(root).as_posix()
        for where, line in _lines(path):
            name, _, text = line.partition(" ")
            if not name or "/" in name:
                raise ManifestError(
                    f"{where}: an utterance and its text are expected, not {line!r}"
                )
            texts[_below(root, f"{folder}/{name}", where)] = text.strip()
    heard = {os.path.splitext(record.audio)[0]: record for record in records}
    for name in texts.keys() - heard.keys():  # listed, so that it is rejected as a missing file
        heard[name] = Record("", f"{name}.flac")
    joined = []
    for name, record in heard.items():
        parts = name.split("/")
        speaker = parts[-3] if len(parts) >= 3 else None
        split = split_name(parts[0]) if len(parts) >= 4 else split_name(root.name)
        split = split if split in ("train", "dev", "test") else None
        joined.append(replace(record, text=texts.get(name), speaker=speaker, split=split))
    return joined


def _read_whole_table(path: Path, root: Path) -> list[Record]:
    """A table's records; how many recordings lie below it and are not in it is logged."""
    records = list(_read_table(path, root))
    listed = {record.audio for record in records}
    below = (Path(folder, name) for folder, _, names in os.walk(path.parent) for name in names)
    audio = (
        file for file in below if file.suffix.lower() in UNREADABLE_SUFFIXES.union(AUDIO_SUFFIXES)
    )
    left_out = [
        file for file in audio if Path(os.path.relpath(file, root)).as_posix() not in listed
    ]
    if left_out:  # by the names of the table; one may lead to a file by way of a linked folder
        used = {os.path.realpath(root / name) for name in listed}
        left_out = [file for file in left_out if os.path.realpath(file) not in used]
    if left_out:
        log(
            f"{len(left_out)} recordings are not in {path} and are left out, {printable(str(min(left_out)))} for one"
        )
    return records


def _read_table(path: Path, root: Path) -> Iterator[Record]:
    """Hugging Face's ``metadata.csv``: file_name, and a text, a speaker and a split where there are such columns."""
    fallback = split_name(path.parent.name) if path.parent != root else None
    fallback = fallback if fallback in ("train", "dev", "test") else None
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            columns = rows.fieldnames or ()
            if "file_name" not in columns:
                raise ManifestError(
                    f"{path}:1: no column file_name among {', '.join(columns) or 'none'}"
                )
            if timed := next((c for c in _TIME_COLUMNS if c in columns), None):
                raise ManifestError(
                    f"{path}:1: a column {timed!r}, but a table has whole files: give parts as a JSONL manifest "
                    "with offset and duration, or remove the column"
                )
            text = next((c for c in _TEXT_COLUMNS if c in columns), None)
            speaker = next((c for c in _SPEAKER_COLUMNS if c in columns), None)
            for row in rows:
                where = f"{path}:{rows.line_num}"
                if None in row or None in row.values():
                    raise ManifestError(f"{where}: the row does not have {len(columns)} columns")
                below = os.path.relpath(path.parent, root)
                yield Record(
                    id="",
                    audio=_below(root, os.path.join(below, row["file_name"]), where),
                    text=(row[text] or None)
                    if text
                    else None,  # a table has no other way to say "none"
                    speaker=(row[speaker] or None) if speaker else None,
                    split=split_name(row.get("split")) or fallback,
                )
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path} is not UTF-8: {error}") from error
    except csv.Error as error:
        raise ManifestError(f"{path}: {error}") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not allowed")


def _read_jsonl(path: Path, root: Path) -> list[Record]:
    records: list[Record] = []
    seen: dict[str, str] = {}
    given = audio = ""
    for where, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"{where}: not JSON: {error}") from error
        if not isinstance(row, dict) or not isinstance(row.get("audio_filepath"), str):
            raise ManifestError(f"{where}: an object with audio_filepath is expected")
        if (
            row["audio_filepath"] != given or not audio
        ):  # parts of a recording stand together and share its path
            given, audio = row["audio_filepath"], _below(root, row["audio_filepath"], where)
        record = Record(
            id=_string(row, "id", where) or "",
            audio=audio,
            offset_s=_seconds(row, "offset", where) or 0.0,
            duration_s=_seconds(row, "duration", where),
            text=_string(row, "text", where),
            speaker=_string(row, "speaker", where),
            split=_string(row, "split", where),
        )
        if record.duration_s == 0:
            raise ManifestError(f"{where}: duration is 0, it must be positive")
        if record.id and seen.setdefault(record.id, where) != where:
            raise ManifestError(f"{where}: id {record.id!r} stands at {seen[record.id]} already")
        records.append(record)
    return records


def _string(row: dict[str, Any], name: str, where: str) -> str | None:
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, int) and name in ("id", "speaker"):
        return str(value)
    raise ManifestError(f"{where}: {name} is {value!r}, a string is expected")


def _seconds(row: dict[str, Any], name: str, where: str) -> float | None:
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not (0 <= value < 1e9):
        raise ManifestError(f"{where}: {name} is {value!r}, seconds are expected")
    return float(value)


def _read_kaldi(folder: Path, root: Path) -> list[Record]:
    audio: dict[str, str] = {}
    for key, rest, where in _kaldi_lines(folder / "wav.scp"):
        if "|" in (rest[:1], rest[-1:]):
            raise ManifestError(
                f"{where}: {rest!r} is a command; speechssl runs none: write the audio to files first"
            )
        audio[key] = _below(root, rest, where)
    texts = {key: rest for key, rest, _ in _kaldi_lines(folder / "text", optional=True)}
    speakers = {key: rest for key, rest, _ in _kaldi_lines(folder / "utt2spk", optional=True)}
    records = []
    if not (folder / "segments").is_file():
        records = [Record(key, path) for key, path in audio.items()]
    for key, rest, where in _kaldi_lines(folder / "segments", optional=True):
        fields = rest.split()
        try:
            recording, (start, end) = fields[0], map(float, fields[1:])
        except (ValueError, IndexError) as error:
            raise ManifestError(
                f"{where}: utterance, recording, start and end are expected"
            ) from error
        if recording not in audio:
            raise ManifestError(f"{where}: recording {recording!r} is not in wav.scp")
        if not (0 <= start < end < 1e9):
            raise ManifestError(f"{where}: a segment from {start} to {end} s")
        records.append(Record(key, audio[recording], start, round(end - start, 6)))
    split = split_name(folder.name)
    split = split if split in ("train", "dev", "test") else None
    return [
        replace(record, text=texts.get(record.id), speaker=speakers.get(record.id), split=split)
        for record in records
    ]


def _kaldi_lines(path: Path, optional: bool = False) -> Iterator[tuple[str, str, str]]:
    """(key, rest, "file:number"); keys are unique."""
    if optional and not path.is_file():
        return
    seen = set()
    for where, line in _lines(path):
        key, _, rest = line.replace("\t", " ", 1).strip(" ").partition(" ")
        if not key or key in seen:
            raise ManifestError(
                f"{where}: " + (f"{key!r} stands here twice" if key else "an empty line")
            )
        seen.add(key)
        yield key, rest.strip(), where


def _read_fairseq(path: Path) -> Manifest:
    lines = list(_lines(path))
    root = Path(lines[0][1]) if lines else path.parent
    if not lines or "\t" in lines[0][1] or not os.path.isdir(path.parent / root):
        raise ManifestError(
            f"{path}:1: the first line of a fairseq .tsv is the folder of the audio"
        )
    root = path.parent / root
    split = split_name(path.stem)
    records = [
        Record("", _below(root, line.rpartition("\t")[0] or line, where), split=split)
        for where, line in lines[1:]
    ]
    readers: dict[str, Callable[[str], str]] = {".wrd": str.strip, ".ltr": _join_letters}
    for suffix, read in readers.items():
        beside = path.with_suffix(suffix)
        if beside.is_file():
            texts = [read(line) for _, line in _lines(beside)]
            if len(texts) != len(records):
                raise ManifestError(
                    f"{beside}: {len(texts)} lines for the {len(records)} recordings of {path.name}"
                )
            records = [
                replace(record, text=text) for record, text in zip(records, texts, strict=True)
            ]
            break
    return make_manifest(root, records)


def _join_letters(line: str) -> str:
    return "".join(line.split()).replace("|", " ").strip()


# ---- splits -------------------------------------------------------------------------------------------------------


# ---- writing ------------------------------------------------------------------------------------------------------
