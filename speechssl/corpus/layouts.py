"""Finds the recordings of a source, whatever its layout, as one sorted manifest.

A manifest is data: no path in it leads outside its root.
"""

import os
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from speechssl.audio.listing import is_recording
from speechssl.corpus.folder_tables import find_folder_table, read_folder_table
from speechssl.corpus.jsonl import read_jsonl
from speechssl.corpus.manifest import Manifest, Record, make_manifest
from speechssl.corpus.paths import forget_folders, numbered_lines, path_below
from speechssl.corpus.split_names import split_of_folder
from speechssl.corpus.toolkits import read_fairseq, read_kaldi
from speechssl.corpus.transcript_search import find_unread_transcripts
from speechssl.corpus.transcripts import says_nothing
from speechssl.corpus.unicode_forms import KnownNames
from speechssl.corpus.unused_transcripts import UnusedTranscripts
from speechssl.errors import ManifestError
from speechssl.runtime.log import log
from speechssl.storage.wrong_paths import what_instead

JSONL_SUFFIXES = (".jsonl", ".json")


def scan(
    source: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    ignore_transcripts: bool = False,
) -> Manifest:
    """Read a source, whatever its layout.

    A folder may be a Kaldi data directory (``wav.scp``), a folder with Hugging Face's
    ``metadata.csv`` or ``metadata.jsonl`` (its own or in folders below; a table governs the folder
    that it lies in), a LibriSpeech tree (``*.trans.txt``) or just audio, nested in any way. A file
    may be a JSONL manifest, a ``metadata.csv``, a fairseq ``.tsv`` with ``.wrd`` or ``.ltr`` beside
    it, or one recording. The order in which a file system lists never matters.

    Args:
        source: folder or file.
        root: where relative paths of a JSONL manifest or a Kaldi directory start, and below which
            absolute ones must lie; default: the folder that the source lies in. Not for other
            layouts.
        ignore_transcripts: go on where recordings have no transcript although there is what looks
            like some: columns with other names, files of annotation tools, other tables.

    Raises:
        ManifestError: nothing found, a malformed line (named by file and line number), a path that
            leaves the root, a root for another layout, or transcripts that would be ignored.
    """
    unused = UnusedTranscripts()
    manifest = _read(source, root, unused)
    files = find_unread_transcripts(Path(source), manifest, unused.read_files, unused.recording_ids)
    unused.note_files(files)
    _check_unused(manifest, unused, ignore_transcripts)
    return manifest


def _read(
    source: str | os.PathLike[str],
    root: str | os.PathLike[str] | None,
    unused: UnusedTranscripts,
) -> Manifest:
    """Read a source, and take note of what looks like transcripts in it and is not read."""
    forget_folders()
    path = Path(source)
    suffix = path.suffix.lower()
    is_jsonl = suffix in JSONL_SUFFIXES

    wav_scp = path / "wav.scp"
    is_kaldi = wav_scp.is_file()

    takes_root = is_jsonl or is_kaldi
    if root is not None and not takes_root:
        raise ManifestError(
            f"{path}: a root is for JSONL manifests and Kaldi folders: leave it out"
        )

    if is_kaldi:
        kaldi_root = Path(root or path)
        records = read_kaldi(path, kaldi_root, unused)
        return make_manifest(kaldi_root, records)
    if path.is_dir():
        records = _read_folder(path, unused)
        return make_manifest(path, records)
    if not path.is_file():
        raise ManifestError(f"{path}: no such file or folder{what_instead(path)}")

    unused.read_files.add(path)
    folder = path.parent
    if is_jsonl:
        jsonl_root = Path(root or folder)
        records = read_jsonl(path, jsonl_root, unused)
        return make_manifest(jsonl_root, records)
    if suffix == ".csv":
        records = read_folder_table(path, folder, unused)
        return make_manifest(folder, records)
    if suffix == ".tsv":
        # Its first line names the root, so it comes as a whole manifest.
        return read_fairseq(path, unused)
    if is_recording(path):
        recording = Record("", path.name)
        return make_manifest(folder, [recording])
    raise ManifestError(
        f"{path}: neither a folder, .jsonl, metadata.csv, fairseq .tsv nor audio"
        f"{what_instead(path)}"
    )


def _check_unused(manifest: Manifest, unused: UnusedTranscripts, ignore: bool) -> None:
    """Say what looks like transcripts and is not read; stop where recordings have none.

    Raises:
        ManifestError: recordings would be without a transcript that may be there.
    """
    found = unused.found()
    if not found:
        return

    names = "; ".join(found)
    problem = f"not read, but looking like transcripts: {names}"
    num_silent = sum(says_nothing(record.text) for record in manifest.records)
    if ignore or not num_silent:
        log(problem)
        return

    raise ManifestError(
        f"{problem}. Without them {num_silent} of {len(manifest.records)} recordings or parts have "
        "no transcript: write a metadata.csv with the columns file_name and transcription, give a "
        "table itself as the source, or go on with --ignore-transcripts"
    )


def _read_folder(root: Path, unused: UnusedTranscripts) -> list[Record]:
    """Read all audio below a folder, with what its tables and transcripts say."""
    tables: list[Path] = []
    transcripts: list[Path] = []
    records: list[Record] = []
    where = str(root)

    for folder, subfolders, files in os.walk(root, onerror=_refuse_unreadable):
        for name in subfolders:
            # A linked folder is not followed: either it leaves the root, which is an error, or what
            # it holds is here twice.
            subfolder = os.path.join(folder, name)
            if os.path.islink(subfolder):
                # Any name within shows whether the folder leads outside.
                inside = os.path.join(subfolder, "x")
                path_below(root, os.path.relpath(inside, root), where)

        table = find_folder_table(Path(folder), files)
        if table is not None:
            tables.append(table)
            # The table speaks for all folders below, so the walk skips them.
            subfolders.clear()
            continue

        for name in files:
            file = os.path.join(folder, name)
            if name.endswith(".trans.txt"):
                transcripts.append(Path(file))
            elif is_recording(file):
                relative = os.path.relpath(file, root)
                audio = path_below(root, relative, where)
                records.append(Record("", audio))

    if transcripts:
        records = _join_librispeech(records, transcripts, root)
    for table in tables:
        records += read_folder_table(table, root, unused)

    unused.read_files.update(transcripts, tables)
    return records


def _refuse_unreadable(error: OSError) -> None:
    raise ManifestError(f"{error.filename}: {error.strerror}") from error


def _join_librispeech(records: list[Record], transcripts: list[Path], root: Path) -> list[Record]:
    """Add texts, speakers and splits to the records of a LibriSpeech tree.

    Texts come by utterance from ``SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt``. The split comes from
    the folder at the top.
    """
    # Two recordings may have one name, with different suffixes.
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        utterance, _ = os.path.splitext(record.audio)
        found[utterance].append(record)

    texts = KnownNames(found).as_keys(_librispeech_texts(transcripts, root))

    # A transcript without a recording is listed too, so that it is rejected as a missing file.
    without_recording = texts.keys() - found.keys()
    for utterance in without_recording:
        found[utterance].append(Record("", f"{utterance}.flac"))

    joined: list[Record] = []
    for utterance, of_utterance in found.items():
        # SPLIT/SPEAKER/CHAPTER/UTTERANCE; without SPLIT the root is one split's folder.
        parts = utterance.split("/")
        num_parts = len(parts)
        speaker = parts[-3] if num_parts >= 3 else None
        top_folder = parts[0] if num_parts >= 4 else root.name
        split = split_of_folder(top_folder)

        text = texts.get(utterance)
        for record in of_utterance:
            complete = replace(record, text=text, speaker=speaker, split=split)
            joined.append(complete)
    return joined


def _librispeech_texts(transcripts: list[Path], root: Path) -> dict[str, str]:
    """Read the texts by utterance: the path of its recording without the suffix."""
    texts: dict[str, str] = {}
    for path in sorted(transcripts):
        relative = path.parent.relative_to(root)
        folder = relative.as_posix()

        for where, line in numbered_lines(path):
            if not line.strip():
                continue
            # Some tools write a tab behind the utterance.
            name, _, text = line.replace("\t", " ", 1).partition(" ")
            if not name or "/" in name:
                raise ManifestError(
                    f"{where}: an utterance and its text are expected, not {line!r}"
                )

            utterance = path_below(root, f"{folder}/{name}", where)
            if utterance in texts:
                raise ManifestError(
                    f"{where}: {name!r} has a transcript already: remove one of them"
                )
            texts[utterance] = text.strip()
    return texts
