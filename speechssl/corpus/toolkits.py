"""Reads the manifests of toolkits: NeMo's JSON lines, Kaldi data directories and fairseq tables."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from speechssl.corpus.manifest import Manifest, Record, make_manifest, printable
from speechssl.corpus.paths import numbered_lines, path_below
from speechssl.corpus.splits import split_name, split_of_folder
from speechssl.errors import ManifestError

# An object of a JSONL manifest, whose values may be of any kind.
_Row = dict[str, Any]

# Seconds that no recording reaches: 31 years.
_MAX_SECONDS = 1e9

# Fields whose values may be numbers: corpora number their utterances and speakers.
_NUMBERED = ("id", "speaker")


# ---- JSON lines ---------------------------------------------------------------------------------


def read_jsonl(path: Path, root: Path) -> list[Record]:
    """Read a JSONL manifest: a superset of NeMo's, one record a line.

    Raises:
        ManifestError: a malformed line, an id that stands twice, or a path outside ``root``.
    """
    records: list[Record] = []
    place_of_id: dict[str, str] = {}
    given_path = ""
    audio = ""

    for where, line in numbered_lines(path):
        if not line.strip():
            continue
        row = _parse_row(line, where)

        # Parts of a recording stand together and share its path: it is resolved once for them.
        own_path = row["audio_filepath"]
        is_new_path = own_path != given_path or not audio
        if is_new_path:
            given_path = own_path
            audio = path_below(root, given_path, where)

        given_id = _string(row, "id", where)
        offset_s = _seconds(row, "offset", where)
        record = Record(
            id=given_id or "",
            audio=audio,
            offset_s=offset_s or 0.0,
            duration_s=_seconds(row, "duration", where),
            text=_string(row, "text", where),
            speaker=_string(row, "speaker", where),
            split=_string(row, "split", where),
        )
        if record.duration_s == 0:
            raise ManifestError(f"{where}: duration is 0, it must be positive")

        # Records without an id are given one later.
        first = place_of_id.setdefault(record.id, where)
        if record.id and first != where:
            raise ManifestError(f"{where}: id {record.id!r} stands at {first} already")
        records.append(record)

    return records


def _parse_row(line: str, where: str) -> _Row:
    """Parse a line, whose object has at least the path of a recording."""
    try:
        row = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        # Deeply nested brackets are too many calls for the parser.
        raise ManifestError(f"{where}: not JSON: {error}") from error

    if not isinstance(row, dict) or not isinstance(row.get("audio_filepath"), str):
        raise ManifestError(f"{where}: an object with audio_filepath is expected")
    return row


def _refuse_constant(name: str) -> float:
    """Refuse NaN and Infinity, which Python's json reads although JSON has none."""
    raise ValueError(f"{name} is not allowed")


def _string(row: _Row, name: str, where: str) -> str | None:
    """Read a text of an object; None where it has none."""
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, str):
        return printable(value)

    # A text or a split is never a number.
    may_be_number = name in _NUMBERED
    if may_be_number and isinstance(value, int):
        return str(value)
    raise ManifestError(f"{where}: {name} is {value!r}, a string is expected")


def _seconds(row: _Row, name: str, where: str) -> float | None:
    """Read a time of an object, seconds; None where it has none."""
    value = row.get(name)
    if value is None:
        return None

    # True and False are integers to Python.
    is_truth_value = isinstance(value, bool)
    is_number = isinstance(value, int | float) and not is_truth_value
    if not is_number or not 0 <= value < _MAX_SECONDS:
        raise ManifestError(f"{where}: {name} is {value!r}, seconds are expected")
    return float(value)


# ---- Kaldi --------------------------------------------------------------------------------------


def read_kaldi(folder: Path, root: Path) -> list[Record]:
    """Read a Kaldi data directory: ``wav.scp``, and ``segments``, ``text``, ``utt2spk`` if there.

    Raises:
        ManifestError: a malformed line, a command instead of a path, or a path outside ``root``.
    """
    audio: dict[str, str] = {}
    wav_scp = folder / "wav.scp"
    for key, path, where in _kaldi_lines(wav_scp):
        is_command = path.startswith("|") or path.endswith("|")
        if is_command:
            raise ManifestError(
                f"{where}: {path!r} is a command; speechssl runs none: "
                "write the audio to files first"
            )
        audio[key] = path_below(root, path, where)

    texts = _kaldi_table(folder / "text")
    speakers = _kaldi_table(folder / "utt2spk")
    split = split_of_folder(folder.name)

    # Without segments, each recording is one utterance of the same name.
    segments = folder / "segments"
    if segments.is_file():
        records = _kaldi_segments(segments, audio)
    else:
        records = [Record(key, path) for key, path in audio.items()]

    completed: list[Record] = []
    for record in records:
        text = texts.get(record.id)
        speaker = speakers.get(record.id)
        complete = replace(record, text=text, speaker=speaker, split=split)
        completed.append(complete)
    return completed


def _kaldi_segments(path: Path, audio: dict[str, str]) -> list[Record]:
    """Read the parts of recordings, whose paths ``audio`` has by name."""
    records: list[Record] = []
    for key, fields, where in _kaldi_lines(path):
        try:
            recording, start_text, end_text = fields.split()
            start_s = float(start_text)
            end_s = float(end_text)
        except ValueError as error:
            raise ManifestError(
                f"{where}: utterance, recording, start and end are expected"
            ) from error

        if recording not in audio:
            raise ManifestError(f"{where}: recording {recording!r} is not in wav.scp")
        if not 0 <= start_s < end_s < _MAX_SECONDS:
            raise ManifestError(f"{where}: a segment from {start_s} to {end_s} s")

        # Rounded to microseconds, so that 1.3 - 1.2 is 0.1.
        duration_s = round(end_s - start_s, 6)
        segment = Record(key, audio[recording], start_s, duration_s)
        records.append(segment)
    return records


def _kaldi_table(path: Path) -> dict[str, str]:
    """Read an optional file of a Kaldi directory; without it nothing is known."""
    if not path.is_file():
        return {}
    return {line.key: line.rest for line in _kaldi_lines(path)}


class _KaldiLine(NamedTuple):
    """A line of a Kaldi file: ``key rest``; ``where`` is its place for messages."""

    key: str
    rest: str
    where: str


def _kaldi_lines(path: Path) -> Iterator[_KaldiLine]:
    """Yield the lines of a Kaldi file; keys are unique."""
    seen: set[str] = set()
    for where, line in numbered_lines(path):
        # Some tools write a tab behind the key.
        spaced = line.replace("\t", " ", 1)
        key, _, rest = spaced.strip(" ").partition(" ")
        if not key:
            raise ManifestError(f"{where}: an empty line")
        if key in seen:
            raise ManifestError(f"{where}: {key!r} stands here twice")

        seen.add(key)
        yield _KaldiLine(key, rest.strip(), where)


# ---- fairseq ------------------------------------------------------------------------------------


def read_fairseq(path: Path) -> Manifest:
    """Read a fairseq ``.tsv``, and the transcripts of a ``.wrd`` or ``.ltr`` beside it.

    Raises:
        ManifestError: no folder in the first line, a path outside it, or too few transcripts.
    """
    lines = list(numbered_lines(path))
    first_line = ""
    if lines:
        _, first_line = lines[0]

    # A table that has lost its first line begins with a recording, whose line has a tab.
    root = path.parent / first_line
    if not lines or "\t" in first_line or not os.path.isdir(root):
        raise ManifestError(
            f"{path}:1: the first line of a fairseq .tsv is the folder of the audio"
        )

    split = split_name(path.stem)
    records: list[Record] = []
    for where, line in lines[1:]:
        # The number of samples behind the tab is not needed.
        before_tab, _, _ = line.rpartition("\t")
        audio = path_below(root, before_tab or line, where)
        records.append(Record("", audio, split=split))

    texts = _fairseq_texts(path, len(records))
    if texts is None:
        return make_manifest(root, records)

    labelled: list[Record] = []
    for record, text in zip(records, texts, strict=True):
        labelled.append(replace(record, text=text))
    return make_manifest(root, labelled)


def _fairseq_texts(path: Path, num_records: int) -> list[str] | None:
    """Read the transcripts beside a table, words before letters; None where there is neither."""
    words = path.with_suffix(".wrd")
    letters = path.with_suffix(".ltr")

    if words.is_file():
        source = words
        texts = [line.strip() for _, line in numbered_lines(words)]
    elif letters.is_file():
        source = letters
        texts = [_join_letters(line) for _, line in numbered_lines(letters)]
    else:
        return None

    # Lines belong to recordings by their number alone.
    num_texts = len(texts)
    if num_texts != num_records:
        raise ManifestError(
            f"{source}: {num_texts} lines for the {num_records} recordings of {path.name}"
        )
    return texts


def _join_letters(line: str) -> str:
    """Read fairseq's spelling: ``a | b c |`` becomes ``a bc``."""
    letters = line.split()
    words = "".join(letters).replace("|", " ")
    return words.strip()
