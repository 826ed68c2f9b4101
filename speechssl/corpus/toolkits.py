"""Reads the manifests of toolkits: Kaldi data directories and fairseq tables."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from speechssl.corpus.file_suffixes import complete_names
from speechssl.corpus.manifest import MAX_SECONDS, Manifest, Record, make_manifest, printable
from speechssl.corpus.paths import numbered_lines, path_below
from speechssl.corpus.split_names import split_name, split_of_folder
from speechssl.corpus.transcript_search import find_named_like
from speechssl.corpus.unicode_forms import KnownNames
from speechssl.corpus.unused_transcripts import UnusedTranscripts
from speechssl.errors import ManifestError
from speechssl.runtime.log import log

# The end of a segment that goes on to the end of its recording, as in Kaldi's extract-segments.
_END_OF_FILE = -1

# ---- Kaldi --------------------------------------------------------------------------------------


def read_kaldi(folder: Path, root: Path, unused: UnusedTranscripts) -> list[Record]:
    """Read a Kaldi data directory: ``wav.scp``, and ``segments``, ``text``, ``utt2spk`` if there.

    Args:
        unused: takes note of transcripts that belong to no utterance.

    Raises:
        ManifestError: a malformed line, a command instead of a path, or a path outside ``root``.
    """
    wav_scp = folder / "wav.scp"
    audio = _kaldi_audio(wav_scp, root)
    unused.recording_ids.update(audio)
    unused.read_files.update({wav_scp, folder / "text"})

    # Without segments, each recording is one utterance of the same name.
    segments = folder / "segments"
    if segments.is_file():
        records = _kaldi_segments(segments, audio)
    else:
        records = [Record(key, path) for key, path in audio.items()]

    unused_audio = sorted(set(audio.values()) - {record.audio for record in records})
    if unused_audio:
        log(
            f"{len(unused_audio)} recordings of {wav_scp} have no segment and are left out, "
            f"{printable(unused_audio[0])} for one"
        )

    ids = {record.id for record in records}
    known_ids = KnownNames(ids)
    texts = known_ids.as_keys(_kaldi_table(folder / "text"))
    speakers = known_ids.as_keys(_kaldi_table(folder / "utt2spk"))
    split = split_of_folder(folder.name)

    completed: list[Record] = []
    for record in records:
        text = texts.get(record.id)
        speaker = speakers.get(record.id)
        complete = replace(record, text=text, speaker=speaker, split=split)
        completed.append(complete)

    strange_texts = sorted(texts.keys() - ids)
    if strange_texts:
        unused.note(
            f"{len(strange_texts)} lines of {folder / 'text'}, whose ids are none of the "
            f"{len(ids)} utterances, such as {strange_texts[0]!r} (an utterance is such as "
            f"{min(ids, default='')!r})"
        )
    strange_speakers = speakers.keys() - ids
    if strange_speakers:
        log(f"{len(strange_speakers)} lines of {folder / 'utt2spk'} belong to no utterance")
    return complete_names(completed, root, wav_scp)


def _kaldi_audio(wav_scp: Path, root: Path) -> dict[str, str]:
    """Read the paths of recordings by name."""
    audio: dict[str, str] = {}
    for key, path, where in _kaldi_lines(wav_scp):
        is_command = path.startswith("|") or path.endswith("|")
        if is_command:
            raise ManifestError(
                f"{where}: {path!r} is a command; speechssl runs none: "
                "write the audio to files first"
            )
        audio[key] = path_below(root, path, where, takes_root=True)
    return audio


def _kaldi_segments(path: Path, audio: dict[str, str]) -> list[Record]:
    """Read the parts of recordings, whose paths ``audio`` has by name."""
    recordings = KnownNames(audio)
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

        recording = recordings.find(recording)
        if recording not in audio:
            raise ManifestError(f"{where}: recording {recording!r} is not in wav.scp")

        goes_to_end = end_s == _END_OF_FILE
        is_forward = goes_to_end or start_s < end_s
        if not is_forward or not 0 <= start_s < MAX_SECONDS or not end_s < MAX_SECONDS:
            raise ManifestError(
                f"{where}: a segment from {start_s} to {end_s} s; "
                f"an end of {_END_OF_FILE} is the end of the recording"
            )

        duration_s = None
        if not goes_to_end:
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
    """Yield the lines of a Kaldi file that are not empty; keys are unique."""
    seen: set[str] = set()
    for where, line in numbered_lines(path):
        # Some tools write a tab behind the key.
        spaced = line.replace("\t", " ", 1)
        key, _, rest = spaced.strip(" ").partition(" ")
        if not key:
            continue
        if key in seen:
            raise ManifestError(f"{where}: {key!r} stands here twice")

        seen.add(key)
        yield _KaldiLine(key, rest.strip(), where)


# ---- fairseq ------------------------------------------------------------------------------------


def read_fairseq(path: Path, unused: UnusedTranscripts) -> Manifest:
    """Read a fairseq ``.tsv``, and the transcripts of a ``.wrd`` or ``.ltr`` beside it.

    Args:
        unused: takes note of other files of the table's name that look like transcripts.

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
            f"{path}:1: the first line of a fairseq .tsv is the folder of the audio; write another "
            "table as metadata.csv, with commas and the columns file_name and transcription"
        )

    split = split_name(path.stem)
    records: list[Record] = []
    for where, line in lines[1:]:
        # The number of samples behind the tab is not needed.
        before_tab, _, _ = line.rpartition("\t")
        audio = path_below(root, before_tab or line, where)
        records.append(Record("", audio, split=split))
    records = complete_names(records, root, path)

    texts = _fairseq_texts(path, len(records), unused)
    if texts is None:
        unused.note_files([file for file in find_named_like(path) if file != path])
        return make_manifest(root, records)

    labelled: list[Record] = []
    for record, text in zip(records, texts, strict=True):
        labelled.append(replace(record, text=text))
    return make_manifest(root, labelled)


def _fairseq_texts(path: Path, num_records: int, unused: UnusedTranscripts) -> list[str] | None:
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

    unused.read_files.add(source)

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
