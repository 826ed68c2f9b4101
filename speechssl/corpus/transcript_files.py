"""Tells files that look like transcripts of recordings: of annotation tools, texts, and tables."""

import codecs
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from pathlib import Path, PurePosixPath

from speechssl.audio.listing import RECORDING_SUFFIXES
from speechssl.corpus.columns import names_a_transcript
from speechssl.corpus.transcripts import is_sentence, words_with_letters
from speechssl.corpus.unicode_forms import KnownNames

# What annotation tools, subtitling and recognisers write. Kaldi has some without a stem.
_ANNOTATION = re.compile(
    r"\.(eaf|textgrid|srt|vtt|sbv|ass|ssa|ttml|lrc|stm|ctm|trn|trs|cha|lab|phn|wrd|mlf|exb|par|antx)"
)

# Documents and tables, whose content is not looked into: their names tell.
_DOCUMENT = re.compile(
    r"\.(docx?|odt|rtf|pdf|xlsx?|ods|gz|bz2|xz|zst|zip|parquet|arrow|feather|sqlite3?|db)"
)
# As a document, the table of a folder is one that is not read.
_FOLDER_TABLE = "metadata"

# The one kind of them whose beginning is looked into.
_GZIP = ".gz"

# Here a name and its text may be on different lines.
_JSON = re.compile(r"\.jsonl?")
_MARKUP = re.compile(r"\.(xml|ya?ml)")

# Words in the name of a file that holds transcripts.
_TELLING_NAME = re.compile(
    "transcri|trans$|text|prompt|sentence|caption|subtitle|lyric|untertitel|supervision"
)

# With this in its name, a text needs no names of recordings: it may be that of the only one. Lhotse
# calls transcripts supervisions.
_CERTAIN_NAME = re.compile("trans[ck]ri|trascri|supervision")

# Programs and their settings, cue sheets and playlists may be called like a recording.
_PROGRAM = re.compile(
    r"\.(py|ipynb|sh|bash|bat|ps1|pl|rb|r|m|js|ts|c|h|cc|cpp|rs|go|java|praat|ini|cfg|conf|toml|cue|m3u8?|pls)"
)

# What a program said about recordings: in a file of such a name, or in lines with the time.
_LOG_NAME = re.compile("(.*[._-])?(log|out|err)([._-][0-9]+)?")
_LOG_LINE = re.compile(r"\W*([0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{2}:[0-9]{2}:[0-9]{2})\b")

# What says how a corpus was made may name recordings in tables, and is no transcript of any.
_ABOUT_A_CORPUS = re.compile(
    "(readme|licen[cs]e|copying|change(s|log)|notice|authors|citation)([._-].*)?"
)

# What may stand before or behind a recording's name in that of its transcript.
_ADDED_WORD = "(trans[ck]ri|trascri|text|txt|subtitle|caption)[a-z]*"
_ADDED_WORDS = re.compile(rf"^{_ADDED_WORD}[ _.-]+|[ _.-]+{_ADDED_WORD}([ _.-].*)?$", re.IGNORECASE)

# Kaldi's tables of other things: utt2spk, reco2file_and_channel, feats.scp.
_KALDI_TABLE = re.compile(r"[a-z]+2(?!text|trans|word)\w+|segments|\w+\.scp")

# Bytes of a file that are looked at.
_SAMPLE_BYTES = 65536

# For zlib: a header of gzip is expected, and the largest window.
_GZIP_HEADER = 16 + zlib.MAX_WBITS

_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

# What stands between delimiters of all kinds of tables.
_TOKEN = re.compile(r"""[^\s,;|:"'()\[\]{}<>=]+""")
_CELL = re.compile(r"""[^\t,;|"()<>]+""")
_COLUMN_SIGN = re.compile(r"[\t,;|]")
_TAG = re.compile("<[^<>]*>")
_CHECKSUM = re.compile("[0-9a-fA-F]{16,}")
_DIGITS = re.compile(r"\d+")

# Letters of a name, up to which it may also be a word or a number of a text.
_MOST_PLAIN = 4

# A string of JSON, which is a key if a colon follows; and the comma between strings of a list. The
# last string may be cut: if it had to end, a search would begin at each quotation mark in it.
_JSON_STRING = re.compile(r'"((?:[^"\\]|\\.)*+)"?(\s*:)?')
_JSON_LIST_COMMA = re.compile(r'"\s*,\s*"(?=(?:[^"\\]|\\.)*+"\s*[,\]])')


class Belonging(IntEnum):
    """How surely the files of a folder belong to the recordings of a source.

    A file that names recordings, or is called like one, is theirs in any folder.
    """

    # By nothing: the folder may be anybody's.
    UNKNOWN = 0
    # By its place: the folder of a manifest, or the one above ``wav``.
    LIKELY = 1
    # The folder is the source.
    CERTAIN = 2


class RecordingNames:
    """The names by which files name recordings: stems of their files, and ids."""

    def __init__(self, looked_for: Iterable[str], others: Iterable[str] = ()) -> None:
        """Remember names.

        Args:
            looked_for: paths or ids of the recordings whose transcripts are looked for.
            others: those of others, which a list of transcripts may name too.
        """
        self._stems = set(map(stem_of, looked_for))
        self._all_stems = self._stems.union(map(stem_of, others))
        self.looked_for = KnownNames(self._stems)
        self._all = KnownNames(self._all_stems)
        # A corpus calls its recordings in one way, and the source may be a part of it.
        self._patterns = {_pattern(stem) for stem in self._all_stems if _is_distinctive(stem)}

    def __contains__(self, name: str) -> bool:
        """Whether a name is that of a recording."""
        return name in self._all

    def has_like(self, name: str) -> bool:
        """Whether a name is that of a recording, or differs from one in numbers only."""
        return name in self._all or _pattern(name) in self._patterns

    def distinctive(self) -> "RecordingNames":
        """Leave out the names that may also be the number of a line or a short word."""
        looked_for = filter(_is_distinctive, self._stems)
        return RecordingNames(looked_for, filter(_is_distinctive, self._all_stems))


def looks_like_transcript(path: Path, names: RecordingNames, belonging: Belonging) -> bool:
    """Whether a file is an annotation, has a recording's name and words, or lists recordings."""
    if path.name.startswith(".") or not path.is_file():
        return False
    name = path.name.lower()
    suffix = path.suffix.lower()
    if suffix in RECORDING_SUFFIXES or _KALDI_TABLE.fullmatch(name):
        return False
    if _ABOUT_A_CORPUS.fullmatch(name) or _PROGRAM.fullmatch(suffix) or _LOG_NAME.fullmatch(name):
        return False

    is_named_after_one = has_name_of_one(path.name, names)
    is_named_after_another = any(part in names for part in _names_within(path.name))
    if is_named_after_another and not is_named_after_one:
        return False

    is_likely = belonging >= Belonging.LIKELY
    is_certain_name = bool(_CERTAIN_NAME.search(name))
    if _ANNOTATION.fullmatch(suffix or f".{name}"):
        is_theirs = is_likely or is_named_after_one or _mentions_one(_beginning(path), names)
        return is_theirs and path.stat().st_size > 0

    # A link may lead outside, where nothing is read.
    if _DOCUMENT.fullmatch(suffix) or path.is_symlink():
        is_folder_table = name.startswith(f"{_FOLDER_TABLE}.")
        is_told = is_likely and (is_folder_table or is_certain_name)
        is_own_and_told = belonging is Belonging.CERTAIN and _has_telling_name(path)
        if is_named_after_one or is_told or is_own_and_told:
            return True
        if suffix != _GZIP or path.is_symlink():
            return False
        suffix = PurePosixPath(path.stem).suffix.lower()

    text = _beginning(path)
    needs_no_name = is_named_after_one or (is_likely and is_certain_name)
    if _JSON.fullmatch(suffix):
        return _json_holds_texts(text, names, needs_no_name)
    if _MARKUP.fullmatch(suffix):
        is_theirs = needs_no_name or any(_names_one(text, names.looked_for.__contains__))
        return is_theirs and is_sentence(_words(_TAG.sub(" ", text), names))
    if needs_no_name:
        return bool(_words(text, names))
    return _lists_recordings(text, names, _has_telling_name(path))


def has_name_of_one(name: str, names: RecordingNames) -> bool:
    """Whether a file is called like a recording that is looked for.

    Such are ``a.txt``, ``a.wav.txt``, ``a.en.txt``, ``a_transcript.txt`` and ``text-a.txt``.
    """
    return any(part in names.looked_for for part in _names_within(name))


def _names_within(name: str) -> list[str]:
    """List the names of recordings that the name of a file may hold."""
    parts = name.split(".")
    beginnings = [".".join(parts[:count]) for count in range(1, len(parts))]
    return beginnings + [_ADDED_WORDS.sub("", beginning) for beginning in beginnings]


def stem_of(path: str) -> str:
    """Return the name of a file without its folders, and without the suffix of a recording."""
    # Every word of a text may be one: this is faster than pathlib.
    name = path.replace("\\", "/").rpartition("/")[2]
    stem, _, suffix = name.rpartition(".")
    return stem if stem and f".{suffix.lower()}" in RECORDING_SUFFIXES else name


def _pattern(name: str) -> str:
    """Return what names have in common that differ in numbers."""
    return _DIGITS.sub("0", name)


def _is_distinctive(name: str) -> bool:
    """Whether a name is hardly the number of a line, a year or a word that begins a line."""
    is_padded = len(name) > 1 and name.startswith("0")
    is_number = name.isdecimal() and not is_padded
    return len(name) > _MOST_PLAIN or not (is_number or name.isalpha())


def _has_telling_name(path: Path) -> bool:
    stem, _, _ = path.name.lower().partition(".")
    return bool(_TELLING_NAME.search(stem))


def _lists_recordings(text: str, names: RecordingNames, a_word_will_do: bool) -> bool:
    """Whether at least half of the lines, a header apart, name a recording and say something.

    One of them must be a recording that is looked for.

    Args:
        a_word_will_do: take any word for a transcript. Else a line needs a sentence: one word may
            be a speaker.
    """
    # Most files around a source are of something else, which is soon told.
    parts = {*_TOKEN.findall(text), *map(str.strip, _CELL.findall(text))}
    if not any(stem_of(part) in names.looked_for for part in parts):
        return False

    lines = [line for line in text.splitlines() if line.strip()]
    listing: list[str] = []
    for line in lines:
        # Words in several cells may be a gender and a dialect.
        cells = [_words(cell, names) for cell in _COLUMN_SIGN.split(line)]
        says_something = any(map(is_sentence, cells)) or (a_word_will_do and any(cells))
        is_logged = _LOG_LINE.match(line) is not None
        if says_something and not is_logged and any(_names_one(line, names.has_like)):
            listing.append(line)

    is_list = 2 * len(listing) >= len(lines) - 1
    return is_list and any(_mentions_one(line, names) for line in listing)


def _mentions_one(text: str, names: RecordingNames) -> bool:
    """Whether a line of a text names a recording that is looked for."""
    return any(any(_names_one(line, names.looked_for.__contains__)) for line in text.splitlines())


def _names_one(line: str, is_name: Callable[[str], bool]) -> Iterator[bool]:
    """Yield, for each part of a line that may be a name, whether it is that of a recording."""
    for pattern in (_TOKEN, _CELL):
        parts = [part.strip() for part in pattern.findall(line)]
        for place, part in enumerate(parts):
            # A short name may also be a word of a text: it must stand where tables have names.
            is_at_an_end = place in (0, len(parts) - 1)
            suffix = PurePosixPath(part).suffix.lower()
            if is_at_an_end or suffix in RECORDING_SUFFIXES:
                yield is_name(stem_of(part))


def _json_holds_texts(text: str, names: RecordingNames, needs_no_name: bool) -> bool:
    """Whether JSON, of which this is the beginning, names a recording and holds a text."""
    # A list of words is a text too.
    joined = _JSON_LIST_COMMA.sub(" ", text)
    names_one = needs_no_name
    holds_text = False
    key = ""
    for string, colon in _JSON_STRING.findall(joined):
        names_one = names_one or stem_of(string) in names.looked_for
        if colon:
            key = string
            continue

        words = _words(_unescaped(string), names)
        holds_text = holds_text or is_sentence(words) or (names_a_transcript(key) and bool(words))
        # A value belongs to the key before it.
        key = ""
    return names_one and holds_text


def _unescaped(string: str) -> str:
    """Decode what stands between the quotation marks of a JSON string."""
    try:
        return str(json.loads(f'"{string}"', strict=False))
    except ValueError:
        return string


def _words(text: str, names: RecordingNames) -> list[str]:
    """List the words of a text that are neither names of recordings nor checksums."""
    words: list[str] = []
    for token in words_with_letters(_TOKEN.findall(text)):
        if not _CHECKSUM.fullmatch(token) and not names.has_like(stem_of(token)):
            words.append(token)
    return words


def _beginning(path: Path) -> str:
    """Read the beginning of a text, also a gzipped one; of a file that is no text, nothing."""
    try:
        with path.open("rb") as file:
            content = file.read(_SAMPLE_BYTES)
        if path.suffix.lower() == _GZIP:
            # Limited on both sides: little may be packed into much, and much into little.
            content = zlib.decompressobj(_GZIP_HEADER).decompress(content, _SAMPLE_BYTES)
    except (OSError, zlib.error):
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
