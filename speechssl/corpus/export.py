"""Manifests for other toolkits: Kaldi data directories and fairseq tables."""

import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from speechssl.audio.reader import stream_mono
from speechssl.corpus.manifest import Manifest, Record
from speechssl.errors import ManifestError
from speechssl.storage.atomic import write_atomic


def write_kaldi(manifest: Manifest, folder: str | os.PathLike[str]) -> None:
    """Write ``wav.scp``, ``utt2spk`` and, where there are transcripts or parts, ``text`` and ``segments``.

    Kaldi separates by spaces, so spaces, control characters and ``%`` in ids and speakers become ``%20`` and the like.
    Sorted as Kaldi wants it (by bytes). Splits are not written: export one at a time.

    Raises:
        ManifestError: a path that a line of ``wav.scp`` cannot hold.
    """
    root = manifest.root.resolve()
    records = sorted(manifest.records, key=lambda record: _token(record.id).encode())
    parts = any(record.offset_s > 0 or record.duration_s is not None for record in records)
    audio, segments = {}, []
    for record in records:
        path = str(root / record.audio)
        if (
            path != path.strip()
            or "\n" in path
            or "\r" in path
            or path.endswith("|")
            or not _is_utf8(path)
        ):
            raise ManifestError(
                f"{record.id}: wav.scp cannot hold the path {record.audio!r}; rename the file"
            )
        key = _token(printable(record.audio)) if parts else _token(record.id)
        audio[key] = path
        if parts:
            if record.duration_s is None:
                raise ManifestError(
                    f"{record.id}: Kaldi's segments need a duration beside parts of other files"
                )
            segments.append(
                f"{_token(record.id)} {key} {record.offset_s:.6f} {record.offset_s + record.duration_s:.6f}"
            )
    _write(folder, "wav.scp", (f"{key} {audio[key]}" for key in sorted(audio, key=str.encode)))
    _write(folder, "utt2spk", (f"{_token(r.id)} {_token(r.speaker or r.id)}" for r in records))
    if manifest.labelled:
        texts = [r for r in records if r.text is not None]
        _write(
            folder,
            "text",
            (f"{_token(r.id)} {' '.join((r.text or '').split())}".rstrip() for r in texts),
        )
    if parts:
        _write(folder, "segments", segments)


def write_fairseq(
    manifest: Manifest, folder: str | os.PathLike[str], sample_rate_hz: int = 16000
) -> None:
    """Write ``SPLIT.tsv`` for each split and, where every record has a transcript, ``SPLIT.wrd`` and ``SPLIT.ltr``.

    Every recording is decoded to count its samples at ``sample_rate_hz``, Hz.

    Raises:
        AudioError: a recording cannot be read.
        ManifestError: a part of a recording, or a path that a table cannot hold.
    """
    splits: dict[str, list[Record]] = {}
    for record in manifest.records:
        if record.offset_s > 0 or record.duration_s is not None:
            raise ManifestError(
                f"{record.id}: a fairseq table cannot hold parts of recordings; write them to files"
            )
        if any(c in record.audio for c in "\t\n\r") or not _is_utf8(record.audio):
            raise ManifestError(
                f"{record.id}: a fairseq table cannot hold the path {record.audio!r}; rename the file"
            )
        splits.setdefault(record.split or "train", []).append(record)
    for split, records in splits.items():
        if Path(split).name != split:
            raise ManifestError(f"split {split!r} cannot be the name of a file")
        counts = [
            sum(map(len, stream_mono(manifest.root / r.audio, sample_rate_hz))) for r in records
        ]
        rows = [f"{r.audio}\t{count}" for r, count in zip(records, counts, strict=True)]
        _write(folder, f"{split}.tsv", [str(manifest.root.resolve()), *rows])
        words = [" ".join(r.text.split()) for r in records if r.text is not None]
        if len(words) == len(records):
            _write(folder, f"{split}.wrd", words)
            _write(folder, f"{split}.ltr", map(_letters, words))


def _letters(words: str) -> str:
    """``a bc`` -> ``a | b c |``."""
    return " ".join(words.replace(" ", "|") + "|") if words else ""


def _token(name: str) -> str:
    """``name`` without white space; ``%`` is escaped too, so that different names stay different."""
    return "".join(quote(c) if c.isspace() or c == "%" or not c.isprintable() else c for c in name)


def printable(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode()


def _is_utf8(path: str) -> bool:
    return printable(path) == path


def _write(folder: str | os.PathLike[str], name: str, lines: Iterable[str]) -> None:
    write_atomic(Path(folder) / name, "".join(f"{line}\n" for line in lines))
