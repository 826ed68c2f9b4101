"""Writes manifests for other toolkits: Kaldi data directories and fairseq tables."""

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from speechssl.audio.reader import stream_mono
from speechssl.corpus.manifest import Manifest, Record, printable
from speechssl.errors import ManifestError
from speechssl.storage.atomic import write_atomic


def write_kaldi(manifest: Manifest, folder: str | os.PathLike[str]) -> None:
    """Write a Kaldi data directory.

    It holds ``wav.scp`` and ``utt2spk``, and where there are transcripts or parts also ``text`` and
    ``segments``. Kaldi separates by spaces, so spaces, control characters and ``%`` in ids and
    speakers become ``%20`` and the like. Lines are sorted by bytes, as Kaldi wants it. Splits are
    not written: export one at a time.

    Raises:
        ManifestError: a path that a line of ``wav.scp`` cannot hold.
    """
    root = manifest.root.resolve()
    records = sorted(manifest.records, key=_kaldi_order)

    # Kaldi's segments are for all utterances or for none.
    has_parts = any(_is_part(record) for record in records)

    paths: dict[str, str] = {}
    segments: list[str] = []
    for record in records:
        audio_path = root / record.audio
        path = str(audio_path)
        if not _fits_wav_scp(path):
            raise ManifestError(
                f"{record.id}: wav.scp cannot hold the path {record.audio!r}; rename the file"
            )

        if has_parts:
            recording = _token(printable(record.audio))
            segments.append(_segment_line(record, recording))
        else:
            # Without segments a recording is an utterance, and has its id.
            recording = _token(record.id)
        paths[recording] = path

    scp_lines: list[str] = []
    for recording in sorted(paths, key=str.encode):
        path = paths[recording]
        scp_lines.append(f"{recording} {path}")

    _write_lines(folder, "wav.scp", scp_lines)
    _write_lines(folder, "utt2spk", map(_speaker_line, records))
    if manifest.labelled:
        transcribed = [record for record in records if record.text is not None]
        _write_lines(folder, "text", map(_text_line, transcribed))
    if has_parts:
        _write_lines(folder, "segments", segments)


def write_fairseq(
    manifest: Manifest, folder: str | os.PathLike[str], sample_rate_hz: int = 16000
) -> None:
    """Write ``SPLIT.tsv`` for each split.

    Where every record of a split has a transcript, ``SPLIT.wrd`` and ``SPLIT.ltr`` stand beside it.
    Every recording is decoded to count its samples. Nothing is written before all are counted.

    Args:
        sample_rate_hz: the rate at which samples are counted, Hz.

    Raises:
        AudioError: a recording cannot be read.
        ManifestError: a part of a recording, or a path that a table cannot hold.
    """
    splits: dict[str, list[Record]] = defaultdict(list)
    for record in manifest.records:
        _check_fits_fairseq(record)
        split = record.split or "train"
        splits[split].append(record)

    # All lines stay in memory until every recording is counted, so a fault leaves no file behind.
    files: dict[str, list[str]] = {}
    for split, records in splits.items():
        # A split such as "../dev" would be written elsewhere.
        is_file_name = Path(split).name == split
        if not is_file_name:
            raise ManifestError(f"split {split!r} cannot be the name of a file")

        root = manifest.root.resolve()
        table = [str(root)]
        for record in records:
            blocks = stream_mono(manifest.root / record.audio, sample_rate_hz)
            num_samples = sum(map(len, blocks))
            table.append(f"{record.audio}\t{num_samples}")
        files[f"{split}.tsv"] = table

        # Lines belong to recordings by their number, so transcripts come for all or for none.
        transcripts = [record.text for record in records if record.text is not None]
        if len(transcripts) == len(records):
            words = [_words(text) for text in transcripts]
            files[f"{split}.wrd"] = words
            files[f"{split}.ltr"] = [_letters(line) for line in words]

    for name, lines in files.items():
        _write_lines(folder, name, lines)


def _kaldi_order(record: Record) -> bytes:
    """Return the bytes by which Kaldi sorts the lines of an utterance."""
    token = _token(record.id)
    return token.encode()


def _is_part(record: Record) -> bool:
    """Whether a record is less than a whole file."""
    starts_later = record.offset_s > 0
    ends_sooner = record.duration_s is not None
    return starts_later or ends_sooner


def _fits_wav_scp(path: str) -> bool:
    """Whether a line of ``wav.scp`` can end in ``path``."""
    keeps_its_spaces = path == path.strip()
    is_one_line = "\n" not in path and "\r" not in path

    # Kaldi takes a path that ends in "|" for a command.
    is_command = path.endswith("|")

    is_plain = is_one_line and not is_command
    return is_plain and keeps_its_spaces and _is_utf8(path)


def _segment_line(record: Record, recording: str) -> str:
    """Write where in its recording an utterance is, in seconds."""
    utterance = _token(record.id)
    start_s = record.offset_s
    if record.duration_s is None:
        # Kaldi's extract-segments takes an end of -1 for the end of the recording.
        return f"{utterance} {recording} {start_s:.6f} -1"

    end_s = start_s + record.duration_s
    return f"{utterance} {recording} {start_s:.6f} {end_s:.6f}"


def _speaker_line(record: Record) -> str:
    # Kaldi wants a speaker for everyone: where none is known, each utterance is its own.
    utterance = _token(record.id)
    speaker = _token(record.speaker or record.id)
    return f"{utterance} {speaker}"


def _text_line(record: Record) -> str:
    utterance = _token(record.id)
    words = _words(record.text or "")
    line = f"{utterance} {words}"

    # An empty transcript leaves the id alone, without the space behind it.
    return line.rstrip()


def _check_fits_fairseq(record: Record) -> None:
    """Refuse a part of a recording, and a path or a text that would break a table."""
    if _is_part(record):
        raise ManifestError(
            f"{record.id}: a fairseq table cannot hold parts of recordings; write them to files"
        )

    has_tab = "\t" in record.audio
    has_line_end = "\n" in record.audio or "\r" in record.audio
    if has_tab or has_line_end or not _is_utf8(record.audio):
        raise ManifestError(
            f"{record.id}: a fairseq table cannot hold the path {record.audio!r}; rename the file"
        )

    if "|" in (record.text or ""):
        raise ManifestError(
            f"{record.id}: fairseq has '|' for the space, and this transcript has it as a "
            "character; take it out"
        )


def _words(text: str) -> str:
    """Put one space between words, so that a transcript is one line."""
    words = text.split()
    return " ".join(words)


def _letters(words: str) -> str:
    """Spell words as fairseq does: ``a bc`` becomes ``a | b c |``."""
    if not words:
        return ""

    letters = words.replace(" ", "|") + "|"
    return " ".join(letters)


def _token(name: str) -> str:
    """Escape white space in a name, and ``%`` too, so that different names stay different."""
    token = ""
    for character in name:
        separates = character.isspace() or not character.isprintable()
        if separates or character == "%":
            token += quote(character)
        else:
            token += character
    return token


def _is_utf8(path: str) -> bool:
    # Only bytes that are not UTF-8 are escaped.
    return printable(path) == path


def _write_lines(folder: str | os.PathLike[str], name: str, lines: Iterable[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    path = Path(folder, name)
    write_atomic(path, text)
