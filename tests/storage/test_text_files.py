"""Text files that people give: a byte order mark changes nothing, what is not text is named."""

import bz2
import gzip
import lzma
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from speechssl.config import read_preset
from speechssl.corpus.layouts import scan
from speechssl.decoding.arpa import listed_words, read_arpa
from speechssl.errors import ConfigError, ManifestError
from speechssl.interop.safe_loading import read_json
from speechssl.recognition.lm_training import read_texts
from speechssl.storage.text_files import open_text
from speechssl.text.pronunciations import read_lexicon

MARK = "\ufeff"
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def words(rng: random.Random, count: int) -> list[str]:
    """Different words of small letters."""
    found: set[str] = set()
    while len(found) < count:
        found.add("".join(rng.choices("abcdefgé", k=rng.randint(2, 6))))
    return sorted(found)


@pytest.mark.parametrize("seed", range(4))
def test_lines_are_the_same_with_a_mark_and_in_every_compression(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    text = "".join(f"{word}\n" for word in words(rng, 9))

    for suffix, compress in COMPRESS.items():
        for mark in ("", MARK):
            path = tmp_path / f"x.txt{suffix}"
            path.write_bytes(compress((mark + text).encode()))
            with open_text(path) as file:
                assert file.read() == text


@pytest.mark.parametrize("seed", range(4))
def test_a_mark_changes_nothing_for_any_reader(tmp_path: Path, seed: int) -> None:
    """It was part of the first id of Kaldi's files, of the first word of a text, and so on."""
    rng = random.Random(seed)
    first, second, third = words(rng, 3)

    arpa = f"\\data\\\nngram 1=2\n\n\\1-grams:\n-1\t{first}\n-1\t{second}\n\n\\end\\\n"
    files: dict[str, tuple[str, Callable[[Path], object]]] = {
        "text.txt": (
            f"{first} {second}\n{third}\n",
            lambda path: list(read_texts([path], "train")),
        ),
        "words": (f"{first}\n{second}\n", listed_words),
        "x.arpa": (arpa, lambda path: read_arpa(path).score([first, second])),
        "x.toml": ("[encoder]\nnum_layers = 3\n", read_preset),
        "x.json": ('{"a": 1}', lambda path: read_json(path, dict)),
        "x.dict": (f"{first} A B\n{second} C\n", lambda path: read_lexicon(path).words),
        "m.jsonl": (f'{{"audio_filepath": "{first}.wav", "text": "{second}"}}\n', scan),
        "x.csv": (f"file_name,text\n{first}.wav,{second}\n", scan),
    }

    for name, (content, read) in files.items():
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        expected = read(path)
        path.write_text(MARK + content, encoding="utf-8")
        assert read(path) == expected, name


@pytest.mark.parametrize("seed", range(4))
def test_kaldi_folders_that_were_joined_keep_every_transcript(tmp_path: Path, seed: int) -> None:
    """Each file that went into a joined one may have had a mark, which then stands within it."""
    rng = random.Random(seed)
    ids = words(rng, 6)
    tables = {
        "wav.scp": [f"{name} {name}.wav" for name in ids],
        "text": [f"{name} said {name}" for name in ids],
        "utt2spk": [f"{name} of-{name}" for name in ids],
    }
    for table, rows in tables.items():
        marked = [rng.choice(["", MARK]) + row for row in rows]
        marked[0] = MARK + rows[0]
        (tmp_path / table).write_text("\n".join(marked) + "\n", encoding="utf-8")

    for record in scan(tmp_path).records:
        assert record.text == f"said {record.id}"
        assert record.speaker == f"of-{record.id}"


def test_what_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "books.txt"
    path.write_text("größe\n", encoding="utf-16")
    with pytest.raises(ConfigError, match=r"books\.txt.*UTF-16: save it as UTF-8"):
        list(read_texts([path], "train"))

    path.write_bytes("größe\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="another encoding: save it as UTF-8"):
        list(read_texts([path], "train"))
    (tmp_path / "m.jsonl").write_bytes(b"\xff\xfe{")
    with pytest.raises(ManifestError, match="UTF-16"):
        scan(tmp_path / "m.jsonl")


@pytest.mark.parametrize("seed", range(3))
def test_binary_data_is_no_text(tmp_path: Path, seed: int) -> None:
    """A recording of silence is valid UTF-8, and was read as one line."""
    rng = random.Random(seed)
    path = tmp_path / "x.txt"
    path.write_bytes(b"RIFF" + bytes(rng.randint(1, 9000)) + b"\n")

    for read in (open_and_read, listed_words, read_arpa, lambda path: list(read_texts([path], ""))):
        with pytest.raises(ConfigError, match="no text but"):
            read(path)


def open_and_read(path: Path) -> str:
    with open_text(path) as file:
        return file.read()
