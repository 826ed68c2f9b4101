"""Searches for files that look like transcripts of a source: in it, beside it and above it."""

import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from speechssl.audio.listing import is_recording
from speechssl.corpus.manifest import Manifest, Record
from speechssl.corpus.transcript_files import (
    Belonging,
    RecordingNames,
    has_name_of_one,
    looks_like_transcript,
)
from speechssl.corpus.transcripts import says_nothing

# A store, finished or not, lists its chunks with their texts.
_FILES_OF_STORES = ("store.json", "parts/plan.json")

# Folders of recordings, which have a corpus above them: wav, clips, wav48_silence_trimmed.
_AUDIO_FOLDER = re.compile(
    "(audio|wave?|flac|mp3|ogg|opus|sph|clip|recording|sound|speech|utt|utterance)"
    r"(s|file|files)?[0-9]*([ _.-].*)?"
)

# Folders of transcripts, which stand beside those of recordings: txt, transcripts, en_text.
_TEXT_FOLDER = re.compile(
    r"([a-z0-9]+[ _.-])?(trans|trans[ck]ript(ion)?|trascrizioni|txt|text|texte|label|lab"
    "|annotation|prompt|sentence|caption|subtitle|lyric|untertitel|utterance|orthography"
    r"|supervision|eaf|elan|praat|textgrid|srt|vtt|stm|ctm|trn|trs|mlf|phn|wrd)(s|e|en|files?)?"
    r"([ _.-][a-z0-9]+)?"
)


def find_unread_transcripts(
    source: Path, manifest: Manifest, read: Collection[Path], other_ids: Collection[str]
) -> list[Path]:
    """Find the files that look like transcripts of a source and were not read.

    Everything below a folder is looked at. Beside and above, and around recordings that a manifest
    describes, transcripts are looked for only where recordings have none.

    Args:
        read: files that were read as transcripts or tables.
        other_ids: of recordings of which the manifest has the parts.

    Returns:
        the files, sorted.
    """
    silent = [record for record in manifest.records if says_nothing(record.text)]
    looked_for = silent or list(manifest.records)
    names = _names(looked_for, manifest, other_ids)

    describes_all_below = source.is_dir() and not (source / "wav.scp").is_file()
    if describes_all_below:
        found = set(_search_below(source, names, Belonging.CERTAIN))
    else:
        found = set(_beside_recordings(manifest.root, looked_for))
    if silent:
        found.update(_search_around(source, manifest, names, describes_all_below))

    read_files = {_real(path) for path in read}
    different = {_real(path): path for path in sorted(found, reverse=True)}
    return sorted(path for real, path in different.items() if real not in read_files)


def find_named_like(path: Path) -> list[Path]:
    """Find the files that look like transcripts and are called like another one beside them."""
    names = RecordingNames([f"{path.stem}.wav"])
    return sorted(_search_names(path.parent, names))


def _names(
    looked_for: Iterable[Record], manifest: Manifest, other_ids: Collection[str]
) -> RecordingNames:
    """Collect how the recordings may be called in files."""
    wanted = {name for record in looked_for for name in (record.audio, record.id)}

    # A list may also name the recordings of the folders that the source leaves out.
    others = {name for record in manifest.records for name in (record.audio, record.id)}
    for folder in {os.path.dirname(record.audio) for record in manifest.records}:
        others.update(filter(is_recording, _files_of(manifest.root / folder)))
    return RecordingNames(wanted.union(other_ids), others)


def _beside_recordings(root: Path, records: Iterable[Record]) -> Iterator[Path]:
    """Yield the files that look like transcripts and have the name of a recording beside them."""
    paths_by_folder: dict[str, set[str]] = {}
    for record in records:
        folder, name = os.path.split(record.audio)
        paths_by_folder.setdefault(folder, set()).add(name)

    for folder, paths in paths_by_folder.items():
        yield from _search_names(root / folder, RecordingNames(paths))


def _search_names(folder: Path, names: RecordingNames) -> Iterator[Path]:
    """Yield the files of a folder that look like transcripts and are called like a recording."""
    for name in _files_of(folder):
        path = folder / name
        if has_name_of_one(name, names) and looks_like_transcript(path, names, Belonging.UNKNOWN):
            yield path


def _search_around(
    source: Path, manifest: Manifest, names: RecordingNames, is_searched: bool
) -> Iterator[Path]:
    """Yield what looks like transcripts in the folders of a source, beside them and above them.

    Args:
        is_searched: whether all that is below the source is found already.
    """
    home = source if source.is_dir() else source.parent
    folders = {home}
    if not is_searched:
        belongs_to_source = source.is_dir() or is_recording(source)
        belonging = Belonging.CERTAIN if belongs_to_source else Belonging.LIKELY
        yield from _search_folder(home, names, belonging)

        audio = [os.path.dirname(manifest.root / record.audio) for record in manifest.records]
        common = Path(os.path.commonpath(map(os.path.abspath, audio)))
        if common != common.parent:
            folders.add(common)
            yield from _search_folder(common, names, Belonging.LIKELY)

    yield from _tables_above(home, manifest)

    # A linked folder lies in two corpora, as far as names tell.
    for folder in {path for near in folders for path in (_absolute(near), _real(near))}:
        belonging = Belonging.UNKNOWN
        names_above = names.distinctive()
        if _AUDIO_FOLDER.fullmatch(folder.name.lower()):
            belonging = Belonging.LIKELY
            names_above = names
        yield from _search_folder(folder.parent, names_above, belonging)


def _tables_above(home: Path, manifest: Manifest) -> Iterator[Path]:
    """Yield the tables one folder above that name recordings by the folder that they lie in.

    A table of a whole corpus tells of this folder anywhere, so all its lines are looked at.
    """
    above = _real(home)
    recordings = {record.audio for record in manifest.records}
    named_below = re.compile(re.escape(above.name) + r"/([^,;\t\"']+)")

    for table in sorted(above.parent.glob("metadata.*")):
        is_table = table.suffix in (".csv", ".jsonl") and table.is_file()
        if is_table and any(name in recordings for name in _found_in(table, named_below)):
            yield table


def _found_in(table: Path, pattern: re.Pattern[str]) -> Iterator[str]:
    """Yield what the group of a pattern finds in a file; of one that cannot be read, nothing."""
    try:
        with table.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                yield from pattern.findall(line)
    # It is not part of the source, so it stops nothing.
    except OSError:
        return


def _search_folder(folder: Path, names: RecordingNames, belonging: Belonging) -> Iterator[Path]:
    """Yield what looks like transcripts in a folder, and in the folders of texts in it."""
    _, subfolders, files = next(os.walk(folder), ("", [], []))
    for name in files:
        path = folder / name
        if looks_like_transcript(path, names, belonging):
            yield path

    for name in subfolders:
        if _TEXT_FOLDER.fullmatch(name.lower()):
            yield from _search_below(folder / name, names, belonging, but_audio=True)


def _search_below(
    root: Path, names: RecordingNames, belonging: Belonging, but_audio: bool = False
) -> Iterator[Path]:
    """Yield what looks like transcripts in a folder and in all folders below it, but in stores.

    Args:
        but_audio: leave out folders of recordings, whose transcripts are of those.
    """
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        is_store = any(os.path.exists(os.path.join(folder, name)) for name in _FILES_OF_STORES)
        is_left_out = but_audio and any(map(is_recording, files))
        if is_store or is_left_out:
            subfolders.clear()
            continue

        for name in files:
            path = Path(folder, name)
            if looks_like_transcript(path, names, belonging):
                yield path


def _files_of(folder: Path) -> list[str]:
    # Of a folder that is missing or cannot be read, walk yields nothing.
    _, _, names = next(os.walk(folder), ("", [], []))
    return names


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
