"""Files of another kind in the place of a text, a model, a store or recordings: each is named."""

import bz2
import gzip
import io
import lzma
import pickle
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from speechssl.audio.reader import load_audio
from speechssl.corpus.layouts import scan
from speechssl.data.store import Store
from speechssl.decoding.arpa import listed_words, read_arpa
from speechssl.errors import SpeechsslError
from speechssl.recognition.lm_training import read_texts
from speechssl.storage.saved_folders import model_folder
from speechssl.text.pronunciations import read_lexicon
from speechssl.transcription.cues import CueLimits
from speechssl.transcription.output_folder import plan_outputs


def in_zip(*names: str) -> bytes:
    """An archive of files with these names, and a little text in each."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return buffer.getvalue()


def in_tar(name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


def saved(in_zip_file: bool) -> bytes:
    """Weights as torch.save writes them now, or as it did before version 1.6."""
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(2)}, buffer, _use_new_zipfile_serialization=in_zip_file)
    return buffer.getvalue()


OPEN_DOCUMENT = b"mimetypeapplication/vnd.oasis.opendocument.spreadsheet"
# By suffix: the contents, and what a message must hold.
KINDS: dict[str, tuple[bytes, str]] = {
    ".docx": (in_zip("[Content_Types].xml", "word/document.xml"), "Office document"),
    ".xlsx": (in_zip("[Content_Types].xml", "xl/workbook.xml"), "Office document"),
    ".ods": (b"PK\3\4" + bytes(26) + OPEN_DOCUMENT, "OpenDocument"),
    ".doc": (bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600), "Office file"),
    ".pdf": (b"%PDF-1.7\n" + bytes(600), "a PDF"),
    ".zip": (in_zip("a.wav"), "ZIP archive; unpack"),
    ".tar": (in_tar("a.wav"), "tar archive; unpack"),
    ".tar.gz": (gzip.compress(in_tar("a.wav")), "archive; unpack|gzip; unpack"),
    ".rar": (b"Rar!\x1a\x07\x01\0" + bytes(600), "RAR archive; unpack"),
    ".zst": (b"\x28\xb5\x2f\xfd" + bytes(600), "Zstandard; unpack"),
    ".pt": (saved(in_zip_file=True), "checkpoint of PyTorch; speechssl import"),
    ".ckpt": (saved(in_zip_file=False), "checkpoint of PyTorch; speechssl import"),
    ".pkl": (pickle.dumps({"a": 1}), "pickle"),
    ".nemo": (in_tar("model_config.yaml"), "NeMo"),
    ".safetensors": (safetensors.torch.save({"w": torch.zeros(2)}), "safetensors; speechssl imp"),
    ".onnx": (b"\x08\x07\x12\x07pytorch" + bytes(600), "ONNX"),
    ".parquet": (b"PAR1" + bytes(600), "Parquet; write it as a metadata.csv"),
    ".arrow": (b"\xff\xff\xff\xff" + bytes(600), "Arrow"),
    ".ark": (b"utt1 \0BFM \4" + struct.pack("<i", 3) + bytes(600), "Kaldi"),
    ".npy": (b"\x93NUMPY\1\0" + bytes(600), "numpy"),
    ".kenlm": (b"mmap lm http://kheafield.com/code format version 5\n\0", "KenLM binary; give"),
}
READERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: list(read_texts([path], "train")),
    "words": listed_words,
    "ARPA": read_arpa,
    "lexicon": read_lexicon,
    "model": model_folder,
    "store": Store,
    "source": scan,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("suffix", KINDS)
def test_what_a_file_is_is_said_whoever_reads_it(reader: str, suffix: str, tmp_path: Path) -> None:
    """All of these were "binary data, as recordings are", or "no model", "no store", "no audio"."""
    rng = random.Random(reader + suffix)
    content, message = KINDS[suffix]
    path = tmp_path / f"{rng.choice(['data', 'my file', 'größe'])}{suffix}"
    path.write_bytes(content)

    with pytest.raises(SpeechsslError, match=message) as caught:
        READERS[reader](path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".docx", ".pt", ".rar", ".pdf", ".zst", ".parquet"])
def test_what_is_no_recording_is_said_when_it_is_decoded(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{random.Random(suffix).choice(['.wav', suffix])}"
    path.write_bytes(KINDS[suffix][0])
    with pytest.raises(SpeechsslError, match=KINDS[suffix][1].replace(";", ":")):
        load_audio(path)


@pytest.mark.parametrize("seed", range(3))
def test_compressed_texts_are_read_under_any_name(tmp_path: Path, seed: int) -> None:
    """A gzip without its suffix was binary data."""
    rng = random.Random(seed)
    texts = [" ".join(rng.choices(["red", "green", "blue"], k=4)) for _ in range(5)]
    for compress in (gzip.compress, bz2.compress, lzma.compress):
        path = tmp_path / "books.txt"
        path.write_bytes(compress("".join(f"{text}\n" for text in texts).encode()))
        assert [text.strip() for text in read_texts([path], "train")] == texts


@pytest.mark.parametrize("seed", range(4))
def test_annotations_are_no_text(tmp_path: Path, seed: int) -> None:
    """The times and the marks of these files became words of the language model."""
    rng = random.Random(seed)
    said = " ".join(rng.choices(["red", "green", "blue"], k=4))
    hours = rng.randint(0, 9)
    files = {
        "a.srt": f"1\n0{hours}:00:00,000 --> 0{hours}:00:02,000\n{said}\n",
        "a.txt": f"\ufeff1\r\n0{hours}:00:00,000 --> 0{hours}:00:02,000\r\n{said}\r\n",
        "a.vtt": f"WEBVTT\n\n00:00.000 --> 00:02.000\n{said}\n",
        "a.TextGrid": f'File type = "ooTextFile"\nObject class = "TextGrid"\n{said}\n',
        "a.eaf": f'<?xml version="1.0"?>\n<ANNOTATION_DOCUMENT>{said}</ANNOTATION_DOCUMENT>\n',
        "a.html": f"<!DOCTYPE html>\n<html>{said}</html>\n",
        "1-2.trans.txt": f"1-2-0000 {said}\n",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        with pytest.raises(SpeechsslError, match="is no text but"):
            list(read_texts([path], "train"))


def lexicon_lines(rng: random.Random, form: str) -> list[str]:
    """Entries in one of the forms in which lexicons are written."""
    phones = ["AA1", "B", "CH", "IY0", "K", "L", "OW2", "S", "T"]
    words = {"".join(rng.choices("abcdefg", k=rng.randint(2, 7))) for _ in range(60)}
    lines: list[str] = []
    for word in sorted(words):
        said = rng.choices(phones, k=rng.randint(1, 6))
        number = {"kaldi": "", "lexiconp": " 1.0", "mfa": "\t0.99\t0.1\t1.0\t1.0"}.get(form, "")
        lines.append(f"{word}{number}{chr(9) if number else ' '}{' '.join(said)}")
        if form == "cmudict" and rng.random() < 0.3:
            lines.append(f"{word}(2) {' '.join(reversed(said))}")
    return [*([";;; CMUdict"] if form == "cmudict" else []), *lines]


@pytest.mark.parametrize("form", ["kaldi", "lexiconp", "mfa", "cmudict"])
def test_a_lexicon_is_no_text(form: str, tmp_path: Path) -> None:
    """Its phones became words of the language model."""
    rng = random.Random(form)
    path = tmp_path / "lexicon.txt"
    path.write_text("".join(f"{line}\n" for line in lexicon_lines(rng, form)))
    with pytest.raises(SpeechsslError, match="is a pronunciation lexicon, not text"):
        list(read_texts([path], "train"))


@pytest.mark.parametrize("seed", range(6))
def test_a_text_is_no_lexicon(seed: int, tmp_path: Path) -> None:
    """Also sorted, with each sentence once, of short words or of single characters."""
    rng = random.Random(seed)
    length = rng.choice([1, 2, 6])
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(1, length))) for _ in range(90)]
    texts = {" ".join(rng.choices(words, k=rng.randint(1, 9))) for _ in range(rng.randint(3, 500))}
    in_order = sorted(texts) if seed % 2 else list(dict.fromkeys(sorted(texts, key=hash)))
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{text}\n" for text in in_order))
    assert len(list(read_texts([path], "train"))) == len(texts)


@pytest.mark.parametrize("seed", range(3))
def test_a_list_of_words_has_one_a_line(seed: int, tmp_path: Path) -> None:
    """A text or a lexicon in its place was a list of words that nobody says."""
    rng = random.Random(seed)
    lines = [rng.choice(["red", "green"]) for _ in range(rng.randint(0, 5))]
    path = tmp_path / "words.txt"
    path.write_text("".join(f"{line}\n" for line in [*lines, "the cat sat", "blue"]))
    with pytest.raises(SpeechsslError, match=rf"words\.txt line {len(lines) + 1}: .*one word a"):
        listed_words(path)


FOLDERS = {
    "store.json": "a store",
    "model/record.json": "a finished run",
    "data/train-00000-of-00001.parquet": "in Parquet",
    "dataset_info.json": "data set of Hugging Face",
    "shard-000000.tar": "tar archives",
    "feats.scp": "Kaldi",
    "step-00000001/record.json": "checkpoints of a run",
}


@pytest.mark.parametrize("name", FOLDERS)
def test_what_a_folder_is_is_said(name: str, tmp_path: Path) -> None:
    file = tmp_path / "given" / name
    file.parent.mkdir(parents=True)
    file.write_text("{}")

    readers: list[Callable[[Path], object]] = [
        scan,
        lambda path: plan_outputs([path], ["txt"], CueLimits(), None, tmp_path),
    ]
    readers += [] if name.endswith("record.json") and "step" not in name else [model_folder]
    readers += [] if name == "store.json" else [Store]
    for read in readers:
        with pytest.raises(SpeechsslError, match=f"it is .*{FOLDERS[name]}"):
            read(tmp_path / "given")
