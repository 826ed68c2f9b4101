"""Reads the manifests of toolkits: NeMo's JSON lines, Kaldi data directories and fairseq tables."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from speechssl.corpus.manifest import Manifest, Record, make_manifest, printable
from speechssl.corpus.paths import numbered_lines, path_below
from speechssl.corpus.splits import split_name, split_of_folder
from speechssl.errors import ManifestError

# Seconds that no recording reaches: 31 years.
_MAX_SECONDS = 1e9


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
        is_new_path = row["audio_filepath"] != given_path or not audio
        if is_new_path:
            given_path = row["audio_filepath"]
            audio = path_below(root, given_path, where)

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

        if record.id and record.id in place_of_id:
            first = place_of_id[record.id]
            raise ManifestError(f"{where}: id {record.id!r} stands at {first} already")
        place_of_id[record.id] = where
        records.append(record)

    return records


def _parse_row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{where}: not JSON: {error}") from error

    if not isinstance(row, dict) or not isinstance(row.get("audio_filepath"), str):
        raise ManifestError(f"{where}: an object with audio_filepath is expected")
    return row


def _refuse_constant(name: str) -> float:
    """Refuse NaN and Infinity, which Python's json reads although JSON has none."""
    raise ValueError(f"{name} is not allowed")


def _string(row: dict[str, Any], name: str, where: str) -> str | None:
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, str):
        return printable(value)

    # Corpora number their utterances and speakers; a text or a split is never a number.
    if isinstance(value, int) and name in ("id", "speaker"):
        return str(value)
    raise ManifestError(f"{where}: {name} is {value!r}, a string is expected")


def _seconds(row: dict[str, Any], name: str, where: str) -> float | None:
    value = row.get(name)
    if value is None:
        return None

    # True and False are integers to Python.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
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
    for key, path, where in _kaldi_lines(folder / "wav.scp"):
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

    if (folder / "segments").is_file():
        records = _kaldi_segments(folder / "segments", audio)
    else:
        records = [Record(key, path) for key, path in audio.items()]

    completed = []
    for record in records:
        text = texts.get(record.id)
        speaker = speakers.get(record.id)
        completed.append(replace(record, text=text, speaker=speaker, split=split))
    return completed


def _kaldi_segments(path: Path, audio: dict[str, str]) -> list[Record]:
    records = []
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
        records.append(Record(key, audio[recording], start_s, duration_s))
    return records


def _kaldi_table(path: Path) -> dict[str, str]:
    """Read an optional file of a Kaldi directory; without it nothing is known."""
    if not path.is_file():
        return {}
    return {key: value for key, value, _ in _kaldi_lines(path)}


def _kaldi_lines(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (key, rest, "file:number") of a Kaldi file; keys are unique."""
    seen = set()
    for where, line in numbered_lines(path):
        key, _, rest = line.replace("\t", " ", 1).strip(" ").partition(" ")
        if not key:
            raise ManifestError(f"{where}: an empty line")
        if key in seen:
            raise ManifestError(f"{where}: {key!r} stands here twice")

        seen.add(key)
        yield key, rest.strip(), where


# ---- fairseq ------------------------------------------------------------------------------------


def read_fairseq(path: Path) -> Manifest:
    """Read a fairseq ``.tsv``, and the transcripts of a ``.wrd`` or ``.ltr`` beside it.

    Raises:
        ManifestError: no folder in the first line, a path outside it, or too few transcripts.
    """
    lines = list(numbered_lines(path))
    first_line = lines[0][1] if lines else ""
    root = path.parent / first_line
    if not lines or "\t" in first_line or not os.path.isdir(root):
        raise ManifestError(
            f"{path}:1: the first line of a fairseq .tsv is the folder of the audio"
        )

    split = split_name(path.stem)
    records = []
    for where, line in lines[1:]:
        # The number of samples behind the tab is not needed.
        audio = line.rpartition("\t")[0] or line
        records.append(Record("", path_below(root, audio, where), split=split))

    texts = _fairseq_texts(path, len(records))
    if texts is not None:
        records = [replace(record, text=text) for record, text in zip(records, texts, strict=True)]
    return make_manifest(root, records)


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

    if len(texts) != num_records:
        raise ManifestError(
            f"{source}: {len(texts)} lines for the {num_records} recordings of {path.name}"
        )
    return texts


def _join_letters(line: str) -> str:
    """Read fairseq's spelling: ``a | b c |`` becomes ``a bc``."""
    return "".join(line.split()).replace("|", " ").strip()
