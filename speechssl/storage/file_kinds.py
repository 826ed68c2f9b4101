"""Tells by its first bytes what a file is that no reader of ours takes, and what helps."""

import codecs
import re
from pathlib import Path
from typing import NamedTuple

# As many bytes as the check of a text looks at.
HEAD_BYTES = 4096


class FileKind(NamedTuple):
    """What a file or a folder is.

    Attributes:
        name: with its article, such as "a ZIP archive".
        remedy: what to do, as an imperative.
    """

    name: str
    remedy: str


class _Signature(NamedTuple):
    """Bytes by which a kind is known, where they stand, and others that stand anywhere behind."""

    magic: bytes
    kind: FileKind
    at: int = 0
    holds: bytes = b""


# How a Mac's notes about another file begin (AppleDouble).
MAC_NOTES = b"\x00\x05\x16\x07"

_UNPACK = "unpack it, and give what was in it"
_AS_TEXT = "save it as plain text in UTF-8, and a table as CSV"
_IMPORT = (
    "speechssl import makes a model folder of the models of transformers, torchaudio and fairseq"
)
_AUDIO_FILES = "write each recording to a WAV or FLAC file, and give their folder"
_TEXT_ALONE = "give a file that holds only what is said, a sentence a line"
_LANGUAGE_MODEL = "tune-lm, and lm --with, take it as a language model"

_OFFICE = FileKind("an Office document (docx, xlsx, pptx)", _AS_TEXT)
_TORCH = FileKind("a checkpoint of PyTorch", _IMPORT)
_PICKLE = FileKind("a Python pickle, which could run code", "give its contents in another format")
_NUMPY = FileKind("an array of numpy", _AUDIO_FILES)
_RECORDING = FileKind("a recording", "speechssl prepare makes a store of recordings")
_WEB_PAGE = FileKind("a web page", "fetch the file again")
_NEMO = FileKind("a model of NeMo, which no command reads", _IMPORT)
_PARQUET = FileKind("a table of Parquet", "write it as a metadata.csv beside its recordings")
_ARROW = FileKind("a table of Arrow", "write it as a metadata.csv beside its recordings")
_KALDI_ARCHIVE = FileKind(
    "an archive of Kaldi", "give the folder with the wav.scp of the recordings"
)
_UTTERANCES = "prepare recordings and transcripts, and give the store: its lines begin with ids"

# Recordings too, where something else is expected: those that prepare reads, and the usual others.
_SOUND = (
    _Signature(b"RIFF", _RECORDING),
    _Signature(b"RF64", _RECORDING),
    _Signature(b"fLaC", _RECORDING),
    _Signature(b"OggS", _RECORDING),
    _Signature(b"ID3", _RECORDING),
    _Signature(b"FORM", _RECORDING),
    _Signature(b".snd", _RECORDING),
    _Signature(b"caff", _RECORDING),
    _Signature(b"NIST_1A", _RECORDING),
    _Signature(b"\xff\xfb", _RECORDING),
    _Signature(b"ftyp", _RECORDING, 4),
    _Signature(b"\x1a\x45\xdf\xa3", _RECORDING),
)

_OTHERS = (
    _Signature(MAC_NOTES, FileKind("a Mac's notes about another file (AppleDouble)", "delete it")),
    _Signature(b"version https://git-lfs", FileKind("a Git LFS pointer", "run git lfs pull")),
    # ZIP is the container of others: what lies in it first tells which.
    _Signature(b"PK\x03\x04", _TORCH, holds=b"/data.pkl"),
    _Signature(b"PK\x03\x04", _OFFICE, holds=b"[Content_Types].xml"),
    _Signature(
        b"PK\x03\x04",
        FileKind("an OpenDocument file (odt, ods)", _AS_TEXT),
        holds=b"application/vnd.oasis.opendocument",
    ),
    _Signature(b"PK\x03\x04", _NUMPY, holds=b".npy"),
    _Signature(b"PK\x03\x04", FileKind("a ZIP archive", _UNPACK)),
    _Signature(b"7z\xbc\xaf\x27\x1c", FileKind("a 7z archive", _UNPACK)),
    _Signature(b"Rar!\x1a\x07", FileKind("a RAR archive", _UNPACK)),
    _Signature(b"ustar", _NEMO, 257, b"model_config.yaml"),
    _Signature(b"ustar", _NEMO, 257, b"model_weights.ckpt"),
    _Signature(b"ustar", FileKind("a tar archive", _UNPACK), 257),
    _Signature(b"\x1f\x8b", FileKind("compressed with gzip", _UNPACK)),
    _Signature(b"BZh", FileKind("compressed with bzip2", _UNPACK)),
    _Signature(b"\xfd7zXZ", FileKind("compressed with xz", _UNPACK)),
    _Signature(b"\x28\xb5\x2f\xfd", FileKind("compressed with Zstandard", _UNPACK)),
    _Signature(b"\x04\x22\x4d\x18", FileKind("compressed with LZ4", _UNPACK)),
    # The magic number that torch.save of versions before 1.6 pickled first.
    _Signature(b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9", _TORCH),
    _Signature(b"\x80\x02", _PICKLE),
    _Signature(b"\x80\x03", _PICKLE),
    _Signature(b"\x80\x04\x95", _PICKLE),
    _Signature(b"\x80\x05\x95", _PICKLE),
    # The length of the header takes eight bytes, of which only the first are ever above zero.
    _Signature(b'\0\0\0\0{"', FileKind("weights in safetensors", _IMPORT), 4),
    _Signature(
        b"mmap lm http://kheafield.com/code",
        FileKind("a KenLM binary", "give the ARPA file that it was made of"),
    ),
    _Signature(
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", FileKind("an Office file (doc, xls)", _AS_TEXT)
    ),
    _Signature(b"%PDF-", FileKind("a PDF", _AS_TEXT)),
    _Signature(b"{\\rtf", FileKind("a document in RTF", _AS_TEXT)),
    _Signature(b"PAR1", _PARQUET),
    _Signature(b"ARROW1", _ARROW),
    _Signature(b"\x89HDF\r\n", FileKind("an HDF5 file", _AUDIO_FILES)),
    _Signature(b"SQLite format 3", FileKind("a database of SQLite", _AS_TEXT)),
    _Signature(b"\x93NUMPY", _NUMPY),
    _Signature(b"MThd", FileKind("a MIDI file, which holds notes and no sound", "record them")),
    _Signature(b"<!DOCTYPE html", _WEB_PAGE),
    _Signature(b"<!doctype html", _WEB_PAGE),
    _Signature(b"<html", _WEB_PAGE),
    _Signature(b"WEBVTT", FileKind("subtitles (WebVTT)", _TEXT_ALONE)),
    _Signature(
        b'File type = "ooTextFile', FileKind("an annotation of Praat (TextGrid)", _TEXT_ALONE)
    ),
    _Signature(
        b"<?xml",
        FileKind("an annotation of ELAN (eaf)", _TEXT_ALONE),
        holds=b"<ANNOTATION_DOCUMENT",
    ),
)

_ARPA_TITLE = re.compile(rb"^[ \t]*\\data\\[ \t\r]*$", re.MULTILINE)
_SUBRIP_CUE = re.compile(rb"\s*[0-9]+\s*\n[0-9]+:[0-9]{2}:[0-9]{2}[,.][0-9]{3} --> ")

# Kinds without a signature, by the ends of their names.
_BY_NAME = {
    ".onnx": FileKind("a graph of ONNX", "give the model folder that it was exported from"),
    ".nemo": _NEMO,
    ".arrow": _ARROW,
    ".ark": _KALDI_ARCHIVE,
    ".raw": FileKind("samples without a header", "convert it to WAV with sox or ffmpeg"),
    ".pcm": FileKind("samples without a header", "convert it to WAV with sox or ffmpeg"),
    ".trans.txt": FileKind("transcripts of LibriSpeech", _UTTERANCES),
}

# Folders by a file that lies in them, or in a folder of these: the first that fits counts.
_FOLDERS = (
    ("store.json", FileKind("a store", "give it to a command that takes one")),
    ("model/record.json", FileKind("a finished run", "give it to a command that takes a model")),
    ("record.json", FileKind("a model folder", "give it to a command that takes a model")),
    ("settings.json", FileKind("a run folder", "give its command again to finish it")),
    (
        "dataset_info.json",
        FileKind("a data set of Hugging Face (save_to_disk)", f"{_AUDIO_FILES}, with metadata.csv"),
    ),
    (
        "dataset_dict.json",
        FileKind("a data set of Hugging Face (save_to_disk)", f"{_AUDIO_FILES}, with metadata.csv"),
    ),
    ("*.parquet", FileKind("a data set in Parquet", f"{_AUDIO_FILES}, with a metadata.csv")),
    ("*/*.parquet", FileKind("a data set in Parquet", f"{_AUDIO_FILES}, with a metadata.csv")),
    ("*.tar", FileKind("a folder of tar archives (WebDataset)", _UNPACK)),
    ("*.zip", FileKind("a folder of ZIP archives", _UNPACK)),
    ("feats.scp", _KALDI_ARCHIVE),
    ("*.ark", _KALDI_ARCHIVE),
    ("config.json", FileKind("a model of another library", "it needs speechssl import first")),
    ("step-*/record.json", FileKind("the checkpoints of a run", "give the run folder")),
    ("*/store.json", FileKind("a folder of stores", "give one of them")),
)


def kind_of_bytes(head: bytes) -> FileKind | None:
    """Name what begins so and holds no sound; None where the bytes say nothing."""
    head = head.removeprefix(codecs.BOM_UTF8)
    for magic, kind, at, holds in _OTHERS:
        if head[at:].startswith(magic) and holds in head:
            return kind

    if _ARPA_TITLE.search(head):
        return FileKind("an ARPA file", _LANGUAGE_MODEL)
    if _SUBRIP_CUE.match(head):
        return FileKind("subtitles (SubRip)", _TEXT_ALONE)
    return None


def kind_of_file(path: Path, head: bytes) -> FileKind | None:
    """Name what a file is, a recording too; None where nothing is known.

    Args:
        head: its first bytes, up to ``HEAD_BYTES``, decompressed.
    """
    for magic, kind, at, _ in _SOUND:
        if head[at:].startswith(magic):
            return kind

    name = path.name.lower()
    named = next((kind for end, kind in _BY_NAME.items() if name.endswith(end)), None)
    return named or kind_of_bytes(head)


def kind_of_folder(path: Path) -> FileKind | None:
    """Name what a folder is by the files in it; None where nothing is known."""
    for pattern, kind in _FOLDERS:
        if next(path.glob(pattern), None) is not None:
            return kind
    return None
