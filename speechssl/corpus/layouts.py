"""Finds the recordings of a source, whatever its layout, as one sorted manifest.

A manifest is data: no path in it leads outside its root.
"""

import os
from dataclasses import replace
from pathlib import Path

from speechssl.audio.reader import AUDIO_SUFFIXES, UNREADABLE_SUFFIXES
from speechssl.corpus.manifest import Manifest, Record, make_manifest
from speechssl.corpus.metadata_csv import read_metadata_csv
from speechssl.corpus.paths import numbered_lines, path_below, real_folder
from speechssl.corpus.splits import split_of_folder
from speechssl.corpus.toolkits import read_fairseq, read_jsonl, read_kaldi
from speechssl.errors import ManifestError

JSONL_SUFFIXES = (".jsonl", ".json")


def scan(source: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> Manifest:
    """Read a source, whatever its layout.

    A folder may be a Kaldi data directory (``wav.scp``), a folder with Hugging Face's
    ``metadata.csv`` (its own or in folders below; a table governs the folder that it lies in), a
    LibriSpeech tree (``*.trans.txt``) or just audio, nested in any way. A file may be a JSONL
    manifest, a ``metadata.csv``, a fairseq ``.tsv`` with ``.wrd`` or ``.ltr`` beside it, or one
    recording. The order in which a file system lists never matters.

    Args:
        source: folder or file.
        root: where relative paths of a JSONL manifest or a Kaldi directory start, and below which
            absolute ones must lie; default: the folder that the source lies in. Not for other
            layouts.

    Raises:
        ManifestError: nothing found, a malformed line (named by file and line number), a path that
            leaves the root, or a root for another layout.
    """
    real_folder.cache_clear()
    path = Path(source)
    suffix = path.suffix.lower()
    is_jsonl = suffix in JSONL_SUFFIXES
    is_kaldi = (path / "wav.scp").is_file()

    if root is not None and not is_jsonl and not is_kaldi:
        raise ManifestError(
            f"{path}: a root is for JSONL manifests and Kaldi folders: leave it out"
        )

    if is_kaldi:
        kaldi_root = Path(root or path)
        return make_manifest(kaldi_root, read_kaldi(path, kaldi_root))
    if path.is_dir():
        return make_manifest(path, _read_folder(path))
    if not path.is_file():
        raise ManifestError(f"{path}: no such file or folder")

    if is_jsonl:
        jsonl_root = Path(root or path.parent)
        return make_manifest(jsonl_root, read_jsonl(path, jsonl_root))
    if suffix == ".csv":
        return make_manifest(path.parent, read_metadata_csv(path, path.parent))
    if suffix == ".tsv":
        return read_fairseq(path)
    if suffix in AUDIO_SUFFIXES:
        return make_manifest(path.parent, [Record("", path.name)])
    raise ManifestError(f"{path}: neither a folder, .jsonl, metadata.csv, fairseq .tsv nor audio")


def _read_folder(root: Path) -> list[Record]:
    """Read all audio below a folder, with what its tables and transcripts say."""
    tables: list[Path] = []
    transcripts: list[Path] = []
    audio: list[str] = []

    for folder, subfolders, files in os.walk(root, onerror=_refuse_unreadable):
        for name in subfolders:
            # A linked folder is not followed: either it leaves the root, which is an error, or what
            # it holds is here twice.
            if os.path.islink(os.path.join(folder, name)):
                path_below(root, _relative(root, folder, name, "x"), str(root))

        if "metadata.csv" in files:
            tables.append(Path(folder) / "metadata.csv")
            subfolders.clear()
            continue

        for name in files:
            _, suffix = os.path.splitext(name)
            is_audio = suffix.lower() in AUDIO_SUFFIXES or suffix.lower() in UNREADABLE_SUFFIXES
            if name.endswith(".trans.txt"):
                transcripts.append(Path(folder) / name)
            elif is_audio:
                audio.append(path_below(root, _relative(root, folder, name), str(root)))

    records = [Record("", path) for path in audio]
    if transcripts:
        records = _join_librispeech(records, transcripts, root)
    for table in tables:
        records += read_metadata_csv(table, root)
    return records


def _refuse_unreadable(error: OSError) -> None:
    raise ManifestError(f"{error.filename}: {error.strerror}") from error


def _relative(root: Path, *parts: str) -> str:
    return os.path.relpath(os.path.join(*parts), root)


def _join_librispeech(records: list[Record], transcripts: list[Path], root: Path) -> list[Record]:
    """Add texts, speakers and splits to the records of a LibriSpeech tree.

    Texts come by utterance from ``SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt``. The split comes from
    the folder at the top.
    """
    texts = _librispeech_texts(transcripts, root)

    found: dict[str, Record] = {}
    for record in records:
        utterance, _ = os.path.splitext(record.audio)
        found[utterance] = record

    # A transcript without a recording is listed too, so that it is rejected as a missing file.
    for utterance in texts.keys() - found.keys():
        found[utterance] = Record("", f"{utterance}.flac")

    joined = []
    for utterance, record in found.items():
        folders = utterance.split("/")
        speaker = folders[-3] if len(folders) >= 3 else None
        # SPLIT/SPEAKER/CHAPTER/UTTERANCE; without SPLIT the root is one split's folder.
        top_folder = folders[0] if len(folders) >= 4 else root.name
        split = split_of_folder(top_folder)
        text = texts.get(utterance)
        joined.append(replace(record, text=text, speaker=speaker, split=split))
    return joined


def _librispeech_texts(transcripts: list[Path], root: Path) -> dict[str, str]:
    """Read the texts by utterance: the path of its recording without the suffix."""
    texts: dict[str, str] = {}
    for path in sorted(transcripts):
        folder = path.parent.relative_to(root).as_posix()
        for where, line in numbered_lines(path):
            name, _, text = line.partition(" ")
            if not name or "/" in name:
                raise ManifestError(
                    f"{where}: an utterance and its text are expected, not {line!r}"
                )
            texts[path_below(root, f"{folder}/{name}", where)] = text.strip()
    return texts
