"""Finds files that look like transcripts of recordings: of annotation tools, texts, and tables."""

import codecs
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from speechssl.audio.listing import RECORDING_SUFFIXES
from speechssl.corpus.transcripts import is_sentence, words_with_letters
from speechssl.corpus.unicode_forms import KnownNames

# What annotation tools, subtitling and recognisers write.
_ANNOTATION = re.compile(
    r"\.(eaf|textgrid|srt|vtt|sbv|ass|ssa|ttml|lrc|stm|ctm|trn|trs|cha|lab|phn|wrd|mlf|exb|par|antx)"
)

# Documents and tables, whose content is not looked into: their names tell.
_DOCUMENT = re.compile(
    r"\.(docx?|odt|rtf|pdf|xlsx?|ods|gz|bz2|xz|zst|zip|parquet|arrow|feather|sqlite3?|db)"
)
# As a document, the table of a folder is one that is not read.
_FOLDER_TABLE = "metadata"

# Here a name and its text may be on different lines.
_STRUCTURED = re.compile(r"\.(jsonl?|xml|ya?ml)")

# Words in the name of a file that holds transcripts.
_TELLING_NAME = re.compile("transcri|trans$|text|prompt|sentence|caption|subtitle|lyric|untertitel")

# With this in its name, a text needs no names of recordings: it may be that of the only one.
_CERTAIN_NAME = re.compile("trans[ck]ri|trascri")

# Bytes of a file that are looked at.
_SAMPLE_BYTES = 65536

_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

# What stands between delimiters of all kinds of tables.
_TOKEN = re.compile(r"""[^\s,;|:"'()\[\]{}<>=]+""")
_CELL = re.compile(r"""[^\t,;|"()<>]+""")
_JSON_KEY = re.compile(r'"[^"]*"\s*:')
_TAG = re.compile("<[^>]*>")
_CHECKSUM = re.compile("[0-9a-fA-F]{16,}")

# A store, finished or not, lists its chunks with their texts.
_FILES_OF_STORES = ("store.json", "parts/plan.json")


def find_transcript_files(
    root: Path, audio: Collection[str], all_audio: Collection[str], read: Collection[Path]
) -> list[Path]:
    """Find the files below a folder that look like transcripts of some of the recordings in it.

    Args:
        audio: paths of the recordings whose transcripts are looked for.
        all_audio: paths of these and of all others, which a list of transcripts may name too.
        read: files that were read as transcripts or tables.

    Returns:
        the others, sorted.
    """
    stems = KnownNames(map(_stem, audio))
    all_stems = KnownNames(map(_stem, all_audio))
    found: list[Path] = []

    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        if any(os.path.exists(os.path.join(folder, name)) for name in _FILES_OF_STORES):
            subfolders.clear()
            continue

        for name in files:
            path = Path(folder, name)
            if path not in read and _looks_like_transcript(path, stems, all_stems):
                found.append(path)
    return sorted(found)


def find_transcripts_beside(root: Path, audio: Collection[str]) -> list[Path]:
    """Find the files that look like transcripts and have the name of a recording beside them.

    Args:
        root: where the paths of the recordings start.
        audio: paths of the recordings.
    """
    stems_by_folder: dict[str, set[str]] = {}
    for path in audio:
        folder, name = os.path.split(path)
        stems_by_folder.setdefault(folder, set()).add(_stem(name))

    found: list[Path] = []
    for folder, stems_of_folder in stems_by_folder.items():
        stems = KnownNames(stems_of_folder)
        # Of a folder that is missing or cannot be read, walk yields nothing.
        place = root / folder
        _, _, names = next(os.walk(place), ("", [], []))
        for name in names:
            file = place / name
            if _has_stem(name, stems) and _looks_like_transcript(file, stems, stems):
                found.append(file)
    return sorted(found)


def _looks_like_transcript(path: Path, stems: KnownNames, all_stems: KnownNames) -> bool:
    """Whether a file is an annotation, has a recording's name and words, or lists recordings.

    Args:
        stems: names of the recordings that are looked for.
        all_stems: names of all recordings.
    """
    suffix = path.suffix.lower()
    if path.name.startswith(".") or suffix in RECORDING_SUFFIXES or not path.is_file():
        return False

    if _ANNOTATION.fullmatch(suffix):
        return path.stat().st_size > 0
    has_stem = _has_stem(path.name, stems)
    # A link may lead outside, where nothing is read.
    if _DOCUMENT.fullmatch(suffix) or path.is_symlink():
        is_folder_table = path.name.lower().startswith(f"{_FOLDER_TABLE}.")
        return has_stem or is_folder_table or _has_telling_name(path)

    text = _beginning(path)
    if _STRUCTURED.fullmatch(suffix):
        words = _words(_TAG.sub(" ", _JSON_KEY.sub(" ", text)), stems)
        return is_sentence(words) and (has_stem or any(_names_one(text, stems)))
    if has_stem or _CERTAIN_NAME.search(path.name.lower()):
        return bool(_words(text, stems))
    return _lists_recordings(text, stems, all_stems, _has_telling_name(path))


def _has_stem(name: str, stems: KnownNames) -> bool:
    """Whether a file is called like a recording: ``a.txt``, ``a.wav.txt``, ``a.en.txt``."""
    parts = name.split(".")
    beginnings = (".".join(parts[:count]) for count in range(1, len(parts)))
    return any(beginning in stems for beginning in beginnings)


def _has_telling_name(path: Path) -> bool:
    stem, _, _ = path.name.lower().partition(".")
    return bool(_TELLING_NAME.search(stem))


def _lists_recordings(
    text: str, stems: KnownNames, all_stems: KnownNames, a_word_will_do: bool
) -> bool:
    """Whether at least half of the lines, a header apart, name a recording and say something.

    Args:
        stems: names of recordings of which one must be among them.
        all_stems: names of all recordings.
        a_word_will_do: take any word for a transcript. Else a line needs a sentence: one word may
            be a speaker.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    listing: list[str] = []
    for line in lines:
        words = _words(line, all_stems)
        says_something = is_sentence(words) or (a_word_will_do and bool(words))
        if says_something and any(_names_one(line, all_stems)):
            listing.append(line)

    is_list = 2 * len(listing) >= len(lines) - 1
    return is_list and any(any(_names_one(line, stems)) for line in listing)


def _names_one(line: str, stems: KnownNames) -> Iterator[bool]:
    """Yield, for each part of a line that may be a name, whether it is that of a recording."""
    for pattern in (_TOKEN, _CELL):
        parts = [part.strip() for part in pattern.findall(line)]
        for place, part in enumerate(parts):
            # A short name may also be a word of a text: it must stand where tables have names.
            is_at_an_end = place in (0, len(parts) - 1)
            suffix = PurePosixPath(part).suffix.lower()
            if is_at_an_end or suffix in RECORDING_SUFFIXES:
                yield _stem(part) in stems


def _words(text: str, stems: KnownNames) -> list[str]:
    """List the words of a text that are neither names of recordings nor checksums."""
    words: list[str] = []
    for token in words_with_letters(_TOKEN.findall(text)):
        if not _CHECKSUM.fullmatch(token) and _stem(token) not in stems:
            words.append(token)
    return words


def _stem(path: str) -> str:
    """Return the name of a file without its folders, and without the suffix of a recording."""
    name = re.split(r"[/\\]", path)[-1]
    parts = PurePosixPath(name)
    return parts.stem if parts.suffix.lower() in RECORDING_SUFFIXES else name


def _beginning(path: Path) -> str:
    """Read the beginning of a text; of a file that is no text, nothing."""
    try:
        with path.open("rb") as file:
            content = file.read(_SAMPLE_BYTES)
    except OSError:
        return ""

    if content.startswith(_UTF16_MARKS):
        return content.decode("utf-16", "ignore")
    if b"\0" in content:
        return ""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The sample may end within a character.
        is_cut = len(content) - error.start < 4
        return content.decode("utf-8-sig" if is_cut else "latin-1", "ignore")
